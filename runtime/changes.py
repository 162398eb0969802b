"""Change feed of what changes fast: containments today, more kinds by and by (contracts §3).

Whoever changes such a thing adds an entry in the same transaction. Every process with a cache of
it re-reads the newest entries when woken, and at least every quarter of a second, and hands those
it has not seen to its subscribers, which read the thing itself anew:

    note_changes ─▶ commit ─▶ wake ─▶ ChangeFeed.refresh ─▶ Subscriber.changed

Nothing is lost, and nothing told twice, in whatever order transactions end: a reading asks for what
was committed after the one before (`runtime.store.system_changes_after`, ADR 0033). When entries
may have been purged meanwhile, or are too many, subscribers are told to start over. A subscriber
that comes late loads its own state first; the feed tells it what happens from then on.

Nothing is believed for good all the same: what is in use is read anew in time, many things at once
and behind the answers, and what is not in use ages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime import store
from runtime.clock import Clock, SystemClock
from runtime.database import Database
from runtime.ids import new_id
from runtime.notify import Notifier
from runtime.store import Change

__all__ = ["Change", "ChangeFeed", "Subscriber", "note_changes", "purge_changes"]

TOPIC: Final = "changes"
REREAD_S: Final = 0.25
#: a flood of wake-ups shares its readings, and reading takes at most a fifth of a process's time
SPACING_S: Final = 0.01
REST_PER_READING: Final = 4
#: how long entries live
KEPT: Final = timedelta(minutes=10)
#: a process that did not read for this long may have missed entries that are purged
GAP_MAX: Final = KEPT / 2
#: entries of one reading; with more of them it is cheaper to load everything again
ENTRIES_MAX: Final = 5_000
#: nothing in a cache is believed for longer after it was read, whatever the feed says
BELIEVED_S: Final = 60.0
#: what is asked about when it is this old is read anew, behind the answer
RENEWED_AFTER_S: Final = 30.0
#: how often caches are asked whether something is to be renewed
RENEW_EVERY_S: Final = 0.5
#: The feed goes by the machine's clock, as ids do: a `now` that was taken before waiting for a
#: lock, or a clock that a test moves, must not make an entry look older than it is.
_MACHINE: Final = SystemClock()

log = structlog.get_logger()
_staleness = Gauge(
    "hub_runtime_changes_staleness_seconds",
    "Age of this process's last reading of the change feed.",
    multiprocess_mode="max",
)
_starts_over = Counter(
    "hub_runtime_changes_starts_over_total", "Caches dropped as a whole, by reason.", ["reason"]
)


class Subscriber(Protocol):
    """A cache that follows the feed."""

    async def changed(self, entries: Sequence[Change]) -> None:
        """Read anew what the entries name; one that names nothing held is of no concern.

        Entries may come more than once. What it raises makes the same entries come again.
        """
        ...

    def start_over(self) -> None:
        """Forget everything, also what is being loaded; load it anew when it is needed."""
        ...

    async def renew(self) -> None:
        """Read anew what is in use and was read RENEWED_AFTER_S ago, a bounded number at once."""
        ...


class ChangeFeed:
    """This process's place in the change feed. Without subscribers it reads nothing."""

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        *,
        clock: Clock = _MACHINE,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._clock = clock
        self._entries_max = entries_max
        self._subscribers: list[tuple[str, Subscriber]] = []
        #: parts what was read from what is to come; None before the first reading
        self._mark: str | None = None
        self._read_until: datetime | None = None
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    def subscribe(self, kind: str, subscriber: Subscriber) -> None:
        """Tell `subscriber` of every change of `kind` from now on."""
        self._subscribers.append((kind, subscriber))

    @property
    def read_at(self) -> float:
        """When the last complete reading began, by `time.monotonic`."""
        return self._read_at

    @property
    def age_s(self) -> float:
        """How long ago the last complete reading began; infinite before the first one.

        What was committed before that moment has reached the subscribers.
        """
        return time.monotonic() - self._read_at

    async def refresh(self) -> None:
        """Read once, and return when the subscribers know what was committed before this call.

        Raises database errors and what subscribers raise; then nothing counts as read.
        """
        async with self._reading:
            if not self._subscribers:
                return
            started, now = time.monotonic(), self._clock.now()
            until = self._read_until
            missed = until is None or now - until > GAP_MAX
            entries, following = await self._entries(None if missed else self._mark)
            if missed:
                self._start_over("gap")
            elif len(entries) >= self._entries_max:
                self._start_over("flood")
            else:
                await self._hand_out(entries)
            self._mark, self._read_until, self._read_at = following, now, started

    async def _entries(self, mark: str | None) -> tuple[list[Change], str]:
        """Return what was committed after `mark`, at most `entries_max`, and the next mark.

        None: whatever is there already is to be known, not told.
        """
        async with self._database.snapshot() as connection:
            if mark is None:
                return [], await store.system_feed_end(connection)
            entries, following = await store.system_changes_after(
                connection, mark, limit=self._entries_max
            )
            if len(entries) >= self._entries_max:
                following = await store.system_feed_end(connection)
        return entries, following

    async def catch_up(self) -> None:
        """Read once, so that this process knows what it just wrote; trouble is logged."""
        try:
            await self.refresh()
        except Exception:
            # `run` reads again in a moment.
            log.warning("changes.read_failed", exc_info=True)

    async def run(self) -> None:
        """Follow the feed until cancelled; a failed reading is logged and tried again."""
        while True:
            seen = self._notifier.count(TOPIC)
            started = time.monotonic()
            await self.catch_up()
            if self._subscribers:
                _staleness.set(self.age_s)
            took_s = time.monotonic() - started
            await asyncio.sleep(min(max(SPACING_S, REST_PER_READING * took_s), REREAD_S))
            await self._notifier.wait(TOPIC, REREAD_S, since=seen)

    async def _hand_out(self, entries: Sequence[Change]) -> None:
        for kind, subscriber in self._subscribers:
            if wanted := [each for each in entries if each.kind == kind]:
                await subscriber.changed(wanted)

    async def renew(self) -> None:
        """Let caches read anew what grows old, again and again, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            for _, subscriber in self._subscribers:
                try:
                    await subscriber.renew()
                except Exception:
                    # It is asked for again, and not believed when it gets too old.
                    log.warning("changes.renew_failed", exc_info=True)

    def _start_over(self, reason: str) -> None:
        _starts_over.labels(reason).inc()
        for _, subscriber in self._subscribers:
            subscriber.start_over()


async def note_changes(
    connection: AsyncConnection, kind: str, refs: Iterable[tuple[str, str]]
) -> None:
    """Say in the running transaction that things of `kind`, as (tenant, ref), were changed.

    Whoever commits wakes the topic "changes" when somebody should know before the next reading.
    """
    at = _MACHINE.now()
    await store.add_changes(
        connection,
        [
            Change(tenant_id=tenant_id, change_id=new_id("chg"), kind=kind, ref=ref, at=at)
            for tenant_id, ref in refs
        ],
    )


async def purge_changes(connection: AsyncConnection) -> int:
    """Delete entries nobody looks back to any more, a bounded number; return how many."""
    return await store.system_purge_changes(connection, before=_MACHINE.now() - KEPT)
