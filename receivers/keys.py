"""Issuer keys: the JWK Sets of our providers, fetched when needed and never more often.

::

    kid known ------------------------------------------------------------> key
    kid unknown --> a fetch runs ----> wait for it --+
                --> cool-down over --> fetch now ----+--> found -----------> key
                --> in cool-down --------------------+--> not found by a successful fetch that
                                                     |    began after we were asked -> invalid_key
                                                     +--> else undecided ------------> Unavailable
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from runtime.errors import Overloaded, Unavailable
from runtime.outbound import Outbound, OutboundRequest
from ssf.errors import RemoteProtocolError, SETError
from ssf.jose import JOSEHeader, VerificationKey
from ssf.jwks import JWKS_BYTES_MAX, JWKSet, parse_jwks

#: between two successful fetches, so that made-up kids cannot make us hammer the provider
REFETCH_COOLDOWN: Final = timedelta(seconds=30)
#: after a failed fetch; shorter, because valid SETs may be waiting for it
FAILED_FETCH_PAUSE: Final = timedelta(seconds=10)
FETCH_TIMEOUT_S: Final = 5.0
#: keys older than this are fetched again, so that a withdrawn key stops working
KEYS_FRESH: Final = timedelta(minutes=10)
#: when fetching keeps failing the old keys go on to work, but not longer than this
KEYS_USABLE: Final = timedelta(hours=24)
WAITING_MAX: Final = 1_000
ISSUERS_REMEMBERED_MAX: Final = 10_000
OK: Final = 200

log = structlog.get_logger()
_fetches_total = Counter("hub_receivers_key_fetches_total", "Fetches of JWK Sets.", ["outcome"])


class KeyOwner(Protocol):
    """Whose keys are wanted: a provider, or whoever else signs what we verify.

    inline_keys: None when the keys are fetched from `jwks_uri`.
    """

    @property
    def tenant_id(self) -> str:
        """The tenant that trusts these keys."""

    @property
    def provider_id(self) -> str:
        """The id of the owner within the tenant."""

    @property
    def jwks_uri(self) -> str | None:
        """Where the keys are published."""

    @property
    def inline_keys(self) -> JWKSet | None:
        """The keys themselves, as an operator gave them."""


class _Remembered:
    """What this process knows about the keys behind one `jwks_uri`. Fetches are numbered."""

    __slots__ = (
        "fetch_again_at",
        "fresh_until",
        "keys",
        "running",
        "started",
        "succeeded",
        "usable_until",
        "waiting",
    )

    def __init__(self, now: datetime) -> None:
        self.keys = JWKSet(keys=())
        self.fresh_until = self.usable_until = self.fetch_again_at = now
        self.started = 0
        self.succeeded = 0
        self.waiting = 0
        self.running: asyncio.Event | None = None


class IssuerKeys:
    """The keys of all providers, in the memory of one process."""

    def __init__(
        self,
        outbound: Outbound,
        *,
        dev_insecure: bool = False,
        issuers_max: int = ISSUERS_REMEMBERED_MAX,
    ) -> None:
        """dev_insecure: also fetch over http. issuers_max: beyond, the oldest is forgotten."""
        self._outbound = outbound
        self._schemes = ("https://", "http://") if dev_insecure else ("https://",)
        self._issuers_max = issuers_max
        self._remembered: dict[tuple[str, str, str], _Remembered] = {}

    async def key_for(
        self, provider: KeyOwner, header: JOSEHeader, *, now: datetime
    ) -> VerificationKey:
        """Return the provider's key for `kid` and `alg` of a SET that has just arrived.

        Raises SETError invalid_key only when it is certain that the provider does not publish the
        key: after a successful fetch that started later than this call. Raises Unavailable while
        it is undecided. Requirements SET-37, SET-54, EGW-82.
        """
        if provider.inline_keys is not None:
            # The operator's own list is complete by definition: nothing to fetch.
            return _certain(provider.inline_keys.find(header.kid, header.alg))
        known = self._recall(provider, now)
        if now < known.fresh_until:
            key = known.keys.find(header.kid, header.alg)
            if key is not None:
                return key
        return await self._look_again(provider, known, header, now)

    async def _look_again(
        self, provider: KeyOwner, known: _Remembered, header: JOSEHeader, now: datetime
    ) -> VerificationKey:
        begun_before = known.started
        await self._refresh(provider, known, now, wanted=header)
        key = known.keys.find(header.kid, header.alg)
        if known.succeeded > begun_before:
            return _certain(key)
        if key is not None and now < known.usable_until:
            return key
        wait_s = (known.fetch_again_at - now).total_seconds()
        raise Unavailable(
            "The issuer's keys are not available at present.", retry_after_s=max(wait_s, 1.0)
        )

    async def _refresh(
        self, provider: KeyOwner, known: _Remembered, now: datetime, *, wanted: JOSEHeader
    ) -> None:
        """Fetch, or wait for the fetch that runs, or do neither within the cool-down.

        INVARIANT: at most one fetch per provider is in flight in this process.
        """
        if known.running is None:
            if now >= known.fetch_again_at:
                await self._fetch(provider, known, now)
        elif now >= known.usable_until or known.keys.find(wanted.kid, wanted.alg) is None:
            if known.waiting >= WAITING_MAX:
                raise Overloaded("Too many SETs wait for the issuer's keys.", retry_after_s=5.0)
            known.waiting += 1
            try:
                await known.running.wait()  # bounded by the time limit of the fetch
            finally:
                known.waiting -= 1

    async def _fetch(self, provider: KeyOwner, known: _Remembered, now: datetime) -> None:
        known.started += 1
        number, finished = known.started, asyncio.Event()
        known.running = finished
        # Also what holds when this task is cancelled on the way.
        known.fetch_again_at = now + FAILED_FETCH_PAUSE
        outcome = "failed"
        try:
            known.keys = await self._read(provider)
            known.succeeded = number
            known.fetch_again_at = now + REFETCH_COOLDOWN
            known.fresh_until, known.usable_until = now + KEYS_FRESH, now + KEYS_USABLE
            outcome = "refreshed"
        except (Unavailable, RemoteProtocolError) as failure:
            # The keys of the last success stay.
            log.warning(
                "key.refresh_failed",
                tenant_id=provider.tenant_id,
                provider_id=provider.provider_id,
                reason=failure.args[-1],
            )
        finally:
            known.running = None
            finished.set()
            _fetches_total.labels(outcome).inc()
        if outcome == "refreshed":
            log.info(
                "key.refreshed",
                tenant_id=provider.tenant_id,
                provider_id=provider.provider_id,
                keys=len(known.keys.keys),
            )

    async def _read(self, provider: KeyOwner) -> JWKSet:
        url = provider.jwks_uri or ""
        if not url.startswith(self._schemes):
            raise Unavailable("jwks_uri is not https")
        answer = await self._outbound.send(
            OutboundRequest(
                method="GET",
                url=url,
                headers={"accept": "application/jwk-set+json, application/json"},
                timeout_s=FETCH_TIMEOUT_S,
                body_bytes_max=JWKS_BYTES_MAX,
            )
        )
        if answer.status != OK:
            raise Unavailable(f"jwks_uri answered {answer.status}")
        return parse_jwks(answer.body)

    def _recall(self, provider: KeyOwner, now: datetime) -> _Remembered:
        # With the URL in the key, a changed jwks_uri starts from nothing.
        place = (provider.tenant_id, provider.provider_id, provider.jwks_uri or "")
        known = self._remembered.get(place)
        if known is None:
            if len(self._remembered) >= self._issuers_max:
                del self._remembered[next(iter(self._remembered))]
            known = self._remembered[place] = _Remembered(now)
        return known


def _certain(key: VerificationKey | None) -> VerificationKey:
    if key is None:
        raise SETError(
            "invalid_key", "the issuer publishes no such key for this alg", requirement="SET-54"
        )
    return key
