"""Table and named queries: what was reminded of already, and who is due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.levels.store import level_history, levels
from risk.model import Level
from risk.reminders.model import Reminder
from runtime.database import UTCDateTime, id_column, insert_new, metadata, tenant_column

reminders: Final = sa.Table(
    "reminders",
    metadata,
    tenant_column(),
    id_column("reminder_id"),
    sa.Column("at", UTCDateTime, nullable=False),
)


async def high_since(
    connection: AsyncConnection, tenant_id: str, *, before: datetime, stage: str, limit: int
) -> list[tuple[str, str, datetime]]:
    """Return (user, history id, since when) of users who are HIGH since before a moment.

    Those who were not reminded of at this stage, the longest HIGH first, at most `limit`.
    """
    newer = level_history.alias("newer")
    rows = await connection.execute(
        sa.select(level_history.c.entity_id, level_history.c.history_id, level_history.c.at)
        .select_from(
            levels.join(
                level_history,
                sa.and_(
                    level_history.c.tenant_id == levels.c.tenant_id,
                    level_history.c.entity_id == levels.c.entity_id,
                ),
            )
        )
        .where(
            levels.c.tenant_id == tenant_id,
            levels.c.level == Level.HIGH.name,
            level_history.c.tenant_id == tenant_id,
            level_history.c.level == Level.HIGH.name,
            level_history.c.at <= before,
            ~sa.exists().where(
                newer.c.tenant_id == tenant_id,
                newer.c.entity_id == level_history.c.entity_id,
                newer.c.history_id > level_history.c.history_id,
            ),
            ~sa.exists().where(
                reminders.c.tenant_id == tenant_id,
                reminders.c.reminder_id == level_history.c.history_id + stage,
            ),
        )
        .order_by(level_history.c.at)
        .limit(limit)
    )
    return [(row.entity_id, row.history_id, row.at) for row in rows]


async def add(connection: AsyncConnection, tenant_id: str, told: Sequence[Reminder]) -> set[str]:
    """Keep what is told now; return the ids of those that nobody told before."""
    return await insert_new(
        connection,
        reminders,
        [{"tenant_id": tenant_id, "reminder_id": each.reminder_id, "at": each.at} for each in told],
        "reminder_id",
    )
