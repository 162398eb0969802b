"""Use cases of the relay: administer rules, and relay what a batch of signals says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final, TypeAlias

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.registry.store
import transmitters.published.store
import transmitters.service
from hub.relay import store
from hub.relay.model import (
    RULES_MAX,
    TXN_PREFIXES,
    RelayMode,
    RelayOutcome,
    RelayRecord,
    RelayRule,
    Unresolved,
    chooser,
    is_echo,
    is_of_party,
    is_too_far,
    may_relay,
    own_txn,
    subjects_of,
)
from receivers.model import PendingSignal
from risk.model import Signal
from risk.naming import keys_of
from risk.whom import Whom, whom
from runtime.clock import epoch_s
from runtime.errors import Conflict, NotFound
from ssf.events.registry import render_event
from ssf.secevent import hop_of
from transmitters.model import EventToPublish, Published, Stream

_UNRESOLVED: Final = RelayOutcome.UNRESOLVED

log = structlog.get_logger()
_relayed_total = Counter(
    "hub_relay_signals_total", "Signals under relay rules, by what became of them.", ["outcome"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A signal as it was received, and as risk reads it."""

    row: PendingSignal
    signal: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """What came of a batch. waiting: the names to wait for, by (tenant, signal)."""

    has_published: bool
    waiting: Mapping[tuple[str, str], frozenset[str]]


#: a signal that a rule takes, with the rules before that one
_Taken: TypeAlias = tuple[Incoming, RelayRule, tuple[RelayRule, ...]]


# --- rules --------------------------------------------------------------------------------------


async def list_rules(connection: AsyncConnection, tenant_id: str) -> list[RelayRule]:
    """Return the rules of a tenant in the order in which they count."""
    return await store.list_rules(connection, tenant_id)


async def get_rule(connection: AsyncConnection, tenant_id: str, rule_id: str) -> RelayRule:
    """Return one rule. Raises NotFound."""
    for rule in await store.list_rules(connection, tenant_id):
        if rule.rule_id == rule_id:
            return rule
    raise NotFound("No such relay rule.")


async def put_rule(connection: AsyncConnection, rule: RelayRule) -> RelayRule:
    """Write a rule; it counts from the next batch of signals on.

    Raises Conflict when the name is taken or the tenant has RULES_MAX rules.
    """
    others = [
        one
        for one in await store.list_rules(connection, rule.tenant_id)
        if one.rule_id != rule.rule_id
    ]
    if any(one.name == rule.name for one in others):
        raise Conflict("A relay rule of this name exists.")
    if len(others) >= RULES_MAX:
        raise Conflict(f"A tenant has at most {RULES_MAX} relay rules.")
    await store.put_rule(connection, rule)
    return rule


async def delete_rule(connection: AsyncConnection, tenant_id: str, rule_id: str) -> None:
    """Forget a rule. Raises NotFound."""
    if not await store.delete_rule(connection, tenant_id, rule_id):
        raise NotFound("No such relay rule.")


# --- relaying -----------------------------------------------------------------------------------


async def echoes_among(
    connection: AsyncConnection,
    pending: Sequence[PendingSignal],
    issuer: Callable[[str], str],
) -> set[tuple[str, str]]:
    """Return (tenant, signal) of what is an event of our own that came back.

    Told by its hops, or by a `txn` of ours on an event of the same type: a vendor may send on what
    it heard from us and know nothing of hops. issuer: of a tenant. Requirement SSF-SEC-6.
    """
    found = {
        (row.tenant_id, row.signal_id)
        for row in pending
        if is_echo(own_issuer=issuer(row.tenant_id), iss=row.iss, hops=row.hops)
    }
    suspects: dict[str, list[PendingSignal]] = {}
    for row in pending:
        if row.txn and row.txn.startswith(TXN_PREFIXES):
            suspects.setdefault(row.tenant_id, []).append(row)
    for tenant_id, rows in suspects.items():
        ours = await transmitters.published.store.types_sent(
            connection, tenant_id, txns={row.txn for row in rows if row.txn}
        )
        found |= {(tenant_id, row.signal_id) for row in rows if (row.txn, row.event_type) in ours}
    _relayed_total.labels("echo").inc(len(found))
    return found


async def relay(
    connection: AsyncConnection, incoming: Sequence[Incoming], *, now: datetime
) -> Relayed:
    """Publish what the rules say of a batch, in the transaction that assesses it.

    incoming: in order of arrival, without echoes of our own events. What was relayed to a stream is
    never relayed to it again, however often a signal is looked at. Raises database errors only.
    Requirements SSF-SEC-6, SET-5, SET-15, PUSH-15.
    """
    has_published = False
    waiting: dict[tuple[str, str], frozenset[str]] = {}
    ordered = sorted(incoming, key=lambda each: each.row.tenant_id)
    for tenant_id, batch in groupby(ordered, key=lambda each: each.row.tenant_id):
        rules = await store.list_rules(connection, tenant_id)
        taken = list(_taken(batch, rules)) if rules else []
        if taken:
            made = await _relay_tenant(connection, tenant_id, taken, now=now)
            has_published |= made.has_published
            waiting |= made.waiting
    return Relayed(has_published=has_published, waiting=waiting)


def _taken(batch: Iterable[Incoming], rules: Sequence[RelayRule]) -> Iterable[_Taken]:
    """Yield each signal with each rule that takes it, and the rules that took it before."""
    for each in batch:
        if not may_relay(each.signal):
            continue
        before: tuple[RelayRule, ...] = ()
        for rule in rules:
            if rule.takes(each.row.provider_id, each.row.event_type):
                yield each, rule, before
                before = (*before, rule)


async def _relay_tenant(
    connection: AsyncConnection, tenant_id: str, taken: Sequence[_Taken], *, now: datetime
) -> Relayed:
    signals = {each.row.signal_id: each.signal for each, _, _ in taken}
    concerned = await whom(connection, tenant_id, list(signals.values()))
    served: dict[str, set[str]] = {}
    for record in await store.records_of(connection, tenant_id, signal_ids=signals):
        served.setdefault(record.signal_id, set()).update(record.streams)
    app_issuers = await actions.registry.store.app_issuers(connection, tenant_id)
    outcomes = [_outcome(each, rule, concerned[each.row.signal_id]) for each, rule, _ in taken]
    sending = [place for place, outcome in enumerate(outcomes) if outcome is RelayOutcome.RELAYED]
    events = [
        _event(
            taken[place][0],
            concerned[taken[place][0].row.signal_id],
            accepts=_accepts(taken[place], served, app_issuers),
        )
        for place in sending
    ]
    published = await transmitters.service.publish(connection, events, now)
    receivers = _receivers(published, sending)
    records = [
        _record(each, rule, outcomes[place], receivers.get(place, ()), served=served, now=now)
        for place, (each, rule, _) in enumerate(taken)
    ]
    await store.write_records(connection, records)
    for record in records:
        _relayed_total.labels(record.outcome.value).inc()
        log.debug(
            "signal.relayed",
            tenant_id=tenant_id,
            signal_id=record.signal_id,
            rule_id=record.rule_id,
            outcome=record.outcome.value,
            txn=record.txn,
            streams_count=len(record.streams),
        )
    waiting = {
        (tenant_id, signal_id): frozenset(keys_of(signals[signal_id]))
        for signal_id in {one.signal_id for one in records if one.outcome is _UNRESOLVED}
    }
    return Relayed(has_published=bool(published), waiting=waiting)


def _outcome(each: Incoming, rule: RelayRule, concerned: Whom) -> RelayOutcome:
    if is_too_far(each.row.hops):
        return RelayOutcome.TOO_FAR
    if not concerned.identifiers and rule.unresolved is Unresolved.HOLD:
        return RelayOutcome.UNRESOLVED
    return RelayOutcome.MONITORED if rule.mode is RelayMode.MONITOR else RelayOutcome.RELAYED


def _accepts(
    taken: _Taken, served: Mapping[str, set[str]], app_issuers: Mapping[str, str]
) -> Callable[[Stream], bool]:
    each, rule, before = taken
    return chooser(
        rule,
        before=before,
        served=served.get(each.row.signal_id, ()),
        is_back=lambda stream: is_of_party(stream, each.row.iss, app_issuers),
    )


def _event(each: Incoming, concerned: Whom, *, accepts: Callable[[Stream], bool]) -> EventToPublish:
    """Return the event as ours: its payload was checked and is written in its standard form."""
    row, signal = each.row, each.signal
    return EventToPublish(
        tenant_id=row.tenant_id,
        event_type=row.event_type,
        payload=render_event(signal.event),
        is_rendered=True,
        subjects=subjects_of(signal, concerned.identifiers),
        ordering_key=concerned.ordering_key,
        txn=own_txn(row.tenant_id, row.iss, row.txn or row.jti),
        toe_s=epoch_s(row.occurred_at),
        hops=(*row.hops, hop_of(row.iss)),
        accepts=accepts,
    )


def _receivers(
    published: Sequence[Published], sending: Sequence[int]
) -> dict[int, tuple[str, ...]]:
    """Return the streams that got each of the taken signals, by its place."""
    found: dict[int, list[str]] = {}
    for one in published:
        found.setdefault(sending[one.index], []).append(one.stream_id)
    return {place: tuple(sorted(streams)) for place, streams in found.items()}


def _record(
    each: Incoming,
    rule: RelayRule,
    outcome: RelayOutcome,
    receivers: Sequence[str],
    *,
    served: Mapping[str, set[str]],
    now: datetime,
) -> RelayRecord:
    row = each.row
    before = served.get(row.signal_id, set())
    # A signal that is looked at again keeps saying who has it.
    streams = tuple(sorted({*receivers, *before}))
    if outcome is RelayOutcome.RELAYED and not streams:
        outcome = RelayOutcome.UNWANTED
    return RelayRecord(
        tenant_id=row.tenant_id,
        signal_id=row.signal_id,
        rule_id=rule.rule_id,
        outcome=outcome,
        upstream_iss=row.iss,
        upstream_jti=row.jti,
        upstream_txn=row.txn,
        txn=own_txn(row.tenant_id, row.iss, row.txn or row.jti),
        streams=streams,
        at=now,
    )
