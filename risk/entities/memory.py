"""Groups of users in memory, for every decision about a live session."""

from __future__ import annotations

from collections.abc import Collection

from risk.entities import store
from risk.entities.model import GROUPS_KIND
from risk.sql.store import Connection
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.recollection import HELD_MAX, Recollection
from runtime.sharing import shared

_NONE: frozenset[str] = frozenset()


class Groups(Recollection[frozenset[str]]):
    """Groups by (tenant, user), none of users without; kept by the feed."""

    def __init__(
        self, database: Database, changes: ChangeFeed, *, held_max: int = HELD_MAX
    ) -> None:
        super().__init__(database, changes, GROUPS_KIND, _read, nothing=_NONE, held_max=held_max)


async def _read(
    connection: Connection, tenant_id: str, entity_ids: Collection[str]
) -> dict[str, frozenset[str]]:
    found = await store.groups_of(connection, tenant_id, entity_ids=entity_ids)
    return {entity_id: shared(groups) for entity_id, groups in found.items()}
