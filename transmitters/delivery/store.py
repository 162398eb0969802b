"""Queries of delivery: what is due, what a poller may have, and what became of it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from runtime.database import UTCDateTime
from runtime.queue import BUCKETS
from runtime.statements import Query, Row, Write, rows_of_keys
from ssf.stream import DeliveryMethod, StreamStatus
from transmitters.delivery.model import (
    REFUSED_IN_ROW_MAX,
    PushTarget,
)
from transmitters.lanes.store import is_due, is_head, next_stream, pending_behind
from transmitters.model import PendingSET, StoredEvent
from transmitters.store import Connection, deliveries, events, is_pending, of_stream, streams

IN_LIST_MAX: Final = 500
#: (tenant, stream)
StreamKey: TypeAlias = tuple[str, str]
EVENT_COLUMNS: Final = (
    events.c.event_type,
    events.c.payload,
    events.c.subjects,
    events.c.txn,
    events.c.toe,
    events.c.hops,
)


_TARGET_COLUMNS: Final = (
    streams.c.tenant_id,
    streams.c.stream_id,
    streams.c.client_id,
    streams.c.bucket,
    streams.c.endpoint_url,
    streams.c.authorization_header_sealed,
    streams.c.aud,
    streams.c.subject_format,
    streams.c.profile,
    streams.c.encryption_key,
    streams.c.failures,
    streams.c.failing_since,
    streams.c.delivery_epoch,
)


def set_columns(delivery: Any) -> tuple[Any, ...]:
    """What makes a `PendingSET`, once the event is joined."""
    return (*own_columns(delivery), *EVENT_COLUMNS)


def own_columns(delivery: Any) -> tuple[Any, ...]:
    """What makes a `PendingSET`, but for its event."""
    return (delivery.c.jti, delivery.c.iat, delivery.c.kid, delivery.c.attempts)


# Scalar subqueries on purpose: PostgreSQL turns EXISTS into joins over all that is queued, and
# without fresh statistics it does so just when much has been queued.


def same_lane(older: Any, delivery: Any) -> sa.ColumnElement[bool]:
    """Both are of the same stream and ordering key, and the older one is pending."""
    return sa.and_(
        older.c.tenant_id == delivery.c.tenant_id,
        older.c.stream_id == delivery.c.stream_id,
        older.c.ordering_key == delivery.c.ordering_key,
        is_pending(older),
    )


def pending_of(row: Sequence[Any]) -> PendingSET:
    """Make it of the columns of `set_columns`."""
    jti, iat, kid, attempts, *content = row
    return PendingSET(jti=jti, iat=iat, kid=kid, attempts=attempts, event=event_of(content))


def event_of(content: Sequence[Any]) -> StoredEvent:
    """Make it of the columns of `EVENT_COLUMNS`."""
    event_type, payload, subjects, txn, toe, hops = content
    return StoredEvent(
        event_type=event_type, payload=payload, subjects=subjects, txn=txn, toe=toe, hops=hops
    )


async def system_waiting_streams(
    connection: Connection, *, after: StreamKey | None, limit: int
) -> tuple[list[StreamKey], bool]:
    """Return streams that SETs are pending for, in order of their ids, and whether these are all.

    after: the stream to go on behind. limit: streams, and the tenants they are of, at most. Spans
    tenants. Costs two index probes per stream found, whatever is queued, and however many streams
    nothing is queued for.
    """
    tenant_id, stream_id = after or ("", "")
    rows = await _WAITING.rows(
        connection, after_tenant=tenant_id, after_stream=stream_id, at_most=limit
    )
    found = [(row[0], row[1]) for row in rows if row[0] is not None and row[1]]
    if found and found[0] == after:
        del found[0]
    return found, rows[-1][0] is None


def _waiting() -> Query:
    start: sa.Select[*tuple[Any, ...]] = sa.select(
        sa.bindparam("after_tenant", type_=sa.String).label("tenant_id"),
        sa.bindparam("after_stream", type_=sa.String).label("stream_id"),
        sa.literal_column("0").label("place"),
    )
    found = start.cte("found", recursive=True)
    stream_id = next_stream(found.c.tenant_id, found.c.stream_id, found=found)
    of_others = deliveries.alias("of_others")
    tenant_id = (
        sa.select(sa.func.min(of_others.c.tenant_id))
        .where(is_pending(of_others), of_others.c.tenant_id > found.c.tenant_id)
        .correlate(found)
        .scalar_subquery()
    )
    # Behind the last stream of a tenant comes the next tenant, before its first stream.
    following = sa.select(
        sa.case((stream_id.is_(None), tenant_id), else_=found.c.tenant_id),
        sa.func.coalesce(stream_id, sa.literal_column("''")),
        found.c.place + 1,
    ).where(
        found.c.tenant_id.is_not(None),
        found.c.place < sa.bindparam("at_most", type_=sa.Integer),
    )
    found = found.union_all(following)
    return Query(
        sa.select(found.c.tenant_id, found.c.stream_id).order_by(found.c.place),
        scalars=["after_tenant", "after_stream", "at_most"],
    )


_WAITING: Final = _waiting()


async def system_targets_among(
    connection: Connection, *, among: Sequence[StreamKey], buckets: Collection[int], now: datetime
) -> list[PushTarget]:
    """Return which of these are push streams that may be called and may have SETs due, in order.

    With more than FEW pending `due_pushes` tells whether any is due. Spans tenants. Costs an index
    probe per stream, however much is queued.
    """
    everywhere, values = _of_buckets(buckets, now)
    rows = await rows_of_keys(connection, _targets_among(everywhere=everywhere), among, **values)
    return [_target_of(row) for row in rows]


async def system_push_targets(
    connection: Connection,
    *,
    buckets: Collection[int],
    now: datetime,
    limit: int,
    after: StreamKey | None,
) -> list[PushTarget]:
    """Return push streams that may be called now and may have SETs due, in order of their ids.

    With more than FEW pending `due_pushes` tells whether any is due. after: the (tenant, stream) to
    go on behind, so that a caller who takes little each time still gets round to every stream.
    Spans tenants. Costs an index probe per stream, however much is queued.
    """
    everywhere, values = _of_buckets(buckets, now)
    if after is not None:
        values |= {"after_tenant": after[0], "after_stream": after[1]}
    rows = await _targets(everywhere=everywhere, goes_on=after is not None).rows(
        connection, at_most=limit, **values
    )
    return [_target_of(row) for row in rows]


def _of_buckets(buckets: Collection[int], now: datetime) -> tuple[bool, dict[str, Any]]:
    """Return whether these are all buckets, and the values of the statement for them."""
    everywhere = len(buckets) >= BUCKETS
    return everywhere, {"now": now} if everywhere else {"now": now, "buckets": buckets}


def _may_be_called(*, everywhere: bool) -> sa.ColumnElement[bool]:
    """The stream takes pushes and is not backing off; `now` and `buckets` are parameters."""
    conditions = [
        streams.c.method == sa.literal_column(f"'{DeliveryMethod.PUSH.value}'"),
        sa.or_(IS_ENABLED, streams.c.announcement_jti.is_not(None)),
        sa.or_(streams.c.backoff_until.is_(None), streams.c.backoff_until <= _NOW),
        # What refuses all is about to be paused (PUSH-42).
        streams.c.refused_in_row < sa.literal_column(str(REFUSED_IN_ROW_MAX)),
    ]
    if not everywhere:
        buckets = sa.bindparam("buckets", expanding=True, type_=sa.Integer)
        conditions.append(streams.c.bucket.in_(buckets))
    return sa.and_(*conditions)


IS_ENABLED: Final = streams.c.status == sa.literal_column(f"'{StreamStatus.ENABLED.value}'")


#: what is pending on a stream without that one looks closer before its SETs are read
FEW: Final = 32


def _something_is_due() -> sa.ColumnElement[bool]:
    """The stream has something to send, or so much pending that a search has to find out.

    A stream that is not enabled sends only what tells its receiver so (SSF-UPD-2).
    """
    due, told = deliveries.alias("due"), deliveries.alias("told")
    whose = (streams.c.tenant_id, streams.c.stream_id)
    announced = (
        sa.select(told.c.jti)
        .where(
            of_stream(told, *whose),
            told.c.jti == streams.c.announcement_jti,
            is_pending(told),
            is_due(told),
            is_head(told),
        )
        .correlate(streams)
    )
    of_few = (
        sa.select(due.c.jti)
        .where(
            due.c.tenant_id == streams.c.tenant_id,
            due.c.stream_id.between(streams.c.stream_id, streams.c.stream_id),
            is_pending(due),
            is_due(due),
            is_head(due),
        )
        .order_by(due.c.stream_id, due.c.jti)
        .limit(1)
        .correlate(streams)
    )
    many = pending_behind(*whose, count=FEW).correlate(streams).scalar_subquery()
    return sa.case(
        (sa.not_(IS_ENABLED), announced.scalar_subquery()),
        (many.is_not(None), many),
        else_=of_few.scalar_subquery(),
    ).is_not(None)


def _due_targets(*, everywhere: bool) -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(*_TARGET_COLUMNS)
        .where(_may_be_called(everywhere=everywhere), _something_is_due())
        .order_by(streams.c.tenant_id, streams.c.stream_id)
    )


@functools.cache
def _targets(*, everywhere: bool, goes_on: bool) -> Query:
    query = _due_targets(everywhere=everywhere).limit(sa.bindparam("at_most", type_=sa.Integer))
    scalars = ["now", "at_most"]
    if goes_on:
        behind = ("after_tenant", "after_stream")
        query = query.where(
            sa.tuple_(streams.c.tenant_id, streams.c.stream_id)
            > sa.tuple_(*(sa.bindparam(name, type_=sa.String) for name in behind))
        )
        scalars += behind
    return Query(query, scalars=scalars, lists=_BUCKETS[everywhere])


@functools.cache
def _targets_among(*, everywhere: bool) -> Query:
    query = _due_targets(everywhere=everywhere).where(
        streams.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        streams.c.stream_id.in_(sa.bindparam("ids", expanding=True, type_=sa.String)),
    )
    return Query(query, scalars=["tenant_id", "now"], lists=["ids", *_BUCKETS[everywhere]])


_NOW: Final = sa.bindparam("now", type_=UTCDateTime)
#: lists of the statements for all buckets, and for some
_BUCKETS: Final[Mapping[bool, tuple[str, ...]]] = {True: (), False: ("buckets",)}
_TARGET_NAMES: Final = tuple(column.name for column in _TARGET_COLUMNS)


def _target_of(row: Row) -> PushTarget:
    values = dict(zip(_TARGET_NAMES, row, strict=True))
    return PushTarget(**{**values, "aud": tuple(values["aud"])})


async def settle_deliveries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record what became of pending SETs; those settled or dropped meanwhile stay as they are.

    Each row: the key, and what `_SETTLED` names.
    """
    parameters = [
        {(f"of_{name}" if name in _KEYS else f"new_{name}"): value for name, value in row.items()}
        for row in rows
    ]
    await _SETTLE.run(connection, parameters)


_KEYS: Final = ("tenant_id", "stream_id", "jti")
_SETTLED: Final = (
    "state",
    "attempts",
    "lone_attempts",
    "due_at",
    "kid",
    "err",
    "detail",
    "settled_at",
)
_SETTLE: Final = Write(
    sa.update(deliveries)
    .where(*(deliveries.c[name] == sa.bindparam(f"of_{name}") for name in _KEYS))
    .where(is_pending(deliveries))
    .values({name: sa.bindparam(f"new_{name}") for name in _SETTLED}),
    (*(f"of_{name}" for name in _KEYS), *(f"new_{name}" for name in _SETTLED)),
)
