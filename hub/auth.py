"""Who is asking: bearer tokens to callers.

Routes decide what they need (`request.state.caller.require(scope)`), after routing, so that a
wrong method answers 405 before a missing token answers 401 (SSF-OP-52). A request without a valid
token carries a caller that refuses everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from hub.errors import problem_response
from runtime.caller import Caller
from runtime.errors import Unauthorized
from runtime.feed import ConfigCache

TOKEN_CHARACTERS_MAX: Final = 4096

#: every scope there is (contracts §8); `admin.write` includes what people may do by hand
SCOPES: Final = frozenset(
    {
        "ssf.read",
        "ssf.manage",
        "ssf.manage.poll",
        "signals.write",
        "sessions.read",
        "sessions.write",
        "sessions.evaluate",
        "risk.read",
        "risk.write",
        "logout",
        "admin.read",
        "admin.write",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger(Caller):
    """Nobody we know: refuses every scope. `code` is the RFC 6750 error, None without a token."""

    code: str | None = None

    @override
    def require(self, *scopes: str) -> None:
        """Always raise Unauthorized. Source: RFC 6750 §3.1; requirement OA-3."""
        detail = "The access token is not valid." if self.code else "An access token is needed."
        raise Unauthorized(detail, code=self.code)


class BearerAuthentication:
    """Pure ASGI middleware: sets `scope["state"]["caller"]`."""

    def __init__(self, app: ASGIApp, *, callers: ConfigCache[Mapping[str, Caller]]) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate, or refuse a token in the query string (INT-27)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if b"access_token=" in scope["query_string"]:
            challenge = {"www-authenticate": 'Bearer error="invalid_request"'}
            refused = problem_response(
                400, "Send the token in the Authorization header only.", headers=challenge
            )
            await refused(scope, receive, send)
            return
        caller = await self._caller(scope)
        state = {**scope.get("state", {}), "caller": caller}
        await self._app({**scope, "state": state}, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        tenant_id: str = scope["tenant"]
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if not values:
            return _stranger(tenant_id, None)
        scheme, _, token = values[0].decode("latin-1").partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or len(token) > TOKEN_CHARACTERS_MAX:
            return _stranger(tenant_id, "invalid_token")
        # The table is keyed by the token's hash: looking it up leaks nothing about the token.
        digest = token_hash(token.strip())
        caller = (await self._callers.get(tenant_id)).get(digest)
        if caller is None:
            caller = (await self._callers.get(tenant_id, fresh=True)).get(digest)
        return caller or _stranger(tenant_id, "invalid_token")


class TrustedCaller:
    """Pure ASGI middleware for callers inside this process: every scope, under a fixed name."""

    def __init__(self, app: ASGIApp, *, client_id: str) -> None:
        self._app = app
        self._client_id = client_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the caller and pass on."""
        caller = Caller(tenant_id=scope["tenant"], client_id=self._client_id, scopes=SCOPES)
        await self._app({**scope, "state": {"caller": caller}}, receive, send)


def token_hash(token: str) -> str:
    """Return the stored form of a bearer token: SHA-256, as tokens carry 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def _stranger(tenant_id: str, code: str | None) -> Caller:
    return Stranger(tenant_id=tenant_id, client_id="", scopes=frozenset(), app_id=None, code=code)
