"""Queries of pushes: the oldest due SET of each lane of some streams, with what it carries.

The oldest SETs of a stream are read in the order of their age. Only where too many of these wait
for others, the lanes of the stream are walked over.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from runtime.database import chunks
from runtime.statements import Query, Row, among, rows_of_keys
from transmitters.delivery.model import PushTarget, PushWork, lane_of
from transmitters.delivery.store import EVENT_COLUMNS, IS_ENABLED, event_of, own_columns
from transmitters.lanes.store import due_of_lanes, found_by, is_due, is_head, pending_behind
from transmitters.model import PendingSET, StoredEvent
from transmitters.store import Connection, deliveries, events, is_pending, of_stream, streams

#: streams whose due SETs one statement reads
STREAMS_READ_TOGETHER: Final = 16
#: SETs of a stream that a search looks at in the order of their age
OLDEST_MAX: Final = 256
#: from some streams of a tenant to rows of each
_Read: TypeAlias = Callable[[int], Query]


async def due_pushes(
    connection: Connection,
    tenant_id: str,
    *,
    targets: Sequence[PushTarget],
    now: datetime,
    each: int,
    busy: Collection[str] = (),
) -> list[PushWork]:
    """Return the oldest due SET of each ordering key, by stream, at most `each` of a stream.

    targets: of this tenant. busy: lanes to leave out; they count in `each`. Costs what is looked
    at, however much is queued behind it. An event that goes out over many streams is read once.
    """
    by_id = {target.stream_id: target for target in targets}
    found: list[Row] = []
    for some in chunks([target.stream_id for target in targets], STREAMS_READ_TOGETHER):
        of_lane = await _due_heads(connection, tenant_id, some, now=now, each=each)
        found += [row for row in of_lane if lane_of(row[1], row[2]) not in busy]
    carried = await _events_of(connection, tenant_id, {row[0] for row in found})
    return [
        PushWork(
            target=by_id[stream_id],
            ordering_key=ordering_key,
            queued_at=queued_at,
            lone_attempts=lone_attempts,
            pending=PendingSET(
                jti=jti, iat=iat, kid=kid, attempts=attempts, event=carried[event_id]
            ),
        )
        for (
            event_id,
            stream_id,
            ordering_key,
            queued_at,
            lone_attempts,
            jti,
            iat,
            kid,
            attempts,
        ) in found
        # What was purged in between is not due any more.
        if event_id in carried
    ]


async def _due_heads(
    connection: Connection, tenant_id: str, stream_ids: Sequence[str], *, now: datetime, each: int
) -> list[Row]:
    """Return at most `each` rows per stream, in the order of the streams and then of age."""
    asked = {"tenant_id": tenant_id, "now": now, "each": each}
    rows = await _read(connection, _oldest_of, stream_ids, asked)
    of_stream_found = Counter(row[1] for row in rows)
    # Of these more is pending than was looked at.
    cut = {row[1] for row in rows if row[-1]}
    lacking = [
        stream_id
        for stream_id in stream_ids
        if not (count := of_stream_found[stream_id]) or (count < each and stream_id in cut)
    ]
    found = {(row[1], row[_JTI]): row[:-1] for row in rows}
    if lacking:
        of_lanes = await _read(connection, _lanes_of, lacking, asked)
        walked = {(stream_id, jti) for stream_id, jti in of_lanes} - found.keys()
        keys = [(tenant_id, jti) for _, jti in walked]
        for row in await rows_of_keys(connection, _HEADS, keys):
            if (row[1], row[_JTI]) in walked:
                found[row[1], row[_JTI]] = row
    places = {stream_id: place for place, stream_id in enumerate(stream_ids)}
    taken: Counter[str] = Counter()
    heads: list[Row] = []
    for (stream_id, _), row in sorted(
        found.items(), key=lambda item: (places[item[0][0]], item[0][1])
    ):
        taken[stream_id] += 1
        if taken[stream_id] <= each:
            heads.append(row)
    return heads


async def _read(
    connection: Connection, query_of: _Read, stream_ids: Sequence[str], asked: dict[str, Any]
) -> list[Row]:
    length = 1 << (len(stream_ids) - 1).bit_length()
    filled = [*stream_ids, *[""] * (length - len(stream_ids))]
    named = {f"stream_{place}": stream_id for place, stream_id in enumerate(filled)}
    return await query_of(length).rows(connection, **asked, **named)


async def _events_of(
    connection: Connection, tenant_id: str, event_ids: Collection[str]
) -> dict[str, StoredEvent]:
    keys = [(tenant_id, event_id) for event_id in event_ids]
    rows = await rows_of_keys(connection, _EVENTS, keys)
    return {event_id: event_of(content) for event_id, *content in rows}


_TENANT_ID: Final = sa.bindparam("tenant_id", type_=sa.String)
#: behind every ULID, whatever the collation
_LAST: Final[sa.ColumnElement[str]] = sa.literal_column("'z'")
_EACH: Final = sa.bindparam("each", type_=sa.Integer)
_EVENTS: Final = among(sa.select(events.c.event_id, *EVENT_COLUMNS), events, events.c.event_id)


def _work_columns(delivery: Any) -> tuple[Any, ...]:
    return (
        delivery.c.event_id,
        delivery.c.stream_id,
        delivery.c.ordering_key,
        delivery.c.queued_at,
        delivery.c.lone_attempts,
        *own_columns(delivery),
    )


#: the place of the jti among them
_JTI: Final = 5
_HEADS: Final = among(sa.select(*_work_columns(deliveries)), deliveries, deliveries.c.jti)


def _together(
    select: Callable[[int, Any], sa.Select[*tuple[Any, ...]]], streams_asked: int
) -> Query:
    """One search per stream, each with a limit of its own, in one statement."""
    names = [f"stream_{place}" for place in range(streams_asked)]
    each = [select(place, sa.bindparam(name, type_=sa.String)) for place, name in enumerate(names)]
    return Query(
        each[0] if len(each) == 1 else sa.union_all(*each),
        scalars=["tenant_id", "now", "each", *names],
    )


@functools.cache
def _oldest_of(streams_asked: int) -> Query:
    """Return rows of `_work_columns`, and whether more is pending than was looked at."""
    return _together(_oldest_of_stream, streams_asked)


def _oldest_of_stream(_place: int, stream_id: Any) -> sa.Select[*tuple[Any, ...]]:
    bound = pending_behind(_TENANT_ID, stream_id, count=OLDEST_MAX).scalar_subquery()
    is_cut = bound.is_not(None)
    heads = deliveries.alias("delivery")
    of_enabled = (
        sa.select(*_work_columns(heads), is_cut.label("is_cut"))
        .where(
            heads.c.tenant_id == _TENANT_ID,
            heads.c.stream_id >= stream_id,
            is_pending(heads),
            is_due(heads),
            sa.tuple_(heads.c.stream_id, heads.c.jti)
            < sa.tuple_(stream_id, sa.func.coalesce(bound, _LAST)),
            _status(stream_id, IS_ENABLED).is_not(None),
            is_head(heads),
        )
        # No index but those of a stream's queue has this order.
        .order_by(heads.c.stream_id, heads.c.jti)
        .limit(_EACH)
    )
    told = deliveries.alias("told")
    announcement = sa.select(*_work_columns(told), sa.false().label("is_cut")).where(
        of_stream(told, _TENANT_ID, stream_id),
        told.c.jti == _announced(stream_id),
        is_pending(told),
        is_due(told),
        is_head(told),
    )
    either = sa.union_all(sa.select(of_enabled.subquery()), announcement).subquery()
    return sa.select(either)


def _status(stream_id: Any, condition: Any) -> sa.ScalarSelect[str]:
    return (
        sa.select(streams.c.stream_id)
        .where(of_stream(streams, _TENANT_ID, stream_id), condition)
        .scalar_subquery()
    )


def _announced(stream_id: Any) -> sa.ScalarSelect[str]:
    """What tells the receiver that its stream is not enabled goes out alone (SSF-UPD-2)."""
    return (
        sa.select(streams.c.announcement_jti)
        .where(of_stream(streams, _TENANT_ID, stream_id), sa.not_(IS_ENABLED))
        .scalar_subquery()
    )


@functools.cache
def _lanes_of(streams_asked: int) -> Query:
    """Return streams and the jti of SETs."""
    return _together(_lanes_of_stream, streams_asked)


def _lanes_of_stream(place: int, stream_id: Any) -> sa.Select[*tuple[Any, ...]]:
    walk = due_of_lanes(
        f"lanes_{place}",
        whose=(_TENANT_ID, stream_id),
        limit=_EACH,
        heads=True,
        when=_status(stream_id, IS_ENABLED).is_not(None),
    )
    return sa.select(stream_id.label("stream_id"), walk.c.jti).where(found_by(walk))
