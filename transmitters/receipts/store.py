"""Named queries of receipts, dead letters, and what is sent again. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from runtime.database import chunks
from runtime.ids import ULID_MS_MAX, ulid_from_ms, ulid_ms
from transmitters.model import DeadLetter, DeliveryReceipt, DeliveryState
from transmitters.receipts.model import (
    CLOCKS_DIFFER_S,
    EVENTS_OF_TXN_MAX,
    LookedAt,
    Period,
    ReceiptFilter,
    Wanted,
)
from transmitters.store import (
    IN_LIST_MAX,
    Connection,
    carries,
    deliveries,
    events,
    of_stream,
)

#: a literal, not a parameter: only then the databases may use the partial index
_IS_DEAD: Final = deliveries.c.state == sa.literal_column("'dead'")
_RECEIPT_COLUMNS: Final = (
    "tenant_id",
    "stream_id",
    "jti",
    "iat",
    "kid",
    "state",
    "attempts",
    "err",
    "detail",
    "queued_at",
    "due_at",
    "settled_at",
)


async def dead_letters(
    connection: Connection, tenant_id: str, *, limit: int, before: str | None = None
) -> list[DeadLetter]:
    """Return SETs that were given up, newest first. before: a jti to go on behind."""
    query = (
        sa.select(
            deliveries.c.tenant_id,
            deliveries.c.stream_id,
            deliveries.c.jti,
            events.c.event_type,
            deliveries.c.err,
            deliveries.c.detail,
            deliveries.c.attempts,
            deliveries.c.queued_at,
            deliveries.c.settled_at,
        )
        .join(events, carries(deliveries))
        .where(deliveries.c.tenant_id == tenant_id, _IS_DEAD)
        .order_by(deliveries.c.jti.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(deliveries.c.jti < before)
    return [
        DeadLetter(**{str(name): value for name, value in row.items()})
        for row in (await connection.execute(query)).mappings()
    ]


async def list_receipts(
    connection: Connection,
    tenant_id: str,
    wanted: ReceiptFilter,
    *,
    before: str | None = None,
    limit: int,
) -> list[DeliveryReceipt]:
    """Return a page of deliveries, newest first. before: a jti to go on behind.

    Stream, jti, txn and period are found by index. A state or an event type that few SETs have is
    looked for among all that the others leave.
    """
    query = (
        sa.select(
            *(deliveries.c[name] for name in _RECEIPT_COLUMNS), events.c.event_type, events.c.txn
        )
        .join(events, carries(deliveries))
        .where(*await _conditions(connection, tenant_id, wanted))
        .order_by(deliveries.c.jti.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(deliveries.c.jti < before)
    return [
        DeliveryReceipt(**{**row, "state": DeliveryState(row["state"])})
        for row in (await connection.execute(query)).mappings()
    ]


async def _conditions(
    connection: Connection, tenant_id: str, wanted: ReceiptFilter
) -> list[sa.ColumnElement[bool]]:
    where = deliveries.c.tenant_id == tenant_id
    if wanted.stream_id is not None:
        where = of_stream(deliveries, tenant_id, wanted.stream_id)
    conditions = [where, *await _in_period(connection, where, wanted.period)]
    if wanted.state is DeliveryState.DEAD:
        conditions.append(_IS_DEAD)
    elif wanted.state is not None:
        conditions.append(deliveries.c.state == wanted.state.value)
    if wanted.jti is not None:
        conditions.append(deliveries.c.jti == wanted.jti)
    if wanted.event_type is not None:
        conditions.append(events.c.event_type == wanted.event_type)
    if wanted.txn is not None:
        conditions.append(await _of_txn(connection, tenant_id, wanted.txn))
    return conditions


async def _of_txn(connection: Connection, tenant_id: str, txn: str) -> sa.ColumnElement[bool]:
    """Return the condition that a delivery carries an event of this `txn`.

    Both are made in one transaction, the event's id first, so the times in the ids are near.
    """
    found = await connection.scalars(
        sa.select(events.c.event_id)
        .where(events.c.tenant_id == tenant_id, events.c.txn == txn)
        .order_by(events.c.event_id.desc())
        .limit(EVENTS_OF_TXN_MAX)
    )
    event_ids = list(found)
    times = [ulid_ms(event_id.partition("_")[2]) for event_id in event_ids] or [0]
    around = CLOCKS_DIFFER_S * 1000
    return sa.and_(
        deliveries.c.event_id.in_(event_ids),
        deliveries.c.jti >= ulid_from_ms(min(times) - around),
        deliveries.c.jti < ulid_from_ms(max(times) + around),
    )


async def _in_period(
    connection: Connection, where: sa.ColumnElement[bool], period: Period
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a period: exact ones of `iat`, and a span of jti to look in.

    where: what the rows have in common; within it an index orders by jti.
    """
    conditions: list[sa.ColumnElement[bool]] = []
    if period.first_s is not None:
        first = await _first_ms(connection, where, period.first_s - CLOCKS_DIFFER_S)
        conditions += [
            deliveries.c.iat >= period.first_s,
            # The millisecond before may hold some that were issued later than its first one.
            deliveries.c.jti >= ulid_from_ms(first - 1),
        ]
    if period.end_s is not None:
        end = await _first_ms(connection, where, period.end_s + CLOCKS_DIFFER_S)
        conditions += [deliveries.c.iat < period.end_s, deliveries.c.jti < ulid_from_ms(end)]
    return conditions


async def _first_ms(connection: Connection, where: sa.ColumnElement[bool], iat: int) -> int:
    """Return the first millisecond from which on every jti is of a SET issued at `iat` or later.

    `iat` rises with the jti, give or take what clocks differ, so bisection finds it in at most 48
    probes of the index, however many SETs there are, and no index has to be kept for it.
    """
    low, high = 0, ULID_MS_MAX
    probe = (
        sa.select(deliveries.c.jti, deliveries.c.iat)
        .where(where, deliveries.c.jti >= sa.bindparam("at_least", type_=sa.String))
        .order_by(deliveries.c.jti)
        .limit(1)
    )
    while low < high:
        middle = (low + high) // 2
        row = (await connection.execute(probe, {"at_least": ulid_from_ms(middle)})).first()
        if row is None or row.iat >= iat:
            high = middle
        else:
            low = ulid_ms(row.jti) + 1
    return low


async def look_at(
    connection: Connection, tenant_id: str, *, stream_id: str, wanted: Wanted, limit: int
) -> list[LookedAt]:
    """Return SETs of a stream among which the wanted ones are, oldest first; at most `limit`.

    Others may be among them: that the limit counts what is read keeps a call short. Of dead ones
    there is an index.
    """
    where = of_stream(deliveries, tenant_id, stream_id)
    query = (
        sa.select(
            deliveries.c.jti,
            deliveries.c.iat,
            deliveries.c.state,
            events.c.event_type,
            events.c.subjects,
        )
        .join(events, carries(deliveries))
        .where(where, *await _in_period(connection, where, wanted.period))
        .order_by(deliveries.c.jti)
        .limit(limit)
    )
    if wanted.state is DeliveryState.DEAD:
        query = query.where(_IS_DEAD)
    if wanted.jti is not None:
        query = query.where(deliveries.c.jti == wanted.jti)
    if wanted.after is not None:
        query = query.where(deliveries.c.jti > wanted.after)
    return [
        LookedAt(
            jti=row.jti,
            iat=row.iat,
            state=DeliveryState(row.state),
            event_type=row.event_type,
            subjects=row.subjects,
        )
        for row in await connection.execute(query)
    ]


async def queue_again(
    connection: Connection,
    tenant_id: str,
    *,
    stream_id: str,
    jtis: Sequence[str],
    state: DeliveryState,
    now: datetime,
) -> int:
    """Queue SETs again that are in this state, unchanged; return how many."""
    changed = 0
    fresh: dict[str, Any] = {
        "state": DeliveryState.PENDING.value,
        "attempts": 0,
        "lone_attempts": 0,
        "due_at": now,
        "queued_at": now,
        "err": None,
        "detail": None,
        "settled_at": None,
    }
    for some in chunks(jtis, IN_LIST_MAX):
        result = await connection.execute(
            sa.update(deliveries)
            .where(
                of_stream(deliveries, tenant_id, stream_id),
                deliveries.c.jti.in_(some),
                deliveries.c.state == state.value,
            )
            .values(fresh)
        )
        changed += int(result.rowcount)
    return changed
