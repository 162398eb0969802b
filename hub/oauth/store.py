"""Tables and named queries of OAuth: the access tokens that were revoked before they expired."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import UTCDateTime, dialect_insert, id_column, metadata, tenant_column

PURGED_AT_ONCE_MAX: Final = 1_000

revoked_tokens: Final = sa.Table(
    "revoked_tokens",
    metadata,
    tenant_column(),
    id_column("jti"),
    id_column("client_id", primary_key=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
)


async def add_revoked(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    jti: str,
    client_id: str,
    expires_at: datetime,
) -> bool:
    """Remember that a token was revoked; return whether that is new."""
    insert = (
        dialect_insert(connection, revoked_tokens)
        .values(tenant_id=tenant_id, jti=jti, client_id=client_id, expires_at=expires_at)
        .on_conflict_do_nothing()
        .returning(revoked_tokens.c.jti)
    )
    return (await connection.execute(insert)).first() is not None


async def list_revoked(connection: AsyncConnection, tenant_id: str) -> frozenset[str]:
    """Return the ids of the tenant's revoked tokens. Few: they are purged once they expired."""
    query = sa.select(revoked_tokens.c.jti).where(revoked_tokens.c.tenant_id == tenant_id)
    return frozenset((await connection.execute(query)).scalars())


async def system_purge_revoked(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget tokens that expired before a moment, a bounded number; return how many."""
    table = revoked_tokens
    old = (
        sa.select(table.c.tenant_id, table.c.jti)
        .where(table.c.expires_at < before)
        .limit(PURGED_AT_ONCE_MAX)
    )
    result = await connection.execute(
        sa.delete(table).where(sa.tuple_(table.c.tenant_id, table.c.jti).in_(old))
    )
    return int(result.rowcount)
