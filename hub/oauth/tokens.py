"""Access tokens: JWTs of RFC 9068, signed with a key of their own, for at most an hour.

What was verified once is remembered until the token expires, so a request costs a hash and three
look-ups in memory. Whether the client is still there, what it may do now, and whether the token was
revoked is asked each time, of memory that the change feed keeps fresh.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from hub.oauth.certificates import Confirmation, is_bound_to
from hub.oauth.resources import Presented, is_meant_for
from hub.store import Client
from runtime import ids
from runtime.caller import Caller
from runtime.clock import Clock, epoch_s
from runtime.errors import NotFound
from runtime.feed import ConfigCache
from runtime.keyring import ACCESS_TOKEN, Keyring
from ssf.errors import SETError
from ssf.jose import check_header, sign, signing_key, split_jws, verification_key, verify

#: RFC 9068 §2.1
TYP: Final = "at+jwt"
ALGORITHMS: Final = frozenset({"RS256"})
#: INT-21: about 60 minutes or less
LIFETIME_S: Final = 3600
REMEMBERED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """The clients of a tenant: by the hash of their static token or secret, and by id."""

    by_token: Mapping[str, Caller]
    by_id: Mapping[str, Client]
    #: (authorization server, what that calls the client)
    by_external: Mapping[tuple[str, str], Client]


def caller_of(client: Client, *, scopes: frozenset[str] | None = None) -> Caller:
    """Return who calls. scopes: of a token; what was taken from the client is gone from it too."""
    own = frozenset(client.scopes)
    return Caller(
        tenant_id=client.tenant_id,
        client_id=client.client_id,
        scopes=own if scopes is None else own & scopes,
        app_id=client.app_id,
        role=client.role,
    )


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims of an access token. Source: RFC 9068 §2.2."""

    iss: str
    sub: str
    aud: str | list[str]
    client_id: str
    scope: str
    iat: int
    exp: int
    jti: str
    cnf: Confirmation | None = None

    @property
    def audiences(self) -> frozenset[str]:
        """What the token is meant for."""
        return frozenset([self.aud] if isinstance(self.aud, str) else self.aud)


class _WithEvents(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a JWT a Security Event Token, whatever else it says of itself."""

    events: Any = msgspec.UNSET


_decode_claims: Final = msgspec.json.Decoder(Claims).decode
_decode_events: Final = msgspec.json.Decoder(_WithEvents).decode


def has_events(payload: bytes) -> bool:
    """Tell whether claims are those of a SET, which is never an access token.

    Source: RFC 8417 §4.2, §4.3; requirement SET-41. Raises msgspec.MsgspecError.
    """
    return _decode_events(payload).events is not msgspec.UNSET


class AccessTokens:
    """Makes access tokens of all tenants and finds out whose one is."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        clock: Clock,
        issuer: Callable[[str], str],
        clients: ConfigCache[Clients],
        revoked: ConfigCache[frozenset[str]],
    ) -> None:
        """issuer: tenant id to issuer. revoked: ids of revoked tokens, by tenant."""
        self._keyring = keyring
        self._clock = clock
        self._issuer = issuer
        self._clients = clients
        self._revoked = revoked
        #: claims, and the kid of the key that signed them
        self._verified: OrderedDict[tuple[str, bytes], tuple[Claims, str]] = OrderedDict()

    async def issue(
        self,
        tenant_id: str,
        client_id: str,
        scopes: Collection[str],
        *,
        resource: str | None = None,
        thumbprint: str | None = None,
    ) -> str:
        """Return a new access token. Raises NotFound when the tenant has no key for tokens.

        resource: what alone it is meant for; None for all of the issuer. thumbprint: of the
        certificate that it is bound to.
        """
        key = await asyncio.to_thread(
            signing_key, await self._keyring.current(tenant_id, ACCESS_TOKEN)
        )
        issuer, now_s = self._issuer(tenant_id), epoch_s(self._clock.now())
        claims = Claims(
            iss=issuer,
            sub=client_id,
            # SET-42: no audience of a stream is ever this one.
            aud=resource or issuer,
            client_id=client_id,
            scope=" ".join(sorted(scopes)),
            iat=now_s,
            exp=now_s + LIFETIME_S,
            jti=ids.new_id("tok"),
            cnf=Confirmation(thumbprint=thumbprint) if thumbprint else None,
        )
        raw = await asyncio.to_thread(sign, msgspec.json.encode(claims), key, typ=TYP)
        return raw.decode()

    async def caller(
        self, tenant_id: str, token: str, *, presented: Presented | None = None
    ) -> Caller | None:
        """Return who holds an access token of this tenant, None when it is not valid (any more).

        presented: how it is used now, None when that is not the question.
        Source: RFC 9068 §4; requirements INT-28, SET-40, SET-42.
        """
        claims = await self.claims(tenant_id, token)
        if claims is None or (presented and not self._opens(tenant_id, claims, presented)):
            return None
        client = (await self._clients.get(tenant_id)).by_id.get(claims.client_id)
        if client is None:
            return None
        return caller_of(client, scopes=frozenset(claims.scope.split()))

    def _opens(self, tenant_id: str, claims: Claims, presented: Presented) -> bool:
        issuer = self._issuer(tenant_id)
        return is_meant_for(claims.audiences, issuer, presented.path) and is_bound_to(
            claims.cnf, presented.thumbprint
        )

    async def claims(self, tenant_id: str, token: str) -> Claims | None:
        """Return the claims of a token that is valid now and was not revoked, else None."""
        if not token.isascii():
            return None
        name = (tenant_id, hashlib.sha256(token.encode()).digest())
        verified = self._verified.get(name)
        if verified is None:
            verified = await self._verify(tenant_id, token)
            if verified is None:
                return None
            self._verified[name] = verified
            if len(self._verified) > REMEMBERED_MAX:
                self._verified.popitem(last=False)
        claims, kid = verified
        if not await self._is_published(tenant_id, kid):
            # Withdrawn, perhaps because it was stolen: what it signed proves nothing any more.
            self._verified.pop(name, None)
            return None
        if claims.exp <= epoch_s(self._clock.now()):
            self._verified.pop(name, None)
            return None
        return None if claims.jti in await self._revoked.get(tenant_id) else claims

    async def forget(self, tenant_id: str) -> None:
        """Read the revocations of a tenant anew: one was just added."""
        await self._revoked.get(tenant_id, fresh=True)

    async def _is_published(self, tenant_id: str, kid: str) -> bool:
        try:
            await self._keyring.public(tenant_id, kid, ACCESS_TOKEN)
        except NotFound:
            return False
        return True

    async def _verify(self, tenant_id: str, token: str) -> tuple[Claims, str] | None:
        try:
            jws = split_jws(token.encode())
            check_header(jws.header, typ=TYP, algorithms=ALGORITHMS)
            kid = jws.header.kid or ""
            jwk = await self._keyring.public(tenant_id, kid, ACCESS_TOKEN)
            verify(jws, verification_key(jwk))
            if has_events(jws.payload):
                return None
            claims = _decode_claims(jws.payload)
        except (SETError, NotFound, msgspec.MsgspecError):
            return None
        issuer = self._issuer(tenant_id)
        is_ours = claims.iss == issuer and is_meant_for(claims.audiences, issuer, None)
        return (claims, kid) if is_ours else None
