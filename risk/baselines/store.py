"""Tables and named queries of baselines: one row per user, and counts of a tenant's users."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import (
    UTCDateTime,
    chunks,
    delete_before,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import LIST_MAX, Query, among, upserts

VALUE_CHARS_MAX: Final = 200
DIMENSION_CHARS_MAX: Final = 16

baselines: Final = sa.Table(
    "baselines",
    metadata,
    tenant_column(),
    id_column("user_id"),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
)

#: users: that were seen there; the dimension "user" counts all who have a baseline
org_values: Final = sa.Table(
    "org_values",
    metadata,
    tenant_column(),
    sa.Column("dimension", sa.String(DIMENSION_CHARS_MAX), primary_key=True),
    sa.Column("value", sa.String(VALUE_CHARS_MAX), primary_key=True),
    sa.Column("users", sa.Integer, nullable=False),
    sa.Column("last_at", UTCDateTime, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_org_values_last_at", "last_at"),
)

_READ: Final = among(
    sa.select(baselines.c.user_id, baselines.c.body), baselines, baselines.c.user_id
)
_ORG: Final = Query(
    sa.select(org_values.c.dimension, org_values.c.value, org_values.c.users).where(
        org_values.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        org_values.c.dimension.in_(sa.bindparam("dimensions", expanding=True, type_=sa.String)),
        org_values.c.value.in_(sa.bindparam("values", expanding=True, type_=sa.String)),
    ),
    scalars=["tenant_id"],
    lists=["dimensions", "values"],
)
_WRITE: Final = upserts(
    baselines, keys=("tenant_id", "user_id"), columns=("events", "body", "updated_at")
)


async def read_baselines(
    connection: AsyncConnection, tenant_id: str, user_ids: Collection[str]
) -> dict[str, bytes]:
    """Return the baselines of users as bytes; a user without one is left out."""
    found: dict[str, bytes] = {}
    for some in chunks(user_ids, LIST_MAX):
        rows = await _READ.rows(connection, tenant_id=tenant_id, ids=some)
        found |= {user_id: bytes(body) for user_id, body in rows}
    return found


async def lock_baselines(
    connection: AsyncConnection, tenant_id: str, user_ids: Collection[str], *, now: datetime
) -> dict[str, bytes]:
    """Return the baselines of users, held until the transaction ends; an empty one is new."""
    found: dict[str, bytes] = {}
    # In one order everywhere, so that two writers cannot wait for each other.
    for some in chunks(sorted(user_ids), LIST_MAX):
        fresh = [
            {
                "tenant_id": tenant_id,
                "user_id": user_id,
                "events": 0,
                "body": b"",
                "updated_at": now,
            }
            for user_id in some
        ]
        await connection.execute(
            dialect_insert(connection, baselines).on_conflict_do_nothing(), fresh
        )
        rows = await connection.execute(
            sa.select(baselines.c.user_id, baselines.c.body)
            .where(baselines.c.tenant_id == tenant_id, baselines.c.user_id.in_(some))
            .order_by(baselines.c.user_id)
            .with_for_update()
        )
        found |= {row.user_id: bytes(row.body) for row in rows}
    return found


async def write_baselines(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store baselines: tenant_id, user_id, events, body, updated_at."""
    if rows:
        await _WRITE.run(connection, rows)


async def delete_baseline(connection: AsyncConnection, tenant_id: str, user_id: str) -> bool:
    """Forget a user's baseline; return whether there was one."""
    result = await connection.execute(
        sa.delete(baselines).where(
            baselines.c.tenant_id == tenant_id, baselines.c.user_id == user_id
        )
    )
    return bool(result.rowcount)


async def add_org_values(
    connection: AsyncConnection,
    tenant_id: str,
    counts: Mapping[tuple[str, str], int],
    *,
    now: datetime,
) -> None:
    """Count users who were seen at values for the first time; (dimension, value) to how many."""
    if not counts:
        return
    statement = dialect_insert(connection, org_values)
    newer = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "dimension", "value"],
        set_={"users": org_values.c.users + newer.users, "last_at": newer.last_at},
    )
    await connection.execute(
        statement,
        [
            {
                "tenant_id": tenant_id,
                "dimension": dimension,
                "value": value,
                "users": counts[dimension, value],
                "last_at": now,
            }
            for dimension, value in sorted(counts)
        ],
    )


async def org_users(
    connection: AsyncConnection, tenant_id: str, wanted: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Return by how many users these (dimension, value) pairs were seen; none: left out.

    wanted: one value of each dimension.
    """
    rows = await _ORG.rows(
        connection,
        tenant_id=tenant_id,
        dimensions=sorted({dimension for dimension, _ in wanted}),
        values=sorted({value for _, value in wanted}),
    )
    return {
        (dimension, value): users
        for dimension, value, users in rows
        if (dimension, value) in wanted
    }


async def system_purge_org_values(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget values where nobody new was seen since a moment, a bounded number; return how many."""
    return await delete_before(connection, org_values.c.last_at, before)
