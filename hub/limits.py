"""Bounds on what a request may carry, before any route reads it."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: routes with a tighter bound check it themselves (SETs: 64 KiB)
BODY_BYTES_MAX: Final = 1024 * 1024
TOO_LARGE: Final = 413


class BodyLimit:
    """Pure ASGI middleware: a body above the limit is refused with 413, announced or chunked."""

    def __init__(self, app: ASGIApp, *, bytes_max: int = BODY_BYTES_MAX) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what is read; raises HTTPException inside the application that reads it."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "DELETE"}:
            await self._app(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._bytes_max:
                raise HTTPException(TOO_LARGE)
            return message

        await self._app(scope, counted, send)
