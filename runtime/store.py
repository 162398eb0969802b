"""Tables and named queries of the runtime: configuration versions, changes, signing keys.

Rows of the installation itself carry the tenant `*`, so that every key begins with a tenant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import (
    JSONDocument,
    UTCDateTime,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import Query, inserts

config_versions: Final = sa.Table(
    "config_versions",
    metadata,
    tenant_column(),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)

changes: Final = sa.Table(
    "changes",
    metadata,
    tenant_column(),
    id_column("change_id"),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("ref", sa.String(255), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    # Read and purged for all tenants at once, by time.
    sa.Index("ix_changes_at", "at", "change_id"),
)

signing_keys: Final = sa.Table(
    "signing_keys",
    metadata,
    tenant_column(),
    sa.Column("kid", sa.String(128), primary_key=True),
    sa.Column("purpose", sa.String(32), nullable=False),
    sa.Column("alg", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("public_jwk", JSONDocument, nullable=False),
    sa.Column("private_jwk_sealed", sa.Text, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("changed_at", UTCDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """One signing key of a tenant; the private half is sealed."""

    tenant_id: str
    kid: str
    purpose: str
    alg: str
    state: str
    public_jwk: dict[str, Any]
    private_jwk_sealed: str
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of the change feed: something of `kind` named `ref` is not what it was."""

    tenant_id: str
    change_id: str
    kind: str
    ref: str
    at: datetime


async def bump(connection: AsyncConnection, tenant_id: str, kind: str) -> None:
    """Say that configuration of `kind` changed in this tenant; caches reload it."""
    insert = dialect_insert(connection, config_versions).values(
        tenant_id=tenant_id, kind=kind, version=1
    )
    await connection.execute(
        insert.on_conflict_do_update(
            index_elements=["tenant_id", "kind"], set_={"version": config_versions.c.version + 1}
        )
    )


async def system_config_versions(connection: AsyncConnection) -> dict[tuple[str, str], int]:
    """Return (tenant, kind) to version, of all tenants: a few rows, read by every node."""
    rows = await _CONFIG_VERSIONS.rows(connection)
    return {(tenant_id, kind): version for tenant_id, kind, version in rows}


_CONFIG_VERSIONS: Final = Query(
    sa.select(config_versions.c.tenant_id, config_versions.c.kind, config_versions.c.version)
)


_ADD_CHANGES: Final = inserts(changes)


END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


async def add_changes(connection: AsyncConnection, entries: Collection[Change]) -> None:
    """Append to the change feed, in the transaction of the change itself."""
    await _ADD_CHANGES.run(
        connection,
        [
            {
                "tenant_id": entry.tenant_id,
                "change_id": entry.change_id,
                "kind": entry.kind,
                "ref": entry.ref,
                "at": entry.at,
            }
            for entry in entries
        ],
    )


async def system_changes_since(
    connection: AsyncConnection,
    *,
    since: datetime,
    until: datetime = END_OF_TIME,
    limit: int,
) -> list[Change]:
    """Return feed entries of all tenants made from `since` to before `until`, oldest first."""
    rows = await _CHANGES_SINCE.rows(connection, since=since, until=until, at_most=limit)
    return [Change(**dict(zip(_CHANGE_COLUMNS, row, strict=True))) for row in rows]


_CHANGE_COLUMNS: Final = tuple(changes.columns.keys())
_CHANGES_SINCE: Final = Query(
    sa.select(changes)
    .where(
        changes.c.at >= sa.bindparam("since", type_=UTCDateTime),
        changes.c.at < sa.bindparam("until", type_=UTCDateTime),
    )
    .order_by(changes.c.at, changes.c.change_id)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["since", "until", "at_most"],
)


async def system_purge_changes(connection: AsyncConnection, *, before: datetime) -> int:
    """Delete feed entries nobody re-reads any more; return how many."""
    result = await connection.execute(sa.delete(changes).where(changes.c.at < before))
    return int(result.rowcount)


async def add_key(connection: AsyncConnection, key: StoredKey) -> None:
    """Store a new signing key."""
    await connection.execute(
        sa.insert(signing_keys).values(
            tenant_id=key.tenant_id,
            kid=key.kid,
            purpose=key.purpose,
            alg=key.alg,
            state=key.state,
            public_jwk=key.public_jwk,
            private_jwk_sealed=key.private_jwk_sealed,
            created_at=key.created_at,
            changed_at=key.changed_at,
        )
    )


async def list_keys(connection: AsyncConnection, tenant_id: str) -> list[StoredKey]:
    """Return the tenant's signing keys, oldest first."""
    table = signing_keys
    query = (
        sa.select(
            table.c.tenant_id,
            table.c.kid,
            table.c.purpose,
            table.c.alg,
            table.c.state,
            table.c.public_jwk,
            table.c.private_jwk_sealed,
            table.c.created_at,
            table.c.changed_at,
        )
        .where(table.c.tenant_id == tenant_id)
        .order_by(table.c.created_at, table.c.kid)
    )
    rows = (await connection.execute(query)).mappings()
    return [StoredKey(**{**row, "purpose": _purpose_of(row["purpose"])}) for row in rows]


def _purpose_of(stored: str) -> str:
    """Return a key's purpose by its present name.

    Releases before called `access_token` `token`. Such rows stay as they are, because that
    release looks for them as long as it runs beside this one.
    """
    return "access_token" if stored == "token" else stored


async def set_key_state(
    connection: AsyncConnection, tenant_id: str, kid: str, *, state: str, now: datetime
) -> None:
    """Move one key to another state."""
    await connection.execute(
        sa.update(signing_keys)
        .where(signing_keys.c.tenant_id == tenant_id, signing_keys.c.kid == kid)
        .values(state=state, changed_at=now)
    )
