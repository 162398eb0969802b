"""An ASGI app with three more lines, served by uvicorn: what the middleware is tried with.

`python -m tests.hub.guarded_app JSON`, where JSON holds the arguments of SessionCheck.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import uvicorn

from hub.middleware import SessionCheck


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Say what reached the app."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    said = {
        "state": scope.get("state", {}).get("signalhub"),
        "headers": [name.decode() for name, _ in scope["headers"]],
        "body": body.decode(),
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


def main() -> None:
    """Serve until told to end; the first line is the address."""
    guarded = SessionCheck(app, **json.loads(sys.argv[1]))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        server = uvicorn.Server(uvicorn.Config(guarded, log_level="warning", ws="none"))
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
