"""Queries of pollers: what one may have, what it was handed, what it acknowledged."""

from __future__ import annotations

import functools
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from runtime.database import UTCDateTime, chunks
from runtime.statements import Query
from ssf.stream import StreamStatus
from transmitters.delivery.store import IN_LIST_MAX, pending_of, same_lane, set_columns
from transmitters.model import DeliveryState, PendingSET, Stream
from transmitters.store import Connection, carries, deliveries, events, is_pending, of_stream

_NOW: Final = sa.bindparam("now", type_=UTCDateTime)
_TENANT_ID: Final = sa.bindparam("tenant_id", type_=sa.String)
_STREAM_ID: Final = sa.bindparam("stream_id", type_=sa.String)
_JTIS: Final = sa.bindparam("jtis", expanding=True, type_=sa.String)
_THOSE: Final = sa.and_(of_stream(deliveries, _TENANT_ID, _STREAM_ID), deliveries.c.jti.in_(_JTIS))


async def acknowledge(
    connection: Connection,
    tenant_id: str,
    *,
    stream_id: str,
    jtis: Collection[str],
    now: datetime,
) -> int:
    """Mark pending SETs as delivered; unknown and settled ones are ignored. Return how many."""
    acknowledged = 0
    for some in chunks(jtis, IN_LIST_MAX):
        done = await _ACKNOWLEDGE.rows(
            connection, tenant_id=tenant_id, stream_id=stream_id, jtis=some, now=now
        )
        acknowledged += len(done)
    return acknowledged


_ACKNOWLEDGE: Final = Query(
    sa.update(deliveries)
    .where(_THOSE, is_pending(deliveries))
    .values(state=DeliveryState.DELIVERED.value, settled_at=_NOW, err=None, detail=None)
    .returning(deliveries.c.jti),
    scalars=["tenant_id", "stream_id", "now"],
    lists=["jtis"],
)


async def pending_attempts(
    connection: Connection, tenant_id: str, *, stream_id: str, jtis: Collection[str]
) -> dict[str, tuple[int, str | None]]:
    """Return jti to (attempts, kid) of those of `jtis` that are pending on the stream."""
    found: dict[str, tuple[int, str | None]] = {}
    for some in chunks(jtis, IN_LIST_MAX):
        query = sa.select(deliveries.c.jti, deliveries.c.attempts, deliveries.c.kid).where(
            of_stream(deliveries, tenant_id, stream_id),
            deliveries.c.jti.in_(some),
            is_pending(deliveries),
        )
        found |= {row.jti: (row.attempts, row.kid) for row in await connection.execute(query)}
    return found


async def has_visible(connection: Connection, stream: Stream, *, now: datetime) -> bool:
    """Return whether a poll of the stream would be handed something now."""
    if not stream.transmits:
        return False
    enabled = stream.status is StreamStatus.ENABLED
    query = _visible(enabled=enabled, whole=False)
    return bool(await query.rows(connection, now=now, limit=1, **_whose(stream, enabled=enabled)))


async def visible_sets(
    connection: Connection, stream: Stream, *, now: datetime, limit: int
) -> list[PendingSET]:
    """Return the oldest SETs that a poll of the stream may be handed now."""
    if not stream.transmits:
        return []
    enabled = stream.status is StreamStatus.ENABLED
    query = _visible(enabled=enabled, whole=True)
    whose = _whose(stream, enabled=enabled)
    return [pending_of(row) for row in await query.rows(connection, now=now, limit=limit, **whose)]


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


@functools.cache
def _visible(*, enabled: bool, whole: bool) -> Query:
    """Pending, held by no poller, and nothing older of its ordering key is held by one.

    enabled: else only the announcement is visible. whole: what makes a SET, not only its jti.
    """
    delivery = deliveries.alias("delivery")
    columns = set_columns(delivery) if whole else (delivery.c.jti,)
    query = sa.select(*columns).where(
        of_stream(delivery, _TENANT_ID, _STREAM_ID),
        is_pending(delivery),
        delivery.c.due_at <= _NOW,
        sa.not_(_waits_for_older(delivery)),
    )
    scalars = ["tenant_id", "stream_id", "now", "limit"]
    if whole:
        query = query.join(events, carries(delivery)).order_by(delivery.c.jti)
    if not enabled:
        announced = sa.bindparam("announcement", type_=sa.String)
        query = query.where(delivery.c.jti == announced)
        scalars.append("announcement")
    return Query(query.limit(sa.bindparam("limit", type_=sa.Integer)), scalars=scalars)


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
