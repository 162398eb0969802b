"""Levels in memory, for every decision about a live session."""

from __future__ import annotations

from collections.abc import Collection

from risk.levels import store
from risk.levels.model import LEVELS_KIND
from risk.model import Level
from risk.sql.store import Connection
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.recollection import HELD_MAX, Recollection


class Levels(Recollection[Level]):
    """Levels by (tenant, entity), LOW of entities nobody spoke of; kept by the feed."""

    def __init__(
        self, database: Database, changes: ChangeFeed, *, held_max: int = HELD_MAX
    ) -> None:
        super().__init__(
            database, changes, LEVELS_KIND, _read, nothing=Level.LOW, held_max=held_max
        )


async def _read(
    connection: Connection, tenant_id: str, entity_ids: Collection[str]
) -> dict[str, Level]:
    return await store.levels_of(connection, tenant_id, entity_ids=entity_ids)
