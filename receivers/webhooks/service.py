"""Take in one webhook: who sent it, what it says, and the same durable inbox as SETs."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter

from receivers.model import (
    JTI_BYTES_MAX,
    AcceptedSET,
    AcceptOutcome,
    ProviderMode,
    ProviderProfile,
    SignalState,
    StoredSignal,
    bounded_occurrence,
    is_in_scope,
)
from receivers.store import ACCEPT
from receivers.webhooks.mapping import MappedSignal, Unmappable, apply
from receivers.webhooks.model import WebhookIntake
from receivers.webhooks.signatures import verify
from runtime.clock import epoch_s
from runtime.errors import Invalid, Refused, Unauthorized
from runtime.ids import new_id
from runtime.writer import Writer
from ssf.errors import RemoteProtocolError, SharedSignalsError
from ssf.events.registry import parse_event, render_event
from ssf.strict_json import parse_array, parse_object
from ssf.subject import parse_subject, render_subject

BODY_BYTES_MAX: Final = 256 * 1024
DETAIL_CHARS_MAX: Final = 1_000
#: what a message that no rule fits is kept as, so that an admin sees it
UNMAPPED: Final = "urn:signalhub:webhook:unmapped"
_UNMAPPED_JTI: Final = "webhook:unmapped:"

log = structlog.get_logger()
_webhooks_total = Counter(
    "hub_receivers_webhooks_total",
    "Webhooks that arrived, by what became of them.",
    ["issuer", "outcome"],
)


async def accept(
    body: bytes,
    headers: Mapping[str, str],
    *,
    provider: ProviderProfile,
    intake: WebhookIntake,
    now: datetime,
    writer: Writer,
) -> AcceptOutcome:
    """Verify one webhook and store what it says; returns after the commit.

    A repeat gives DUPLICATE and changes nothing. Raises Unauthorized for a wrong signature, Invalid
    with what is missing for a message that cannot be mapped, which is kept as a failed signal, and
    Unavailable when it is undecided. Requirements WH-10 to WH-14.
    """
    try:
        message_id = verify(intake.signature, intake.secrets, headers, body, now_s=epoch_s(now))
        stored = await _store(body, message_id, provider, intake, now, writer)
    except Refused as refusal:
        outcome = "unauthorized" if isinstance(refusal, Unauthorized) else "unmapped"
        _webhooks_total.labels(provider.issuer, outcome).inc()
        log.warning(
            "webhook.refused",
            tenant_id=provider.tenant_id,
            provider_id=provider.provider_id,
            outcome=outcome,
            reason=refusal.detail,
            missing=refusal.pointers,
        )
        raise
    outcome = stored.value
    _webhooks_total.labels(provider.issuer, outcome).inc()
    log.debug(
        "webhook.accepted",
        tenant_id=provider.tenant_id,
        provider_id=provider.provider_id,
        outcome=outcome,
    )
    return stored


async def _store(
    body: bytes,
    message_id: str | None,
    provider: ProviderProfile,
    intake: WebhookIntake,
    now: datetime,
    writer: Writer,
) -> AcceptOutcome:
    key = message_id or hashlib.sha256(body).hexdigest()
    try:
        return await _store_mapped(body, message_id, provider, intake, now, writer)
    except Unmappable as trouble:
        await writer.submit(ACCEPT, _unmapped(key, str(trouble), body, provider, now))
        raise Invalid(
            "The message cannot be mapped; it is kept among the failed signals.",
            pointers=trouble.missing,
        ) from trouble


async def replay(
    signal: StoredSignal,
    *,
    provider: ProviderProfile,
    intake: WebhookIntake,
    now: datetime,
    writer: Writer,
) -> AcceptOutcome:
    """Map a kept message by the provider's present mapping, and store what it says.

    signal: what `accept` kept; its signature was verified then. What is known already changes
    nothing, so a replay that is repeated does not act twice. Raises Invalid with what is missing
    when it still cannot be mapped, and Unavailable.
    """
    body = signal.raw.encode()
    key = signal.jti.removeprefix(_UNMAPPED_JTI)
    # Without an id of the sender's, each signal of the message is known by its own.
    message_id = None if key == hashlib.sha256(body).hexdigest() else key
    try:
        return await _store_mapped(body, message_id, provider, intake, now, writer)
    except Unmappable as trouble:
        raise Invalid("The message still cannot be mapped.", pointers=trouble.missing) from trouble


async def _store_mapped(
    body: bytes,
    message_id: str | None,
    provider: ProviderProfile,
    intake: WebhookIntake,
    now: datetime,
    writer: Writer,
) -> AcceptOutcome:
    mapped = apply(intake.mapping, read_message(body))
    items = [
        accepted(each, jti, body, provider=provider, now=now)
        for each, jti in zip(mapped, _jtis(mapped, message_id, body), strict=True)
    ]
    # Each is committed on its own; a sender whose 202 was lost sends all of them again, and those
    # that are known change nothing.
    inserted = await asyncio.gather(*(writer.submit(ACCEPT, item) for item in items))
    return AcceptOutcome.STORED if any(inserted) or not items else AcceptOutcome.DUPLICATE


def read_message(body: bytes) -> Any:
    """Read a body as strictly as a SET; an object or an array. Raises Invalid."""
    parse = parse_array if body.lstrip()[:1] == b"[" else parse_object
    try:
        return parse(body, bytes_max=BODY_BYTES_MAX, error=_unreadable)
    except RemoteProtocolError as error:
        raise Invalid(f"The body is not acceptable: {error.description}.") from error


def accepted(
    mapped: MappedSignal,
    jti: str,
    body: bytes,
    *,
    provider: ProviderProfile,
    now: datetime,
) -> AcceptedSET:
    """Return a mapped signal on its way into the inbox. Raises Unmappable."""
    try:
        sub_id = parse_subject(mapped.sub_id)
        event = parse_event(mapped.event_type, mapped.payload)
    except SharedSignalsError as error:
        raise Unmappable([(f"rule {mapped.rule}", error.description)]) from error
    allowed = provider.expectation.allowed_event_types
    if allowed is not None and mapped.event_type not in allowed:
        raise Unmappable([(f"rule {mapped.rule}", "the provider may not send this event type")])
    if not is_in_scope(sub_id, provider.subject_scope):
        raise Unmappable([(f"rule {mapped.rule}", "the subject is outside this provider's scope")])
    is_ignored = provider.mode is ProviderMode.NONE
    return AcceptedSET(
        tenant_id=provider.tenant_id,
        signal_id=new_id("sig"),
        provider_id=provider.provider_id,
        iss=provider.issuer,
        jti=jti,
        event_type=mapped.event_type,
        sub_id=msgspec.json.encode(render_subject(sub_id)),
        payload=msgspec.json.encode(render_event(event)),
        txn=None,
        raw=body.decode(),
        occurred_at=bounded_occurrence(mapped.occurred_at or now, now),
        received_at=now,
        mode=provider.mode,
        state=SignalState.IGNORED if is_ignored else SignalState.RECEIVED,
        detail="the provider's mode is none" if is_ignored else None,
    )


def _jtis(mapped: Sequence[MappedSignal], message_id: str | None, body: bytes) -> Iterator[str]:
    """Yield by what a repeat of each signal is known.

    The message id of the sender's retries (WH-12), else the vendor's own id of the event, else the
    body itself; and its place among those of one message with the same key.
    """
    seen: Tally[str] = Tally()
    whole = hashlib.sha256(body).hexdigest()
    for each in mapped:
        key = message_id or each.vendor_id or whole
        yield _jti(key, seen[key])
        seen[key] += 1


def _jti(key: str, place: int) -> str:
    jti = f"webhook:{key}" + (f"#{place}" if place else "")
    if len(jti.encode()) <= JTI_BYTES_MAX and jti.isprintable():
        return jti
    return f"webhook:sha256:{hashlib.sha256(jti.encode()).hexdigest()}"


def _unmapped(
    key: str, detail: str, body: bytes, provider: ProviderProfile, now: datetime
) -> AcceptedSET:
    return AcceptedSET(
        tenant_id=provider.tenant_id,
        signal_id=new_id("sig"),
        provider_id=provider.provider_id,
        iss=provider.issuer,
        jti=_jti(f"unmapped:{key}", 0),
        event_type=UNMAPPED,
        sub_id=msgspec.json.encode({"format": "opaque", "id": provider.provider_id}),
        payload=b"{}",
        txn=None,
        raw=body.decode(),
        occurred_at=now,
        received_at=now,
        mode=provider.mode,
        state=SignalState.FAILED,
        detail=detail[:DETAIL_CHARS_MAX],
    )


def _unreadable(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid_request", description, requirement="PD-3")
