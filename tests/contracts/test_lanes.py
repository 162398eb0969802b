"""Lanes on both engines: order within a lane, nobody waits for another, effects once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs
from structlog.typing import EventDict
from typing_extensions import override

from runtime.clock import FixedClock, from_epoch_s
from runtime.database import Database
from runtime.errors import Unavailable
from runtime.lanes import CROWD, LOOK_AGAIN_S, UNSETTLED_MAX, WINDOW, Lanes, LaneSource
from runtime.notify import Notifier
from runtime.queue import LEASE_S, LeaseKeeper
from runtime.writer import ItemT, LocalWriter, Operation, ResultT, Writer
from tests.contracts import jobs
from tests.contracts.jobs import KIND, SETTLE, Job, JobSource, Journal, Settlement
from tests.runtime.background import LIMIT_S, running, until


class Link:
    """A Writer that reaches another one only while the link is up, and counts what it refused."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.down_for: set[str] = set()
        self.refused_for: Counter[str] = Counter()
        self.passed = 0

    @property
    def refused(self) -> int:
        """How often it refused anything."""
        return self.refused_for.total()

    async def submit(self, operation: Operation[ItemT, ResultT], item: ItemT) -> ResultT:
        """Pass on, or raise Unavailable."""
        if operation.name in self.down_for:
            self.refused_for[operation.name] += 1
            raise Unavailable("the link is down")
        result = await self._writer.submit(operation, item)
        self.passed += 1
        return result


class World:
    """A database with jobs, and workers on it."""

    def __init__(self, database: Database, writer: LocalWriter, notifier: Notifier) -> None:
        self.database, self.writer, self.notifier = database, writer, notifier
        self.clock = FixedClock(from_epoch_s(1_767_225_600))
        self.journal = Journal()

    def source(self, name: str = "worker") -> JobSource:
        """Return one worker's view of the jobs."""
        return JobSource(self.database, self.journal, name=name)

    def keeper(self, owner: str = "worker", *, writer: Writer | None = None) -> LeaseKeeper:
        """Return the leases of one worker."""
        return LeaseKeeper(KIND, owner, writer=writer or self.writer, clock=self.clock)

    @asynccontextmanager
    async def working(
        self,
        source: JobSource,
        *,
        window: int = WINDOW,
        unsettled_max: int = UNSETTLED_MAX,
        silent_max: int = 0,
        writer: Writer | None = None,
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Run the lanes of a worker beside the body, which has a time limit."""
        typed: LaneSource[Job, Settlement] = source  # the protocol fits a source as written
        lanes = Lanes(
            typed,
            leases=self.keeper(source.name, writer=writer),
            writer=writer or self.writer,
            notifier=self.notifier,
            clock=self.clock,
        )
        async with (
            running(
                lanes.run(window=window, unsettled_max=unsettled_max, silent_max=silent_max)
            ) as (task,),
            asyncio.timeout(LIMIT_S),
        ):
            yield task

    async def all_settled(self, made: list[Job]) -> dict[int, tuple[str, int]]:
        """Wait until these jobs are settled; return by whom and how often."""
        async with asyncio.timeout(LIMIT_S):
            await jobs.until_settled(self.database, made, self.journal)
        return await jobs.settled(self.database)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    await jobs.create(database)
    notifier = Notifier()
    writer = LocalWriter(database, notifier)
    async with running(writer.run()):
        yield World(database, writer, notifier)


async def test_all_work_is_done_once_and_each_lane_in_its_order(world: World) -> None:
    lanes = [f"lane-{number}" for number in range(6)]
    made = await jobs.add(world.database, *(lanes * 8))
    async with world.working(world.source()):
        found = await world.all_settled(made)
    assert set(found.values()) == {("worker", 1)}
    assert not world.journal.overlaps
    for lane in lanes:
        assert world.journal.numbers(lane) == [job.number for job in made if job.lane == lane]


async def test_a_crowd_is_settled_together_and_still_completely(world: World) -> None:
    """With many lanes under way, one commit serves those that end at about the same time."""
    made = await jobs.add(world.database, *(f"lane-{number}" for number in range(4 * CROWD)))
    source = world.source()
    gate = asyncio.Event()
    source.gates = {job.lane: gate for job in made}
    batches: list[int] = []

    async def settle(connection: AsyncConnection, batch: Sequence[Settlement]) -> Sequence[bool]:
        batches.append(len(batch))
        return await SETTLE.handle(connection, batch)

    source.settle = dataclasses.replace(SETTLE, handle=settle)
    async with world.working(source, window=4 * CROWD):
        await until(lambda: len(world.journal.under_way) == 4 * CROWD)
        gate.set()
        found = await world.all_settled(made)
    assert set(found.values()) == {("worker", 1)}
    assert max(batches) >= CROWD


async def test_lanes_run_in_parallel_up_to_the_window(world: World) -> None:
    made = await jobs.add(world.database, *(f"lane-{number}" for number in range(12)))
    source = world.source()
    gate = asyncio.Event()
    source.gates = {job.lane: gate for job in made}
    async with world.working(source, window=4):
        await until(lambda: len(world.journal.under_way) == 4)
        world.notifier.wake(KIND)
        gate.set()
        await world.all_settled(made)
    assert world.journal.under_way_max == 4


async def test_a_place_is_free_when_the_work_is_done_and_its_lane_when_that_is_committed(
    world: World,
) -> None:
    lanes = [f"lane-{number}" for number in range(12)]
    made = await jobs.add(world.database, *(lanes * 2))
    source = world.source()
    source.leaves_early = True
    link = Link(world.writer)
    link.down_for = {SETTLE.name}
    async with world.working(source, window=3, writer=link):
        await until(lambda: len(world.journal.finished) == 12)
        await until(lambda: link.refused >= 24)
        assert [job.lane for job in world.journal.started] == lanes
        assert world.journal.under_way_max <= 3
        link.down_for.clear()
        found = await world.all_settled(made)
    assert set(found.values()) == {("worker", 1)}
    for lane in lanes:
        assert world.journal.numbers(lane) == [job.number for job in made if job.lane == lane]


async def test_nothing_is_begun_while_too_many_outcomes_cannot_be_committed(world: World) -> None:
    made = await jobs.add(world.database, *(f"lane-{number}" for number in range(40)))
    source = world.source()
    source.leaves_early = True
    link = Link(world.writer)
    link.down_for = {SETTLE.name}
    async with world.working(source, window=4, unsettled_max=10, writer=link):
        await until(lambda: link.refused >= 50)
        assert 10 <= len(world.journal.started) < 10 + 4
        link.down_for.clear()
        assert set((await world.all_settled(made)).values()) == {("worker", 1)}


async def test_a_slow_lane_delays_nobody_else(world: World) -> None:
    slow = await jobs.add(world.database, "slow", "slow")
    source = world.source()
    source.gates["slow"] = asyncio.Event()
    async with world.working(source, window=2):
        await until(lambda: bool(world.journal.under_way))
        quick = await jobs.add(world.database, *(["quick-a", "quick-b"] * 10))
        world.notifier.wake(KIND)
        found = await world.all_settled(quick)
        assert not found.keys() & {job.number for job in slow}
        source.gates["slow"].set()
        await world.all_settled(slow)
    assert world.journal.numbers("slow") == [job.number for job in slow]


async def test_work_that_takes_long_leaves_its_place_to_others_as_long_as_little_does(
    world: World,
) -> None:
    slow = await jobs.add(world.database, *(f"slow-{number}" for number in range(6)))
    source = world.source()
    gate = asyncio.Event()
    source.gates = {job.lane: gate for job in slow}
    async with world.working(source, window=2, silent_max=3):
        await until(lambda: len(world.journal.under_way) == 4)
        quick = await jobs.add(world.database, *(["quick-a", "quick-b"] * 5))
        source.gates["quick-b"] = gate
        world.notifier.wake(KIND)
        await until(lambda: len(world.journal.under_way) == 5)
        assert len(world.journal.started) == 5
        gate.set()
        found = await world.all_settled([*slow, *quick])
    assert set(found.values()) == {("worker", 1)}
    assert world.journal.under_way_max == 5
    assert not world.journal.overlaps
    # Whoever has left its place and came to an end takes nobody's.
    made = await jobs.add(world.database, *(f"late-{number}" for number in range(20)))
    async with world.working(source, window=2, silent_max=3):
        await world.all_settled(made)


class Idle(JobSource):
    """Its tests add no work; it notes when it was asked for some."""

    def __init__(self, world: World) -> None:
        super().__init__(world.database, world.journal, name="worker")
        self.asked_at: list[float] = []

    @override
    async def due(
        self, buckets: Collection[int], now: datetime, limit: int, busy: Collection[str]
    ) -> Sequence[Job]:
        """Look, and find nothing."""
        self.asked_at.append(asyncio.get_running_loop().time())
        return await super().due(buckets, now, limit, busy)


async def test_where_nothing_happens_nobody_searches(world: World) -> None:
    """The end of the pause after a search was taken for news: an idle hub searched all the time."""
    source = Idle(world)
    async with world.working(source):
        await until(lambda: len(source.asked_at) >= 4)
    assert source.asked_at[3] - source.asked_at[1] >= LOOK_AGAIN_S


async def test_new_work_is_found_without_a_wake_up(world: World) -> None:
    """A lost wake-up costs time, not work."""
    async with world.working(world.source()):
        made = await jobs.add(world.database, "a")
        await world.all_settled(made)


async def test_work_that_is_not_due_waits_for_its_time_and_holds_its_lane(world: World) -> None:
    later = world.clock.now() + timedelta(seconds=LEASE_S / 5)
    (waits,) = await jobs.add(world.database, "a", due_at=later)
    behind = await jobs.add(world.database, "a")
    other = await jobs.add(world.database, "b")
    async with world.working(world.source()):
        await world.all_settled(other)
        assert not world.journal.numbers("a")
        world.clock.advance(LEASE_S / 4)
        world.notifier.wake(KIND)
        await world.all_settled([waits, *behind])
    assert world.journal.numbers("a") == [waits.number, behind[0].number]


async def test_a_settlement_is_repeated_until_it_is_taken_and_the_work_is_not(
    world: World,
) -> None:
    made = await jobs.add(world.database, "a")
    link = Link(world.writer)
    link.down_for = {SETTLE.name}
    async with world.working(world.source(), writer=link):
        await until(lambda: link.refused >= 3)
        link.down_for.clear()
        found = await world.all_settled(made)
    assert found == {made[0].number: ("worker", 1)}
    assert world.journal.numbers("a") == [made[0].number]


@pytest.mark.parametrize("settles", [True, False], ids=["settles-late", "settles-when-it-is-back"])
async def test_a_worker_that_was_only_late_does_nothing_twice(
    world: World, *, settles: bool
) -> None:
    """Its lease ran out in the middle of a job, and nobody came: the job was done once more.

    Either it hears of its lease first, or it has to settle while the writer is away.
    """
    made = await jobs.add(world.database, "a")
    source, link = world.source(), Link(world.writer)
    source.gates["a"] = asyncio.Event()
    async with world.working(source, writer=link):
        await until(lambda: bool(world.journal.under_way))
        link.down_for = {SETTLE.name, "runtime.lease"}
        world.clock.advance(LEASE_S * 3)
        await until(lambda: link.refused > 0)
        if settles:
            link.down_for = set()
            passed = link.passed
            await until(lambda: link.passed > passed)
        source.gates["a"].set()
        if not settles:
            refused = link.refused_for[SETTLE.name]
            await until(lambda: link.refused_for[SETTLE.name] > refused + 2)
            link.down_for = set()
        assert await world.all_settled(made) == {made[0].number: ("worker", 1)}
    assert world.journal.numbers("a") == [made[0].number]


@pytest.mark.parametrize("back_in_time", [True, False], ids=["link-is-back", "link-stays-down"])
async def test_a_worker_that_lost_its_lease_cannot_settle(
    world: World, *, back_in_time: bool
) -> None:
    """Cut off in the middle of a job, it comes back after another did the same job."""
    made = await jobs.add(world.database, "a")
    lost, heir = world.source("lost"), world.source("heir")
    lost.gates["a"] = asyncio.Event()
    link = Link(world.writer)
    async with world.working(lost, writer=link):
        await until(lambda: bool(world.journal.under_way))
        link.down_for = {SETTLE.name, "runtime.lease"}
        world.clock.advance(LEASE_S + 1)
        async with world.working(heir):
            assert await world.all_settled(made) == {made[0].number: ("heir", 1)}
        if back_in_time:
            link.down_for = {"runtime.lease"}
        lost.gates["a"].set()
        await until(lambda: not world.journal.under_way)
        await until(lambda: back_in_time or link.refused > 0)
    assert await jobs.settled(world.database) == {made[0].number: ("heir", 1)}


async def test_a_stale_settlement_is_answered_with_no(world: World) -> None:
    (job,) = await jobs.add(world.database, "a")
    before, after = world.keeper("worker"), world.keeper("worker")
    await before.renew()
    stale = Settlement(number=job.number, by="before", fence=before.fence(job.bucket))
    await after.renew()
    fresh = Settlement(number=job.number, by="after", fence=after.fence(job.bucket))
    assert await world.writer.submit(SETTLE, stale) is False
    assert await jobs.settled(world.database) == {}
    assert await world.writer.submit(SETTLE, fresh) is True
    assert await jobs.settled(world.database) == {job.number: ("after", 1)}


async def test_work_under_way_at_the_end_is_done_by_the_successor_of_the_same_name_at_once(
    world: World,
) -> None:
    made = await jobs.add(world.database, "a", "a")
    ending = world.source()
    ending.gates["a"] = asyncio.Event()
    async with world.working(ending) as task:
        await until(lambda: bool(world.journal.under_way))
        task.cancel()
    assert await jobs.settled(world.database) == {}
    async with world.working(world.source()):
        await world.all_settled(made)
    assert world.journal.numbers("a") == [made[0].number, made[0].number, made[1].number]


async def test_two_workers_share_the_work_and_keep_the_order(world: World) -> None:
    lanes = [f"lane-{number}" for number in range(40)]
    first, second = world.source("first"), world.source("second")
    keeper = world.keeper("second")
    await keeper.renew()
    await world.keeper("first").renew()
    await keeper.renew()
    made = await jobs.add(world.database, *(lanes * 4))
    async with world.working(first), world.working(second):
        found = await world.all_settled(made)
    assert {times for _, times in found.values()} == {1}
    assert {by for by, _ in found.values()} == {"first", "second"}
    assert not world.journal.overlaps
    for lane in lanes:
        assert world.journal.numbers(lane) == [job.number for job in made if job.lane == lane]


async def test_a_bug_in_one_job_holds_its_lane_only_and_is_tried_again(
    world: World, logs: list[EventDict]
) -> None:
    source = world.source()
    source.failures["bad"] = [ValueError("a bug")]
    made = await jobs.add(world.database, "bad", "good", "good", "bad")
    async with world.working(source, window=2):
        await world.all_settled([job for job in made if job.lane == "good"])
        await world.all_settled(made)
    bad = [job.number for job in made if job.lane == "bad"]
    assert world.journal.numbers("bad") == [bad[0], *bad]
    assert "lanes.work_failed" in {line["event"] for line in logs}


async def test_the_loop_outlives_a_look_that_fails(world: World, logs: list[EventDict]) -> None:
    source = world.source()
    source.due_failures = [OSError("no database")]
    made = await jobs.add(world.database, "a")
    async with world.working(source):
        await world.all_settled(made)
    assert "lanes.claim_failed" in {line["event"] for line in logs}


async def test_without_leases_nothing_is_started(world: World) -> None:
    await jobs.add(world.database, "a")
    link = Link(world.writer)
    link.down_for = {"runtime.lease"}
    async with world.working(world.source(), writer=link):
        await until(lambda: link.refused >= 3)
    assert not world.journal.started
