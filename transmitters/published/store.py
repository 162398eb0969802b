"""Events and their deliveries as they are published, and queries over them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from runtime.database import chunks
from runtime.statements import Query, Write, inserts
from ssf.stream import StreamStatus
from transmitters.model import DeliveryState
from transmitters.store import IN_LIST_MAX, Connection, deliveries, events, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEvent:
    """One event that at least one stream took. toe: seconds since 1970."""

    tenant_id: str
    event_id: str
    event_type: str
    payload: dict[str, Any]
    subjects: list[dict[str, Any]]
    txn: str
    toe: int | None
    created_at: datetime


async def list_events(
    connection: Connection, tenant_id: str, *, limit: int, before: str | None = None
) -> list[PublishedEvent]:
    """Return published events, newest first. before: an event id to go on behind."""
    shown = [events.c[name] for name in PublishedEvent.__dataclass_fields__]
    query = (
        sa.select(*shown)
        .where(events.c.tenant_id == tenant_id)
        .order_by(events.c.event_id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(events.c.event_id < before)
    return [
        PublishedEvent(**{str(name): value for name, value in row.items()})
        for row in (await connection.execute(query)).mappings()
    ]


async def types_sent(
    connection: Connection, tenant_id: str, *, txns: Collection[str]
) -> set[tuple[str, str]]:
    """Return (txn, event type) of what was published under these `txn`s."""
    found: set[tuple[str, str]] = set()
    for some in chunks(sorted(txns), IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(events.c.txn, events.c.event_type).where(
                events.c.tenant_id == tenant_id, events.c.txn.in_(some)
            )
        )
        found |= {(row.txn, row.event_type) for row in rows}
    return found


async def hold_streams(
    connection: Connection, tenant_id: str, *, stream_ids: Collection[str]
) -> dict[str, StreamStatus]:
    """Return what status streams have, and let none be changed or deleted until the commit.

    Streams that are gone by now are left out. Who changes one (`get_stream` with `lock`) waits, or
    is waited for; polls, pushes and other publications do not. Held in the order of their ids.
    SQLite has one writer, which is whoever asks.
    """
    found: dict[str, StreamStatus] = {}
    for some in chunks(sorted(stream_ids), IN_LIST_MAX):
        rows = await _HOLD.rows(connection, tenant_id=tenant_id, ids=some)
        found |= {stream_id: StreamStatus(status) for stream_id, status in rows}
    return found


#: FOR KEY SHARE, as a foreign key would ask of the stream of each delivery
_HOLD: Final = Query(
    sa.select(streams.c.stream_id, streams.c.status)
    .where(
        streams.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        streams.c.stream_id.in_(sa.bindparam("ids", expanding=True, type_=sa.String)),
    )
    .order_by(streams.c.stream_id)
    .with_for_update(read=True, key_share=True),
    scalars=["tenant_id"],
    lists=["ids"],
)


_ADD_EVENTS: Final = inserts(events)
_QUEUED: Final = (
    "tenant_id",
    "stream_id",
    "jti",
    "event_id",
    "iat",
    "ordering_key",
    "state",
    "attempts",
    "due_at",
    "queued_at",
)
_QUEUE: Final = Write(sa.insert(deliveries), _QUEUED)


async def add_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store events; each row has the columns of the table."""
    await _ADD_EVENTS.run(connection, rows)


async def add_deliveries(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Queue SETs: tenant_id, stream_id, jti, event_id, iat, ordering_key, queued_at each."""
    state = DeliveryState.PENDING.value
    filled = [{**row, "state": state, "attempts": 0, "due_at": row["queued_at"]} for row in rows]
    await _QUEUE.run(connection, filled)
