"""Writes behind answers: in order, in batches, bounded, and what becomes of them is heard."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Counter

from runtime.behind import BATCH_MAX, WAITING_MAX, WriteBehind
from runtime.errors import Unavailable

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    """A writer that refuses some items, and everything it was told."""

    refuses: set[int] = field(default_factory=set)
    took: list[int] = field(default_factory=list)
    warned: list[tuple[int, str]] = field(default_factory=list)
    heard: list[tuple[int, int | None]] = field(default_factory=list)
    bug: int | None = None

    def __post_init__(self) -> None:
        self.lost = Counter("lost", "Lost.", registry=CollectorRegistry())
        self.behind: WriteBehind[int, int] = WriteBehind(
            self.write,
            lost=self.lost,
            warn=lambda count, error: self.warned.append((count, error)),
            written=lambda item, result: self.heard.append((item, result)),
        )

    async def write(self, item: int) -> int:
        await asyncio.sleep(0)
        if item == self.bug:
            raise ZeroDivisionError
        if item in self.refuses:
            raise Unavailable("not now")
        self.took.append(item)
        return item * 10

    @property
    def lost_count(self) -> float:
        return float(self.lost._value.get())


async def test_what_was_noted_is_written_in_order_and_heard() -> None:
    place = Place()
    for item in range(3 * BATCH_MAX):
        place.behind.note(item)
    await place.behind.flush()
    assert place.took == list(range(3 * BATCH_MAX))
    assert place.heard[5] == (5, 50)
    assert (place.lost_count, place.warned) == (0, [])


async def test_beyond_the_bound_the_oldest_is_lost_and_counted() -> None:
    place = Place()
    for item in range(WAITING_MAX + 7):
        place.behind.note(item)
    await place.behind.flush()
    assert place.took == list(range(7, WAITING_MAX + 7))
    assert place.lost_count == 7


async def test_what_the_writer_refuses_is_lost_and_the_next_batch_waits() -> None:
    place = Place(refuses={1})
    for item in range(BATCH_MAX + 1):
        place.behind.note(item)
    await place.behind.flush()
    assert (place.lost_count, place.warned) == (1, [(1, "Unavailable")])
    assert (1, None) in place.heard
    assert BATCH_MAX not in place.took
    running = asyncio.create_task(place.behind.run())
    async with asyncio.timeout(30):
        while BATCH_MAX not in place.took:  # noqa: ASYNC110 - nothing wakes us
            await asyncio.sleep(0.01)
    running.cancel()


async def test_a_bug_is_no_trouble_of_the_writer() -> None:
    place = Place(bug=2)
    for item in range(4):
        place.behind.note(item)
    with pytest.raises(ZeroDivisionError):
        await place.behind.flush()
    assert place.took == [0, 1, 3]


async def test_whoever_flushes_waits_for_what_another_one_writes() -> None:
    place = Place()
    place.behind.note(1)
    first = asyncio.create_task(place.behind.flush())
    await asyncio.sleep(0)
    await place.behind.flush()
    assert place.took == [1]
    await first
