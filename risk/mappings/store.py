"""Table and named queries: mappings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.mappings.model import (
    EVENT_TYPE_CHARS_MAX,
    MAPPINGS_PER_TENANT_MAX,
    Mapping,
    StoredMapping,
    render_mapping,
)
from runtime.database import JSONDocument, UTCDateTime, id_column, metadata, tenant_column
from runtime.errors import Conflict

log = structlog.get_logger()

mappings: Final = sa.Table(
    "mappings",
    metadata,
    tenant_column(),
    id_column("mapping_id"),
    sa.Column("event_type", sa.String(EVENT_TYPE_CHARS_MAX), nullable=False),
    sa.Column("document", JSONDocument, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("tenant_id", "event_type"),
)


async def list_mappings(connection: AsyncConnection, tenant_id: str) -> list[StoredMapping]:
    """Return the tenant's own mappings by id: all, they are bounded."""
    rows = await connection.execute(
        sa.select(mappings)
        .where(mappings.c.tenant_id == tenant_id)
        .order_by(mappings.c.mapping_id)
        .limit(MAPPINGS_PER_TENANT_MAX)
    )
    found = map(_readable, rows.mappings())
    return [each for each in found if each is not None]


async def find_mapping(
    connection: AsyncConnection, tenant_id: str, mapping_id: str
) -> StoredMapping | None:
    """Return one of the tenant's own mappings."""
    rows = await connection.execute(
        sa.select(mappings).where(
            mappings.c.tenant_id == tenant_id, mappings.c.mapping_id == mapping_id
        )
    )
    row = rows.mappings().first()
    return None if row is None else _readable(row)


async def count_mappings(connection: AsyncConnection, tenant_id: str) -> int:
    """Return how many mappings of its own the tenant has."""
    count = await connection.scalar(
        sa.select(sa.func.count()).select_from(mappings).where(mappings.c.tenant_id == tenant_id)
    )
    return int(count or 0)


async def add_mappings(
    connection: AsyncConnection, tenant_id: str, added: Iterable[StoredMapping]
) -> None:
    """Insert mappings. Raises Conflict when an event type has one already."""
    rows = [{"tenant_id": tenant_id, **_row(each)} for each in added]
    if not rows:
        return
    try:
        async with connection.begin_nested():
            await connection.execute(mappings.insert(), rows)
    except sa.exc.IntegrityError as error:
        raise Conflict("The event type has a mapping already.") from error


async def write_mapping(
    connection: AsyncConnection, tenant_id: str, changed: StoredMapping
) -> None:
    """Overwrite a mapping. Raises Conflict when another one has its event type."""
    statement = (
        mappings.update()
        .where(mappings.c.tenant_id == tenant_id, mappings.c.mapping_id == changed.mapping_id)
        .values(_row(changed))
    )
    try:
        async with connection.begin_nested():
            await connection.execute(statement)
    except sa.exc.IntegrityError as error:
        raise Conflict("The event type has a mapping already.") from error


async def delete_mapping(connection: AsyncConnection, tenant_id: str, mapping_id: str) -> bool:
    """Delete a mapping; return whether there was one."""
    result = await connection.execute(
        mappings.delete().where(
            mappings.c.tenant_id == tenant_id, mappings.c.mapping_id == mapping_id
        )
    )
    return result.rowcount > 0


async def delete_all(connection: AsyncConnection, tenant_id: str) -> None:
    """Delete all mappings of the tenant."""
    await connection.execute(mappings.delete().where(mappings.c.tenant_id == tenant_id))


def _row(stored: StoredMapping) -> dict[str, object]:
    return {
        "mapping_id": stored.mapping_id,
        "event_type": stored.mapping.event_type,
        "document": render_mapping(stored.mapping),
        "version": stored.version,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
    }


def _readable(row: sa.RowMapping) -> StoredMapping | None:
    """Return a stored mapping; None, and an error in the log, when a later release broke it.

    The shipped rules then apply to its event type: one mapping must not stop a whole tenant.
    """
    try:
        mapping = msgspec.convert(row["document"], Mapping)
    except msgspec.ValidationError as error:
        broken = {"tenant_id": row["tenant_id"], "mapping_id": row["mapping_id"]}
        log.error("mapping.skipped", **broken, detail=str(error))  # noqa: TRY400 - no bug of ours
        return None
    return StoredMapping(
        mapping_id=row["mapping_id"],
        mapping=mapping,
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
