"""Named queries of the upkeep. All are bounded and use an index. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from runtime.ids import ulid_from_ms, ulid_ms
from runtime.statements import Query
from ssf.stream import StreamStatus
from transmitters.delivery.model import REFUSED_IN_ROW_MAX
from transmitters.lanes.store import next_stream
from transmitters.model import DeliveryState
from transmitters.store import Connection, deliveries, events, is_pending, of_stream, streams
from transmitters.upkeep.model import MADE_WITHIN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class OldDelivery:
    """What the upkeep has to know of a delivery."""

    jti: str
    iat: int
    queued_at: datetime
    settled_at: datetime | None


_OLD: Final = (
    deliveries.c.jti,
    deliveries.c.iat,
    deliveries.c.queued_at,
    deliveries.c.settled_at,
)


# --- what is settled ------------------------------------------------------------------------------


async def oldest_deliveries(
    connection: Connection, tenant_id: str, *, after: str, limit: int
) -> list[OldDelivery]:
    """Return deliveries of a tenant in any state, in order of publication. after: a jti."""
    query = (
        sa.select(*_OLD)
        .where(deliveries.c.tenant_id == tenant_id, deliveries.c.jti > after)
        .order_by(deliveries.c.jti)
        .limit(limit)
    )
    return [OldDelivery(**row) for row in (await connection.execute(query)).mappings()]


async def delete_settled(
    connection: Connection, tenant_id: str, *, jtis: Sequence[str], until: datetime
) -> int:
    """Delete those that are settled, and were at `until`; return how many."""
    result = await connection.execute(
        sa.delete(deliveries).where(
            deliveries.c.tenant_id == tenant_id,
            deliveries.c.jti.in_(jtis),
            deliveries.c.state != DeliveryState.PENDING.value,
            deliveries.c.settled_at <= until,
        )
    )
    return int(result.rowcount)


async def unused_events(
    connection: Connection, tenant_id: str, *, until: datetime, limit: int
) -> list[str]:
    """Return the oldest events made until a moment that no delivery refers to.

    An event is made just before its deliveries, so one that is older than the oldest delivery
    belongs to none; no index of events has to be kept in the table of deliveries for this.
    """
    oldest = await connection.scalar(
        sa.select(deliveries.c.jti)
        .where(deliveries.c.tenant_id == tenant_id)
        .order_by(deliveries.c.jti)
        .limit(1)
    )
    query = (
        sa.select(events.c.event_id, events.c.created_at)
        .where(events.c.tenant_id == tenant_id)
        .order_by(events.c.event_id)
        .limit(limit)
    )
    if oldest is not None:
        first = ulid_from_ms(ulid_ms(oldest) - MADE_WITHIN_S * 1000)
        query = query.where(events.c.event_id < f"evt_{first}")
    rows = (await connection.execute(query)).all()
    return [row.event_id for row in rows if row.created_at <= until]


async def delete_events(connection: Connection, tenant_id: str, *, event_ids: Sequence[str]) -> int:
    """Delete events; return how many."""
    result = await connection.execute(
        sa.delete(events).where(events.c.tenant_id == tenant_id, events.c.event_id.in_(event_ids))
    )
    return int(result.rowcount)


# --- what is held ---------------------------------------------------------------------------------


async def streams_with_pending(
    connection: Connection, tenant_id: str, *, after: str, limit: int
) -> list[tuple[str, bool]]:
    """Return ids that something is pending for, in order, and whether each is of a stream.

    Costs an index probe per id found, whatever is queued.
    """
    rows = await _HOLDING.rows(connection, tenant_id=tenant_id, after=after, at_most=limit)
    return [(stream_id, is_there is not None) for stream_id, is_there in rows]


def _holding() -> Query:
    tenant_id = sa.bindparam("tenant_id", type_=sa.String)
    start: sa.Select[*tuple[Any, ...]] = sa.select(
        sa.bindparam("after", type_=sa.String).label("stream_id"),
        sa.literal_column("0").label("place"),
    )
    found = start.cte("found", recursive=True)
    following = next_stream(tenant_id, found.c.stream_id, found=found)
    found = found.union_all(
        sa.select(following, found.c.place + 1).where(
            found.c.stream_id.is_not(None),
            found.c.place < sa.bindparam("at_most", type_=sa.Integer),
        )
    )
    is_there = (
        sa.select(streams.c.stream_id)
        .where(of_stream(streams, tenant_id, found.c.stream_id))
        .correlate(found)
        .scalar_subquery()
    )
    return Query(
        sa.select(found.c.stream_id, is_there)
        .where(found.c.place > 0, found.c.stream_id.is_not(None))
        .order_by(found.c.place),
        scalars=["tenant_id", "after", "at_most"],
    )


_HOLDING: Final = _holding()


async def oldest_pending(
    connection: Connection, tenant_id: str, *, stream_id: str, limit: int
) -> list[OldDelivery]:
    """Return what a stream holds, oldest first."""
    query = (
        sa.select(*_OLD)
        .where(of_stream(deliveries, tenant_id, stream_id), is_pending(deliveries))
        .order_by(deliveries.c.jti)
        .limit(limit)
    )
    return [OldDelivery(**row) for row in (await connection.execute(query)).mappings()]


async def pending_before(
    connection: Connection, tenant_id: str, *, stream_id: str, before: str | None, hop: int
) -> str | None:
    """Return the jti of the `hop`-th pending SET of a stream before a jti, None when it has less.

    before: None begins at the newest.
    """
    query = (
        sa.select(deliveries.c.jti)
        .where(of_stream(deliveries, tenant_id, stream_id), is_pending(deliveries))
        .order_by(deliveries.c.jti.desc())
        .offset(hop - 1)
        .limit(1)
    )
    if before is not None:
        query = query.where(deliveries.c.jti < before)
    jti: str | None = await connection.scalar(query)
    return jti


async def drop(
    connection: Connection,
    tenant_id: str,
    *,
    stream_id: str,
    jtis: Sequence[str],
    err: str,
    now: datetime,
) -> int:
    """Drop pending SETs of a stream for a reason; return how many."""
    result = await connection.execute(
        sa.update(deliveries)
        .where(
            of_stream(deliveries, tenant_id, stream_id),
            deliveries.c.jti.in_(jtis),
            is_pending(deliveries),
        )
        .values(state=DeliveryState.DROPPED.value, err=err, settled_at=now)
    )
    return int(result.rowcount)


# --- who is silent --------------------------------------------------------------------------------


async def note_activity(
    connection: Connection, tenant_id: str, *, stream_id: str, at: datetime
) -> None:
    """Remember that the receiver of a stream did something."""
    await connection.execute(
        sa.update(streams)
        .where(
            of_stream(streams, tenant_id, stream_id),
            sa.or_(streams.c.active_at.is_(None), streams.c.active_at < at),
        )
        .values(active_at=at)
    )


async def begin_timers(connection: Connection, tenant_id: str, *, now: datetime) -> int:
    """Let the time of streams run from now on of which no activity is known; return how many."""
    result = await connection.execute(
        sa.update(streams)
        .where(streams.c.tenant_id == tenant_id, streams.c.active_at.is_(None))
        .values(active_at=now)
    )
    return int(result.rowcount)


async def refused_streams(connection: Connection, tenant_id: str, *, limit: int) -> list[str]:
    """Return enabled streams whose endpoint refuses all that it is sent."""
    query = (
        sa.select(streams.c.stream_id)
        .where(
            streams.c.tenant_id == tenant_id,
            streams.c.status == StreamStatus.ENABLED.value,
            streams.c.refused_in_row >= REFUSED_IN_ROW_MAX,
        )
        .order_by(streams.c.stream_id)
        .limit(limit)
    )
    return list(await connection.scalars(query))


async def silent_streams(
    connection: Connection, tenant_id: str, *, since: datetime, limit: int
) -> list[str]:
    """Return enabled streams whose receiver did nothing since a moment, and those not yet timed."""
    query = (
        sa.select(streams.c.stream_id)
        .where(
            streams.c.tenant_id == tenant_id,
            streams.c.status == StreamStatus.ENABLED.value,
            sa.or_(streams.c.active_at.is_(None), streams.c.active_at <= since),
        )
        .order_by(streams.c.stream_id)
        .limit(limit)
    )
    return list(await connection.scalars(query))
