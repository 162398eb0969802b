"""Clients that prove themselves with a key: JWT assertions of RFC 7523, each good for once.

    assertion ─▶ claimed_client ─▶ the client's key ─▶ check_assertion ─▶ marked as used ─▶ client

Authlib knows this method, but takes the time of its own clock, any algorithm that the key fits, and
an assertion that is good for a year; so it is told the outcome (see `hub.oauth.server`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from hub.oauth.tokens import has_events
from hub.store import Client
from ssf.errors import SETError
from ssf.jose import (
    DEFAULT_ALGORITHMS,
    CompactJWS,
    JOSEHeader,
    VerificationKey,
    check_header,
    split_jws,
    verify,
)
from ssf.jwks import JWKSet, parse_jwks

#: RFC 7523 §2.2
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
METHOD: Final = "private_key_jwt"
ALGORITHMS: Final = DEFAULT_ALGORITHMS
#: a longer life would only give a thief more time, and us more to remember
LIFETIME_MAX_S: Final = 300
CLOCK_SKEW_S: Final = 30
JTI_CHARACTERS_MAX: Final = 255
_TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})


class NotProvenError(Exception):
    """The assertion proves nothing; the text says why, for our log and nobody else."""


class AssertionClaims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of an assertion. Source: RFC 7523 §3."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: int | float
    jti: str
    iat: int | float | None = None
    nbf: int | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeys:
    """Where a client's keys are, as `receivers.keys` asks for them."""

    tenant_id: str
    provider_id: str
    jwks_uri: str | None
    inline_keys: JWKSet | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """An assertion that was read; nothing in it is verified. client_id: who it says it is."""

    jws: CompactJWS
    client_id: str

    @property
    def header(self) -> JOSEHeader:
        """What the signature is said to be made with."""
        return self.jws.header


def read_assertion(raw: str) -> Assertion:
    """Take an assertion apart and check its header. Raises NotProvenError."""
    try:
        jws = split_jws(raw.encode("ascii"))
        typ = (jws.header.typ or "").lower().removeprefix("application/")
        if typ and typ not in _TYPES:
            raise NotProvenError("typ is that of another kind of token")
        check_header(jws.header, typ=typ, algorithms=ALGORITHMS, allow_missing_typ=True)
        if has_events(jws.payload):
            raise NotProvenError("a Security Event Token is no assertion")
        claims = _decode(jws.payload)
    except (SETError, UnicodeEncodeError, msgspec.MsgspecError) as error:
        raise NotProvenError(str(error)) from error
    if claims.iss != claims.sub:
        raise NotProvenError("iss is not sub")
    return Assertion(jws=jws, client_id=claims.sub)


def keys_of(client: Client) -> ClientKeys:
    """Return where the keys of a client are. Raises NotProvenError when it has none."""
    if client.auth_method != METHOD:
        raise NotProvenError("the client proves itself in another way")
    return ClientKeys(
        tenant_id=client.tenant_id,
        provider_id=client.client_id,
        jwks_uri=client.jwks_uri,
        inline_keys=None if client.jwks is None else parse_jwks(client.jwks),
    )


def check_assertion(
    assertion: Assertion, key: VerificationKey, *, audiences: Collection[str], now_s: float
) -> AssertionClaims:
    """Verify an assertion and return its claims. Raises NotProvenError.

    audiences: names of this server. One that also names another is refused: that other one could
    use it here. Source: RFC 7523 §3; requirement OA-2.
    """
    try:
        verify(assertion.jws, key)
    except SETError as error:
        raise NotProvenError(error.description) from error
    claims = _decode(assertion.jws.payload)
    named = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if not named or not set(named) <= set(audiences):
        raise NotProvenError("aud is not this server, or not it alone")
    if not now_s < claims.exp <= now_s + LIFETIME_MAX_S + CLOCK_SKEW_S:
        raise NotProvenError("expired, or good for too long")
    begins = max(claims.iat or 0, claims.nbf or 0)
    if begins > now_s + CLOCK_SKEW_S:
        raise NotProvenError("from the future")
    if not 0 < len(claims.jti) <= JTI_CHARACTERS_MAX:
        raise NotProvenError("jti is empty or too long")
    return claims


def jti_hash(claims: AssertionClaims) -> str:
    """Return under what a used assertion is remembered."""
    return hashlib.sha256(claims.jti.encode("utf-8", "surrogatepass")).hexdigest()


_decode: Final = msgspec.json.Decoder(AssertionClaims).decode
