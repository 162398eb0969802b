"""Change feed: how every process learns that a cache of it is stale.

Configuration (providers, apps, streams, policies …): one version per tenant and kind; a process
re-reads the few version rows when woken and at least every second, and a `ConfigCache` reloads
its kind when the version moved. Staleness is measured and exported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar

import sqlalchemy as sa
import structlog
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime import store
from runtime.database import Database
from runtime.notify import Notifier
from runtime.rate import TokenBuckets
from runtime.statements import LIST_MAX, Query
from runtime.store import bump

__all__ = ["ConfigCache", "ConfigFeed", "bump", "config_versions"]

REREAD_S: Final = 0.25
#: requests that miss may ask for a re-read, and share one in this time
MISS_REREAD_S: Final = 0.02
#: looks of that kind per second; beyond, callers share the reading that happens anyway
MISSES_PER_S: Final = 20.0
MISSES_AT_ONCE: Final = 100.0

ValueT = TypeVar("ValueT")

log = structlog.get_logger()
_staleness = Gauge(
    "hub_runtime_config_staleness_seconds",
    "Age of this process's picture of the configuration versions.",
    multiprocess_mode="max",
)


_VERSIONS_OF: Final = Query(
    sa.select(store.config_versions.c.tenant_id, store.config_versions.c.version).where(
        store.config_versions.c.kind == sa.bindparam("kind", type_=sa.String),
        store.config_versions.c.tenant_id.in_(
            sa.bindparam("tenant_ids", expanding=True, type_=sa.String)
        ),
    ),
    scalars=["kind"],
    lists=["tenant_ids"],
)


async def config_versions(
    connection: AsyncConnection, kind: str, tenant_ids: Iterable[str]
) -> dict[str, int]:
    """Return tenant to version of one kind, as this transaction sees it; never changed: left out.

    For work that must not use an older configuration than was committed before it began.
    """
    wanted = sorted(set(tenant_ids))
    found: dict[str, int] = {}
    for first in range(0, len(wanted), LIST_MAX):
        some = wanted[first : first + LIST_MAX]
        found |= await _VERSIONS_OF.rows(connection, kind=kind, tenant_ids=some)
    return found


class ConfigFeed:
    """This process's picture of the configuration versions."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._versions: dict[tuple[str, str], int] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    def version(self, tenant_id: str, kind: str) -> int:
        """Return the last seen version; 0 when the kind never changed."""
        return self._versions.get((tenant_id, kind), 0)

    async def refresh(self, *, spacing_s: float = 0.0) -> None:
        """Return after a reading that began after this call; callers at the same time share one.

        spacing_s: wait until the last reading is this old. Raises database errors.
        """
        asked = time.monotonic()
        async with self._reading:
            if self._read_at > asked:
                return
            if (rest_s := self._read_at + spacing_s - time.monotonic()) > 0:
                await asyncio.sleep(rest_s)
            started = time.monotonic()
            async with self._database.snapshot() as connection:
                self._versions = await store.system_config_versions(connection)
            self._read_at = started

    async def run(self) -> None:
        """Follow the feed until cancelled; a failed read is logged and tried again."""
        while True:
            seen = self._notifier.count("config")
            try:
                await self.refresh()
            except Exception:
                log.warning("feed.read_failed", exc_info=True)
            _staleness.set(time.monotonic() - self._read_at)
            await self._notifier.wait("config", REREAD_S, since=seen)


class ConfigCache(Generic[ValueT]):
    """One kind of configuration per tenant, in memory, reloaded when its version moves."""

    def __init__(
        self, feed: ConfigFeed, kind: str, load: Callable[[str], Awaitable[ValueT]]
    ) -> None:
        self._feed = feed
        self._kind = kind
        self._load = load
        self._values: dict[str, tuple[int, ValueT]] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._misses = TokenBuckets(per_s=MISSES_PER_S, burst=MISSES_AT_ONCE, names_max=1)

    def peek(self, tenant_id: str) -> ValueT | None:
        """Return what is in memory, outdated or not; None: nothing. Raises nothing."""
        held = self._values.get(tenant_id)
        return None if held is None else held[1]

    def current(self, tenant_id: str) -> ValueT | None:
        """Return what is in memory and up to date; None: it has to be read. Raises nothing."""
        held = self._values.get(tenant_id)
        is_current = held is not None and held[0] == self._feed.version(tenant_id, self._kind)
        return held[1] if held is not None and is_current else None

    async def get(self, tenant_id: str, *, fresh: bool = False) -> ValueT:
        """Return the tenant's value; from memory unless its version moved.

        fresh: look at the versions first, for a caller that just missed what it looked for; it
        sees everything committed before this call. Such looks are shared, spaced 20 ms and
        limited to a rate beyond which they wait for the next regular reading: guessing delays
        the guesser and is no load for the database.
        """
        if fresh:
            waits = self._misses.take(self._kind, time.monotonic()) > 0
            await self._feed.refresh(spacing_s=REREAD_S if waits else MISS_REREAD_S)
        version = self._feed.version(tenant_id, self._kind)
        held = self._values.get(tenant_id)
        if held is not None and held[0] == version:
            return held[1]
        async with self._loading.setdefault(tenant_id, asyncio.Lock()):
            held = self._values.get(tenant_id)
            if held is None or held[0] != version:
                # Read after the version: a change in between only causes one more reload.
                held = (version, await self._load(tenant_id))
                self._values[tenant_id] = held
        return held[1]
