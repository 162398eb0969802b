"""Table and named queries: contexts that were judged, kept to try policies on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.policies.recorded import RecordedContext
from risk.sql.store import TENANT
from risk.verdict import Decision
from runtime.database import UTCDateTime, delete_before, id_column, metadata, tenant_column
from runtime.statements import Query, inserts

session_contexts: Final = sa.Table(
    "session_contexts",
    metadata,
    tenant_column(),
    id_column("context_id"),
    id_column("user_id", primary_key=False),
    sa.Column("session_id", sa.String(64)),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("facts", sa.LargeBinary, nullable=False),
    sa.Column("decision", sa.Integer, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_session_contexts_at", "at"),
)

_COLUMNS: Final = tuple(column.name for column in session_contexts.columns)
_ADD: Final = inserts(session_contexts, or_nothing=True)
_READ: Final = Query(
    sa.select(session_contexts)
    .where(
        session_contexts.c.tenant_id == TENANT,
        session_contexts.c.context_id > sa.bindparam("after", type_=sa.String),
        session_contexts.c.at >= sa.bindparam("since", type_=UTCDateTime),
        session_contexts.c.at < sa.bindparam("until", type_=UTCDateTime),
    )
    .order_by(session_contexts.c.context_id)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["tenant_id", "after", "since", "until", "at_most"],
)


async def add_contexts(connection: AsyncConnection, written: Sequence[RecordedContext]) -> None:
    """Append records; one that is there already stays as it is."""
    await _ADD.run(
        connection,
        [
            {name: getattr(each, name) for name in _COLUMNS} | {"decision": int(each.decision)}
            for each in written
        ],
    )


async def read_recorded(
    connection: AsyncConnection,
    tenant_id: str,
    /,
    *,
    since: datetime,
    until: datetime,
    after: str | None,
    limit: int,
) -> list[RecordedContext]:
    """Return at most `limit` records of [since, until) behind the id `after`, in order of ids."""
    rows = await _READ.rows(
        connection,
        tenant_id=tenant_id,
        after=after or "",
        since=since,
        until=until,
        at_most=limit,
    )
    return [_recorded(row) for row in rows]


async def system_purge_contexts(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget records from before a moment, a bounded number; return how many."""
    return await delete_before(connection, session_contexts.c.at, before)


def _recorded(row: Sequence[Any]) -> RecordedContext:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["decision"] = Decision(values["decision"])
    return RecordedContext(**values)
