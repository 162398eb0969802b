"""Levels in memory, for every decision about a live session."""

from __future__ import annotations

from risk.levels.model import LEVELS_KIND
from risk.model import Level
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.recollection import HELD_MAX, Read, Recollection


class Levels(Recollection[Level]):
    """Levels by (tenant, entity), LOW of entities nobody spoke of; kept by the feed."""

    def __init__(
        self,
        database: Database,
        changes: ChangeFeed,
        read: Read[Level],
        *,
        held_max: int = HELD_MAX,
    ) -> None:
        """read: the levels of some of a tenant's users and devices."""
        super().__init__(database, changes, LEVELS_KIND, read, nothing=Level.LOW, held_max=held_max)
