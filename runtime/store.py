"""Tables and named queries of the runtime: configuration versions, changes, signing keys.

Rows of the installation itself carry the tenant `*`, so that every key begins with a tenant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles

from runtime.database import (
    JSONDocument,
    UTCDateTime,
    delete_before,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import Query, Write

config_versions: Final = sa.Table(
    "config_versions",
    metadata,
    tenant_column(),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)


class _PresentTransaction(sa.sql.functions.FunctionElement[int]):
    """The number of the running transaction on PostgreSQL; 0 on SQLite, whose INSERT says it."""

    inherit_cache = True


@compiles(_PresentTransaction, "postgresql")
def _on_postgresql(*_: Any, **__: Any) -> str:
    return "((pg_current_xact_id())::text)::bigint"


@compiles(_PresentTransaction, "sqlite")
def _on_sqlite(*_: Any, **__: Any) -> str:
    return "0"


changes: Final = sa.Table(
    "changes",
    metadata,
    tenant_column(),
    id_column("change_id"),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("ref", sa.String(255), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    # Where it stands in the order of commits: on SQLite, where writers take turns, one more than
    # the one before; on PostgreSQL its transaction, which a reader's snapshot knows or not.
    sa.Column("position", sa.BigInteger, nullable=False, server_default=_PresentTransaction()),
    # Read and purged for all tenants at once.
    sa.Index("ix_changes_at", "at", "change_id"),
    sa.Index("ix_changes_position", "position"),
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


_CHANGE_COLUMNS: Final = ("tenant_id", "change_id", "kind", "ref", "at")
_ADD_CHANGES: Final = Write(sa.insert(changes), _CHANGE_COLUMNS)
_ADD_CHANGES_AT: Final = Write(sa.insert(changes), (*_CHANGE_COLUMNS, "position"))


async def add_changes(connection: AsyncConnection, entries: Collection[Change]) -> None:
    """Append to the change feed, in the transaction of the change itself."""
    rows: list[dict[str, Any]] = [
        {
            "tenant_id": entry.tenant_id,
            "change_id": entry.change_id,
            "kind": entry.kind,
            "ref": entry.ref,
            "at": entry.at,
        }
        for entry in entries
    ]
    if connection.dialect.name == "postgresql":
        await _ADD_CHANGES.run(connection, rows)
    elif rows:
        position = int(await system_feed_end(connection)) + 1
        await _ADD_CHANGES_AT.run(connection, [row | {"position": position} for row in rows])


async def system_feed_end(connection: AsyncConnection) -> str:
    """Return a mark that parts what the feed holds now from what will be committed later."""
    if connection.dialect.name == "postgresql":
        return str((await _SNAPSHOT.rows(connection))[0][0])
    return str((await _LAST_POSITION.rows(connection))[0][0])


async def system_changes_after(
    connection: AsyncConnection, mark: str, *, limit: int
) -> tuple[list[Change], str]:
    """Return feed entries of all tenants committed after `mark`, and the mark that follows them.

    mark: of `system_feed_end` or of an earlier call. At most `limit` entries; when there are so
    many, begin again at the feed's end. No entry comes twice, and none is left out, in whatever
    order transactions end.
    """
    if connection.dialect.name == "postgresql":
        following = await system_feed_end(connection)
        rows = await _CHANGES_UNSEEN.rows(connection, seen=mark, following=following, at_most=limit)
    else:
        rows = await _CHANGES_BEHIND.rows(connection, position=int(mark), at_most=limit)
        following = str(rows[-1][-1]) if rows else mark
    return [Change(**dict(zip(_CHANGE_COLUMNS, row, strict=False))) for row in rows], following


_last_position = sa.func.coalesce(sa.func.max(changes.c.position), 0)
_LAST_POSITION: Final = Query(sa.select(_last_position))
_SNAPSHOT: Final = Query(sa.select(sa.cast(sa.func.pg_current_snapshot(), sa.Text)))
_readable = tuple(changes.c[name] for name in _CHANGE_COLUMNS)
_CHANGES_BEHIND: Final = Query(
    sa.select(*_readable, changes.c.position)
    .where(changes.c.position > sa.bindparam("position", type_=sa.BigInteger))
    .order_by(changes.c.position)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["position", "at_most"],
)


#: PostgreSQL knows of a snapshot which transactions had ended when it was taken.
_UNSEEN: Final = sa.text(
    "position >= CAST(CAST(pg_snapshot_xmin(CAST(:seen AS pg_snapshot)) AS text) AS bigint)"
    " AND NOT pg_visible_in_snapshot("
    "CAST(CAST(position AS text) AS xid8), CAST(:seen AS pg_snapshot))"
    " AND pg_visible_in_snapshot("
    "CAST(CAST(position AS text) AS xid8), CAST(:following AS pg_snapshot))"
).bindparams(
    sa.bindparam("seen", type_=sa.Text),
    sa.bindparam("following", type_=sa.Text),
)
_CHANGES_UNSEEN: Final = Query(
    sa.select(*_readable)
    .where(_UNSEEN)
    .order_by(changes.c.at, changes.c.change_id)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["seen", "following", "at_most"],
)


async def system_purge_changes(connection: AsyncConnection, *, before: datetime) -> int:
    """Delete feed entries nobody reads any more, a bounded number; return how many.

    On SQLite the last one stays: the next one's position follows it.
    """
    not_last = None
    if connection.dialect.name == "sqlite":
        not_last = changes.c.position < int(await system_feed_end(connection))
    return await delete_before(connection, changes.c.at, before, also=not_last)


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
