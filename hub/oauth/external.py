"""Access tokens of authorization servers of others, which a tenant chose to trust.

    JWT, `iss` is a server with keys ──▶ verified here (RFC 9068)
    any other token ──▶ asked about at the tenant's introspection endpoint (RFC 7662), if it has one

The server says which of its clients holds the token, and a client of ours says what that one may do
here: what the server grants counts only as far as that. When a server or its keys cannot be reached
nobody is let in, and the answer is 503: 401 `invalid_token` would be a statement about the token.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import msgspec
import structlog

from hub.auth import TOKEN_PREFIX
from hub.oauth.certificates import Confirmation, is_bound_to
from hub.oauth.resources import Presented, is_meant_for
from hub.oauth.store import AuthorizationServer
from hub.oauth.tokens import TYP, Clients, caller_of, has_events
from receivers.keys import IssuerKeys
from runtime.caller import Caller
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.feed import ConfigCache
from runtime.outbound import Outbound, OutboundRequest
from runtime.rate import TokenBuckets
from runtime.secrets import SecretBox
from ssf.errors import SETError
from ssf.jose import DEFAULT_ALGORITHMS, CompactJWS, check_header, split_jws, verify
from ssf.jwks import JWKSet, parse_jwks

KIND: Final = "authorization_servers"
#: how long an answer of an introspection endpoint is believed: a revocation shows within this time
INTROSPECTION_FRESH_S: Final = 30.0
INACTIVE_FRESH_S: Final = 10.0
INTROSPECTION_TIMEOUT_S: Final = 5.0
INTROSPECTION_BYTES_MAX: Final = 64 * 1024
REMEMBERED_MAX: Final = 10_000
#: questions per tenant about tokens that were not active before, and about those that were
QUESTIONS_PER_S: Final = 20.0
QUESTIONS_AT_ONCE: Final = 100.0
OK: Final = 200
DOTS_OF_A_JWT: Final = 2
BEARER: Final = "bearer"

log = structlog.get_logger()


class ForeignClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a JWT access token says. Source: RFC 9068 §2.2; `cnf`: RFC 8705 §3.1."""

    iss: str
    aud: str | list[str]
    client_id: str
    exp: int | float
    nbf: int | float = 0
    scope: str = ""
    cnf: Confirmation | None = None


class Introspected(msgspec.Struct, frozen=True, kw_only=True):
    """What an introspection endpoint says. Source: RFC 7662 §2.2."""

    active: bool
    client_id: str | None = None
    aud: str | list[str] | None = None
    iss: str | None = None
    scope: str | None = None
    exp: int | float | None = None
    nbf: int | float | None = None
    token_type: str | None = None
    cnf: Confirmation | None = None


class _Issuer(msgspec.Struct, frozen=True, kw_only=True):
    iss: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedServer:
    """An authorization server made ready for use; what `receivers.keys` asks for has its names."""

    tenant_id: str
    provider_id: str
    issuer: str
    audiences: frozenset[str]
    jwks_uri: str | None
    inline_keys: JWKSet | None
    introspection_url: str | None
    authorization: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers that a tenant trusts."""

    by_issuer: Mapping[str, TrustedServer]
    introspecting: TrustedServer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """Who holds a token, and of whom we know that."""

    server: TrustedServer
    client_id: str
    audiences: frozenset[str]
    scopes: frozenset[str]
    cnf: Confirmation | None


def trusted_servers(servers: list[AuthorizationServer], box: SecretBox) -> Servers:
    """Make the stored servers of a tenant ready for use."""
    trusted = [_trusted(server, box) for server in servers]
    asking = [server for server in trusted if server.introspection_url is not None]
    return Servers(
        by_issuer={server.issuer: server for server in trusted},
        introspecting=asking[0] if asking else None,
    )


def _trusted(server: AuthorizationServer, box: SecretBox) -> TrustedServer:
    authorization = None
    if server.introspection_secret_sealed is not None:
        secret = box.open(server.introspection_secret_sealed)
        # RFC 6749 §2.3.1: both are form-encoded before they are joined.
        pair = f"{quote_plus(server.introspection_client_id or '')}:{quote_plus(secret)}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return TrustedServer(
        tenant_id=server.tenant_id,
        provider_id=server.server_id,
        issuer=server.issuer,
        audiences=frozenset(server.audiences),
        jwks_uri=server.jwks_uri,
        inline_keys=None if server.jwks is None else parse_jwks(server.jwks),
        introspection_url=server.introspection_url,
        authorization=authorization,
    )


class ForeignTokens:
    """Finds out who holds an access token that somebody else's server issued."""

    def __init__(
        self,
        *,
        servers: ConfigCache[Servers],
        clients: ConfigCache[Clients],
        keys: IssuerKeys,
        outbound: Outbound,
        clock: Clock,
        issuer: Callable[[str], str],
    ) -> None:
        """issuer: tenant id to issuer."""
        self._servers = servers
        self._clients = clients
        self._keys = keys
        self._outbound = outbound
        self._clock = clock
        self._issuer = issuer
        self._questions = TokenBuckets(per_s=QUESTIONS_PER_S, burst=QUESTIONS_AT_ONCE)
        #: (tenant, server, token) to what was said of it, and until when that is believed
        self._said: OrderedDict[tuple[str, str, bytes], tuple[Introspected, float]] = OrderedDict()

    async def issuers(self, tenant_id: str) -> list[str]:
        """Return the issuers whose tokens the tenant takes besides its own."""
        return sorted((await self._servers.get(tenant_id)).by_issuer)

    async def caller(self, tenant_id: str, token: str, *, presented: Presented) -> Caller | None:
        """Return who holds the token; None when no server of the tenant stands for it.

        Raises Unavailable when a server that
        would know cannot be asked. Source: RFC 9068 §4, RFC 7662 §2; requirement SET-41.
        """
        servers = await self._servers.get(tenant_id)
        if not servers.by_issuer or not token.isascii() or token.startswith(f"{TOKEN_PREFIX}_"):
            # Our own static tokens are nobody else's to see, known or not.
            return None
        held = await self._held(servers, tenant_id, token)
        if held is None or not is_bound_to(held.cnf, presented.thumbprint):
            return None
        meant = is_meant_for(held.audiences, self._issuer(tenant_id), presented.path)
        if not meant and held.audiences.isdisjoint(held.server.audiences):
            return None
        clients = await self._clients.get(tenant_id)
        client = clients.by_external.get((held.server.provider_id, held.client_id))
        if client is None:
            return None
        return caller_of(client, scopes=held.scopes)

    async def _held(self, servers: Servers, tenant_id: str, token: str) -> _Held | None:
        issuer = None
        if token.count(".") == DOTS_OF_A_JWT:
            try:
                jws = split_jws(token.encode())
                if has_events(jws.payload):
                    return None
                issuer = _decode_issuer(jws.payload).iss
            except (SETError, msgspec.MsgspecError):
                return None
            if issuer == self._issuer(tenant_id):
                # Ours, and refused before: it is not shown to others.
                return None
            server = servers.by_issuer.get(issuer) if isinstance(issuer, str) else None
            if server is not None and server.introspection_url is None:
                return await self._verified(server, jws)
        asking = servers.introspecting
        if asking is None or (isinstance(issuer, str) and issuer != asking.issuer):
            # A JWT of one server is not shown to another, which could use it.
            return None
        return await self._introspected(asking, token)

    async def _verified(self, server: TrustedServer, jws: CompactJWS) -> _Held | None:
        now = self._clock.now()
        try:
            check_header(jws.header, typ=TYP, algorithms=DEFAULT_ALGORITHMS)
            verify(jws, await self._keys.key_for(server, jws.header, now=now))
            claims = _decode_claims(jws.payload)
        except (SETError, msgspec.MsgspecError):
            return None
        now_s = now.timestamp()
        if claims.iss != server.issuer or not claims.nbf <= now_s < claims.exp:
            return None
        return _Held(
            server=server,
            client_id=claims.client_id,
            audiences=_texts(claims.aud),
            scopes=frozenset(claims.scope.split()),
            cnf=claims.cnf,
        )

    async def _introspected(self, server: TrustedServer, token: str) -> _Held | None:
        now_s = self._clock.now().timestamp()
        name = (server.tenant_id, server.provider_id, hashlib.sha256(token.encode()).digest())
        said, until_s = self._said.get(name, (None, 0.0))
        if said is None or now_s >= until_s:
            # Tokens that nobody knows must not use up what known ones need to stay known.
            lane = "known" if said is not None and said.active else "new"
            wait_s = self._questions.take(f"{server.tenant_id} {lane}", now_s)
            if wait_s > 0:
                raise Unavailable(
                    "Too many access tokens wait to be introspected.", retry_after_s=wait_s
                )
            said = await self._ask(server, token)
            self._remember(name, said, now_s)
        if not _is_good(said, server, now_s) or said.client_id is None:
            return None
        return _Held(
            server=server,
            client_id=said.client_id,
            audiences=_texts(said.aud or []),
            scopes=frozenset((said.scope or "").split()),
            cnf=said.cnf,
        )

    async def _ask(self, server: TrustedServer, token: str) -> Introspected:
        answer = await self._outbound.send(
            OutboundRequest(
                method="POST",
                url=server.introspection_url or "",
                headers={
                    "content-type": "application/x-www-form-urlencoded",
                    "accept": "application/json",
                    "authorization": server.authorization or "",
                },
                body=urlencode({"token": token, "token_type_hint": "access_token"}).encode(),
                timeout_s=INTROSPECTION_TIMEOUT_S,
                body_bytes_max=INTROSPECTION_BYTES_MAX,
            )
        )
        try:
            said = _decode_introspected(answer.body) if answer.status == OK else None
        except msgspec.MsgspecError:
            said = None
        if said is None:
            # Also when it refuses our credentials: that says nothing about the token.
            log.warning(
                "introspection.failed",
                tenant_id=server.tenant_id,
                server_id=server.provider_id,
                status=answer.status,
            )
            raise Unavailable("The authorization server gave no usable answer.")
        return said

    def _remember(self, name: tuple[str, str, bytes], said: Introspected, now_s: float) -> None:
        self._said[name] = (
            said,
            now_s + (INTROSPECTION_FRESH_S if said.active else INACTIVE_FRESH_S),
        )
        self._said.move_to_end(name)
        if len(self._said) > REMEMBERED_MAX:
            self._said.popitem(last=False)


def _is_good(said: Introspected, server: TrustedServer, now_s: float) -> bool:
    """Tell whether an answer lets its holder in: everything it says must fit."""
    return (
        said.active
        and said.iss in {None, server.issuer}
        and (said.nbf or 0) <= now_s
        and (said.exp is None or now_s < said.exp)
        and (said.token_type or BEARER).lower() == BEARER
    )


def _texts(value: str | list[str]) -> frozenset[str]:
    return frozenset([value] if isinstance(value, str) else value)


_decode_claims: Final = msgspec.json.Decoder(ForeignClaims).decode
_decode_introspected: Final = msgspec.json.Decoder(Introspected).decode
_decode_issuer: Final = msgspec.json.Decoder(_Issuer).decode
