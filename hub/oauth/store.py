"""Tables and named queries of OAuth: revoked access tokens, used assertions, foreign servers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import (
    JSONDocument,
    UTCDateTime,
    delete_before,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)

revoked_tokens: Final = sa.Table(
    "revoked_tokens",
    metadata,
    tenant_column(),
    id_column("jti"),
    id_column("client_id", primary_key=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
)

client_assertions: Final = sa.Table(
    "client_assertions",
    metadata,
    tenant_column(),
    id_column("client_id"),
    sa.Column("jti_hash", sa.String(64), primary_key=True),
    sa.Column("expires_at", UTCDateTime, nullable=False),
)

authorization_servers: Final = sa.Table(
    "authorization_servers",
    metadata,
    tenant_column(),
    id_column("server_id"),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("issuer", sa.String(700), nullable=False),
    sa.Column("audiences", JSONDocument, nullable=False),
    sa.Column("jwks_uri", sa.String(1000)),
    sa.Column("jwks", JSONDocument),
    sa.Column("introspection_url", sa.String(1000)),
    sa.Column("introspection_client_id", sa.String(255)),
    sa.Column("introspection_secret_sealed", sa.Text),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("tenant_id", "name"),
    sa.UniqueConstraint("tenant_id", "issuer"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationServer:
    """An authorization server of somebody else, whose access tokens a tenant takes.

    Exactly one of jwks_uri, jwks and introspection_url is set. audiences: what its tokens may name
    in `aud`; empty for the tenant's own resources only.
    """

    tenant_id: str
    server_id: str
    name: str
    issuer: str
    audiences: tuple[str, ...]
    jwks_uri: str | None
    jwks: dict[str, Any] | None
    introspection_url: str | None
    introspection_client_id: str | None
    introspection_secret_sealed: str | None
    created_at: datetime
    updated_at: datetime


async def add_server(connection: AsyncConnection, server: AuthorizationServer) -> None:
    """Store an authorization server. Raises IntegrityError when name or issuer exist."""
    row = {**asdict(server), "audiences": list(server.audiences)}
    await connection.execute(sa.insert(authorization_servers).values(row))


async def replace_server(connection: AsyncConnection, server: AuthorizationServer) -> None:
    """Write all of an authorization server anew. Raises IntegrityError as `add_server`."""
    table = authorization_servers
    row = {**asdict(server), "audiences": list(server.audiences)}
    await connection.execute(
        sa.update(table)
        .where(table.c.tenant_id == server.tenant_id, table.c.server_id == server.server_id)
        .values(row)
    )


async def list_servers(connection: AsyncConnection, tenant_id: str) -> list[AuthorizationServer]:
    """Return the tenant's authorization servers by id."""
    table = authorization_servers
    rows = await connection.execute(
        sa.select(table).where(table.c.tenant_id == tenant_id).order_by(table.c.server_id)
    )
    return [
        AuthorizationServer(**{**row, "audiences": tuple(row["audiences"])})
        for row in rows.mappings()
    ]


async def delete_server(connection: AsyncConnection, tenant_id: str, server_id: str) -> bool:
    """Delete an authorization server; return whether there was one."""
    table = authorization_servers
    result = await connection.execute(
        sa.delete(table).where(table.c.tenant_id == tenant_id, table.c.server_id == server_id)
    )
    return bool(result.rowcount)


async def use_assertion(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    client_id: str,
    jti_hash: str,
    expires_at: datetime,
) -> bool:
    """Mark a client's assertion as used; return False when it was used before."""
    insert = (
        dialect_insert(connection, client_assertions)
        .values(tenant_id=tenant_id, client_id=client_id, jti_hash=jti_hash, expires_at=expires_at)
        .on_conflict_do_nothing()
        .returning(client_assertions.c.jti_hash)
    )
    return (await connection.execute(insert)).first() is not None


async def system_purge_assertions(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget assertions that expired before a moment, a bounded number; return how many."""
    return await delete_before(connection, client_assertions.c.expires_at, before)


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
    return await delete_before(connection, revoked_tokens.c.expires_at, before)
