"""Table and named queries: logouts of sessions that wait for a person."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from actions.held.model import HeldLogout, HeldState
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    delete_before,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)

IN_LIST_MAX: Final = 500

held_logouts: Final = sa.Table(
    "held_session_logouts",
    metadata,
    tenant_column(),
    id_column("held_id"),
    id_column("order_key", primary_key=False),
    id_column("user_id", primary_key=False),
    id_column("session_id", primary_key=False),
    sa.Column("iss", sa.String(1024), nullable=False),
    sa.Column("sid", sa.String(512), nullable=False),
    sa.Column("context_key", sa.String(64), nullable=False),
    sa.Column("app_ids", JSONDocument),
    sa.Column("reasons", JSONDocument, nullable=False),
    sa.Column("trace_id", sa.String(1024), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("held_at", UTCDateTime, nullable=False),
    sa.Column("settled_at", UTCDateTime),
    sa.Column("settled_by", sa.String(200)),
    sa.Index("uq_held_session_logouts_order_key", "tenant_id", "order_key", unique=True),
    # Purged for all tenants at once, by time.
    sa.Index("ix_held_session_logouts_held_at", "held_at"),
)
_COLUMNS: Final = tuple(column.name for column in held_logouts.columns)


async def hold(connection: AsyncConnection, held: Sequence[HeldLogout]) -> set[str]:
    """Store held logouts; return the ids of those whose order was not held before."""
    return await insert_new(connection, held_logouts, [_row(each) for each in held], "held_id")


async def known_orders(
    connection: AsyncConnection, tenant_id: str, *, order_keys: Collection[str]
) -> set[str]:
    """Return those of the orders that were held once, whatever became of them."""
    found: set[str] = set()
    for some in chunks(order_keys, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(held_logouts.c.order_key).where(
                held_logouts.c.tenant_id == tenant_id, held_logouts.c.order_key.in_(some)
            )
        )
        found.update(rows.scalars())
    return found


async def get_held(
    connection: AsyncConnection, tenant_id: str, held_id: str, *, lock: bool = False
) -> HeldLogout | None:
    """Return one held logout; None: there is none. lock: until the transaction ends."""
    query = sa.select(held_logouts).where(
        held_logouts.c.tenant_id == tenant_id, held_logouts.c.held_id == held_id
    )
    rows = await connection.execute(query.with_for_update() if lock else query)
    return next(map(_held, rows), None)


async def list_held(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    state: HeldState | None,
    user_id: str | None,
    before: str | None,
    limit: int,
) -> list[HeldLogout]:
    """Return a page of held logouts, newest first."""
    table = held_logouts
    query = sa.select(table).where(table.c.tenant_id == tenant_id)
    if state is not None:
        query = query.where(table.c.state == state.value)
    if user_id is not None:
        query = query.where(table.c.user_id == user_id)
    if before is not None:
        query = query.where(table.c.held_id < before)
    rows = await connection.execute(query.order_by(table.c.held_id.desc()).limit(limit))
    return [_held(row) for row in rows]


async def settle(connection: AsyncConnection, settled: HeldLogout) -> None:
    """Write what a person decided."""
    table = held_logouts
    await connection.execute(
        sa.update(table)
        .where(table.c.tenant_id == settled.tenant_id, table.c.held_id == settled.held_id)
        .values(
            state=settled.state.value,
            settled_at=settled.settled_at,
            settled_by=settled.settled_by,
        )
    )


async def system_purge_held(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget what was held before a moment, a bounded number; return how many."""
    return await delete_before(connection, held_logouts.c.held_at, before)


def _held(row: Sequence[Any]) -> HeldLogout:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = HeldState(values["state"])
    values["reasons"] = tuple(values["reasons"])
    values["app_ids"] = None if values["app_ids"] is None else tuple(values["app_ids"])
    return HeldLogout(**values)


def _row(held: HeldLogout) -> dict[str, Any]:
    row = {name: getattr(held, name) for name in _COLUMNS}
    row["state"] = held.state.value
    row["reasons"] = list(held.reasons)
    row["app_ids"] = None if held.app_ids is None else list(held.app_ids)
    return row
