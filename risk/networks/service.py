"""What a process knows of addresses: the present table, followed as it is replaced.

    ip-table.ipt renamed into place ─▶ Networks.refresh: mapped in a thread ─▶ one reference swapped

A table that is damaged is refused, told once, and the one that is held stays.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Gauge

from risk.networks.artefact import MappedTable, TableCorruptError, map_table
from risk.networks.model import IPRecord, Source
from risk.networks.table import Statement, View
from runtime.clock import Clock
from runtime.notify import Notifier

#: within the data folder
FOLDER: Final = "networks"
TABLE: Final = "ip-table.ipt"
#: how long a new table may lie unseen by a process that nobody wakes
LOOK_S: Final = 2.0
#: how long a view counts as of now: staleness and decay are matters of days
VIEW_S: Final = 60

log = structlog.get_logger()
_prefixes = Gauge(
    "hub_risk_ip_table_prefixes",
    "Prefixes of all feeds in the table of addresses that is in use.",
    multiprocess_mode="max",
)
_age = Gauge(
    "hub_risk_feed_age_seconds",
    "Age of each feed's data in the table of addresses.",
    ["feed"],
    multiprocess_mode="max",
)
_stale = Gauge(
    "hub_risk_feed_stale",
    "1 for a feed whose data is older than it may be.",
    ["feed"],
    multiprocess_mode="max",
)

_Seen = tuple[int, int, int]


class Networks:
    """What is known of addresses, in this process. folder: None for a hub that keeps no files."""

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._path = folder / TABLE if folder else None
        self._clock = clock
        self._seen: _Seen | None = None
        self._view = View(None, 0)
        self._refreshing = asyncio.Lock()

    def lookup(self, ip: str) -> IPRecord:
        """Return what is known of an address; `known` is False where nothing is. Never raises."""
        return self._view.lookup(ip)

    def statements(self, ip: str) -> tuple[Statement, ...]:
        """Return what every feed says of an address, in the order they are asked. Never raises."""
        return self._view.statements(ip)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The feeds of the present table."""
        table = self._view.table
        return table.header.sources if table else ()

    @property
    def version(self) -> str | None:
        """Which table is in use; None without any."""
        return self._view.table.version if self._view.table else None

    async def refresh(self) -> bool:
        """Look for another table, and return whether one is in use now. Raises nothing.

        The event loop waits for none of it: a table is read through and unmapped in a thread.
        """
        async with self._refreshing:
            now = self._now()
            seen = await asyncio.to_thread(_look, self._path)
            if seen is None or self._path is None or seen == self._seen:
                if now - self._view.now > VIEW_S:
                    self._show(self._view.table, now)
                return False
            self._seen = seen
            try:
                table = await asyncio.to_thread(map_table, self._path)
            except (TableCorruptError, OSError) as error:
                log.error("ip_table.refused", path=str(self._path), reason=str(error))  # noqa: TRY400 - the text says it all
                return False
            before = self._view.table
            self._show(table, now)
            log.info(
                "ip_table.loaded",
                version=table.version,
                prefixes=table.header.prefixes,
                bytes=table.size_bytes,
                feeds=[source.name for source in table.header.sources],
            )
            if before is not None:
                # Lookups happen on this loop only, so nobody is in the middle of one.
                await asyncio.to_thread(before.close)
            return True

    async def follow(self, notifier: Notifier) -> None:
        """Keep up with the table until cancelled."""
        while True:
            seen = notifier.count("config")
            try:
                await self.refresh()
            except Exception:
                # Whatever is wrong with a file, this process goes on with the table it has.
                log.warning("ip_table.follow_failed", exc_info=True)
            await notifier.wait("config", LOOK_S, since=seen)

    def _show(self, table: MappedTable | None, now: int) -> None:
        gone = {source.name for source in self.sources}
        self._view = View(table, now)
        _prefixes.set(table.header.prefixes if table else 0)
        for source in self.sources:
            gone.discard(source.name)
            _age.labels(source.name).set(source.age_s(now))
            _stale.labels(source.name).set(source.is_stale(now))
        for name in gone:
            _age.labels(name).set(0)
            _stale.labels(name).set(0)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _look(path: Path | None) -> _Seen | None:
    """Return what tells one file in this place from another; None when there is none."""
    if path is None:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - the same, and short
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
