"""Take in one SET: the verification order of the hub, and the durable inbox behind it."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

import msgspec
import structlog
from prometheus_client import Counter

from receivers.keys import IssuerKeys
from receivers.limits import IntakeLimits
from receivers.model import (
    JTI_BYTES_MAX,
    AcceptedSET,
    AcceptOutcome,
    ProviderProfile,
    ProviderStatus,
    bounded_occurrence,
    check_subject,
    first_state,
)
from receivers.refusals.log import RefusalLog, Witness
from receivers.store import ACCEPT
from receivers.upstreams.model import StateCheck
from receivers.upstreams.operations import CHECK_STATE
from runtime.clock import Clock, epoch_s, from_epoch_s
from runtime.errors import Invalid, NotFound, Unavailable
from runtime.ids import new_id
from runtime.writer import Writer
from ssf.errors import SETError
from ssf.events.registry import render_event
from ssf.events.ssf import Verification
from ssf.jose import CompactJWS, check_header, split_jws, verify
from ssf.secevent import SecurityEventToken, parse_set, peek_issuer
from ssf.subject import render_subject

UNAUTHORIZED: Final = 401

log = structlog.get_logger()
_sets_total = Counter(
    "hub_receivers_sets_total", "SETs that arrived, by what became of them.", ["issuer", "outcome"]
)
#: finding a counter by its labels costs more than counting; issuers and outcomes are few
_counted: Final = functools.lru_cache(maxsize=1024)(_sets_total.labels)


class UnprovenError(SETError):
    """A SET is refused before it was proven to come from the issuer: anybody can send such."""


class Profiles(Protocol):
    """The providers of each tenant, ready for intake; hub gives a `runtime.feed.ConfigCache`."""

    async def get(self, tenant_id: str, *, fresh: bool = False) -> Mapping[str, ProviderProfile]:
        """Return profiles by provider_id; from memory unless asked for a fresh look."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiversDeps:
    """What intake runs on, placed into `app.state.receivers` by hub.

    refusals: None to note none.
    """

    profiles: Profiles
    keys: IssuerKeys
    writer: Writer
    clock: Clock
    refusals: RefusalLog | None = None
    limits: IntakeLimits = field(default_factory=IntakeLimits)


async def find_provider(profiles: Profiles, tenant_id: str, provider_id: str) -> ProviderProfile:
    """Return a provider of the tenant. Raises NotFound; no SQL when it is known (PUSH-20)."""
    found = (await profiles.get(tenant_id)).get(provider_id)
    if found is None:
        # Perhaps another process has just added it.
        found = (await profiles.get(tenant_id, fresh=True)).get(provider_id)
    if found is None:
        raise NotFound("No such provider.")
    return found


def check_caller(provider: ProviderProfile, authorization: str | None) -> None:
    """Check the Authorization header, before any cryptography and in constant time.

    Raises SETError authentication_failed with status 401.
    Source: SSF 1.0 §6.1.1; requirements SET-50, PUSH-5, PUSH-18, PUSH-21.
    """
    if provider.authorization is None:
        return
    # Headers are latin-1 on the wire; the registered value is ASCII, so nothing else is equal.
    given = (authorization or "").encode("latin-1", "replace")
    if not hmac.compare_digest(given, provider.authorization):
        _counted(provider.issuer, "unauthorized").inc()
        raise SETError(
            "authentication_failed",
            "the Authorization header is not the one of this stream",
            requirement="PUSH-21",
            status_hint=UNAUTHORIZED,
        )


async def accept(
    raw: bytes,
    *,
    provider: ProviderProfile,
    now: datetime,
    keys: IssuerKeys,
    writer: Writer,
    witness: Witness | None = None,
) -> AcceptOutcome:
    """Verify one SET and store it; returns after the commit.

    raw: the compact JWS. now: when it arrived. witness: notes it when it is not taken.
    A repeat gives DUPLICATE and changes nothing.
    Raises SETError when it is refused, with the code to answer (UnprovenError when anybody could
    have sent it), and Unavailable when it is undecided: then nothing is stored and the sender
    tries again.
    Source: RFC 8935 §2; requirements SET-51 to SET-65, PUSH-9 to PUSH-11.
    """
    try:
        inserted = await _verify_and_store(
            raw, provider=provider, now=now, keys=keys, writer=writer
        )
    except SETError as refusal:
        _counted(provider.issuer, refusal.code).inc()
        log.warning(
            "set.refused",
            tenant_id=provider.tenant_id,
            provider_id=provider.provider_id,
            code=refusal.code,
            requirement=refusal.requirement,
            reason=refusal.description,
        )
        if witness is not None:
            witness.note(provider, refusal, raw=raw, now=now)
        raise
    except Unavailable as trouble:
        _counted(provider.issuer, "undecided").inc()
        log.warning(
            "set.deferred",
            tenant_id=provider.tenant_id,
            provider_id=provider.provider_id,
            reason=trouble.detail,
        )
        if witness is not None:
            witness.note(provider, trouble, raw=raw, now=now)
        raise
    outcome = AcceptOutcome.STORED if inserted else AcceptOutcome.DUPLICATE
    _counted(provider.issuer, outcome.value).inc()
    # Debug only: at thousands per second the row in `signals` is the record, not the log.
    log.debug(
        "set.accepted",
        tenant_id=provider.tenant_id,
        provider_id=provider.provider_id,
        outcome=outcome.value,
    )
    return outcome


async def _verify_and_store(
    raw: bytes, *, provider: ProviderProfile, now: datetime, keys: IssuerKeys, writer: Writer
) -> bool:
    check_may_send(provider)
    jws = await _proven(raw, provider, keys, now)
    token = parse_set(jws.payload, provider.expectation, epoch_s(now))
    await _check_state(token, provider, now=now, writer=writer)
    check_subject(token, provider.subject_scope)
    accepted = _accepted_set(raw, token, provider=provider, now=now)
    try:
        return await writer.submit(ACCEPT, accepted)
    except Invalid as refusal:
        raise SETError("invalid_request", refusal.detail, requirement="SET-65") from refusal


async def _proven(
    raw: bytes, provider: ProviderProfile, keys: IssuerKeys, now: datetime
) -> CompactJWS:
    """Return what the issuer signed. Raises UnprovenError, and Unavailable when undecided."""
    try:
        jws = split_jws(raw)
        check_header(
            jws.header, algorithms=provider.algorithms, allow_missing_typ=provider.allow_missing_typ
        )
        check_issuer(jws, provider)
        key = await keys.key_for(provider, jws.header, now=now)
        verify(jws, key)
    except SETError as refusal:
        raise UnprovenError(
            refusal.code,
            refusal.description,
            requirement=refusal.requirement,
            status_hint=refusal.status_hint,
        ) from refusal
    return jws


async def _check_state(
    token: SecurityEventToken, provider: ProviderProfile, *, now: datetime, writer: Writer
) -> None:
    """Refuse a verification that answers a question we did not ask (SET-62, SSF-VER-10).

    One without `state` was started by the transmitter and is always fine. Of a provider that we
    manage no stream of, we asked nothing, and its operators may try out what they like.
    """
    event, upstream_id = token.event, provider.upstream_id
    if upstream_id is None or not isinstance(event, Verification) or event.state is None:
        return
    asked = StateCheck(
        tenant_id=provider.tenant_id, upstream_id=upstream_id, state=event.state, at=now
    )
    if not await writer.submit(CHECK_STATE, asked):
        raise SETError(
            "invalid_state", "no verification with this state was asked for", requirement="SET-62"
        )


def check_may_send(provider: ProviderProfile) -> None:
    """Refuse everything of an inactive provider.

    400 access_denied and not 404 or 403: RFC 8935 §2.4 defines the code for exactly this case, a
    transmitter takes it for a refusal that may pass (PUSH-35) and keeps the SET, while 404 would
    make it give the SET up (PUSH-42). Raises SETError.
    """
    if provider.status is ProviderStatus.INACTIVE:
        raise SETError(
            "access_denied", "this provider is not active at present", requirement="PUSH-35"
        )


def check_issuer(jws: CompactJWS, provider: ProviderProfile) -> None:
    """Look at the unverified `iss`, only to refuse early. Raises SETError (SET-12, SET-53)."""
    if peek_issuer(jws) != provider.issuer:
        raise SETError(
            "invalid_issuer", "iss is not the issuer of this endpoint", requirement="SET-53"
        )


def _accepted_set(
    raw: bytes, token: SecurityEventToken, *, provider: ProviderProfile, now: datetime
) -> AcceptedSET:
    if len(token.jti.encode()) > JTI_BYTES_MAX:
        raise SETError(
            "invalid_request", f"jti is longer than {JTI_BYTES_MAX} bytes", requirement="SET-58"
        )
    state, detail = first_state(token, provider.mode)
    return AcceptedSET(
        tenant_id=provider.tenant_id,
        signal_id=new_id("sig"),
        provider_id=provider.provider_id,
        iss=token.iss,
        jti=token.jti,
        event_type=token.event_type,
        sub_id=msgspec.json.encode(render_subject(token.sub_id)),
        payload=msgspec.json.encode(render_event(token.event)),
        txn=token.txn,
        raw=raw.decode("ascii"),
        occurred_at=bounded_occurrence(from_epoch_s(token.occurred_at_s), now),
        received_at=now,
        mode=provider.mode,
        state=state,
        detail=detail,
        hops=token.hops,
        upstream_id=provider.upstream_id,
    )
