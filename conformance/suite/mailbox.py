"""Our own push receiver (RFC 8935): takes what the transmitter under test pushes."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

BODY_BYTES_MAX: Final = 1024 * 1024
PUSHES_KEPT_MAX: Final = 1_000
MAILBOXES_MAX: Final = 1_000
ACCEPTED: Final = 202
GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One request that came. at_s: on the monotonic clock. header names are in lower case."""

    method: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float
    answered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer a push with."""

    status: int = ACCEPTED
    headers: Mapping[str, str] | None = None
    body: bytes = b""


class Mailbox:
    """One push endpoint. `replies` are used up first; after them every push is accepted."""

    def __init__(self, url: str, authorization: str | None) -> None:
        """authorization: the header value that was registered, None for none."""
        self.url = url
        self.authorization = authorization
        self.replies: deque[Reply] = deque()
        self.pushes: list[Push] = []
        self._came = asyncio.Event()

    def take(self, push: Push) -> None:
        """Keep a push."""
        if len(self.pushes) < PUSHES_KEPT_MAX:
            self.pushes.append(push)
        self._came.set()

    async def wait(self, wanted: Callable[[Push], bool], limit_s: float) -> Push | None:
        """Return the first push that is wanted, None when none comes in time."""
        ends_s = time.monotonic() + limit_s
        seen = 0
        while True:
            for push in self.pushes[seen:]:
                if wanted(push):
                    return push
            seen = len(self.pushes)
            self._came.clear()
            try:
                async with asyncio.timeout(ends_s - time.monotonic()):
                    await self._came.wait()
            except TimeoutError:
                return None


class PostOffice:
    """The server behind the mailboxes, on one address."""

    def __init__(
        self, host: str, port: int, *, public_url: str | None, tls: ssl.SSLContext | None
    ) -> None:
        """public_url: how the transmitter reaches us, by default the address itself."""
        self._address = (host, port)
        self._public_url = public_url
        self._tls = tls
        self._boxes: dict[str, Mailbox] = {}
        self._runner: web.AppRunner | None = None
        self.url = public_url or ""

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=GRACE_S)
        await self._runner.setup()
        host, port = self._address
        await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        if not self._public_url:
            bound = self._runner.addresses[0][1]
            scheme = "https" if self._tls else "http"
            self.url = f"{scheme}://{host}:{bound}"

    async def stop(self) -> None:
        """Close the address."""
        if self._runner is not None:
            await self._runner.cleanup()

    def open(self, authorization: str | None) -> Mailbox:
        """Open a mailbox at a path nobody can guess."""
        name = secrets.token_hex(12)
        if len(self._boxes) >= MAILBOXES_MAX:
            self._boxes.pop(next(iter(self._boxes)))
        box = Mailbox(f"{self.url.rstrip('/')}/push/{name}", authorization)
        self._boxes[name] = box
        return box

    async def _serve(self, request: web.Request) -> web.Response:
        box = self._boxes.get(request.path.rpartition("/")[2])
        if box is None:
            return web.Response(status=404)
        body = await request.read()
        reply = box.replies.popleft() if box.replies else Reply()
        box.take(
            Push(
                method=request.method,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
                at_s=time.monotonic(),
                answered=reply.status,
            )
        )
        return web.Response(status=reply.status, headers=reply.headers or {}, body=reply.body)
