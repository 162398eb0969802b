"""Who is asking: bearer tokens to callers.

Routes decide what they need (`request.state.caller.require(scope)`), after routing, so that a
wrong method answers 405 before a missing token answers 401 (SSF-OP-52). A request without a valid
token carries a caller that refuses everything.

Vendors that push to `/receivers/…` prove themselves with a value of their own, which is no token
of ours: looking it up would cost every pushed SET a look at the database.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol
from urllib.parse import parse_qsl, unquote_plus

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from hub.errors import FORWARD_AUTH_PREFIX, response_of
from hub.oauth.certificates import thumbprint_of
from hub.oauth.resources import Presented
from runtime.caller import Caller
from runtime.errors import Refused, TooManyRequests, Unauthorized, Unavailable
from runtime.rate import TokenBuckets

#: name of the client that a first start makes
MISSING: Final = "An access token is needed: send the header 'Authorization: Bearer <token>'."
ADMIN_CLIENT: Final = "admin"
TOKEN_PREFIX: Final = "shc"  # noqa: S105 - what tokens begin with
TOKEN_CHARACTERS_MAX: Final = 4096
DOTS_OF_A_JWT: Final = 2
OWN_CREDENTIALS_PREFIXES: Final = ("/receivers/", "/v1/signals/webhook/")
#: where a client may send its id and secret itself, for callers that know no tokens
BASIC_PREFIX: Final = "/access/v1/"
#: how a gateway proves who it is
GATEWAY_AUTHORIZATION: Final = b"x-signalhub-authorization"
#: of one client, in one process
REQUESTS_PER_S: Final = 1_000.0
#: how many seconds' worth may come at once
BURST_S: Final = 2.0

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


log = structlog.get_logger()


class MalformedCredentials(Refused):
    """The token came in a way it must not come: in two headers, or in the query string."""

    status = 400
    code = "invalid_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger(Caller):
    """Nobody we know: refuses every scope. `code` is the RFC 6750 error, None without a token.

    undecided: why it is not known who this is, when that is so.
    """

    code: str | None = None
    undecided: Unavailable | None = None

    @override
    def require(self, *scopes: str) -> None:
        """Always raise. Source: RFC 6750 §3.1; requirements OA-3, INT-29."""
        if self.undecided is not None:
            # Nobody is let in on the word of a server that cannot be asked, and nothing is said
            # of the token either: 401 would make its holder throw a good one away.
            raise self.undecided
        if self.code == MalformedCredentials.code:
            raise MalformedCredentials("Send one token, in one Authorization header.")
        detail = "The access token is not valid." if self.code else MISSING
        raise Unauthorized(detail, code=self.code)


class Callers(Protocol):
    """The callers of a tenant by the hash of their static token."""

    async def __call__(self, tenant_id: str, *, fresh: bool) -> Mapping[str, Caller]:
        """Return them; from memory unless asked for a fresh look."""
        ...


class AccessTokenReader(Protocol):
    """Finds out who holds an access token."""

    async def __call__(self, tenant_id: str, token: str, *, presented: Presented) -> Caller | None:
        """Return the caller; None when the token is not valid, or not so presented.

        Raises Unavailable when who would know cannot be asked.
        """
        ...


class BearerAuthentication:
    """Pure ASGI middleware: sets `scope["state"]["caller"]`.

    And `caller_again`, which finds out anew: for who waited, when a token may have ended meanwhile.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        callers: Callers,
        access_tokens: AccessTokenReader,
        foreign_tokens: AccessTokenReader,
        requests_per_s: float = REQUESTS_PER_S,
    ) -> None:
        """callers: by the hash of their static token. access_tokens: ours, foreign_tokens: not.

        requests_per_s: of one client, in this process.
        """
        self._app = app
        self._callers = callers
        self._access_tokens = access_tokens
        self._foreign_tokens = foreign_tokens
        self._rates = TokenBuckets(per_s=requests_per_s, burst=BURST_S * requests_per_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = await self.authenticate(scope)
        except Refused as refusal:
            await response_of(refusal, scope)(scope, receive, send)
            return
        again = partial(self._caller, scope)
        state = {**scope.get("state", {}), "caller": caller, "caller_again": again}
        await self._app({**scope, "state": state}, receive, send)

    async def authenticate(self, scope: Scope) -> Caller:
        """Return who asks, and take one of their requests.

        Raises MalformedCredentials for a token in the query string (INT-27), TooManyRequests.
        """
        # What Envoy asks about may have any query: it is the end user's, and none of ours.
        is_asked_about = scope["path"].startswith(FORWARD_AUTH_PREFIX)
        if not is_asked_about and _has_token_in_query(scope["query_string"]):
            # Query strings end up in logs and histories: that token is known to others now.
            log.warning("token.leaked", tenant_id=scope["tenant"], path=scope["path"])
            raise MalformedCredentials("Send the token in the Authorization header only.")
        caller = await self._caller(scope)
        if caller.client_id and (wait_s := self._rates.take(_rate_name(caller), time.monotonic())):
            raise TooManyRequests("The client asks too often.", retry_after_s=wait_s)
        return caller

    async def _caller(self, scope: Scope) -> Caller:
        tenant_id: str = scope["tenant"]
        if scope["path"].startswith(OWN_CREDENTIALS_PREFIXES):
            return _stranger(tenant_id, None)
        values = _credentials(scope)
        if len(values) > 1:
            return _stranger(tenant_id, MalformedCredentials.code)
        scheme, _, token = (values[0] if values else b"").decode("latin-1").partition(" ")
        if scheme.lower() == "basic" and scope["path"].startswith(BASIC_PREFIX):
            return await self._by_secret(tenant_id, token.strip())
        if scheme.lower() != "bearer":
            return _stranger(tenant_id, None)
        return await self._by_token(scope, token.strip())

    async def _by_token(self, scope: Scope, token: str) -> Caller:
        tenant_id: str = scope["tenant"]
        if not 0 < len(token) <= TOKEN_CHARACTERS_MAX:
            return _stranger(tenant_id, "invalid_token")
        if token.count(".") != DOTS_OF_A_JWT:
            caller = (await self._callers(tenant_id, fresh=False)).get(token_hash(token))
            if caller is not None:
                return caller
        thumbprint = thumbprint_of(scope.get("certificate"))
        presented = Presented(path=scope["path"], thumbprint=thumbprint)
        try:
            holder = await self._holder(tenant_id, token, presented)
        except Unavailable as error:
            return replace(_stranger(tenant_id, None), undecided=error)
        return holder or _stranger(tenant_id, "invalid_token")

    async def _by_secret(self, tenant_id: str, credentials: str) -> Caller:
        """Return the client behind HTTP Basic: form-encoded id and secret. Requirement AZC-6."""
        client_id, secret = parse_basic(credentials) or ("", "")
        for fresh in (False, True):
            known = await self._callers(tenant_id, fresh=fresh)
            # Found by the secret's hash alone, as a bearer is; the id has to fit as well.
            caller = known.get(token_hash(secret))
            if caller is not None and caller.client_id == client_id:
                return caller
        return _stranger(tenant_id, "invalid_token")

    async def _holder(self, tenant_id: str, token: str, presented: Presented) -> Caller | None:
        """Return who holds a token: what is cheap to find out is asked first."""
        if token.count(".") == DOTS_OF_A_JWT:
            holder = await self._access_tokens(tenant_id, token, presented=presented)
            if holder is not None:
                return holder
        # No verdict yet: an operator may have chosen an admin token with dots.
        # The table is keyed by the token's hash: looking it up leaks nothing about the token.
        digest = token_hash(token)
        caller = (await self._callers(tenant_id, fresh=False)).get(digest)
        if caller is None:
            caller = await self._foreign_tokens(tenant_id, token, presented=presented)
        if caller is None:
            caller = (await self._callers(tenant_id, fresh=True)).get(digest)
        return caller


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


def parse_basic(credentials: str) -> tuple[str, str] | None:
    """Return id and secret of HTTP Basic, form-decoded; None when unreadable. RFC 6749 §2.3.1."""
    if len(credentials) > TOKEN_CHARACTERS_MAX:
        return None
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        return None
    client_id, colon, secret = text.partition(":")
    return (unquote_plus(client_id), unquote_plus(secret)) if colon and secret else None


def _credentials(scope: Scope) -> list[bytes]:
    """Return what came to prove who asks.

    Behind a gateway `Authorization` may be the end user's: the gateway's own goes first, and where
    it is there, the other is not looked at (FWA-21).
    """
    if scope["path"].startswith(FORWARD_AUTH_PREFIX):
        own = [value for name, value in scope["headers"] if name == GATEWAY_AUTHORIZATION]
        if own:
            return own
    return [value for name, value in scope["headers"] if name == b"authorization"]


def _has_token_in_query(query: bytes) -> bool:
    # The quick look spares the hot paths the parsing; `%5F` is the one way around its spelling.
    if b"token" not in query and b"%" not in query:
        return False
    members = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(name == "access_token" for name, _ in members)


def _rate_name(caller: Caller) -> str:
    return f"{caller.tenant_id} {caller.client_id}"


def _stranger(tenant_id: str, code: str | None) -> Stranger:
    return Stranger(tenant_id=tenant_id, client_id="", scopes=frozenset(), app_id=None, code=code)
