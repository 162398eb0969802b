"""Queries over published events."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from runtime.database import chunks
from transmitters.store import IN_LIST_MAX, Connection, events


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
