"""Queries of pollers: what one may have, what it was handed, what it acknowledged."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from runtime.database import UTCDateTime, chunks
from runtime.statements import Query
from ssf.stream import StreamStatus
from transmitters.delivery.store import IN_LIST_MAX, pending_of, same_lane, set_columns
from transmitters.lanes.store import due_of_lanes, found_by, is_due, oldest_pending
from transmitters.model import DeliveryState, PendingSET, Stream
from transmitters.store import Connection, carries, deliveries, events, is_pending, of_stream

#: SETs of a stream that a poll looks at in the order of their age; more than it may be handed
OLDEST_MAX: Final = 256
_NOW: Final = sa.bindparam("now", type_=UTCDateTime)
_TENANT_ID: Final = sa.bindparam("tenant_id", type_=sa.String)
_STREAM_ID: Final = sa.bindparam("stream_id", type_=sa.String)
_WHOSE: Final = (_TENANT_ID, _STREAM_ID)
_LIMIT: Final = sa.bindparam("limit", type_=sa.Integer)
_JTIS: Final = sa.bindparam("jtis", expanding=True, type_=sa.String)
_THOSE: Final = sa.and_(of_stream(deliveries, _TENANT_ID, _STREAM_ID), deliveries.c.jti.in_(_JTIS))

#: What was queued again and not sent since cannot be what the receiver speaks of: it says again
#: what it said before, because an answer got lost (POLL-14).
_WAS_SENT: Final = deliveries.c.attempts > 0


async def acknowledge(
    connection: Connection,
    tenant_id: str,
    *,
    stream_id: str,
    jtis: Collection[str],
    now: datetime,
) -> int:
    """Mark pending SETs as delivered that were handed out; others are ignored. Return how many."""
    acknowledged = 0
    for some in chunks(jtis, IN_LIST_MAX):
        done = await _ACKNOWLEDGE.rows(
            connection, tenant_id=tenant_id, stream_id=stream_id, jtis=some, now=now
        )
        acknowledged += len(done)
    return acknowledged


_ACKNOWLEDGE: Final = Query(
    sa.update(deliveries)
    .where(_THOSE, is_pending(deliveries), _WAS_SENT)
    .values(state=DeliveryState.DELIVERED.value, settled_at=_NOW, err=None, detail=None)
    .returning(deliveries.c.jti),
    scalars=["tenant_id", "stream_id", "now"],
    lists=["jtis"],
)


async def pending_attempts(
    connection: Connection, tenant_id: str, *, stream_id: str, jtis: Collection[str]
) -> dict[str, tuple[int, str | None]]:
    """Return jti to (attempts, kid) of those of `jtis` that are pending, and were handed out."""
    found: dict[str, tuple[int, str | None]] = {}
    for some in chunks(jtis, IN_LIST_MAX):
        query = sa.select(deliveries.c.jti, deliveries.c.attempts, deliveries.c.kid).where(
            of_stream(deliveries, tenant_id, stream_id),
            deliveries.c.jti.in_(some),
            is_pending(deliveries),
            _WAS_SENT,
        )
        found |= {row.jti: (row.attempts, row.kid) for row in await connection.execute(query)}
    return found


async def has_visible(connection: Connection, stream: Stream, *, now: datetime) -> bool:
    """Return whether a poll of the stream would be handed something now."""
    if not stream.transmits:
        return False
    enabled = stream.status is StreamStatus.ENABLED
    query = _ANY_VISIBLE if enabled else _ANNOUNCEMENT
    return bool(await query.rows(connection, now=now, limit=1, **_whose(stream, enabled=enabled)))


async def visible_sets(
    connection: Connection, stream: Stream, *, now: datetime, limit: int
) -> list[PendingSET]:
    """Return SETs that a poll of the stream may be handed now: the oldest, as far as it looks."""
    if not stream.transmits:
        return []
    enabled = stream.status is StreamStatus.ENABLED
    query = _OLDEST_VISIBLE if enabled else _ANNOUNCEMENT
    whose = _whose(stream, enabled=enabled)
    visible = [row[0] for row in await query.rows(connection, now=now, limit=limit, **whose)]
    found: list[PendingSET] = []
    # A statement of its own: joined to the search, databases would rather read all of the stream.
    for some in chunks(visible, IN_LIST_MAX):
        rows = await _SETS.rows(
            connection, tenant_id=stream.tenant_id, stream_id=stream.stream_id, jtis=some
        )
        found += map(pending_of, rows)
    return found


def _whose(stream: Stream, *, enabled: bool) -> dict[str, str | None]:
    named: dict[str, str | None] = {"tenant_id": stream.tenant_id, "stream_id": stream.stream_id}
    return named if enabled else named | {"announcement": stream.announcement_jti}


def _waits_for_older(delivery: Any) -> sa.ColumnElement[bool]:
    """Something older of the same stream and ordering key is pending, but hidden now."""
    older = deliveries.alias("older")
    hidden = (
        sa.select(older.c.jti)
        .where(same_lane(older, delivery), older.c.jti < delivery.c.jti, older.c.due_at > _NOW)
        .limit(1)
    )
    return hidden.correlate(delivery).scalar_subquery().is_not(None)


def _announcement() -> sa.Select[*tuple[Any, ...]]:
    """What tells of the stream's status is all that is visible while it is not enabled."""
    delivery = deliveries.alias("delivery")
    return (
        sa.select(delivery.c.jti)
        .where(
            of_stream(delivery, *_WHOSE),
            delivery.c.jti == sa.bindparam("announcement", type_=sa.String),
            is_pending(delivery),
            is_due(delivery),
            sa.not_(_waits_for_older(delivery)),
        )
        .limit(_LIMIT)
    )


def _any_visible() -> sa.Select[*tuple[Any, ...]]:
    """What is visible of a lane begins with its oldest SET."""
    walk = due_of_lanes("lanes", whose=_WHOSE, limit=_LIMIT, heads=True)
    return sa.select(walk.c.jti).where(found_by(walk)).limit(_LIMIT)


def _oldest_visible() -> sa.Select[*tuple[Any, ...]]:
    """Look at the oldest SETs, and over the lanes when too much of these waits for others.

    Visible is what is held by no poller while nothing older of its lane is.
    """
    oldest = oldest_pending("oldest", whose=_WHOSE, limit=OLDEST_MAX)
    held = (
        sa.select(oldest.c.ordering_key, sa.func.min(oldest.c.jti).label("jti"))
        .where(sa.not_(is_due(oldest)))
        .group_by(oldest.c.ordering_key)
        .subquery("held")
    )
    seen = (
        sa.select(oldest.c.jti)
        .outerjoin(held, held.c.ordering_key == oldest.c.ordering_key)
        .where(is_due(oldest), sa.or_(held.c.jti.is_(None), oldest.c.jti < held.c.jti))
        .order_by(oldest.c.jti)
        .limit(_LIMIT)
        .cte("seen")
    )
    lacking = sa.and_(_count(seen) < _LIMIT, _count(oldest) >= sa.literal_column(str(OLDEST_MAX)))
    walk = due_of_lanes("lanes", whose=_WHOSE, limit=_LIMIT, heads=False, when=lacking)
    found = sa.union(sa.select(seen.c.jti), sa.select(walk.c.jti).where(found_by(walk)))
    visible = found.subquery("visible")
    return sa.select(visible.c.jti).order_by(visible.c.jti).limit(_LIMIT)


def _count(table: sa.CTE) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).scalar_subquery()


_ASKED: Final = ("tenant_id", "stream_id", "now", "limit")
_ANNOUNCEMENT: Final = Query(_announcement(), scalars=[*_ASKED, "announcement"])
_ANY_VISIBLE: Final = Query(_any_visible(), scalars=_ASKED)
_OLDEST_VISIBLE: Final = Query(_oldest_visible(), scalars=_ASKED)
_SETS: Final = Query(
    sa.select(*set_columns(deliveries))
    .join(events, carries(deliveries))
    .where(_THOSE)
    .order_by(deliveries.c.jti),
    scalars=["tenant_id", "stream_id"],
    lists=["jtis"],
)


async def hand_out(
    connection: Connection,
    tenant_id: str,
    *,
    stream_id: str,
    jtis: Collection[str],
    kid: str,
    until: datetime,
) -> None:
    """Hide SETs from all pollers until a moment; `kid` stays with those that had none yet."""
    for some in chunks(jtis, IN_LIST_MAX):
        await _HAND_OUT.rows(
            connection, tenant_id=tenant_id, stream_id=stream_id, jtis=some, kid=kid, until=until
        )


_HAND_OUT: Final = Query(
    sa.update(deliveries)
    .where(_THOSE)
    .values(
        due_at=sa.bindparam("until", type_=UTCDateTime),
        attempts=deliveries.c.attempts + 1,
        kid=sa.func.coalesce(deliveries.c.kid, sa.bindparam("kid", type_=sa.String)),
    )
    .returning(deliveries.c.jti),
    scalars=["tenant_id", "stream_id", "kid", "until"],
    lists=["jtis"],
)
