"""Keeps the table of addresses up with its feeds: looks at their files, compiles what is new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter

from risk.networks.build import build
from risk.networks.feeds import Feed, Outcome, Plan, Report
from risk.networks.library import Library
from runtime.clock import Clock, epoch_s
from runtime.notify import Notifier

#: how often the files are looked at
LOOK_S: Final = 30.0

log = structlog.get_logger()
_imports = Counter(
    "hub_risk_feed_imports_total", "Files of feeds that were read, by outcome.", ["outcome"]
)


class Keeper:
    """Compiles for one folder. feeds: reads the present feeds. Raises nothing on its own."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        notifier: Notifier,
        feeds: Callable[[], Awaitable[Sequence[Feed]]],
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._notifier = notifier
        self._feeds = feeds

    async def compile(self, accept_shrunk: Sequence[str] = ()) -> Report:
        """Compile what is new, in a process of its own. Raises Unavailable, database errors."""
        plan = Plan(
            folder=str(self._folder),
            now=epoch_s(self._clock.now()),
            feeds=tuple(await self._feeds()),
            accept_shrunk=tuple(accept_shrunk),
        )
        report = await build(plan)
        _tell(report)
        if report.version is not None:
            # Who maps the table looks at it when it is woken; nobody has to wait for the next look.
            self._notifier.wake("config")
        return report

    async def look(self) -> bool:
        """Compile if anything is new; return whether it was. Raises as `compile` does."""
        feeds = await self._feeds()
        library = Library(self._folder)
        if not feeds and not library.table.exists():
            return False
        if not await asyncio.to_thread(library.is_due, feeds):
            return False
        return not (await self.compile()).is_busy

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            seen = self._notifier.count("config")
            try:
                await self.look()
            except Exception:
                # Whatever is wrong with the files, what is in use stays.
                log.warning("feed.look_failed", exc_info=True)
            await self._notifier.wait("config", LOOK_S, since=seen)


def _tell(report: Report) -> None:
    for each in report.feeds:
        if not each.is_new:
            continue
        _imports.labels(each.state.outcome.value).inc()
        if each.state.outcome is Outcome.ACCEPTED:
            log.info("feed.accepted", feed=each.name, prefixes=each.state.prefixes)
        else:
            log.error(
                "feed.refused",
                feed=each.name,
                outcome=each.state.outcome.value,
                reason=each.state.reason,
            )
    if report.version is not None:
        log.info(
            "ip_table.published",
            version=report.version,
            prefixes=report.prefixes,
            took_s=report.took_s,
        )
