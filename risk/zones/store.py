"""Table and named queries: zones."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.policies.store import policies, session_policies
from risk.zones.model import NAME_CHARS_MAX, SYSTEM_ZONES, ZONES_MAX, Zone
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)

#: a tenant's policies of all kinds; there are a few
POLICIES_MAX: Final = 1_000

log = structlog.get_logger()

zones: Final = sa.Table(
    "zones",
    metadata,
    tenant_column(),
    id_column("zone_id"),
    sa.Column("name", sa.String(NAME_CHARS_MAX), nullable=False),
    sa.Column("document", JSONDocument, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("tenant_id", "name"),
)


async def list_zones(connection: AsyncConnection, tenant_id: str) -> list[Zone]:
    """Return the stored zones of a tenant by id; system zones that never changed are not stored."""
    rows = await connection.execute(
        sa.select(zones.c.zone_id, zones.c.document)
        .where(zones.c.tenant_id == tenant_id)
        .order_by(zones.c.zone_id)
        .limit(ZONES_MAX + len(SYSTEM_ZONES))
    )
    found = (_readable(tenant_id, row.zone_id, row.document) for row in rows)
    return [zone for zone in found if zone is not None]


async def read_zone(connection: AsyncConnection, tenant_id: str, zone_id: str) -> Zone | None:
    """Return one stored zone."""
    rows = await connection.execute(
        sa.select(zones.c.document).where(
            zones.c.tenant_id == tenant_id, zones.c.zone_id == zone_id
        )
    )
    document = rows.scalar()
    return None if document is None else _readable(tenant_id, zone_id, document)


async def write_zone(
    connection: AsyncConnection, tenant_id: str, zone: Zone, *, now: datetime
) -> None:
    """Store a zone, new or changed; its name is no other zone's."""
    statement = dialect_insert(connection, zones).values(
        tenant_id=tenant_id,
        zone_id=zone.zone_id,
        name=zone.name,
        document=msgspec.to_builtins(zone),
        updated_at=now,
    )
    newer = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "zone_id"],
            set_={"name": newer.name, "document": newer.document, "updated_at": newer.updated_at},
        )
    )


async def delete_zone(connection: AsyncConnection, tenant_id: str, zone_id: str) -> None:
    """Delete a zone."""
    await connection.execute(
        zones.delete().where(zones.c.tenant_id == tenant_id, zones.c.zone_id == zone_id)
    )


async def policies_of(connection: AsyncConnection, tenant_id: str) -> list[tuple[str, Any]]:
    """Return what a tenant's policies say, by what they are called: where zones may be named."""
    rows = await connection.execute(
        sa.select(policies.c.kind, policies.c.rules)
        .where(policies.c.tenant_id == tenant_id)
        .limit(POLICIES_MAX)
    )
    others = await connection.execute(
        sa.select(session_policies.c.document)
        .where(session_policies.c.tenant_id == tenant_id)
        .limit(POLICIES_MAX)
    )
    return [
        *((f"the policy {row.kind}", row.rules) for row in rows),
        *((f"the policy {row.document.get('name')}", row.document) for row in others),
    ]


def _readable(tenant_id: str, zone_id: str, document: Any) -> Zone | None:
    """Return a stored zone; None, and an error in the log, when a later release broke it."""
    try:
        return msgspec.convert(document, Zone)
    except msgspec.ValidationError as error:
        log.error("zone.skipped", tenant_id=tenant_id, zone_id=zone_id, detail=str(error))  # noqa: TRY400 - no bug of ours
        return None
