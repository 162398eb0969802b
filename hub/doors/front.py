"""The short way for questions about sessions, past the general stack; the answer is the same.

    BearerAuthentication ─▶ EvaluateFront ─┬─▶ native.decide              a session's evaluate
                                           └─▶ RequestLimits ─▶ routes    anything else

It is the busiest request there is: the route table, its exception handling and request objects
cost more than the decision. Who asks, how often, and how much they may send is checked as usual.
"""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.doors import native
from hub.limits import read_body

PREFIX: Final = "/v1/sessions/"
SUFFIX: Final = "/evaluate"


class EvaluateFront:
    """Pure ASGI middleware that answers questions about sessions and passes everything else on."""

    def __init__(self, app: ASGIApp, *, state_of: Starlette) -> None:
        """state_of: the application whose `state` holds the doors' dependencies."""
        self._app = app
        self._state = state_of.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on. Raises Refused and what reading raises: the boundary renders it."""
        sid = asked_about(scope)
        if sid is None:
            await self._app(scope, receive, send)
            return
        caller = native.may_ask(scope["state"]["caller"])
        body = await native.decide(self._state, caller, sid, await read_body(scope, receive))
        headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def asked_about(scope: Scope) -> str | None:
    """Return the session of a question, None for any other request. Raises nothing.

    What is odd about an address is judged the general way.
    """
    if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
        return None
    path: str = scope["path"]
    if not (path.startswith(PREFIX) and path.endswith(SUFFIX)) or "\0" in path:
        return None
    return path[len(PREFIX) : -len(SUFFIX)] or None
