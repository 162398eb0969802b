"""Whom the hub denies, in memory: the users of each tenant with an open quarantine.

containment written ─▶ change feed ─▶ DeniedUsers ◀─ every decision about a sign-in or a session
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import actions.service
from actions.model import CONTAINMENTS_KIND
from runtime.changes import RENEWED_AFTER_S, Change, ChangeFeed
from runtime.database import Database

#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0


class DeniedUsers:
    """Who is quarantined, per tenant: loaded when first asked for, then kept by the change feed."""

    def __init__(self, database: Database, changes: ChangeFeed) -> None:
        self._database = database
        self._changes = changes
        #: tenant -> user -> trace id
        self._held: dict[str, dict[str, str]] = {}
        #: when each tenant's were read
        self._read_at: dict[str, float] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        changes.subscribe(CONTAINMENTS_KIND, self)

    async def among(self, tenant_id: str, user_ids: Collection[str]) -> dict[str, str]:
        """Return those of these users who are quarantined, each with the trace id of the cause.

        Raises database errors.
        """
        if not user_ids:
            return {}
        if self._changes.age_s > FEED_AGE_MAX_S:
            # Memory may be behind, and its silence would be an ALLOW. The database is asked, and
            # when it does not answer either, nobody is allowed anything: fail closed.
            return await self._read(tenant_id, user_ids)
        denied = await self._of(tenant_id)
        return {user_id: denied[user_id] for user_id in user_ids if user_id in denied}

    def holds(self, tenant_id: str) -> bool:
        """Return whether `among` answers from memory. Raises nothing."""
        return tenant_id in self._held and self._changes.age_s <= FEED_AGE_MAX_S

    def last_known(self, tenant_id: str, user_id: str) -> str | None:
        """Return the trace id of a quarantine in memory, however old that is. Raises nothing."""
        return self._held.get(tenant_id, {}).get(user_id)

    async def warm(self, tenant_id: str) -> None:
        """Read a tenant's quarantined users, unless they are held. Raises database errors."""
        await self._of(tenant_id)

    async def changed(self, entries: Sequence[Change]) -> None:
        """Read anew who of these users is quarantined."""
        concerned: dict[str, set[str]] = {}
        for entry in entries:
            concerned.setdefault(entry.tenant_id, set()).add(entry.ref)
        for tenant_id, user_ids in concerned.items():
            # A load that is under way may have read before the change: wait for it.
            async with self._turns[tenant_id]:
                held = self._held.get(tenant_id)
                if held is None:
                    continue
                denied = await self._read(tenant_id, user_ids)
                for user_id in user_ids - denied.keys():
                    held.pop(user_id, None)
                held |= denied

    def start_over(self) -> None:
        """Forget everybody. A load under way ends up in the dict that is dropped here."""
        self._held = {}

    async def renew(self) -> None:
        """Read tenants anew in whom nothing was read for a while. Raises database errors."""
        held, now = self._held, time.monotonic()
        for tenant_id in [each for each in held if now - self._read_at[each] > RENEWED_AFTER_S]:
            # In its turn: what the feed tells meanwhile is read after this.
            async with self._turns[tenant_id]:
                await self._load(tenant_id, held)

    async def _of(self, tenant_id: str) -> Mapping[str, str]:
        held = self._held
        if tenant_id not in held:
            async with self._turns[tenant_id]:
                if tenant_id not in held:
                    await self._load(tenant_id, held)
        return held[tenant_id]

    async def _load(self, tenant_id: str, held: dict[str, dict[str, str]]) -> None:
        self._read_at[tenant_id] = time.monotonic()
        held[tenant_id] = await self._read(tenant_id)

    async def _read(
        self, tenant_id: str, user_ids: Collection[str] | None = None
    ) -> dict[str, str]:
        async with self._database.snapshot() as connection:
            return await actions.service.denied_users(connection, tenant_id, user_ids)
