"""One fact per entity in memory: no SQL for an entity that was asked about before.

fact written ─▶ change feed ─▶ Recollection ◀─ every decision about a live session
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.changes import Change, ChangeFeed
from runtime.database import Database

#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0
#: entities held by one process; those asked about longest ago go first
HELD_MAX: Final = 200_000

_Key = tuple[str, str]
FactT = TypeVar("FactT")
#: reads the facts of some of a tenant's entities; those without one may be left out
Read = Callable[[AsyncConnection, str, Collection[str]], Awaitable[Mapping[str, FactT]]]


class Recollection(Generic[FactT]):
    """Facts by (tenant, entity), also of entities that have none; kept by the feed."""

    def __init__(  # noqa: PLR0913 - what is remembered, and from where
        self,
        database: Database,
        changes: ChangeFeed,
        kind: str,
        read: Read[FactT],
        *,
        nothing: FactT,
        held_max: int = HELD_MAX,
        any_ref: str | None = None,
    ) -> None:
        """kind: of the changes, whose refs are entities. nothing: of entities without a fact.

        any_ref: the ref of a change that may be about any entity of the tenant.
        """
        self._database = database
        self._changes = changes
        self._read = read
        self._nothing = nothing
        self._held_max = held_max
        self._any_ref = any_ref
        self._held: OrderedDict[_Key, FactT] = OrderedDict()
        #: counts what the feed has told; what was read before that is not kept
        self._told = 0
        changes.subscribe(kind, self)

    def peek(self, tenant_id: str, entity_id: str) -> FactT | None:
        """Return a fact that is in memory and can be believed; None: ask `of`. Raises nothing."""
        if self._changes.age_s > FEED_AGE_MAX_S:
            return None
        key = (tenant_id, entity_id)
        fact = self._held.get(key)
        if fact is not None:
            self._held.move_to_end(key)
        return fact

    async def of(self, tenant_id: str, entity_ids: Iterable[str]) -> dict[str, FactT]:
        """Return the facts of entities, of each one. Raises database errors."""
        wanted = set(entity_ids)
        known = {each: self.peek(tenant_id, each) for each in wanted}
        found = {each: fact for each, fact in known.items() if fact is not None}
        missing = wanted - found.keys()
        if not missing:
            return found
        told = self._told
        async with self._database.snapshot() as connection:
            read = await self._read(connection, tenant_id, missing)
        for entity_id in missing:
            found[entity_id] = read.get(entity_id, self._nothing)
            if told == self._told:
                self._held[tenant_id, entity_id] = found[entity_id]
        while len(self._held) > self._held_max:
            self._held.popitem(last=False)
        return found

    def amend(self, tenant_id: str, entity_id: str, change: Callable[[FactT], FactT]) -> None:
        """Change a fact that is in memory, if it is; what is written has to follow."""
        key = (tenant_id, entity_id)
        if key in self._held:
            self._held[key] = change(self._held[key])
            self._held.move_to_end(key)

    async def changed(self, entries: Sequence[Change]) -> None:
        """Forget these entities; they are read again when they are asked about."""
        self._told += 1
        for tenant_id in {entry.tenant_id for entry in entries if entry.ref == self._any_ref}:
            for key in [key for key in self._held if key[0] == tenant_id]:
                del self._held[key]
        for entry in entries:
            self._held.pop((entry.tenant_id, entry.ref), None)

    def start_over(self) -> None:
        """Forget everything, also what is being read."""
        self._told += 1
        self._held.clear()
