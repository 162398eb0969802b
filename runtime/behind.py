"""Writes behind the answers they come from: durable soon, in batches, and bounded.

note ─▶ waiting ─▶ at most four times a second: batches ─▶ writer ─▶ what could not be written: lost

For what may be lost with a crash, because it comes again or is only told. What has to be durable
before an answer goes to the writer itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from prometheus_client import Counter

from runtime.errors import Refused, Unavailable

FLUSH_S: Final = 0.25
#: items that wait at most; beyond, the oldest is lost
WAITING_MAX: Final = 10_000
BATCH_MAX: Final = 256

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def _unheard(_item: object, _result: object) -> None:
    """Hear nothing."""


class WriteBehind(Generic[ItemT, ResultT]):
    """Items that wait to be written by this process."""

    def __init__(
        self,
        write: Callable[[ItemT], Awaitable[ResultT]],
        *,
        lost: Counter,
        warn: Callable[[int, str], None],
        written: Callable[[ItemT, ResultT | None], None] = _unheard,
    ) -> None:
        """write: returns after the commit. lost: counts what is never written.

        warn: told how many of a batch were lost, and the name of the first error. written: hears
        what became of each item, None when it could not be written.
        """
        self._write = write
        self._lost = lost
        self._warn = warn
        self._written = written
        self._waiting: deque[ItemT] = deque()
        self._noted = asyncio.Event()
        #: whoever flushes also waits for what another one is writing
        self._writing = asyncio.Lock()

    def note(self, item: ItemT) -> None:
        """Write an item soon. Never waits, raises nothing."""
        if len(self._waiting) >= WAITING_MAX:
            self._lost.inc()
            self._written(self._waiting.popleft(), None)
        self._waiting.append(item)
        self._noted.set()

    async def run(self) -> None:
        """Write what was noted, again and again, until cancelled."""
        while True:
            await self._noted.wait()
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; return after the commit.

        What the writer does not take is dropped and counted; what comes behind it in the queue
        waits for the next turn. Raises what is no trouble of the writer's.
        """
        async with self._writing:
            self._noted.clear()
            while self._waiting:
                if not await self._write_batch():
                    if self._waiting:
                        self._noted.set()
                    return

    async def write_now(self, items: Sequence[ItemT]) -> None:
        """Write items that nobody answered yet; return after the commit.

        For whoever tries again what fails: nothing is dropped or counted. Raises the first error;
        what else there is was written all the same.
        """
        for error in await self._write_all(items):
            raise error

    def give_up(self, items: Sequence[ItemT]) -> None:
        """Let it be heard that items are not written: whoever noted them notes them again."""
        for item in items:
            self._written(item, None)

    async def _write_all(self, items: Sequence[ItemT]) -> list[BaseException]:
        """Write items, and let it be heard what became of each; return the errors."""
        results = await asyncio.gather(*map(self._write, items), return_exceptions=True)
        failed: list[BaseException] = []
        for item, result in zip(items, results, strict=True):
            if isinstance(result, BaseException):
                failed.append(result)
                self._written(item, None)
            else:
                self._written(item, result)
        return failed

    async def _write_batch(self) -> bool:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
        failed = await self._write_all(batch)
        for error in failed:
            if not isinstance(error, Refused | Unavailable):
                raise error
        if failed:
            self._lost.inc(len(failed))
            self._warn(len(failed), type(failed[0]).__name__)
        return not failed
