"""Configuration that decisions need, read before it is asked for and outside their deadline.

process starts, version moves ─▶ Warmth ─▶ policies, zones, behaviours, denied users in memory
first question of a tenant ────────┘ waits for it, together with everybody else who does
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from typing import Any, Final, TypeAlias

import structlog

from hub.denied import DeniedUsers
from runtime.feed import ConfigFeed

#: a question waits no longer for the configuration of its tenant; reading it goes on
WARM_LIMIT_S: Final = 1.0
#: how often it is looked whether something moved
LOOK_AGAIN_S: Final = 0.5
#: tenants that are read when the process starts; the others with their first question
TENANTS_MAX: Final = 1_000

#: a kind of the configuration feed, and what reads a tenant's into its cache
Load: TypeAlias = tuple[str, Callable[[str], Awaitable[Any]]]

log = structlog.get_logger()


class Warmth:
    """Keeps the configuration of tenants in memory, for one process."""

    def __init__(self, feed: ConfigFeed, denied_users: DeniedUsers, loads: Sequence[Load]) -> None:
        """loads: everything that decisions take from the configuration."""
        self._feed = feed
        self._denied = denied_users
        self._loads = tuple(loads)
        self._kinds = tuple({kind: None for kind, _ in loads})
        #: tenant -> the versions that were read
        self._read: dict[str, Hashable] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        #: tenants of which it was told that they could not be read
        self._troubled: set[str] = set()

    def is_ready(self, tenant_id: str) -> bool:
        """Return whether nothing of the tenant's configuration has to be read. Raises nothing."""
        read = self._read.get(tenant_id)
        is_current = read is not None and read == self._versions(tenant_id)
        return is_current and self._denied.holds(tenant_id)

    async def ready(self, tenant_id: str) -> None:
        """Return when the tenant's configuration is in memory.

        Raises TimeoutError after a second, while reading goes on for whoever asks next, and
        database errors.
        """
        if self.is_ready(tenant_id):
            return
        task = self._reading.get(tenant_id)
        if task is None:
            task = asyncio.create_task(self._warm(tenant_id))
            self._reading[tenant_id] = task
            task.add_done_callback(lambda done: self._done(tenant_id, done))
        async with asyncio.timeout(WARM_LIMIT_S):
            await asyncio.shield(task)

    async def run(self, tenants: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Read what tenants have now, then what moves, until cancelled; trouble is logged.

        tenants: the active ones.
        """
        wanted: Collection[str] | None = None
        try:
            while True:
                if wanted is None:
                    wanted = await self._first(tenants)
                for tenant_id in {**dict.fromkeys(wanted or ()), **self._read}:
                    await self._try(tenant_id)
                await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            for task in self._reading.values():
                task.cancel()

    async def _first(
        self, tenants: Callable[[], Awaitable[Collection[str]]]
    ) -> Collection[str] | None:
        try:
            return sorted(await tenants())[:TENANTS_MAX]
        except Exception:
            log.warning("config.not_warmed", exc_info=True)
            return None

    async def _try(self, tenant_id: str) -> None:
        try:
            await self.ready(tenant_id)
        except TimeoutError:
            # It goes on; whoever asks meanwhile gets the fallback.
            log.warning("config.not_warmed", tenant_id=tenant_id, reason="it takes long")
        except Exception:
            # Here it is tried again in a moment.
            log.warning("config.not_warmed", tenant_id=tenant_id, exc_info=True)
        else:
            if tenant_id in self._troubled:
                self._troubled.discard(tenant_id)
                log.info("config.warmed", tenant_id=tenant_id)
            return
        self._troubled.add(tenant_id)

    async def _warm(self, tenant_id: str) -> None:
        versions = self._versions(tenant_id)
        for _, load in self._loads:
            await load(tenant_id)
        await self._denied.warm(tenant_id)
        # Versions from before: what changed meanwhile is read once more.
        self._read[tenant_id] = versions

    def _done(self, tenant_id: str, task: asyncio.Task[None]) -> None:
        self._reading.pop(tenant_id, None)
        if not task.cancelled():
            # Whoever waits raises it as well; nobody may.
            task.exception()

    def _versions(self, tenant_id: str) -> Hashable:
        return tuple(self._feed.version(tenant_id, kind) for kind in self._kinds)
