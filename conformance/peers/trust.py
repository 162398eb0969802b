"""Whose signatures a peer believes: the hub's keys, and the rules for JWTs that are no SETs.

Strict on purpose: a hub that is sloppy here must fail against these peers, not against a product.
"""

import time
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec

from conformance.peers.clock import now_s
from conformance.peers.errors import KeysUnavailableError, TokenError
from ssf.errors import RemoteProtocolError, SETError
from ssf.jose import CompactJWS, VerificationKey, check_header, split_jws, verify
from ssf.jwks import JWKSet, parse_jwks

CLOCK_SKEW_S = 60
REFETCH_COOL_DOWN_S = 0.5
FETCH_TIMEOUT_S = 5.0
TOKEN_IDS_MAX = 100_000


class IssuerKeys:
    """The published keys of one signer, refetched when a kid is unknown."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._sets: dict[str, JWKSet] = {}
        self._fetched_at: dict[str, float] = {}

    async def key_for(self, url: str, jws: CompactJWS) -> VerificationKey | None:
        """Find the key of a JWS at a JWKS URL; None when the signer publishes no such key.

        Raises KeysUnavailableError when that cannot be told (SET-54).
        """
        header = jws.header
        known = self._sets.get(url)
        if known is not None and (key := known.find(header.kid, header.alg)):
            return key
        if time.monotonic() - self._fetched_at.get(url, float("-inf")) < REFETCH_COOL_DOWN_S:
            raise KeysUnavailableError("the keys were fetched a moment ago")
        self._sets[url] = fetched = await self._fetch(url)
        self._fetched_at[url] = time.monotonic()
        return fetched.find(header.kid, header.alg)

    async def _fetch(self, url: str) -> JWKSet:
        try:
            answer = await self._client.get(url, timeout=FETCH_TIMEOUT_S)
            answer.raise_for_status()
            return parse_jwks(answer.content)
        except (httpx2.HTTPError, RemoteProtocolError) as cause:
            raise KeysUnavailableError(str(cause)) from cause


class TokenIds:
    """Remembers `jti`s until their tokens expire, so that each is taken once."""

    def __init__(self) -> None:
        self._expires_at_s: dict[str, float] = {}

    def take(self, jti: str, expires_at_s: float) -> bool:
        """Remember a jti; False if it was taken before."""
        if jti in self._expires_at_s:
            return False
        if len(self._expires_at_s) >= TOKEN_IDS_MAX:
            self._drop_expired()
        self._expires_at_s[jti] = expires_at_s
        return True

    def _drop_expired(self) -> None:
        now = now_s() - CLOCK_SKEW_S
        self._expires_at_s = {j: until for j, until in self._expires_at_s.items() if until > now}


async def verified_claims(
    raw: bytes, *, typ: str, keys: IssuerKeys, jwks_url: str | None
) -> Mapping[str, Any]:
    """Verify form, header and signature of a compact JWT and return its claims.

    typ: the only accepted type. Raises TokenError or KeysUnavailableError.
    Requirements SET-51, SET-52, SET-55 (in their general form), GTR-22, BCL-9.
    """
    if jwks_url is None:
        raise KeysUnavailableError("no hub is configured")
    try:
        jws = split_jws(raw)
        check_header(jws.header, typ=typ)
        key = await keys.key_for(jwks_url, jws)
        if key is None:
            raise TokenError("the signer publishes no such key", "SET-54")
        verify(jws, key)
    except SETError as cause:
        raise TokenError(cause.description, cause.requirement) from cause
    claims: dict[str, Any] = msgspec.json.decode(jws.payload)
    return claims


def check_lifetime(claims: Mapping[str, Any], *, lifetime_s_max: int, requirement: str) -> float:
    """Check iat, exp and, where present, nbf; return the moment of expiry.

    All are required to be numbers, iat and exp to be there. Raises TokenError.
    """
    now = now_s()
    iat, exp, nbf = (_numeric_date(claims, name, requirement) for name in ("iat", "exp", "nbf"))
    if iat is None or exp is None:
        raise TokenError("iat and exp are required", requirement)
    if exp <= now - CLOCK_SKEW_S:
        raise TokenError("the token has expired", requirement)
    if max(iat, nbf or 0) > now + CLOCK_SKEW_S:
        raise TokenError("the token is from the future", requirement)
    if exp - iat > lifetime_s_max:
        raise TokenError(f"it lives longer than {lifetime_s_max} s", requirement)
    return exp


def required_text(claims: Mapping[str, Any], name: str, requirement: str) -> str:
    """Return a claim that must be a string with something in it. Raises TokenError."""
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise TokenError(f"{name} is missing", requirement)
    return value


def audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `aud` as a tuple; a single string counts as one value. Raises nothing."""
    aud = claims.get("aud")
    values = [aud] if isinstance(aud, str) else aud
    return tuple(str(value) for value in values) if isinstance(values, list) else ()


def _numeric_date(claims: Mapping[str, Any], name: str, requirement: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"{name} is no NumericDate", requirement)
    return float(value)
