"""The short way for pushed SETs: `POST /receivers/{provider}/events` past the general stack.

Intake is the hot path. It has its own caller check and its own body limit (SET-50), so bearer
tokens, the route table and the general limits have nothing to add; skipping them saves a third of
a request. Everything else, and every other method on this path, takes the general way.
"""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from receivers.routes import receive_push

PREFIX: Final = "/receivers/"
SUFFIX: Final = "/events"


class IntakeFront:
    """Pure ASGI middleware that answers pushes itself and passes everything else on."""

    def __init__(self, app: ASGIApp, *, state_of: Starlette) -> None:
        """state_of: the application whose `state` holds the receivers' dependencies."""
        self._app = app
        self._state_of = state_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a push, or pass on."""
        provider_id = pushed_to(scope)
        if provider_id is None:
            await self._app(scope, receive, send)
            return
        inner = {**scope, "app": self._state_of, "path_params": {"provider": provider_id}}
        response = await receive_push(Request(inner, receive))
        await response(scope, receive, send)


def pushed_to(scope: Scope) -> str | None:
    """Return the provider id of a push, None for any other request. Raises nothing."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if not (path.startswith(PREFIX) and path.endswith(SUFFIX)):
        return None
    provider_id = path[len(PREFIX) : -len(SUFFIX)]
    return provider_id if provider_id and "/" not in provider_id else None
