"""The short way for questions about sessions, past the general stack; the answer is the same.

    EvaluateFront ─┬─▶ peer, tenant, caller, rate, body ─▶ native.decide    a session's evaluate
                   └─▶ PeerFront ─▶ … ─▶ routes                             anything else

It is the busiest request there is: middleware after middleware, the route table and request objects
cost more than the decision. Who asks, how often, and how much they may send is found out by the
very parts that the general way is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.auth import BearerAuthentication
from hub.doors import native
from hub.errors import response_of
from hub.http import answer_at_once
from hub.limits import read_body
from hub.oauth.certificates import PeerFront
from hub.tenancy import TenantFront

PREFIX: Final = "/v1/sessions/"
SUFFIX: Final = "/evaluate"
_HEADERS: Final = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_LINES: Final = b"".join(b"%s: %s\r\n" % header for header in _HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the general way consists of, as far as a question passes through it."""

    peers: PeerFront
    tenants: TenantFront
    authentication: BearerAuthentication


class EvaluateFront:
    """Pure ASGI middleware that answers questions about sessions and passes everything else on."""

    def __init__(self, app: ASGIApp, *, state_of: Starlette, parts: Parts) -> None:
        """state_of: the application whose `state` holds the doors' dependencies."""
        self._app = app
        self._state = state_of.state
        self._peers = parts.peers
        self._tenants = parts.tenants
        self._authentication = parts.authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if not may_be_asked(scope):
            await self._app(scope, receive, send)
            return
        inner = self._tenants.inside({**scope, **self._peers.found(scope)})
        sid = asked_about(inner["path"])
        if sid is None or not self._tenants.is_known(inner["tenant"]):
            await self._app(scope, receive, send)
            return
        try:
            caller = native.may_ask(await self._authentication.authenticate(inner))
            body = await native.decide(self._state, caller, sid, await read_body(inner, receive))
        except Exception as error:  # noqa: BLE001 - answered as the general way's boundary does
            await response_of(error, inner)(inner, receive, send)
            return
        if answer_at_once(send, _LINES, body):
            return
        headers = [(b"content-length", b"%d" % len(body)), *_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def may_be_asked(scope: Scope) -> bool:
    """Return whether a request looks like a question about a session. Raises nothing.

    What is odd about an address is judged the general way.
    """
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and not scope["query_string"]
        and scope["path"].endswith(SUFFIX)
    )


def asked_about(path: str) -> str | None:
    """Return the session that a path without its tenant asks about, None for any other path."""
    if not path.startswith(PREFIX) or "\0" in path:
        return None
    return path[len(PREFIX) : -len(SUFFIX)] or None
