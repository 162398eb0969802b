"""The hot writes of the transmitter: turns of pollers, and outcomes of pushes, in batches.

They run where the database is written: on SQLite in the core process, whoever sends them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import structlog

from runtime.queue import fences_valid
from runtime.writer import Operation
from ssf.push import PushClass
from transmitters.delivery import store
from transmitters.delivery.model import (
    POLL_VISIBILITY_S,
    Decision,
    PollPage,
    PollTurn,
    PushSettlement,
    decide_push,
    decide_refusal,
)
from transmitters.health import store as health_store
from transmitters.metrics import attempts_total
from transmitters.model import (
    DeliveryState,
)
from transmitters.polling import store as polling
from transmitters.store import Connection, get_stream

log = structlog.get_logger()


async def _apply_poll_turns(connection: Connection, turns: Sequence[PollTurn]) -> list[PollPage]:
    pages: dict[int, PollPage] = {}
    # Streams are locked in one order everywhere, so that two batches cannot wait for each other.
    order = sorted(range(len(turns)), key=lambda i: (turns[i].tenant_id, turns[i].stream_id))
    for i in order:
        pages[i] = await _apply_poll_turn(connection, turns[i])
    return [pages[i] for i in range(len(turns))]


async def _apply_poll_turn(connection: Connection, turn: PollTurn) -> PollPage:
    """Settle what was reported, then hand out: in this order (POLL-10)."""
    tenant_id, stream_id = turn.tenant_id, turn.stream_id
    stream = await get_stream(connection, tenant_id, stream_id=stream_id, hold=True)
    if stream is None or not turn.may_poll(stream):
        return PollPage(known=False)
    if turn.acks:
        acknowledged = await polling.acknowledge(
            connection, tenant_id, stream_id=stream_id, jtis=turn.acks, now=turn.at
        )
        attempts_total.labels("poll", "delivered").inc(acknowledged)
    if turn.refusals:
        await _settle_refusals(connection, turn)
    found = await polling.visible_sets(connection, stream, now=turn.at, limit=turn.sets_max + 1)
    handed_out = found[: turn.sets_max]
    await polling.hand_out(
        connection,
        tenant_id,
        stream_id=stream_id,
        jtis=[pending.jti for pending in handed_out],
        kid=turn.kid,
        until=turn.at + timedelta(seconds=POLL_VISIBILITY_S),
    )
    return PollPage(
        known=True,
        pending=tuple(
            msgspec.structs.replace(pending, kid=pending.kid or turn.kid) for pending in handed_out
        ),
        more_available=len(found) > turn.sets_max,
    )


async def _settle_refusals(connection: Connection, turn: PollTurn) -> None:
    refusals = {refusal.jti: refusal for refusal in turn.refusals}
    standing = await polling.pending_attempts(
        connection, turn.tenant_id, stream_id=turn.stream_id, jtis=list(refusals)
    )
    rows = []
    for jti, (attempts, kid) in standing.items():
        refusal = refusals[jti]
        decision = decide_refusal(refusal, attempts=attempts, jitter=turn.jitter)
        attempts_total.labels("poll", decision.state.value).inc()
        key = {"tenant_id": turn.tenant_id, "stream_id": turn.stream_id, "jti": jti}
        outcome = {"err": refusal.err, "detail": refusal.detail, "kid": kid, "attempts": attempts}
        # Those of pushes: a stream that is pushed again some day begins anew.
        outcome["lone_attempts"] = 0
        rows.append({**key, **outcome, **_standing(decision, turn.at)})
        _log_dead_letter(decision, key, err=refusal.err)
    await store.settle_deliveries(connection, rows)


async def _apply_settlements(
    connection: Connection, settlements: Sequence[PushSettlement]
) -> list[bool]:
    """Record what push attempts came to; those whose lane has another owner by now count not.

    Nor does a failure at an endpoint, or with credentials, that the stream has no more: its SET is
    due as it was.
    """
    valid = await fences_valid(connection, {settlement.fence for settlement in settlements})
    own = [settlement for settlement in settlements if settlement.fence in valid]
    epochs = await _delivery_epochs(connection, own)
    decided = [
        (settlement, decide_push(settlement))
        for settlement in own
        if not settlement.is_outdated(epochs.get((settlement.tenant_id, settlement.stream_id)))
    ]
    rows = []
    for settlement, decision in decided:
        key = {
            "tenant_id": settlement.tenant_id,
            "stream_id": settlement.stream_id,
            "jti": settlement.jti,
        }
        delivered = decision.state is DeliveryState.DELIVERED
        outcome = {
            "err": None if delivered else settlement.err,
            "detail": None if delivered else settlement.detail,
            "kid": settlement.kid,
            "attempts": settlement.attempts,
            "lone_attempts": settlement.lone_attempts,
        }
        rows.append({**key, **outcome, **_standing(decision, settlement.at)})
        _log_dead_letter(decision, key, err=settlement.err)
    # Streams before their deliveries, as everywhere: two transactions never wait for each other.
    await _settle_streams(connection, decided)
    await store.settle_deliveries(connection, rows)
    return [settlement.fence in valid for settlement in settlements]


async def _delivery_epochs(
    connection: Connection, settlements: Sequence[PushSettlement]
) -> dict[store.StreamKey, int]:
    """Hold the streams, so that none gets another endpoint meanwhile; not when all went well."""
    if all(settlement.klass == PushClass.DELIVERED for settlement in settlements):
        return {}
    by_tenant: defaultdict[str, set[str]] = defaultdict(set)
    for settlement in settlements:
        by_tenant[settlement.tenant_id].add(settlement.stream_id)
    found: dict[store.StreamKey, int] = {}
    for tenant_id in sorted(by_tenant):
        epochs = await health_store.delivery_epochs(
            connection, tenant_id, stream_ids=by_tenant[tenant_id]
        )
        found |= {(tenant_id, stream_id): epoch for stream_id, epoch in epochs.items()}
    return found


def _standing(decision: Decision, at: datetime) -> dict[str, Any]:
    waits = decision.state is DeliveryState.PENDING
    return {
        "state": decision.state.value,
        "due_at": at + timedelta(seconds=decision.retry_in_s) if waits else at,
        "settled_at": None if waits else at,
    }


def _log_dead_letter(decision: Decision, key: Mapping[str, Any], *, err: str | None) -> None:
    if decision.state is DeliveryState.DEAD:
        log.warning("delivery.dead_lettered", **key, err=err)


async def _settle_streams(
    connection: Connection, decided: Iterable[tuple[PushSettlement, Decision]]
) -> None:
    """Rest streams whose endpoint is in trouble; let those run that answer again."""
    by_tenant: defaultdict[str, list[tuple[PushSettlement, Decision]]] = defaultdict(list)
    for settlement, decision in decided:
        by_tenant[settlement.tenant_id].append((settlement, decision))
    for tenant_id in sorted(by_tenant):
        stream_ids = {settlement.stream_id for settlement, _ in by_tenant[tenant_id]}
        before = await health_store.stream_health(connection, tenant_id, stream_ids=stream_ids)
        health = dict(before)
        for settlement, decision in by_tenant[tenant_id]:
            # A stream that is gone by now has no health to keep.
            if settlement.stream_id in health:
                known = health[settlement.stream_id]
                health[settlement.stream_id] = known.after(settlement, decision)
        for stream_id in sorted(health):
            if health[stream_id] != before[stream_id]:
                await health_store.set_stream_health(
                    connection, tenant_id, stream_id=stream_id, health=health[stream_id]
                )


POLL: Final = Operation(
    name="transmitters.poll", item=PollTurn, result=PollPage, handle=_apply_poll_turns
)
SETTLE: Final = Operation(
    name="transmitters.settle",
    item=PushSettlement,
    result=bool,
    handle=_apply_settlements,
    is_own=True,
)
OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (POLL, SETTLE)
