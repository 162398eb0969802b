"""Table and named queries of behaviours: a tenant's own, and its changes of built-in ones."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.behaviours.model import (
    BEHAVIOURS_MAX,
    NAME_CHARS_MAX,
    Behaviour,
    BehaviourType,
    Granularity,
    StoredBehaviour,
    built_in,
)
from runtime.database import UTCDateTime, dialect_insert, id_column, metadata, tenant_column

behaviours: Final = sa.Table(
    "behaviours",
    metadata,
    tenant_column(),
    id_column("behaviour_id"),
    sa.Column("name", sa.String(NAME_CHARS_MAX), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("events_max", sa.Integer, nullable=False),
    sa.Column("events_min", sa.Integer, nullable=False),
    sa.Column("granularity", sa.String(16)),
    sa.Column("radius_km", sa.Float),
    sa.Column("velocity_kph", sa.Float),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("tenant_id", "name"),
)


async def read_behaviours(connection: AsyncConnection, tenant_id: str) -> list[StoredBehaviour]:
    """Return what a tenant stored, by id."""
    rows = await connection.execute(
        sa.select(behaviours)
        .where(behaviours.c.tenant_id == tenant_id)
        .order_by(behaviours.c.behaviour_id)
        .limit(BEHAVIOURS_MAX)
    )
    return [
        StoredBehaviour(
            behaviour=Behaviour(
                behaviour_id=row.behaviour_id,
                name=row.name,
                type=BehaviourType(row.type),
                is_active=row.is_active,
                events_max=row.events_max,
                events_min=row.events_min,
                granularity=Granularity(row.granularity) if row.granularity else None,
                radius_km=row.radius_km,
                velocity_kph=row.velocity_kph,
                is_built_in=built_in(row.behaviour_id) is not None,
            ),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in rows
    ]


async def write_behaviour(
    connection: AsyncConnection, tenant_id: str, behaviour: Behaviour, *, now: datetime
) -> None:
    """Insert a behaviour, or replace the one of its id. Raises IntegrityError for a taken name."""
    members = {
        "name": behaviour.name,
        "type": behaviour.type.value,
        "is_active": behaviour.is_active,
        "events_max": behaviour.events_max,
        "events_min": behaviour.events_min,
        "granularity": behaviour.granularity.value if behaviour.granularity else None,
        "radius_km": behaviour.radius_km,
        "velocity_kph": behaviour.velocity_kph,
        "updated_at": now,
    }
    statement = dialect_insert(connection, behaviours).values(
        tenant_id=tenant_id, behaviour_id=behaviour.behaviour_id, created_at=now, **members
    )
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "behaviour_id"], set_=members)
    )


async def delete_behaviour(connection: AsyncConnection, tenant_id: str, behaviour_id: str) -> bool:
    """Forget a behaviour; return whether it was stored."""
    result = await connection.execute(
        sa.delete(behaviours).where(
            behaviours.c.tenant_id == tenant_id, behaviours.c.behaviour_id == behaviour_id
        )
    )
    return bool(result.rowcount)
