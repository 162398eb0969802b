"""Tables and named queries of leases. Decides nothing.

Rows of the installation itself carry the tenant `*`, so that every key begins with a tenant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import (
    SYSTEM_TENANT,
    UTCDateTime,
    dialect_insert,
    metadata,
    tenant_column,
)
from runtime.statements import Query

#: owner of a bucket that nobody works off
NOBODY: Final = "nobody"
#: the row that whoever grants leases of a kind locks; no work has this bucket
GRANT_LOCK_BUCKET: Final = -1

leases: Final = sa.Table(
    "leases",
    metadata,
    tenant_column(),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
)

lease_members: Final = sa.Table(
    "lease_members",
    metadata,
    tenant_column(),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("owner", sa.String(128), primary_key=True),
    sa.Column("seen_until", UTCDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One bucket of one kind of work, and who owns it until when."""

    bucket: int
    owner: str
    epoch: int
    expires_at: datetime


async def system_lock_leases(connection: AsyncConnection, kind: str) -> list[Lease]:
    """Return all leases of `kind`; nobody else is granted any until the transaction ends.

    The lock is a row of its own. Locking the leases themselves would wait for other owners'
    settlements, which hold theirs, and two commits that settle and renew would deadlock.
    """
    table = leases
    start = datetime.fromtimestamp(0, tz=UTC)
    await add_leases(connection, kind=kind, owner=NOBODY, buckets=[GRANT_LOCK_BUCKET], until=start)
    of_kind = sa.and_(table.c.tenant_id == SYSTEM_TENANT, table.c.kind == kind)
    await connection.execute(
        sa.select(table.c.bucket)
        .where(of_kind, table.c.bucket == GRANT_LOCK_BUCKET)
        .with_for_update()
    )
    query = (
        sa.select(table.c.bucket, table.c.owner, table.c.epoch, table.c.expires_at)
        .where(of_kind, table.c.bucket != GRANT_LOCK_BUCKET)
        .order_by(table.c.bucket)
    )
    return [Lease(**row) for row in (await connection.execute(query)).mappings()]


async def renew_alone(
    connection: AsyncConnection, *, kind: str, owner: str, now: datetime, until: datetime
) -> dict[int, int]:
    """Extend what an owner holds that is known and alone; return bucket to epoch.

    Empty when somebody else is there, or when its own time ran out: then leases are to be granted
    anew. On PostgreSQL nobody else is granted any until the transaction ends.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK_GRANTS, {"of_kind": kind})
    values = {"of_kind": kind, "of_owner": owner, "now": now, "until": until}
    if (await connection.execute(_STAY_ALONE, values)).rowcount != 1:
        return {}
    return {row.bucket: row.epoch for row in await connection.execute(_EXTEND_ALL, values)}


_KIND: Final = sa.bindparam("of_kind", type_=sa.String)
_OWNER: Final = sa.bindparam("of_owner", type_=sa.String)
_LOCK_GRANTS: Final = (
    sa.select(leases.c.bucket)
    .where(
        leases.c.tenant_id == SYSTEM_TENANT,
        leases.c.kind == _KIND,
        leases.c.bucket == GRANT_LOCK_BUCKET,
    )
    .with_for_update()
)
_OTHERS: Final = lease_members.alias("others")
_STAY_ALONE: Final = (
    sa.update(lease_members)
    .where(
        lease_members.c.tenant_id == SYSTEM_TENANT,
        lease_members.c.kind == _KIND,
        lease_members.c.owner == _OWNER,
        lease_members.c.seen_until >= sa.bindparam("now", type_=UTCDateTime),
        ~sa.exists().where(
            _OTHERS.c.tenant_id == SYSTEM_TENANT,
            _OTHERS.c.kind == _KIND,
            _OTHERS.c.owner != _OWNER,
        ),
    )
    .values(seen_until=sa.bindparam("until"))
)
_EXTEND_ALL: Final = (
    sa.update(leases)
    .where(
        leases.c.tenant_id == SYSTEM_TENANT,
        leases.c.kind == _KIND,
        leases.c.owner == _OWNER,
        leases.c.bucket != GRANT_LOCK_BUCKET,
        leases.c.expires_at > sa.bindparam("now", type_=UTCDateTime),
    )
    .values(expires_at=sa.bindparam("until"))
    .returning(leases.c.bucket, leases.c.epoch)
)


async def add_leases(
    connection: AsyncConnection, *, kind: str, owner: str, buckets: Collection[int], until: datetime
) -> None:
    """Create the rows of buckets nobody ever owned; a row made meanwhile by another stays."""
    rows = [
        {
            "tenant_id": SYSTEM_TENANT,
            "kind": kind,
            "bucket": bucket,
            "owner": owner,
            "epoch": 1,
            "expires_at": until,
        }
        for bucket in buckets
    ]
    if rows:
        await connection.execute(dialect_insert(connection, leases).on_conflict_do_nothing(), rows)


def _named(kind: str, buckets: Collection[int]) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        leases.c.tenant_id == SYSTEM_TENANT,
        leases.c.kind == kind,
        leases.c.bucket.in_(list(buckets)),
    )


async def take_leases(
    connection: AsyncConnection, *, kind: str, owner: str, buckets: Collection[int], until: datetime
) -> None:
    """Make `owner` the owner of `buckets`, under a new epoch."""
    if buckets:
        await connection.execute(
            sa.update(leases)
            .where(*_named(kind, buckets))
            .values(owner=owner, epoch=leases.c.epoch + 1, expires_at=until)
        )


async def extend_leases(
    connection: AsyncConnection, *, kind: str, owner: str, buckets: Collection[int], until: datetime
) -> None:
    """Move the end of `owner`'s leases; pass a past moment to give them back."""
    if buckets:
        await connection.execute(
            sa.update(leases)
            .where(*_named(kind, buckets), leases.c.owner == owner)
            .values(expires_at=until)
        )


async def lease_epochs(
    connection: AsyncConnection, *, kind: str, buckets: Collection[int]
) -> dict[int, int]:
    """Return bucket to epoch, held still until the transaction ends (FOR SHARE)."""
    return dict(await _EPOCHS.rows(connection, kind=kind, buckets=sorted(buckets)))


_EPOCHS: Final = Query(
    sa.select(leases.c.bucket, leases.c.epoch)
    .where(
        leases.c.tenant_id == sa.literal_column(f"'{SYSTEM_TENANT}'"),
        leases.c.kind == sa.bindparam("kind", type_=sa.String),
        leases.c.bucket.in_(sa.bindparam("buckets", expanding=True, type_=sa.Integer)),
        leases.c.bucket != sa.literal_column(str(GRANT_LOCK_BUCKET)),
    )
    .with_for_update(read=True),
    scalars=["kind"],
    lists=["buckets"],
)


async def note_member(
    connection: AsyncConnection, *, kind: str, owner: str, now: datetime, until: datetime
) -> int:
    """Record that `owner` works on `kind`; return how many owners are alive, it included."""
    table = lease_members
    await connection.execute(
        sa.delete(table).where(
            table.c.tenant_id == SYSTEM_TENANT, table.c.kind == kind, table.c.seen_until < now
        )
    )
    insert = dialect_insert(connection, table).values(
        tenant_id=SYSTEM_TENANT, kind=kind, owner=owner, seen_until=until
    )
    await connection.execute(
        insert.on_conflict_do_update(
            index_elements=["tenant_id", "kind", "owner"], set_={"seen_until": until}
        )
    )
    count = await connection.scalar(
        sa.select(sa.func.count())
        .select_from(table)
        .where(table.c.tenant_id == SYSTEM_TENANT, table.c.kind == kind)
    )
    return int(count or 1)
