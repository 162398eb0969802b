"""Table and named queries: the apps of users."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.app_use.model import Use
from risk.sql.store import TENANT
from runtime.database import (
    UTCDateTime,
    chunks,
    delete_before,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import LIST_MAX, Query, upserts

APP_CHARS_MAX: Final = 200

user_apps: Final = sa.Table(
    "user_apps",
    metadata,
    tenant_column(),
    id_column("user_id"),
    sa.Column("app", sa.String(APP_CHARS_MAX), primary_key=True),
    sa.Column("first_at", UTCDateTime, nullable=False),
    sa.Column("last_at", UTCDateTime, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_user_apps_last_at", "last_at"),
)

_READ: Final = Query(
    sa.select(
        user_apps.c.user_id, user_apps.c.app, user_apps.c.first_at, user_apps.c.last_at
    ).where(
        user_apps.c.tenant_id == TENANT,
        user_apps.c.user_id.in_(sa.bindparam("users", expanding=True, type_=sa.String)),
        user_apps.c.app.in_(sa.bindparam("apps", expanding=True, type_=sa.String)),
    ),
    scalars=["tenant_id"],
    lists=["users", "apps"],
)
_WRITE: Final = upserts(user_apps, ("tenant_id", "user_id", "app"), ("first_at", "last_at"))


async def uses_among(
    connection: AsyncConnection, tenant_id: str, opened: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Use]:
    """Return which of these (user, app) pairs are known; the others are left out."""
    found: dict[tuple[str, str], Use] = {}
    for some in chunks(sorted(opened), LIST_MAX):
        rows = await _READ.rows(
            connection,
            tenant_id=tenant_id,
            users=sorted({user_id for user_id, _ in some}),
            apps=sorted({app for _, app in some}),
        )
        found |= {(user_id, app): Use(first, last) for user_id, app, first, last in rows}
    return found


async def uses_of(connection: AsyncConnection, tenant_id: str, *, user_id: str) -> dict[str, Use]:
    """Return all that is known of one user."""
    rows = await connection.execute(
        sa.select(user_apps.c.app, user_apps.c.first_at, user_apps.c.last_at).where(
            user_apps.c.tenant_id == tenant_id, user_apps.c.user_id == user_id
        )
    )
    return {app: Use(first_at, last_at) for app, first_at, last_at in rows}


async def write_uses(
    connection: AsyncConnection, tenant_id: str, user_id: str, uses: Mapping[str, Use]
) -> None:
    """Store uses in place of those of the same app."""
    await _WRITE.run(
        connection,
        [
            {
                "tenant_id": tenant_id,
                "user_id": user_id,
                "app": app,
                "first_at": use.first_at,
                "last_at": use.last_at,
            }
            for app, use in uses.items()
        ],
    )


async def delete_uses(
    connection: AsyncConnection, tenant_id: str, user_id: str, apps: Iterable[str]
) -> None:
    """Forget some apps of a user."""
    for some in chunks(apps, LIST_MAX):
        await connection.execute(
            sa.delete(user_apps).where(
                user_apps.c.tenant_id == tenant_id,
                user_apps.c.user_id == user_id,
                user_apps.c.app.in_(some),
            )
        )


async def system_purge_uses(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget apps that were last used before a moment, a bounded number; return how many."""
    return await delete_before(connection, user_apps.c.last_at, before)
