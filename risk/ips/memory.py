"""What is said of addresses, in memory: no SQL for an address that was asked for before.

claim written ─▶ change feed ─▶ IPClaims ◀─ every decision about a sign-in
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from risk.ips import store
from risk.ips.model import IPClaim
from risk.ips.service import ANY, IPS_KIND
from risk.sql.store import Connection
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.recollection import Recollection

#: addresses held by one process; those asked for longest ago go first
HELD_MAX: Final = 100_000


class IPClaims:
    """Claims by (tenant, address), also for addresses nobody speaks of; kept by the feed."""

    def __init__(
        self, database: Database, changes: ChangeFeed, *, held_max: int = HELD_MAX
    ) -> None:
        self._claims = Recollection[tuple[IPClaim, ...]](
            database, changes, IPS_KIND, _read, nothing=(), held_max=held_max, any_ref=ANY
        )

    async def of(self, tenant_id: str, ip: str) -> tuple[IPClaim, ...]:
        """Return what is said of an address in normal form. Raises database errors."""
        return (await self._claims.of(tenant_id, (ip,)))[ip]


async def _read(
    connection: Connection, tenant_id: str, ips: Collection[str]
) -> dict[str, tuple[IPClaim, ...]]:
    return {ip: await store.claims_of(connection, tenant_id, ip) for ip in ips}
