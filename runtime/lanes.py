"""The loop that works durable work off, lane by lane.

A lane is the unit of order: at most one piece of work per lane is under way, oldest first.

    leases ─▶ due(buckets) ─▶ perform(work)  outbound, in parallel over lanes
                                   │
                     settle ◀──────┘  one batch per commit, fenced

Work under way has a place in the window. Its lane is busy until the outcome is committed, but work
that went well leaves its place when the other side has answered: so a slow commit holds up lanes,
never the window. Nor do those hold it up that keep their work waiting: what takes longer than a
moment leaves its place too, as long as little does (`silent_max`).
A process that is killed in between leaves work that is done but not settled; whoever owns the lane
next does it again (at least once), and nothing of the lane has overtaken it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import structlog

from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.notify import Notifier
from runtime.queue import SETTLE_RETRY_S, Fence, LeaseKeeper
from runtime.writer import Operation, Writer

LOOK_AGAIN_S: Final = 0.25
WINDOW: Final = 64
#: lanes whose outcome waits for its commit; at this many nothing is begun until some are committed
UNSETTLED_MAX: Final = 1_024
#: a search that found little is repeated after this pause at the earliest, and after a multiple of
#: the time it took: looking must not take the time that the work needs
SEARCH_REST_MIN_S: Final = 0.005
SEARCH_REST_MAX_S: Final = 0.02
SEARCH_REST_FACTOR: Final = 4
#: with this many lanes under way outcomes are settled in waves, each gathered for a moment:
#: one commit then serves many lanes
CROWD: Final = 16
GATHER_S: Final = 0.005
#: work under way for so long is silent
SILENT_AFTER_S: Final = 0.5

#: how far a lane is: its outcome is being committed, it has a place in the window, or it has left
#: that to others because its work takes long
SETTLING: Final = 0
PLACED: Final = 1
SILENT: Final = 2

WorkT = TypeVar("WorkT")
SettlementT = TypeVar("SettlementT")

#: lanes at work, and how far each is
Busy: TypeAlias = Mapping[str, int]

log = structlog.get_logger()


class LaneSource(Protocol[WorkT, SettlementT]):
    """What a feature gives: where its work is, how it is done, how it is settled."""

    kind: str
    settle: Operation[SettlementT, bool]

    async def due(
        self, buckets: Collection[int], now: datetime, limit: int, busy: Busy
    ) -> Sequence[WorkT]:
        """Return heads of lanes that are due, at most `limit`, none of a lane in `busy`."""
        ...

    def at_hand(self, now: datetime, limit: int, busy: Busy) -> Sequence[WorkT]:
        """Return the same from memory, as far as an earlier search found it."""
        ...

    def lane(self, work: WorkT) -> str:
        """Return the lane of `work`."""
        ...

    def bucket(self, work: WorkT) -> int:
        """Return the bucket of `work`."""
        ...

    async def perform(self, work: WorkT, fence: Fence) -> SettlementT:
        """Do it, outside any transaction; failures are settlements, never exceptions."""
        ...

    def makes_room(self, settlement: SettlementT) -> bool:
        """Tell whether others may have the place of this work before its outcome is committed."""
        ...


class Forgetful:
    """Base of sources that search anew each time, and keep a place until the commit."""

    def at_hand(self, _now: datetime, _limit: int, _busy: Busy) -> Sequence[Any]:
        """Return nothing."""
        return ()

    def makes_room(self, _settlement: Any) -> bool:
        """Return False."""
        return False


class Lanes:
    """Works off one source: claims, performs up to `window` lanes in parallel, settles."""

    def __init__(
        self,
        source: LaneSource[Any, Any],
        *,
        leases: LeaseKeeper,
        writer: Writer,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._source = source
        self._leases = leases
        self._writer = writer
        self._notifier = notifier
        self._clock = clock
        self._busy: dict[str, int] = {}
        #: lanes that have a place in the window, oldest first, and since when
        self._placed: dict[str, float] = {}
        self._silent = 0
        self._silent_max = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._something_changed = asyncio.Event()
        self._unsettled_max = UNSETTLED_MAX
        self._is_finishing = False
        #: ends the pause between two searches, None when there is none
        self._pause: asyncio.TimerHandle | None = None
        #: whether anything changed within that pause; else its end is no reason to search
        self._is_search_wanted = False
        #: released when the wave that is being gathered goes to the writer
        self._wave: list[asyncio.Future[None]] = []

    async def run(
        self, *, window: int = WINDOW, unsettled_max: int = UNSETTLED_MAX, silent_max: int = 0
    ) -> None:
        """Work until cancelled; what is under way is finished by whoever owns the lane next.

        silent_max: so much work that takes long may be under way beyond the window.
        """
        self._unsettled_max, self._silent_max = unsettled_max, silent_max
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leases.run(self._something_changed))
            group.create_task(self._pass_wakes_on())
            while True:
                self._something_changed.clear()
                try:
                    await self._start_due(group, window)
                except Exception:
                    log.warning("lanes.claim_failed", kind=self._source.kind, exc_info=True)
                await self._something_changed.wait()

    async def finish(self, timeout_s: float) -> None:
        """Begin nothing more, and wait for what is under way; what takes longer is left behind.

        `run` goes on, because what ends has to be settled under leases that hold.
        """
        self._is_finishing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _pass_wakes_on(self) -> None:
        while True:
            seen = self._notifier.count(self._source.kind)
            await self._notifier.wait(self._source.kind, LOOK_AGAIN_S, since=seen)
            self._something_changed.set()

    def _free(self, window: int) -> int:
        if self._is_finishing or not self._leases.buckets():
            return 0
        placed = len(self._placed)
        uncommitted = len(self._busy) - placed - self._silent
        return window - placed if uncommitted < self._unsettled_max else 0

    def _part_with_silent(self) -> None:
        """Give others the places of what takes long; the loop looks every LOOK_AGAIN_S."""
        since_at_most_s = asyncio.get_running_loop().time() - SILENT_AFTER_S
        while self._placed and self._silent < self._silent_max:
            lane, since_s = next(iter(self._placed.items()))
            if since_s > since_at_most_s:
                return
            del self._placed[lane]
            self._busy[lane] = SILENT
            self._silent += 1

    async def _start_due(self, group: asyncio.TaskGroup, window: int) -> None:
        self._part_with_silent()
        free = self._free(window)
        if free > 0:
            self._start(group, self._source.at_hand(self._clock.now(), free, self._busy))
            free = self._free(window)
        if self._pause is not None:
            self._is_search_wanted = True
            return
        if free <= 0:
            return
        self._is_search_wanted = False
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        # Copied: a lane that is settled while the search reads may still be found in it.
        works = await self._source.due(
            tuple(self._leases.buckets()), self._clock.now(), free, dict(self._busy)
        )
        self._start(group, works)
        if len(works) < min(free, CROWD):
            rest_s = max(SEARCH_REST_MIN_S, SEARCH_REST_FACTOR * (loop.time() - began_s))
            self._pause = loop.call_later(min(rest_s, SEARCH_REST_MAX_S), self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        if self._is_search_wanted:
            self._something_changed.set()

    def _start(self, group: asyncio.TaskGroup, works: Sequence[Any]) -> None:
        for work in works:
            lane, bucket = self._source.lane(work), self._source.bucket(work)
            # All of this may have changed while the work was looked up.
            if self._is_finishing or lane in self._busy or bucket not in self._leases.buckets():
                continue
            task = group.create_task(self._work_off(work, lane, self._leases.fence(bucket)))
            self._busy[lane] = PLACED
            self._placed[lane] = asyncio.get_running_loop().time()
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work_off(self, work: Any, lane: str, fence: Fence) -> None:
        try:
            settlement = await self._source.perform(work, fence)
            if self._source.makes_room(settlement):
                self._leave_place(lane)
            if len(self._busy) >= CROWD:
                await self._join_wave()
            await self._settle(settlement, fence)
        except Exception:
            log.exception("lanes.work_failed", kind=self._source.kind)
            await asyncio.sleep(1.0 + random.random())  # noqa: S311 - jitter, not a secret
        finally:
            self._leave_place(lane)
            del self._busy[lane]

    def _leave_place(self, lane: str) -> None:
        if self._placed.pop(lane, None) is None and self._busy[lane] == SILENT:
            self._silent -= 1
        self._busy[lane] = SETTLING
        self._something_changed.set()

    async def _join_wave(self) -> None:
        """Wait until the present wave leaves, at most GATHER_S."""
        loop = asyncio.get_running_loop()
        if not self._wave:
            loop.call_later(GATHER_S, self._send_wave)
        place: asyncio.Future[None] = loop.create_future()
        self._wave.append(place)
        await place

    def _send_wave(self) -> None:
        wave, self._wave = self._wave, []
        for place in wave:
            if not place.done():
                place.set_result(None)

    async def _settle(self, settlement: Any, fence: Fence) -> None:
        """Record the outcome; keep trying until the bucket is known to be another owner's.

        A lease that ran out while the writer was away is no reason to stop: to give the outcome up
        is to do the work again.
        """
        while True:
            try:
                await self._writer.submit(self._source.settle, settlement)
            except Unavailable:
                await asyncio.sleep(SETTLE_RETRY_S)
                if self._leases.is_known_lost(fence):
                    return
            else:
                return
