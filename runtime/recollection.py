"""One fact per entity in memory: no SQL for an entity that was asked about before.

fact written ─▶ change feed ─▶ Recollection ◀─ every decision about a live session
                  renew ─▶ what is in use and grows old is read anew, many at once
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.changes import BELIEVED_S, RENEWED_AFTER_S, Change, ChangeFeed
from runtime.database import Database
from runtime.turns import work_in_turns

#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0
#: entities held by one process; those asked about longest ago go first
HELD_MAX: Final = 200_000
#: entities that are renewed by one query: others get the event loop in between
RENEWED_AT_ONCE: Final = 64

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
        renewed_after_s: float = RENEWED_AFTER_S,
        believed_s: float = BELIEVED_S,
    ) -> None:
        """kind: of the changes, whose refs are entities. nothing: of entities without a fact.

        any_ref: the ref of a change that may be about any entity of the tenant. renewed_after_s,
        believed_s: how old a fact is when it is read anew, and when it counts no more.
        """
        self._database = database
        self._changes = changes
        self._read = read
        self._nothing = nothing
        self._held_max = held_max
        self._any_ref = any_ref
        self._renewed_after_s = renewed_after_s
        self._believed_s = believed_s
        #: each fact, and when it was read
        self._held: OrderedDict[_Key, tuple[FactT, float]] = OrderedDict()
        #: asked about, and old enough to be read anew; then: being read
        self._due: set[_Key] = set()
        self._renewing: set[_Key] = set()
        #: counts what the feed has told; what was read before that is not kept
        self._told = 0
        changes.subscribe(kind, self)

    def peek(self, tenant_id: str, entity_id: str) -> FactT | None:
        """Return a fact that is in memory and can be believed; None: ask `of`. Raises nothing."""
        now = time.monotonic()
        if now - self._changes.read_at > FEED_AGE_MAX_S:
            return None
        key = (tenant_id, entity_id)
        held = self._held.get(key)
        if held is None:
            return None
        fact, read_at = held
        if now - read_at > self._renewed_after_s:
            if now - read_at > self._believed_s:
                return None
            self._due.add(key)
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
        told, now = self._told, time.monotonic()
        async with self._database.snapshot() as connection:
            read = await self._read(connection, tenant_id, missing)
        for entity_id in missing:
            found[entity_id] = read.get(entity_id, self._nothing)
            if told == self._told:
                self._held[tenant_id, entity_id] = (found[entity_id], now)
        while len(self._held) > self._held_max:
            self._held.popitem(last=False)
        return found

    def amend(self, tenant_id: str, entity_id: str, change: Callable[[FactT], FactT]) -> None:
        """Change a fact that is in memory, if it is; what is written has to follow."""
        key = (tenant_id, entity_id)
        held = self._held.get(key)
        if held is not None:
            self._held[key] = (change(held[0]), held[1])
            self._held.move_to_end(key)
            # What is read meanwhile does not have it yet.
            self._renewing.discard(key)

    async def changed(self, entries: Sequence[Change]) -> None:
        """Forget these entities; they are read again when they are asked about."""
        self._told += 1
        for tenant_id in {entry.tenant_id for entry in entries if entry.ref == self._any_ref}:
            for key in [key for key in self._held if key[0] == tenant_id]:
                self._forget(key)
        for entry in entries:
            self._forget((entry.tenant_id, entry.ref))

    def start_over(self) -> None:
        """Forget everything, also what is being read."""
        self._told += 1
        for kept in (self._held, self._due, self._renewing):
            kept.clear()

    async def renew(self) -> None:
        """Read anew what was asked about and is old enough. Raises database errors."""
        due, self._due = self._due, set()
        await work_in_turns(due, RENEWED_AT_ONCE, self._renew)

    async def _renew(self, tenant_id: str, keys: Sequence[_Key]) -> None:
        now = time.monotonic()
        self._renewing = {key for key in keys if key in self._held}
        entity_ids = [entity_id for _, entity_id in keys]
        async with self._database.snapshot() as connection:
            read = await self._read(connection, tenant_id, entity_ids)
        # Whatever was told of meanwhile is not among them any more.
        for key in self._renewing & self._held.keys():
            self._held[key] = (read.get(key[1], self._nothing), now)
        self._renewing = set()

    def _forget(self, key: _Key) -> None:
        self._held.pop(key, None)
        self._due.discard(key)
        self._renewing.discard(key)
