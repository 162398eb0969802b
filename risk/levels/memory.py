"""Levels in memory: no SQL for an entity that was asked about before.

level computed ─▶ change feed ─▶ Levels ◀─ every decision about a live session
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from risk.levels import store
from risk.levels.model import LEVELS_KIND
from risk.model import Level
from runtime.changes import Change, ChangeFeed
from runtime.database import Database

#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0
#: entities held by one process; those asked about longest ago go first
HELD_MAX: Final = 200_000

_Key = tuple[str, str]


class Levels:
    """Levels by (tenant, entity), also of entities nobody spoke of; kept by the feed."""

    def __init__(
        self, database: Database, changes: ChangeFeed, *, held_max: int = HELD_MAX
    ) -> None:
        self._database = database
        self._changes = changes
        self._held_max = held_max
        self._held: OrderedDict[_Key, Level] = OrderedDict()
        #: counts what the feed has told; what was read before that is not kept
        self._told = 0
        changes.subscribe(LEVELS_KIND, self)

    def peek(self, tenant_id: str, entity_id: str) -> Level | None:
        """Return a level that is in memory and can be believed; None: ask `of`. Raises nothing."""
        if self._changes.age_s > FEED_AGE_MAX_S:
            return None
        key = (tenant_id, entity_id)
        level = self._held.get(key)
        if level is not None:
            self._held.move_to_end(key)
        return level

    async def of(self, tenant_id: str, entity_ids: Iterable[str]) -> dict[str, Level]:
        """Return the levels of entities; LOW of those nobody spoke of. Raises database errors."""
        wanted = set(entity_ids)
        known = {each: self.peek(tenant_id, each) for each in wanted}
        found = {each: level for each, level in known.items() if level is not None}
        missing = wanted - found.keys()
        if not missing:
            return found
        told = self._told
        async with self._database.snapshot() as connection:
            read = await store.levels_of(connection, tenant_id, entity_ids=missing)
        for entity_id in missing:
            found[entity_id] = read.get(entity_id, Level.LOW)
            if told == self._told:
                self._held[tenant_id, entity_id] = found[entity_id]
        while len(self._held) > self._held_max:
            self._held.popitem(last=False)
        return found

    async def changed(self, entries: Sequence[Change]) -> None:
        """Forget these entities; they are read again when they are asked about."""
        self._told += 1
        for entry in entries:
            self._held.pop((entry.tenant_id, entry.ref), None)

    def start_over(self) -> None:
        """Forget everything, also what is being read."""
        self._told += 1
        self._held.clear()
