"""Makes one step of a receiver, as the conformance suite asks for it: for our hub, one order.

`python upstream_steps.py CONFIG STEP`; CONFIG is a JSON file that appears when the hub is set up.
It stands alone, as an operator's script would: nothing of the hub is imported.
"""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACTIONS = {
    "create": "create-stream",
    "read": "read-stream",
    "update": "update-stream",
    "replace": "replace-stream",
    "status": "set-status",
    "read-status": "read-status",
    "verify": "verify",
    "delete": "delete-stream",
}
OPEN_STATES = {"waiting", "sent"}
LIMIT_S = 100.0
PAUSE_S = 0.1


def main(config_file: str, step: str) -> None:
    """Order the step and wait until it is settled. Raises SystemExit when it failed."""
    ends = time.monotonic() + LIMIT_S
    while not Path(config_file).exists() and time.monotonic() < ends:
        time.sleep(PAUSE_S)
    config = json.loads(Path(config_file).read_text())
    # A paused stream is what the next step of the module deletes.
    body = {"status": "paused"} if step == "status" else None
    order = _ask(config, "POST", f"/{ACTIONS[step]}", body)["order"]
    while order["state"] in OPEN_STATES and time.monotonic() < ends:
        time.sleep(PAUSE_S)
        order = _ask(config, "GET", "", None)["order"]
    if order["state"] != "done":
        raise SystemExit(f"{step}: {order}")


def _ask(config: dict[str, str], method: str, path: str, body: object) -> dict[str, dict[str, str]]:
    request = urllib.request.Request(  # noqa: S310 - an address of ours
        config["url"] + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else b"" if method == "POST" else None,
        headers={
            "authorization": f"Bearer {config['token']}",
            **({"content-type": "application/json"} if body is not None else {}),
        },
    )
    context = ssl.create_default_context(cafile=config["ca"])
    try:
        with urllib.request.urlopen(request, context=context, timeout=LIMIT_S) as answer:  # noqa: S310
            document: dict[str, dict[str, str]] = json.loads(answer.read())
            return document
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read()!r}") from error


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
