"""The spine: the only place that knows the order of the parts.

    received ─▶ echo? ─▶ assessed ─▶ guarded ─▶ relayed ─▶ planned ─▶ performed / published

`handle_signals` runs inside one write transaction per batch and does no outbound HTTP. A crash
between any two steps leaves its signals `received`, and the next run takes them up again.
Nothing here calls back: risk does not know actions, actions do not know transmitters.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.service
import hub.guard.service as guard
import receivers.store
import risk.recall
import risk.service
import transmitters.service
from actions.model import Cause as ContainmentCause
from actions.model import ContainmentOrder, Planned, PlanOutcome, Task
from hub.guard.service import Watched
from hub.relay.model import own_txn
from hub.relay.service import Incoming, Relayed, echoes_among, relay
from receivers.model import PendingSignal, SignalState
from receivers.model import SignalMark as InboxMark
from receivers.registry.store import level_caps
from risk.mappings.service import MappingCache
from risk.model import Assessment, Level, Signal, SignalMark, SignalMode
from risk.reviews.service import TOPIC as REVIEWS
from risk.sessions import service as sessions
from runtime.clock import epoch_s
from runtime.database import serialize
from ssf.errors import SharedSignalsError
from ssf.events.caep import RiskLevelChange, SessionRevoked
from ssf.events.registry import parse_event, render_event
from ssf.subject import parse_subject
from transmitters.model import EventToPublish

#: whom to wake after a response was planned and committed
TOPICS: Final = ("changes", "tasks", "deliveries", "polls", REVIEWS)
PUBLISHED: Final = frozenset({"deliveries", "polls"})
REASON_USER: Final = "For your security you were signed out. Please sign in again."

_MODES: Final = {mode.value: mode for mode in SignalMode}

Caps = Mapping[tuple[str, str], Level | None]
#: (tenant, trace) to the `txn` of what we publish because of it
Txns = Mapping[tuple[str, str], str]

log = structlog.get_logger()
_assessed_total = Counter("hub_pipeline_signals_total", "Signals taken off the inbox.", ["outcome"])
_signal_seconds = Histogram(
    "hub_pipeline_signal_seconds",
    "From receiving a signal to its risk being visible.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
)


async def handle_signals(
    connection: AsyncConnection,
    pending: Sequence[PendingSignal],
    *,
    issuer: Callable[[str], str],
    now: datetime,
    mappings: MappingCache | None = None,
) -> frozenset[str]:
    """Take one batch of the inbox through risk, relay, response and publication.

    issuer: of a tenant. mappings: what this process has compiled so far. Returns the topics to
    wake after the commit.

    A signal that cannot be read is marked `failed` with the reason and stops nobody else. One of
    our own events that came back is marked `ignored`, and has no effect at all.
    """
    await lock_tenants(connection, {signal.tenant_id for signal in pending})
    incoming, set_aside = _read(pending, await echoes_among(connection, pending, issuer))
    signals = [each.signal for each in incoming]
    caps = await caps_of(connection, {signal.tenant_id for signal in signals})
    result = await risk.service.assess(connection, signals, caps=caps, now=now, mappings=mappings)
    watched = await guard.watch(connection, signals, result.assessments, now=now)
    assessments = await _again(connection, result.assessments, watched, now=now)
    believed = [each for each in incoming if _source(each.signal) not in watched.quarantined]
    relayed = await relay(connection, believed, now=now)
    topics = await respond(
        connection, assessments, txns=_txns(incoming), held=watched.held, now=now
    )
    if relayed.has_published:
        topics |= PUBLISHED
    if result.reviews:
        topics |= {"changes", REVIEWS}
    marks = [*set_aside, *(_inbox_mark(mark, relayed) for mark in result.marks)]
    await receivers.store.mark_signals(connection, marks, now)
    for state, count in Tally(mark.state for mark in marks).items():
        _assessed_total.labels(state).inc(count)
    return topics


def _read(
    pending: Sequence[PendingSignal], echoes: Collection[tuple[str, str]]
) -> tuple[list[Incoming], list[InboxMark]]:
    """Return what is to be assessed, and the marks of what is not."""
    incoming: list[Incoming] = []
    set_aside: list[InboxMark] = []
    for row in pending:
        if (row.tenant_id, row.signal_id) in echoes:
            set_aside.append(_mark(row, SignalState.IGNORED, "an event of our own that came back"))
            continue
        try:
            incoming.append(Incoming(row=row, signal=signal_of(row)))
        except SharedSignalsError as error:
            set_aside.append(_mark(row, SignalState.FAILED, error.description))
    return incoming, set_aside


def _source(signal: Signal) -> tuple[str, str]:
    return (signal.tenant_id, signal.iss)


async def _again(
    connection: AsyncConnection,
    assessments: Sequence[Assessment],
    watched: Watched,
    *,
    now: datetime,
) -> list[Assessment]:
    """Assess again whom a provider marked that was quarantined just now: its word is void."""
    made: list[Assessment] = []
    for tenant_id in sorted({tenant_id for tenant_id, _ in watched.quarantined}):
        caps = await caps_of(connection, {tenant_id})
        users = {each.user_id for each in assessments if each.tenant_id == tenant_id}
        made += await risk.recall.reassess(connection, tenant_id, users, caps=caps, now=now)
    return guard.merged(assessments, made)


def _txns(incoming: Sequence[Incoming]) -> Txns:
    """Return our own `txn` for what each signal leads to, by (tenant, trace) (SET-15)."""
    txns: dict[tuple[str, str], str] = {}
    for row in (each.row for each in incoming):
        trace_id = risk.service.trace_of(row.txn, row.signal_id)
        txn = own_txn(row.tenant_id, row.iss, row.txn or row.jti)
        txns.setdefault((row.tenant_id, trace_id), txn)
    return txns


async def respond(
    connection: AsyncConnection,
    assessments: Sequence[Assessment],
    *,
    now: datetime,
    txns: Txns = MappingProxyType({}),
    held: frozenset[tuple[str, str]] = frozenset(),
) -> frozenset[str]:
    """Plan what policy ordered and publish what changed, in the transaction of the assessment.

    txns: of the signals behind it, by (tenant, trace); else the trace is a name of our own. held:
    (tenant, user) whose containment waits for a person.

    Returns the topics to wake after the commit: a wake-up that finds nothing costs its receiver
    several queries.
    """
    if not assessments:
        return frozenset()
    orders = await guard.softened(
        connection, [order_of(assessment) for assessment in assessments], held
    )
    counts = {
        tenant_id: await risk.service.count_users(connection, tenant_id)
        # Only whoever would be contained is counted against the users of the tenant.
        for tenant_id in {order.tenant_id for order in orders if order.actions}
    }
    planned = await actions.service.plan(connection, orders, user_counts=counts, now=now)
    await end_sessions(connection, planned, now=now)
    events = [
        risk_event_of(
            assessment,
            txn=txns.get((assessment.tenant_id, assessment.trace_id), assessment.trace_id),
        )
        for assessment in assessments
        if assessment.previous_level != assessment.level and assessment.identifiers
    ]
    published = await transmitters.service.publish(connection, events, now)
    for assessment in assessments:
        _signal_seconds.observe(max(0.0, (now - assessment.received_at).total_seconds()))
        # What changes nothing is no news.
        moved = assessment.level is not assessment.previous_level or assessment.actions
        (log.info if moved else log.debug)(
            "event.assessed",
            tenant_id=assessment.tenant_id,
            user_id=assessment.user_id,
            trace_id=assessment.trace_id,
            previous_level=assessment.previous_level.name,
            current_level=assessment.level.name,
            rule=assessment.rule,
            mode=assessment.mode,
            actions=sorted(assessment.actions),
            would_have=sorted(assessment.would_have),
        )
    topics = _topics(planned, has_published=bool(published))
    if any(each.level is not each.previous_level for each in assessments):
        # Every process decides about live sessions by the levels it knows.
        topics |= {"changes", REVIEWS}
    return topics


async def end_sessions(
    connection: AsyncConnection, planned: Sequence[Planned], *, now: datetime
) -> Tally[tuple[str, str]]:
    """End in the index all sessions of users whose Universal Logout begins, for good.

    To be let go opens none of them again: who is trusted again signs in anew. Returns how many, by
    (tenant, user).
    """
    ended: Tally[tuple[str, str]] = Tally()
    begun = {(plan.tenant_id, plan.user_id): plan for plan in planned if plan.logs_out}
    for tenant_id in sorted({tenant_id for tenant_id, _ in begun}):
        user_ids = {user_id for tenant, user_id in begun if tenant == tenant_id}
        found = await sessions.end_all_of_users(connection, tenant_id, user_ids=user_ids, now=now)
        for user_id, count in found.items():
            ended[tenant_id, user_id] = count
            log.info(
                "sessions.ended",
                tenant_id=tenant_id,
                user_id=user_id,
                count=count,
                containment_id=begun[tenant_id, user_id].containment_id,
                trace_id=begun[tenant_id, user_id].trace_id,
            )
    return ended


async def publish_logouts(
    connection: AsyncConnection, tasks: Sequence[Task], *, now: datetime
) -> None:
    """Perform the due `publish_session_revoked` tasks: one CAEP event each, then settled.

    Publication and settlement share the transaction, so each happens exactly once.
    """
    published = await transmitters.service.publish(
        connection, [logout_event_of(task, now) for task in tasks], now
    )
    by_txn: dict[str, list[str]] = {}
    for delivery in published:
        by_txn.setdefault(delivery.txn or "", []).append(delivery.stream_id)
    receipts = {task.task_id: tuple(by_txn.get(task.containment_id, ())) for task in tasks}
    await actions.service.finish_local(connection, tasks, receipts, now=now)


async def caps_of(connection: AsyncConnection, tenant_ids: set[str]) -> Caps:
    """Return (tenant, issuer) to the highest level that issuer's word may lead to.

    None when it does not count at all.
    """
    caps: dict[tuple[str, str], Level | None] = {}
    for tenant_id in tenant_ids:
        for issuer, level in (await level_caps(connection, tenant_id)).items():
            caps[tenant_id, issuer] = None if level is None else Level[level]
    return caps


async def lock_tenants(connection: AsyncConnection, tenant_ids: set[str]) -> None:
    """Let changes of risk and containment of a tenant happen one transaction after the other."""
    for tenant_id in sorted(tenant_ids):
        await serialize(connection, "pipeline", tenant_id)


def signal_of(row: PendingSignal) -> Signal:
    """Return the signal as risk sees it. Raises SharedSignalsError when it cannot be read."""
    return Signal(
        tenant_id=row.tenant_id,
        signal_id=row.signal_id,
        iss=row.iss,
        source_class=row.source_class,
        level_cap=Level[row.level_cap] if row.level_cap else None,
        mode=_MODES[row.mode],
        event=parse_event(row.event_type, row.payload),
        sub_id=parse_subject(row.sub_id),
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        txn=row.txn,
    )


def order_of(assessment: Assessment) -> ContainmentOrder:
    """Return what the response side has to know of an assessment."""
    return ContainmentOrder(
        tenant_id=assessment.tenant_id,
        user_id=assessment.user_id,
        trace_id=assessment.trace_id,
        level=assessment.level.name,
        reasons=assessment.reasons,
        causes=tuple(
            ContainmentCause(
                detection_id=cause.detection_id,
                name=cause.name,
                issuer=cause.issuer,
                summary=cause.summary,
            )
            for cause in assessment.causes
        ),
        actions=assessment.actions,
        identifiers=assessment.identifiers,
        label=assessment.label,
        received_at=assessment.received_at,
    )


def risk_event_of(assessment: Assessment, *, txn: str) -> EventToPublish:
    """Return the CAEP risk-level-change of an assessment (CAEP-28 to CAEP-33)."""
    occurred_at_s = epoch_s(assessment.occurred_at)
    event = RiskLevelChange(
        principal="USER",
        current_level=assessment.level.name,
        previous_level=assessment.previous_level.name,
        risk_reason=assessment.causes[0].name if assessment.causes else "REMEDIATED",
        event_timestamp=occurred_at_s,
        initiating_entity="policy",
    )
    return EventToPublish(
        tenant_id=assessment.tenant_id,
        event_type=RiskLevelChange.type_uri,
        payload=render_event(event),
        is_rendered=True,
        subjects=assessment.identifiers,
        ordering_key=assessment.user_id,
        txn=txn,
        toe_s=occurred_at_s,
    )


def logout_event_of(task: Task, now: datetime) -> EventToPublish:
    """Return the CAEP session-revoked of a containment; its `txn` is the containment (INT-40)."""
    event = SessionRevoked(
        event_timestamp=epoch_s(now),
        initiating_entity="policy",
        reason_admin={"en": task.payload.reason or "Risk is high."},
        reason_user={"en": REASON_USER},
    )
    return EventToPublish(
        tenant_id=task.tenant_id,
        event_type=SessionRevoked.type_uri,
        payload=render_event(event),
        is_rendered=True,
        subjects=task.payload.identifiers,
        ordering_key=task.user_id,
        txn=task.containment_id,
        toe_s=epoch_s(now),
    )


def _topics(planned: Sequence[Planned], *, has_published: bool) -> frozenset[str]:
    topics: set[str] = set()
    if any(plan.outcome is not PlanOutcome.NOTHING for plan in planned):
        # Whom a containment quarantines is denied from its commit on, by every process.
        topics.add("changes")
    if any(plan.tasks_enqueued for plan in planned):
        topics.add("tasks")
    if has_published:
        topics |= PUBLISHED
    return frozenset(topics)


def _inbox_mark(mark: SignalMark, relayed: Relayed) -> InboxMark:
    waiting = relayed.waiting.get((mark.tenant_id, mark.signal_id))
    if waiting and mark.state == SignalState.IGNORED:
        # It says nothing about risk, but a relay rule waits for the user.
        return InboxMark(
            tenant_id=mark.tenant_id,
            signal_id=mark.signal_id,
            state=SignalState.UNMATCHED,
            detail="to be relayed when its user is known",
            alias_keys=tuple(sorted(waiting)),
        )
    return InboxMark(
        tenant_id=mark.tenant_id,
        signal_id=mark.signal_id,
        state=mark.state,
        detail=mark.detail,
        alias_keys=mark.alias_keys,
    )


def _mark(row: PendingSignal, state: SignalState, detail: str) -> InboxMark:
    return InboxMark(
        tenant_id=row.tenant_id, signal_id=row.signal_id, state=state.value, detail=detail
    )
