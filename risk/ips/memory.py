"""What is said of addresses, in memory: no SQL for an address that was asked for before.

claim written ─▶ change feed ─▶ IPClaims ◀─ every decision about a sign-in
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from risk.ips import store
from risk.ips.model import IPClaim
from risk.ips.service import ANY, IPS_KIND
from runtime.changes import Change, ChangeFeed
from runtime.database import Database

#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0
#: addresses held by one process; those asked for longest ago go first
HELD_MAX: Final = 100_000

_Key = tuple[str, str]


class IPClaims:
    """Claims by (tenant, address), also for addresses nobody speaks of; kept by the feed."""

    def __init__(
        self, database: Database, changes: ChangeFeed, *, held_max: int = HELD_MAX
    ) -> None:
        self._database = database
        self._changes = changes
        self._held_max = held_max
        self._held: OrderedDict[_Key, tuple[IPClaim, ...]] = OrderedDict()
        #: counts what the feed has told; what was read before that is not kept
        self._told = 0
        changes.subscribe(IPS_KIND, self)

    async def of(self, tenant_id: str, ip: str) -> tuple[IPClaim, ...]:
        """Return what is said of an address in normal form. Raises database errors."""
        key = (tenant_id, ip)
        is_fresh = self._changes.age_s <= FEED_AGE_MAX_S
        if is_fresh and key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        told = self._told
        async with self._database.snapshot() as connection:
            claims = await store.claims_of(connection, tenant_id, ip)
        if is_fresh and told == self._told:
            self._held[key] = claims
            if len(self._held) > self._held_max:
                self._held.popitem(last=False)
        return claims

    async def changed(self, entries: Sequence[Change]) -> None:
        """Forget these addresses; they are read again when they are asked for."""
        self._told += 1
        for tenant_id in {entry.tenant_id for entry in entries if entry.ref == ANY}:
            for key in [key for key in self._held if key[0] == tenant_id]:
                del self._held[key]
        for entry in entries:
            self._held.pop((entry.tenant_id, entry.ref), None)

    def start_over(self) -> None:
        """Forget everything, also what is being read."""
        self._told += 1
        self._held.clear()
