"""Tables of the transmitter, and the queries of stream management and publication.

A delivery is pending until it is delivered, dead or dropped; `due_at` says from when on it may be
sent, or handed out (again). Its `jti` is a ULID, so it sorts by time of publication, and within
one ordering key of one stream the order of `jti` is the order of delivery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    metadata,
    tenant_column,
)
from runtime.queue import bucket_of
from runtime.statements import Query
from ssf.stream import DeliveryMethod, StreamStatus
from transmitters.metrics import dropped_total
from transmitters.model import (
    ORDERING_KEY_CHARACTERS_MAX,
    STREAM_DELETED,
    DeliveryState,
    Stream,
)
from transmitters.subjects.store import delete_subjects

#: what services hold while they are inside a transaction
Connection: TypeAlias = AsyncConnection

IN_LIST_MAX: Final = 500

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
    sa.Column("default_subjects", sa.String(8), nullable=False, server_default="ALL"),
    sa.Column("subject_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("announcement_jti", sa.String(64)),
    sa.Column("verification_asked_at", UTCDateTime),
    sa.Column("active_at", UTCDateTime),
    sa.Column("profile", sa.String(16), nullable=False, server_default="final"),
    sa.Column("encryption_key", sa.Text),
    sa.Column("filters", JSONDocument),
    sa.Column("refused_in_row", sa.Integer, nullable=False, server_default="0"),
    sa.Column("delivery_epoch", sa.Integer, nullable=False, server_default="0"),
    sa.Column("stopped_as", sa.String(16)),
    sa.Index("ix_streams_tenant_id_client_id", "tenant_id", "client_id"),
)

#: which streams ask for an event type: publishing must not read the streams that do not
stream_interests: Final = sa.Table(
    "stream_interests",
    metadata,
    tenant_column(),
    # A digest: an index cannot hold the longest URIs.
    sa.Column("type_digest", sa.String(32), primary_key=True),
    id_column("stream_id"),
    sa.Index("ix_stream_interests_stream", "tenant_id", "stream_id"),
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
    sa.Column("hops", JSONDocument),
    sa.Index("ix_events_tenant_id_txn", "tenant_id", "txn"),
)

_PENDING: Final = sa.text("state = 'pending'")
_DEAD: Final = sa.text("state = 'dead'")

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
    sa.Column("lone_attempts", sa.Integer, nullable=False, server_default="0"),
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
    # What was given up is little, and looked for by stream and over all of them.
    sa.Index(
        "ix_deliveries_dead",
        "tenant_id",
        "stream_id",
        "jti",
        sqlite_where=_DEAD,
        postgresql_where=_DEAD,
    ),
    sa.Index(
        "ix_deliveries_dead_of_all",
        "tenant_id",
        "jti",
        sqlite_where=_DEAD,
        postgresql_where=_DEAD,
    ),
    # The order of publication over all streams: for lists, and for what is purged.
    sa.Index("ix_deliveries_tenant_id_jti", "tenant_id", "jti"),
)

#: the table holds the object, column by field
_STREAM_NAMES: Final = tuple(Stream.__dataclass_fields__)
_STREAM_COLUMNS: Final = tuple(streams.c[name] for name in _STREAM_NAMES)
_TENANT_ID: Final = sa.bindparam("tenant_id", type_=sa.String)
_OF_TENANT: Final = Query(
    sa.select(*_STREAM_COLUMNS)
    .where(streams.c.tenant_id == _TENANT_ID)
    .order_by(streams.c.stream_id),
    scalars=["tenant_id"],
)
_ASKING: Final = Query(
    sa.select(*_STREAM_COLUMNS)
    .where(
        streams.c.tenant_id == _TENANT_ID,
        streams.c.stream_id.in_(
            sa.select(stream_interests.c.stream_id).where(
                stream_interests.c.tenant_id == _TENANT_ID,
                stream_interests.c.type_digest.in_(
                    sa.bindparam("digests", expanding=True, type_=sa.String)
                ),
            )
        ),
    )
    .order_by(streams.c.stream_id),
    scalars=["tenant_id"],
    lists=["digests"],
)


def is_pending(table: Any) -> sa.ColumnElement[bool]:
    """The delivery still has to be made."""
    # A literal, not a parameter: only then the databases may use the partial indexes.
    pending: sa.ColumnElement[bool] = table.c.state == sa.literal_column("'pending'")
    return pending


def of_stream(table: Any, tenant_id: Any, stream_id: Any) -> sa.ColumnElement[bool]:
    """The row is the stream's; its names are values, or parameters of a statement."""
    return sa.and_(table.c.tenant_id == tenant_id, table.c.stream_id == stream_id)


def carries(delivery: Any) -> sa.ColumnElement[bool]:
    """The event is the one that the delivery carries."""
    return sa.and_(
        events.c.tenant_id == delivery.c.tenant_id, events.c.event_id == delivery.c.event_id
    )


def _stream_of(row: Sequence[Any]) -> Stream:
    values = dict(zip(_STREAM_NAMES, row, strict=True))
    return Stream(
        **{
            **values,
            "aud": tuple(values["aud"]),
            "events_requested": tuple(values["events_requested"]),
            "method": DeliveryMethod(values["method"]),
            "status": StreamStatus(values["status"]),
        }
    )


_OF_ONE: Final = sa.select(*_STREAM_COLUMNS).where(
    of_stream(streams, _TENANT_ID, sa.bindparam("stream_id", type_=sa.String))
)
_ONE: Final = Query(_OF_ONE, scalars=["tenant_id", "stream_id"])
_ONE_LOCKED: Final = Query(_OF_ONE.with_for_update(), scalars=["tenant_id", "stream_id"])
_ONE_HELD: Final = Query(
    _OF_ONE.with_for_update(key_share=True), scalars=["tenant_id", "stream_id"]
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
    await _note_interests(connection, stream)


async def get_stream(
    connection: Connection,
    tenant_id: str,
    *,
    stream_id: str,
    lock: bool = False,
    hold: bool = False,
) -> Stream | None:
    """Return one stream, or None. lock: hold it against other writers until the commit.

    hold: likewise, for who does not change the stream; publishing goes on meanwhile.
    """
    query = _ONE_LOCKED if lock else _ONE_HELD if hold else _ONE
    rows = await query.rows(connection, tenant_id=tenant_id, stream_id=stream_id)
    return _stream_of(rows[0]) if rows else None


async def list_streams(
    connection: Connection,
    tenant_id: str,
    *,
    client_id: str | None = None,
    app_id: str | None = None,
) -> list[Stream]:
    """Return the streams of a tenant, or of one client or app of it, oldest first."""
    if client_id is None and app_id is None:
        rows = await _OF_TENANT.rows(connection, tenant_id=tenant_id)
        return [_stream_of(row) for row in rows]
    query = (
        sa.select(*_STREAM_COLUMNS)
        .where(streams.c.tenant_id == tenant_id)
        .order_by(streams.c.stream_id)
    )
    if client_id is not None:
        query = query.where(streams.c.client_id == client_id)
    if app_id is not None:
        query = query.where(streams.c.app_id == app_id)
    return [_stream_of(row) for row in await connection.execute(query)]


async def streams_asking_for(
    connection: Connection, tenant_id: str, event_types: Collection[str]
) -> list[Stream]:
    """Return the tenant's streams that ask for one of these types, oldest first.

    Its cost grows with the streams that do, not with those that do not.
    """
    digests = [_digest(uri) for uri in sorted(event_types)]
    rows = await _ASKING.rows(connection, tenant_id=tenant_id, digests=digests)
    return [_stream_of(row) for row in rows]


async def _note_interests(connection: Connection, stream: Stream) -> None:
    rows = [
        {"tenant_id": stream.tenant_id, "type_digest": digest, "stream_id": stream.stream_id}
        for digest in sorted({_digest(uri) for uri in stream.events_requested})
    ]
    if rows:
        await connection.execute(sa.insert(stream_interests), rows)


async def _forget_interests(connection: Connection, tenant_id: str, stream_id: str) -> None:
    await connection.execute(
        sa.delete(stream_interests).where(of_stream(stream_interests, tenant_id, stream_id))
    )


def _digest(event_type: str) -> str:
    return hashlib.sha256(event_type.encode()).hexdigest()[:32]


async def change_stream(connection: Connection, stream: Stream, *, now: datetime) -> None:
    """Write what can change of a stream."""
    values = {
        "method": stream.method.value,
        "delivery_epoch": stream.delivery_epoch,
        "endpoint_url": stream.endpoint_url,
        "authorization_header_sealed": stream.authorization_header_sealed,
        "events_requested": list(stream.events_requested),
        "description": stream.description,
        "status": stream.status.value,
        "reason": stream.reason,
        "subject_count": stream.subject_count,
        "announcement_jti": stream.announcement_jti,
        "verification_asked_at": stream.verification_asked_at,
        "active_at": stream.active_at,
        "subject_format": stream.subject_format,
        "profile": stream.profile,
        "encryption_key": stream.encryption_key,
        "filters": None if stream.filters is None else dict(stream.filters),
        "stopped_as": stream.stopped_as,
        "updated_at": now,
    }
    await connection.execute(
        sa.update(streams)
        .where(of_stream(streams, stream.tenant_id, stream.stream_id))
        .values(values)
    )
    await _forget_interests(connection, stream.tenant_id, stream.stream_id)
    await _note_interests(connection, stream)


async def drop_pending(
    connection: Connection,
    tenant_id: str,
    *,
    stream_id: str,
    err: str,
    now: datetime,
    ordering_key: str | None = None,
) -> int:
    """Drop what is queued for a stream, or of one lane; return how many SETs. err: why."""
    lane = sa.true() if ordering_key is None else deliveries.c.ordering_key == ordering_key
    dropped = await connection.execute(
        sa.update(deliveries)
        .where(of_stream(deliveries, tenant_id, stream_id), is_pending(deliveries), lane)
        .values(state=DeliveryState.DROPPED.value, err=err, settled_at=now)
    )
    dropped_total.labels(err).inc(dropped.rowcount)
    return int(dropped.rowcount)


async def release_pending(
    connection: Connection, tenant_id: str, *, stream_id: str, now: datetime
) -> None:
    """Let everything queued be delivered at once: who held it, or when, is of the past."""
    await connection.execute(
        sa.update(deliveries)
        .where(
            of_stream(deliveries, tenant_id, stream_id),
            is_pending(deliveries),
            deliveries.c.due_at > now,
        )
        .values(due_at=now)
    )


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
    await connection.execute(sa.delete(streams).where(of_stream(streams, tenant_id, stream_id)))
    await _forget_interests(connection, tenant_id, stream_id)
    await delete_subjects(connection, tenant_id, stream_id=stream_id)
    return await drop_pending(
        connection, tenant_id, stream_id=stream_id, err=STREAM_DELETED, now=now
    )
