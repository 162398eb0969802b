"""Bounds on what a request may carry, before any route reads it."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: routes with a tighter bound check it themselves (SETs: 64 KiB)
BODY_BYTES_MAX: Final = 1024 * 1024
BAD_REQUEST: Final = 400
TOO_LARGE: Final = 413
LENGTH_DIGITS_MAX: Final = 18


class RequestLimits:
    """Pure ASGI middleware: bounds the body with 413, announced or chunked, and refuses NUL.

    No path or parameter of ours holds NUL, and not every database can be asked for one.
    """

    def __init__(self, app: ASGIApp, *, bytes_max: int = BODY_BYTES_MAX) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check address and size; raises HTTPException, for the body when it is being read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise HTTPException(BAD_REQUEST, "NUL is not allowed in an address.")
        if scope["method"] in {"GET", "HEAD", "DELETE"}:
            await self._app(scope, receive, send)
            return
        announced, read = announced_bytes(scope), 0

        async def counted() -> Message:
            nonlocal read
            if announced > self._bytes_max:
                raise HTTPException(TOO_LARGE)
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._bytes_max:
                raise HTTPException(TOO_LARGE)
            return message

        await self._app(scope, counted, send)


async def read_body(scope: Scope, receive: Receive, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Return the whole body. Raises HTTPException when it is too large, ClientDisconnect."""
    if announced_bytes(scope) > bytes_max:
        raise HTTPException(TOO_LARGE)
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        body = body + part if body else part
        if len(body) > bytes_max:
            raise HTTPException(TOO_LARGE)
        if not message.get("more_body", False):
            return body


def announced_bytes(scope: Scope) -> int:
    """Return the length that the request announces, 0 without one."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:LENGTH_DIGITS_MAX])
    return 0
