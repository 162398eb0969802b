"""Queries of delivery: what is due, what a poller may have, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from runtime.database import chunks
from runtime.queue import BUCKETS
from ssf.stream import DeliveryMethod, StreamStatus
from transmitters.delivery.model import (
    PushTarget,
    PushWork,
    StreamHealth,
)
from transmitters.model import (
    DeliveryState,
    PendingSET,
    StoredEvent,
)
from transmitters.store import (
    Connection,
    carries,
    deliveries,
    events,
    is_pending,
    of_stream,
    streams,
)

IN_LIST_MAX: Final = 500
_EVENT_COLUMNS: Final = (
    events.c.event_type,
    events.c.payload,
    events.c.subjects,
    events.c.txn,
    events.c.toe,
)


_TARGET_COLUMNS: Final = (
    streams.c.tenant_id,
    streams.c.stream_id,
    streams.c.bucket,
    streams.c.endpoint_url,
    streams.c.authorization_header_sealed,
    streams.c.aud,
    streams.c.subject_format,
    streams.c.failures,
    streams.c.failing_since,
)


def _set_columns(delivery: Any) -> tuple[Any, ...]:
    """What makes a `PendingSET`, once the event is joined."""
    own = (delivery.c.jti, delivery.c.iat, delivery.c.kid, delivery.c.attempts)
    return (*own, *_EVENT_COLUMNS)


# Scalar subqueries on purpose: PostgreSQL turns EXISTS into joins over all that is queued, and
# without fresh statistics it does so just when much has been queued.


def _is_head(delivery: Any) -> sa.ColumnElement[bool]:
    """Nothing older of the same stream and ordering key is pending."""
    older = deliveries.alias("older")
    oldest = sa.select(sa.func.min(older.c.jti)).where(_same_lane(older, delivery))
    is_oldest: sa.ColumnElement[bool] = (
        delivery.c.jti == oldest.correlate(delivery).scalar_subquery()
    )
    return is_oldest


def _waits_for_older(delivery: Any, now: datetime) -> sa.ColumnElement[bool]:
    """Something older of the same stream and ordering key is pending, but hidden now."""
    older = deliveries.alias("older")
    hidden = (
        sa.select(older.c.jti)
        .where(_same_lane(older, delivery), older.c.jti < delivery.c.jti, older.c.due_at > now)
        .limit(1)
    )
    return hidden.correlate(delivery).scalar_subquery().is_not(None)


def _same_lane(older: Any, delivery: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        older.c.tenant_id == delivery.c.tenant_id,
        older.c.stream_id == delivery.c.stream_id,
        older.c.ordering_key == delivery.c.ordering_key,
        is_pending(older),
    )


def _pending_of(row: Any) -> PendingSET:
    return PendingSET(
        jti=row.jti,
        iat=row.iat,
        kid=row.kid,
        attempts=row.attempts,
        event=StoredEvent(
            event_type=row.event_type,
            payload=row.payload,
            subjects=row.subjects,
            txn=row.txn,
            toe=row.toe,
        ),
    )


async def system_push_targets(
    connection: Connection,
    *,
    buckets: Collection[int],
    now: datetime,
    limit: int,
    share: int,
    after: tuple[str, str] | None,
) -> list[PushTarget]:
    """Return push streams that have SETs due and may be called now, in order of their ids.

    share: how many SETs of one stream a search looks at. after: the (tenant, stream) to go on
    behind, so that a caller who takes little each time still gets round to every stream.
    Spans tenants. Costs two index probes per stream, however much is queued.
    """
    due = deliveries.alias("due")
    due_jtis = (
        sa.select(due.c.jti)
        .where(
            due.c.tenant_id == streams.c.tenant_id,
            due.c.stream_id == streams.c.stream_id,
            is_pending(due),
            due.c.due_at <= now,
            _is_head(due),
        )
        .order_by(due.c.jti)
        .limit(1)
        .correlate(streams)
    )
    query = (
        sa.select(
            *_TARGET_COLUMNS, due_jtis.offset(share - 1).scalar_subquery().label("share_ends")
        )
        .where(
            streams.c.method == DeliveryMethod.PUSH.value,
            streams.c.status == StreamStatus.ENABLED.value,
            sa.or_(streams.c.backoff_until.is_(None), streams.c.backoff_until <= now),
            due_jtis.scalar_subquery().is_not(None),
        )
        .order_by(streams.c.tenant_id, streams.c.stream_id)
        .limit(limit)
    )
    if len(buckets) < BUCKETS:
        query = query.where(streams.c.bucket.in_(sorted(buckets)))
    if after is not None:
        query = query.where(sa.tuple_(streams.c.tenant_id, streams.c.stream_id) > after)
    rows = (await connection.execute(query)).mappings()
    return [_target_of({str(name): value for name, value in row.items()}) for row in rows]


def _target_of(row: dict[str, Any]) -> PushTarget:
    return PushTarget(**{**row, "aud": tuple(row["aud"])})


async def due_pushes(
    connection: Connection,
    tenant_id: str,
    *,
    targets: Sequence[PushTarget],
    now: datetime,
    limit: int,
) -> list[PushWork]:
    """Return the oldest due SET of each ordering key, by stream, within the streams' shares.

    targets: of this tenant; more than one only if none of them has a `share_ends`.
    """
    delivery = deliveries.alias("delivery")
    by_id = {target.stream_id: target for target in targets}
    query = (
        sa.select(
            delivery.c.stream_id,
            delivery.c.ordering_key,
            delivery.c.queued_at,
            *_set_columns(delivery),
        )
        .join(events, carries(delivery))
        .where(
            delivery.c.tenant_id == tenant_id,
            delivery.c.stream_id.in_(list(by_id)),
            is_pending(delivery),
            delivery.c.due_at <= now,
            _is_head(delivery),
        )
        .order_by(delivery.c.stream_id, delivery.c.jti)
        .limit(limit)
    )
    if targets[0].share_ends is not None:
        query = query.where(delivery.c.jti <= targets[0].share_ends)
    return [
        PushWork(
            target=by_id[row.stream_id],
            ordering_key=row.ordering_key,
            queued_at=row.queued_at,
            pending=_pending_of(row),
        )
        for row in await connection.execute(query)
    ]


async def settle_deliveries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record what became of pending SETs; those settled or dropped meanwhile stay as they are.

    Each row: tenant_id, stream_id, jti, state, attempts, due_at, kid, err, detail, settled_at.
    """
    if not rows:
        return
    table = deliveries
    statement = (
        sa.update(table)
        .where(
            table.c.tenant_id == sa.bindparam("of_tenant_id"),
            table.c.stream_id == sa.bindparam("of_stream_id"),
            table.c.jti == sa.bindparam("of_jti"),
            is_pending(table),
        )
        .values(
            {
                name: sa.bindparam(f"new_{name}")
                for name in ("state", "attempts", "due_at", "kid", "err", "detail", "settled_at")
            }
        )
    )
    keys = ("tenant_id", "stream_id", "jti")
    parameters = [
        {(f"of_{name}" if name in keys else f"new_{name}"): value for name, value in row.items()}
        for row in rows
    ]
    await connection.execute(statement, parameters)


async def stream_health(
    connection: Connection, tenant_id: str, *, stream_ids: Collection[str]
) -> dict[str, StreamHealth]:
    """Return stream id to health, of those that still exist."""
    found: dict[str, StreamHealth] = {}
    for some in chunks(sorted(stream_ids), IN_LIST_MAX):
        query = sa.select(
            streams.c.stream_id,
            streams.c.failures,
            streams.c.failing_since,
            streams.c.backoff_until,
        ).where(streams.c.tenant_id == tenant_id, streams.c.stream_id.in_(some))
        found |= {
            row.stream_id: StreamHealth(
                failures=row.failures,
                failing_since=row.failing_since,
                backoff_until=row.backoff_until,
            )
            for row in await connection.execute(query)
        }
    return found


async def set_stream_health(
    connection: Connection, tenant_id: str, *, stream_id: str, health: StreamHealth
) -> None:
    """Record how a push stream does."""
    await connection.execute(
        sa.update(streams).where(of_stream(streams, tenant_id, stream_id)).values(asdict(health))
    )


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
        result = await connection.execute(
            sa.update(deliveries)
            .where(
                of_stream(deliveries, tenant_id, stream_id),
                deliveries.c.jti.in_(some),
                is_pending(deliveries),
            )
            .values(state=DeliveryState.DELIVERED.value, settled_at=now, err=None, detail=None)
        )
        acknowledged += int(result.rowcount)
    return acknowledged


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


def _visible(delivery: Any, tenant_id: str, stream_id: str, now: datetime) -> Any:
    """Pending, held by no poller, and nothing older of its ordering key is held by one."""
    return sa.and_(
        of_stream(delivery, tenant_id, stream_id),
        is_pending(delivery),
        delivery.c.due_at <= now,
        sa.not_(_waits_for_older(delivery, now)),
    )


async def has_visible(
    connection: Connection, tenant_id: str, *, stream_id: str, now: datetime
) -> bool:
    """Return whether a poll would be handed something now."""
    delivery = deliveries.alias("delivery")
    query = sa.select(delivery.c.jti).where(_visible(delivery, tenant_id, stream_id, now)).limit(1)
    return await connection.scalar(query) is not None


async def visible_sets(
    connection: Connection, tenant_id: str, *, stream_id: str, now: datetime, limit: int
) -> list[PendingSET]:
    """Return the oldest SETs that a poll may be handed now."""
    delivery = deliveries.alias("delivery")
    query = (
        sa.select(*_set_columns(delivery))
        .join(events, carries(delivery))
        .where(_visible(delivery, tenant_id, stream_id, now))
        .order_by(delivery.c.jti)
        .limit(limit)
    )
    return [_pending_of(row) for row in await connection.execute(query)]


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
        await connection.execute(
            sa.update(deliveries)
            .where(of_stream(deliveries, tenant_id, stream_id), deliveries.c.jti.in_(some))
            .values(
                due_at=until,
                attempts=deliveries.c.attempts + 1,
                kid=sa.func.coalesce(deliveries.c.kid, kid),
            )
        )
