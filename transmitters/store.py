"""Tables and named queries of the transmitter: streams, events, deliveries.

A delivery is pending until it is delivered, dead or dropped; `due_at` says from when on it may be
sent, or handed out (again). Its `jti` is a ULID, so it sorts by time of publication, and within
one ordering key of one stream the order of `jti` is the order of delivery.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    id_column,
    metadata,
    tenant_column,
)
from runtime.queue import bucket_of
from ssf.stream import DeliveryMethod, StreamStatus
from transmitters.model import (
    ORDERING_KEY_CHARACTERS_MAX,
    DeadLetter,
    DeliveryState,
    PendingSET,
    PushWork,
    StoredEvent,
    Stream,
    StreamHealth,
)

#: what services hold while they are inside a transaction
Connection: TypeAlias = AsyncConnection

IN_LIST_MAX: Final = 500
#: sorts after every ULID, in every collation that keeps digits before letters
_AFTER_ALL: Final = "Z" * 26

streams: Final = sa.Table(
    "streams",
    metadata,
    tenant_column(),
    id_column("stream_id"),
    sa.Column("client_id", sa.String(64), nullable=False),
    sa.Column("app_id", sa.String(64)),
    sa.Column("aud", JSONDocument, nullable=False),
    sa.Column("method", sa.String(64), nullable=False),
    sa.Column("endpoint_url", sa.String(2048)),
    sa.Column("authorization_header_sealed", sa.Text),
    sa.Column("events_requested", JSONDocument, nullable=False),
    sa.Column("description", sa.String(1000)),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(1000)),
    sa.Column("subject_format", sa.String(128)),
    sa.Column("bucket", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("failing_since", UTCDateTime),
    sa.Column("backoff_until", UTCDateTime),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.Index("ix_streams_tenant_id_client_id", "tenant_id", "client_id"),
)

events: Final = sa.Table(
    "events",
    metadata,
    tenant_column(),
    id_column("event_id"),
    sa.Column("event_type", sa.String(1024), nullable=False),
    sa.Column("payload", JSONDocument, nullable=False),
    sa.Column("subjects", JSONDocument, nullable=False),
    sa.Column("ordering_key", sa.String(ORDERING_KEY_CHARACTERS_MAX), nullable=False),
    sa.Column("txn", sa.String(1024), nullable=False),
    sa.Column("toe", sa.BigInteger),
    sa.Column("created_at", UTCDateTime, nullable=False),
)

_PENDING: Final = sa.text("state = 'pending'")

deliveries: Final = sa.Table(
    "deliveries",
    metadata,
    tenant_column(),
    id_column("stream_id"),
    id_column("jti"),
    id_column("event_id", primary_key=False),
    sa.Column("iat", sa.BigInteger, nullable=False),
    sa.Column("kid", sa.String(128)),
    sa.Column("ordering_key", sa.String(ORDERING_KEY_CHARACTERS_MAX), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", UTCDateTime, nullable=False),
    sa.Column("err", sa.String(100)),
    sa.Column("detail", sa.String(1000)),
    sa.Column("queued_at", UTCDateTime, nullable=False),
    sa.Column("settled_at", UTCDateTime),
    # Partial: what is settled costs the hot queries nothing.
    sa.Index(
        "ix_deliveries_pending",
        "tenant_id",
        "stream_id",
        "jti",
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    ),
    sa.Index(
        "ix_deliveries_lane",
        "tenant_id",
        "stream_id",
        "ordering_key",
        "jti",
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    ),
)

_STREAM_COLUMNS: Final = tuple(
    streams.c[name]
    for name in Stream.__dataclass_fields__  # the table holds the object, column by field
)
_EVENT_COLUMNS: Final = (
    events.c.event_type,
    events.c.payload,
    events.c.subjects,
    events.c.txn,
    events.c.toe,
)


def _is_pending(table: Any) -> sa.ColumnElement[bool]:
    # A literal, not a parameter: only then the databases may use the partial indexes.
    pending: sa.ColumnElement[bool] = table.c.state == sa.literal_column("'pending'")
    return pending


def _of_stream(table: Any, tenant_id: str, stream_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.tenant_id == tenant_id, table.c.stream_id == stream_id)


def _is_head(delivery: Any) -> sa.ColumnElement[bool]:
    """Nothing older of the same stream and ordering key is pending."""
    return ~sa.exists().where(*_older_pending(delivery, deliveries.alias("older")))


def _waits_for_older(delivery: Any, now: datetime) -> sa.ColumnElement[bool]:
    """Something older of the same stream and ordering key is pending, but hidden now."""
    older = deliveries.alias("older")
    return sa.exists().where(*_older_pending(delivery, older), older.c.due_at > now)


def _older_pending(delivery: Any, older: Any) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        older.c.tenant_id == delivery.c.tenant_id,
        older.c.stream_id == delivery.c.stream_id,
        older.c.ordering_key == delivery.c.ordering_key,
        older.c.jti < delivery.c.jti,
        _is_pending(older),
    )


def _stream_of(row: sa.RowMapping) -> Stream:
    return Stream(
        **{
            **{str(name): value for name, value in row.items()},
            "aud": tuple(row["aud"]),
            "events_requested": tuple(row["events_requested"]),
            "method": DeliveryMethod(row["method"]),
            "status": StreamStatus(row["status"]),
        }
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


async def add_stream(connection: Connection, stream: Stream) -> None:
    """Store a new stream."""
    row = {
        **asdict(stream),
        "aud": list(stream.aud),
        "events_requested": list(stream.events_requested),
        "method": stream.method.value,
        "status": stream.status.value,
        "bucket": bucket_of(stream.tenant_id, stream.stream_id),
        "failures": 0,
        "updated_at": stream.created_at,
    }
    await connection.execute(sa.insert(streams).values(row))


async def get_stream(
    connection: Connection, tenant_id: str, *, stream_id: str, lock: bool = False
) -> Stream | None:
    """Return one stream, or None. lock: hold it against other writers until the commit."""
    query = sa.select(*_STREAM_COLUMNS).where(_of_stream(streams, tenant_id, stream_id))
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else _stream_of(row)


async def list_streams(
    connection: Connection,
    tenant_id: str,
    *,
    client_id: str | None = None,
    app_id: str | None = None,
) -> list[Stream]:
    """Return the streams of a tenant, or of one client or app of it, oldest first."""
    query = (
        sa.select(*_STREAM_COLUMNS)
        .where(streams.c.tenant_id == tenant_id)
        .order_by(streams.c.stream_id)
    )
    if client_id is not None:
        query = query.where(streams.c.client_id == client_id)
    if app_id is not None:
        query = query.where(streams.c.app_id == app_id)
    return [_stream_of(row) for row in (await connection.execute(query)).mappings()]


async def count_streams(connection: Connection, tenant_id: str, *, client_id: str) -> int:
    """Return how many streams a client has."""
    query = (
        sa.select(sa.func.count())
        .select_from(streams)
        .where(streams.c.tenant_id == tenant_id, streams.c.client_id == client_id)
    )
    return int(await connection.scalar(query) or 0)


async def delete_stream(
    connection: Connection, tenant_id: str, *, stream_id: str, now: datetime
) -> int:
    """Delete a stream with its secrets and drop what is queued for it; return how many SETs."""
    await connection.execute(sa.delete(streams).where(_of_stream(streams, tenant_id, stream_id)))
    dropped = await connection.execute(
        sa.update(deliveries)
        .where(_of_stream(deliveries, tenant_id, stream_id), _is_pending(deliveries))
        .values(state=DeliveryState.DROPPED.value, settled_at=now)
    )
    return int(dropped.rowcount)


async def add_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store events; each row has the columns of the table."""
    if rows:
        await connection.execute(sa.insert(events), rows)


async def add_deliveries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Queue SETs: tenant_id, stream_id, jti, event_id, iat, ordering_key, queued_at each."""
    if rows:
        state = DeliveryState.PENDING.value
        filled = [
            {**row, "state": state, "attempts": 0, "due_at": row["queued_at"]} for row in rows
        ]
        await connection.execute(sa.insert(deliveries), filled)


async def system_due_pushes(
    connection: Connection,
    *,
    buckets: Collection[int],
    now: datetime,
    limit: int,
    per_stream: int,
    after: tuple[str, str] | None,
) -> list[PushWork]:
    """Return SETs that may be pushed now, by stream, and at most `per_stream` of each.

    Only the oldest of each ordering key. after: the (tenant, stream) to go on behind, so that a
    caller who takes little each time still gets round to every stream. Spans tenants.
    """
    delivery = deliveries.alias("delivery")
    rival = deliveries.alias("rival")
    # The last of the stream's share; computed from the index, once per stream.
    share_ends = (
        sa.select(rival.c.jti)
        .where(
            rival.c.tenant_id == streams.c.tenant_id,
            rival.c.stream_id == streams.c.stream_id,
            _is_pending(rival),
            rival.c.due_at <= now,
            _is_head(rival),
        )
        .order_by(rival.c.jti)
        .limit(1)
        .offset(per_stream - 1)
        .correlate(streams)
        .scalar_subquery()
    )
    query = (
        sa.select(
            delivery.c.tenant_id,
            delivery.c.stream_id,
            streams.c.bucket,
            delivery.c.ordering_key,
            delivery.c.queued_at,
            streams.c.failures,
            streams.c.failing_since,
            streams.c.endpoint_url,
            streams.c.authorization_header_sealed,
            streams.c.aud,
            streams.c.subject_format,
            delivery.c.jti,
            delivery.c.iat,
            delivery.c.kid,
            delivery.c.attempts,
            *_EVENT_COLUMNS,
        )
        .select_from(streams)
        .join(
            delivery,
            sa.and_(
                delivery.c.tenant_id == streams.c.tenant_id,
                delivery.c.stream_id == streams.c.stream_id,
            ),
        )
        .join(
            events,
            sa.and_(
                events.c.tenant_id == delivery.c.tenant_id,
                events.c.event_id == delivery.c.event_id,
            ),
        )
        .where(
            streams.c.bucket.in_(sorted(buckets)),
            streams.c.method == DeliveryMethod.PUSH.value,
            streams.c.status == StreamStatus.ENABLED.value,
            sa.or_(streams.c.backoff_until.is_(None), streams.c.backoff_until <= now),
            _is_pending(delivery),
            delivery.c.due_at <= now,
            delivery.c.jti <= sa.func.coalesce(share_ends, _AFTER_ALL),
            _is_head(delivery),
        )
        .order_by(streams.c.tenant_id, streams.c.stream_id, delivery.c.jti)
        .limit(limit)
    )
    if after is not None:
        query = query.where(sa.tuple_(streams.c.tenant_id, streams.c.stream_id) > after)
    return [_push_work_of(row) for row in await connection.execute(query)]


def _push_work_of(row: Any) -> PushWork:
    return PushWork(
        tenant_id=row.tenant_id,
        stream_id=row.stream_id,
        bucket=row.bucket,
        ordering_key=row.ordering_key,
        queued_at=row.queued_at,
        stream_failures=row.failures,
        failing_since=row.failing_since,
        endpoint_url=row.endpoint_url,
        authorization_header_sealed=row.authorization_header_sealed,
        aud=tuple(row.aud),
        subject_format=row.subject_format,
        pending=_pending_of(row),
    )


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
            _is_pending(table),
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
        sa.update(streams).where(_of_stream(streams, tenant_id, stream_id)).values(asdict(health))
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
                _of_stream(deliveries, tenant_id, stream_id),
                deliveries.c.jti.in_(some),
                _is_pending(deliveries),
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
            _of_stream(deliveries, tenant_id, stream_id),
            deliveries.c.jti.in_(some),
            _is_pending(deliveries),
        )
        found |= {row.jti: (row.attempts, row.kid) for row in await connection.execute(query)}
    return found


def _visible(delivery: Any, tenant_id: str, stream_id: str, now: datetime) -> Any:
    """Pending, held by no poller, and nothing older of its ordering key is held by one."""
    return sa.and_(
        _of_stream(delivery, tenant_id, stream_id),
        _is_pending(delivery),
        delivery.c.due_at <= now,
        ~_waits_for_older(delivery, now),
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
        sa.select(
            delivery.c.jti, delivery.c.iat, delivery.c.kid, delivery.c.attempts, *_EVENT_COLUMNS
        )
        .join(
            events,
            sa.and_(
                events.c.tenant_id == delivery.c.tenant_id,
                events.c.event_id == delivery.c.event_id,
            ),
        )
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
            .where(_of_stream(deliveries, tenant_id, stream_id), deliveries.c.jti.in_(some))
            .values(
                due_at=until,
                attempts=deliveries.c.attempts + 1,
                kid=sa.func.coalesce(deliveries.c.kid, kid),
            )
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
        .join(
            events,
            sa.and_(
                events.c.tenant_id == deliveries.c.tenant_id,
                events.c.event_id == deliveries.c.event_id,
            ),
        )
        .where(deliveries.c.tenant_id == tenant_id, deliveries.c.state == DeliveryState.DEAD.value)
        .order_by(deliveries.c.jti.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(deliveries.c.jti < before)
    return [
        DeadLetter(**{str(name): value for name, value in row.items()})
        for row in (await connection.execute(query)).mappings()
    ]


async def redrive(
    connection: Connection, tenant_id: str, *, stream_id: str, jti: str, now: datetime
) -> bool:
    """Queue a dead SET again, with its jti and iat; return whether there was such a dead letter."""
    result = await connection.execute(
        sa.update(deliveries)
        .where(
            _of_stream(deliveries, tenant_id, stream_id),
            deliveries.c.jti == jti,
            deliveries.c.state == DeliveryState.DEAD.value,
        )
        .values(
            state=DeliveryState.PENDING.value,
            attempts=0,
            due_at=now,
            queued_at=now,
            err=None,
            detail=None,
            settled_at=None,
        )
    )
    return bool(result.rowcount)
