"""Tables and named queries of sign-ins, and of how many failed of late."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.signins.model import NO_FAILURES, SignInRecord, Tally
from risk.sql.store import IDS, TENANT, rows_of
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    delete_before,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import LIST_MAX, inserts, upserts

PAGE_MAX: Final = 200

sign_ins: Final = sa.Table(
    "sign_ins",
    metadata,
    tenant_column(),
    id_column("sign_in_id"),
    id_column("user_id", primary_key=False),
    id_column("client_id", primary_key=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("phase", sa.String(8), nullable=False),
    sa.Column("outcome", sa.String(8), nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("ip", sa.String(45), nullable=False),
    sa.Column("facts", JSONDocument, nullable=False),
    sa.Index("ix_sign_ins_user_id", "tenant_id", "user_id", "sign_in_id"),
    # Purged for all tenants at once, by time.
    sa.Index("ix_sign_ins_at", "at"),
)

failures: Final = sa.Table(
    "sign_in_failures",
    metadata,
    tenant_column(),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_sign_in_failures_at", "at"),
)

_COLUMNS: Final = tuple(column.name for column in sign_ins.columns)
_TALLIES: Final = sa.select(failures.c.name, failures.c["count"], failures.c.at).where(
    failures.c.tenant_id == TENANT, failures.c.name.in_(IDS)
)
_WRITE_TALLIES: Final = upserts(failures, ("tenant_id", "name"), ("count", "at"))
_INSERT: Final = inserts(sign_ins, or_nothing=True)


async def write_sign_ins(connection: AsyncConnection, records: Sequence[SignInRecord]) -> None:
    """Store sign-ins; one that is there already stays as it is."""
    await _INSERT.run(
        connection, [{name: getattr(each, name) for name in _COLUMNS} for each in records]
    )


async def list_sign_ins(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    user_id: str | None = None,
    level: str | None = None,
    before: str = "",
    limit: int = PAGE_MAX,
) -> list[SignInRecord]:
    """Return up to `limit` sign-ins, newest first; before: an id to go on from."""
    table = sign_ins
    wanted = sa.select(table).where(table.c.tenant_id == tenant_id)
    if user_id is not None:
        wanted = wanted.where(table.c.user_id == user_id)
    if level is not None:
        wanted = wanted.where(table.c.level == level)
    if before:
        wanted = wanted.where(table.c.sign_in_id < before)
    rows = await connection.execute(
        wanted.order_by(table.c.sign_in_id.desc()).limit(min(limit, PAGE_MAX))
    )
    return [SignInRecord(**row) for row in map(_members, rows.mappings())]


def _members(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in _COLUMNS}


async def system_purge_sign_ins(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget sign-ins before a moment, a bounded number; return how many."""
    return await delete_before(connection, sign_ins.c.at, before)


async def tallies_of(
    connection: AsyncConnection, tenant_id: str, *, names: Collection[str]
) -> dict[str, Tally]:
    """Return counts of failures by name; what never failed is left out."""
    rows = await rows_of(connection, _TALLIES, tenant_id, names)
    return {name: Tally(count=count, at=at) for name, count, at in rows}


async def lock_tallies(
    connection: AsyncConnection, tenant_id: str, names: Collection[str]
) -> dict[str, Tally]:
    """Return counts of failures by name, held until the transaction ends; a new one is zero."""
    found: dict[str, Tally] = {}
    # In one order everywhere, so that two writers cannot wait for each other.
    for some in chunks(sorted(names), LIST_MAX):
        fresh = [
            {"tenant_id": tenant_id, "name": name, "count": 0, "at": NO_FAILURES.at}
            for name in some
        ]
        await connection.execute(
            dialect_insert(connection, failures).on_conflict_do_nothing(), fresh
        )
        rows = await connection.execute(
            sa.select(failures.c.name, failures.c["count"], failures.c.at)
            .where(failures.c.tenant_id == tenant_id, failures.c.name.in_(some))
            .order_by(failures.c.name)
            .with_for_update()
        )
        found |= {name: Tally(count=count, at=at) for name, count, at in rows}
    return found


async def write_tallies(
    connection: AsyncConnection, tenant_id: str, tallies: Mapping[str, Tally]
) -> None:
    """Store counts of failures in place of those of the same name."""
    await _WRITE_TALLIES.run(
        connection,
        [
            {"tenant_id": tenant_id, "name": name, "count": each.count, "at": each.at}
            for name, each in tallies.items()
        ],
    )


async def system_purge_tallies(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget counts that did not move since a moment, a bounded number; return how many."""
    return await delete_before(connection, failures.c.at, before)
