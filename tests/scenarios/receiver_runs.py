"""Our own hub as receiver under the conformance suite: what is run, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conformance.suite.receiver.sets import PAYLOADS
from tests.scenarios.tls_hub import TLSHub

RUN_S: Final = 900.0
STEPS: Final = Path(__file__).with_name("upstream_steps.py")
AUTHORIZATION: Final = "Bearer of-the-suite"


@dataclass
class Run:
    """What one run of the command left."""

    code: int
    told: str
    document: Mapping[str, Any]

    def missing(self, *wanted: str) -> dict[str, str]:
        """Return those of `wanted` that did not pass, with what they came to."""
        found = self.document["requirements"]
        came = {each: found.get(each, {"outcome": "absent"})["outcome"] for each in wanted}
        return {each: outcome for each, outcome in came.items() if outcome != "pass"}


class Suite:
    """The command as a process that plays the transmitter, on TLS."""

    def __init__(self, hub: TLSHub, out: Path, *arguments: str) -> None:
        self._hub = hub
        self._out = out
        self._arguments = arguments
        self._process: asyncio.subprocess.Process

    async def start(self) -> dict[str, str]:
        """Start it; return what it said of itself."""
        tls = self._hub.tls
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub.cli", "conformance", "receiver", *self._arguments,
            "--cert", str(tls / "cert.pem"),
            "--key", str(tls / "key.pem"),
            "--ca", str(self._hub.ca),
            "--hold-s", "1", "--step-s", "120", "--request-s", "60", "--check-s", "400",
            "--json", str(self._out),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            told: dict[str, str] = json.loads(await self._process.stdout.readline())
        return told

    async def finish(self, line: str = "") -> Run:
        """Hand it its line, wait for its end."""
        async with asyncio.timeout(RUN_S):
            told, _ = await self._process.communicate(line.encode())
        document = json.loads(self._out.read_text())
        return Run(code=self._process.returncode or 0, told=told.decode(), document=document)


async def direct(hub: TLSHub, folder: Path, issuer: str, admin: str) -> Run:
    """Test the push endpoint of one provider."""
    suite = Suite(hub, folder / "direct.json", "-", "--audience", "https://rx.example")
    told = await suite.start()
    provider = {
        "name": "the suite, direct",
        "issuer": told["issuer"],
        "audiences": [told["audience"]],
        "jwks_uri": told["jwks_uri"],
        "authorization_header": AUTHORIZATION,
    }
    made = await hub.admin("POST", f"{issuer}/admin/v1/providers", provider, token=admin)
    line = {"push_url": made["events_url"], "authorization": AUTHORIZATION}
    return await suite.finish(json.dumps(line) + "\n")


async def client(
    hub: TLSHub, folder: Path, issuer: str, admin: str, *, delivery: str, static: bool
) -> Run:
    """Test the stream client of one upstream, each step an order over the admin API."""
    config = folder / f"{delivery}.config"
    command = f"{sys.executable} {STEPS} {config}"
    arguments = ["--client", "--audience", "https://rx.example", "--step-command", command]
    if static:
        arguments += ["--profile", "caep-interop"]
    suite = Suite(hub, folder / f"{delivery}.json", *arguments)
    told = await suite.start()
    auth = {
        "auth": "client_secret_basic",
        "client_id": told["client_id"],
        "secret": told["client_secret"],
    }
    if static:
        auth = {"auth": "header", "secret": f"Bearer {told['token']}"}
    upstream = {
        "name": f"the suite, {delivery}",
        "issuer": told["issuer"],
        "audiences": [told["audience"]],
        "jwks_uri": told["jwks_uri"],
        "delivery": delivery,
        "events_requested": list(PAYLOADS),
        "verify_every_s": None,
        **auth,
    }
    made = await hub.admin("POST", f"{issuer}/admin/v1/upstreams", upstream, token=admin)
    known = {
        "url": f"{issuer}/admin/v1/upstreams/{made['id']}",
        "token": admin,
        "ca": str(hub.ca),
    }
    new = config.with_suffix(".new")
    new.write_text(json.dumps(known))
    new.rename(config)
    return await suite.finish()


async def run_all(folder: Path, settings: dict[str, str]) -> dict[str, Run]:
    """Do three runs at the same time against one hub, which mostly wait.

    settings: of a hub on PostgreSQL, none for one on SQLite.
    """
    hub = TLSHub(folder, settings)
    await hub.start()
    try:
        green = await hub.add_tenant("x")
        root, token = hub.issuer("default"), hub.admin_token
        on_sqlite = not settings
        done = await asyncio.gather(
            direct(hub, folder, hub.issuer("x"), green),
            client(hub, folder, root, token, delivery="push", static=on_sqlite),
            client(hub, folder, hub.issuer("x"), green, delivery="poll", static=not on_sqlite),
        )
    finally:
        await hub.stop()
    return dict(zip(("direct", "push", "poll"), done, strict=True))
