"""The feed of changes: every one reaches every cache, once, in whatever order they commit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from structlog.typing import EventDict

from runtime import store
from runtime.changes import (
    GAP_MAX,
    KEPT,
    ChangeFeed,
    note_changes,
    purge_changes,
)
from runtime.clock import FixedClock, SystemClock
from runtime.database import Database, metadata
from runtime.ids import new_id
from runtime.notify import Notifier
from runtime.store import Change
from tests.runtime.background import running, until

KIND = "containments"
POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
A_MOMENT = timedelta(seconds=1)


class Cache:
    """A subscriber that writes down what it hears. Fails as often as `failures` says."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.starts_over = 0
        self.failures = 0

    async def changed(self, entries: Sequence[Change]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the cache could not read")
        self.heard += [entry.ref for entry in entries]

    def start_over(self) -> None:
        self.starts_over += 1
        self.heard.clear()

    async def renew(self) -> None:
        """Hold nothing that could grow old."""


class Follower:
    """A process that follows the feed: its cache, and a clock that stands until moved."""

    def __init__(self, database: Database, *, entries_max: int = 1_000) -> None:
        self.database = database
        self.notifier = Notifier()
        self.clock = FixedClock(SystemClock().now())
        self.cache = Cache()
        self.feed = ChangeFeed(database, self.notifier, clock=self.clock, entries_max=entries_max)
        self.feed.subscribe(KIND, self.cache)

    async def read(self) -> list[str]:
        """Read once; return what has been heard since the cache last began anew."""
        await self.feed.refresh()
        return self.cache.heard

    async def add(self, ref: str, *, age: timedelta = timedelta(), kind: str = KIND) -> None:
        """Commit an entry that was made this long ago by the follower's clock."""
        entry = Change(
            tenant_id="default",
            change_id=new_id("chg"),
            kind=kind,
            ref=ref,
            at=self.clock.now() - age,
        )
        async with self.database.transaction() as connection:
            await store.add_changes(connection, [entry])


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def follower(database: Database) -> Follower:
    """A follower that has read once, so that it only hears what is new."""
    opened = Follower(database)
    await opened.feed.refresh()
    return opened


async def test_an_entry_is_told_once_however_often_it_is_read(follower: Follower) -> None:
    await follower.add("usr_1")
    await follower.read()
    await follower.add("usr_2")
    await follower.read()
    assert await follower.read() == ["usr_1", "usr_2"]


async def test_the_same_thing_changed_twice_is_told_twice(follower: Follower) -> None:
    await follower.add("usr_1")
    await follower.read()
    await follower.add("usr_1")
    assert await follower.read() == ["usr_1", "usr_1"]


async def test_a_subscriber_hears_of_its_kind_only(follower: Follower) -> None:
    levels = Cache()
    follower.feed.subscribe("levels", levels)
    await follower.add("usr_1", kind="levels")
    await follower.add("usr_2")
    assert await follower.read() == ["usr_2"]
    assert levels.heard == ["usr_1"]


async def test_an_entry_that_was_made_long_before_it_shows_up_is_told(follower: Follower) -> None:
    await follower.add("newer")
    await follower.read()
    await follower.add("older", age=KEPT / 2)
    assert await follower.read() == ["newer", "older"]


async def test_a_reading_costs_what_is_new(follower: Follower) -> None:
    for number in range(40):
        await follower.add(f"usr_{number}")
    await follower.read()
    assert len(follower.cache.heard) == 40
    entries, _ = await follower.feed._entries(follower.feed._mark)
    assert entries == []


async def test_a_reading_that_comes_late_misses_nothing(follower: Follower) -> None:
    late = GAP_MAX - A_MOMENT
    await follower.add("usr_1")
    follower.clock.advance(late.total_seconds())
    assert await follower.read() == ["usr_1"]


async def test_a_clock_that_is_set_back_hides_nothing(follower: Follower) -> None:
    await follower.add("usr_1")
    await follower.read()
    follower.clock.advance(-3600)
    await follower.add("usr_2")
    assert (await follower.read())[-1] == "usr_2"


@POSTGRESQL
async def test_transactions_that_commit_in_another_order_than_they_wrote_are_all_told(
    follower: Follower, database_url: str
) -> None:
    other = Database.connect(database_url)
    slow, quick = other.transaction(), follower.database.transaction()
    async with slow as first:
        await note_changes(first, KIND, [("default", "slow")])
        async with quick as second:
            await note_changes(second, KIND, [("default", "quick")])
        assert await follower.read() == ["quick"]
    assert await follower.read() == ["quick", "slow"]
    await other.close()


async def test_what_is_rolled_back_is_not_told(follower: Follower) -> None:
    with suppress(ConnectionError):
        async with follower.database.transaction() as connection:
            await note_changes(connection, KIND, [("default", "usr_1")])
            raise ConnectionError
    assert await follower.read() == []


async def test_an_entry_is_as_old_as_the_machine_says_not_as_its_transaction(
    follower: Follower,
) -> None:
    before = SystemClock().now()
    async with follower.database.snapshot() as connection:
        mark = await store.system_feed_end(connection)
    async with follower.database.transaction() as connection:
        await note_changes(connection, KIND, [("default", "usr_1"), ("blue", "usr_2")])
    async with follower.database.snapshot() as connection:
        entries, _ = await store.system_changes_after(connection, mark, limit=10)
    assert [(entry.tenant_id, entry.ref) for entry in entries] == [
        ("default", "usr_1"),
        ("blue", "usr_2"),
    ]
    assert all(entry.at >= before - A_MOMENT for entry in entries)


async def test_a_cache_that_fails_hears_the_same_again(follower: Follower) -> None:
    follower.cache.failures = 1
    await follower.add("usr_1")
    read_at = follower.feed.age_s
    with pytest.raises(ConnectionError):
        await follower.feed.refresh()
    assert follower.feed.age_s >= read_at
    assert await follower.read() == ["usr_1"]


async def test_the_first_reading_starts_over(database: Database) -> None:
    follower = Follower(database)
    assert math.isinf(follower.feed.age_s)
    await follower.add("usr_1")
    assert await follower.read() == []
    assert follower.cache.starts_over == 1
    assert not math.isinf(follower.feed.age_s)


async def test_what_was_there_before_the_first_reading_is_not_told_later(
    database: Database,
) -> None:
    follower = Follower(database)
    for age in range(3):
        await follower.add(f"usr_{age}", age=timedelta(seconds=age))
    for _ in range(3):
        follower.clock.advance(0.25)
        await follower.read()
    assert (follower.cache.starts_over, follower.cache.heard) == (1, [])


async def test_a_process_that_slept_too_long_starts_over_and_follows_on(
    follower: Follower,
) -> None:
    follower.clock.advance((GAP_MAX + A_MOMENT).total_seconds())
    await follower.read()
    assert follower.cache.starts_over == 2
    await follower.add("usr_1")
    assert await follower.read() == ["usr_1"]


async def test_more_entries_than_memory_is_given_make_caches_start_over(
    database: Database,
) -> None:
    follower = Follower(database, entries_max=3)
    await follower.feed.refresh()
    for number in range(3):
        await follower.add(f"usr_{number}")
    assert await follower.read() == []
    assert follower.cache.starts_over == 2
    # What made the flood is passed over, and no flood any more.
    await follower.add("usr_9")
    assert await follower.read() == ["usr_9"]


async def test_a_feed_without_subscribers_reads_nothing(tmp_path: Path) -> None:
    database = Database.connect(f"sqlite:///{tmp_path}/no-tables.db")
    feed = ChangeFeed(database, Notifier())
    await feed.refresh()
    assert math.isinf(feed.age_s)
    await database.close()


async def test_purging_keeps_what_somebody_may_look_back_to(follower: Follower) -> None:
    await follower.add("usr_1", age=KEPT + timedelta(minutes=1))
    await follower.add("usr_2", age=GAP_MAX + A_MOMENT)
    async with follower.database.transaction() as connection:
        assert await purge_changes(connection) == 1
        left = await connection.execute(sa.select(store.changes.c.ref))
        assert list(left.scalars()) == ["usr_2"]


async def test_the_loop_looks_when_it_is_woken_and_also_by_itself(follower: Follower) -> None:
    async with running(follower.feed.run()):
        await follower.add("usr_1")
        follower.notifier.wake("changes")
        await until(lambda: follower.cache.heard == ["usr_1"])
        await follower.add("usr_2")
        await until(lambda: follower.cache.heard == ["usr_1", "usr_2"])


async def test_the_loop_outlives_a_database_that_fails(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    database = Database.connect(f"sqlite:///{tmp_path}/empty.db")
    follower = Follower(database)
    async with running(follower.feed.run()):
        await until(lambda: bool(logs))
        assert math.isinf(follower.feed.age_s)
        async with database.transaction() as connection:
            await connection.run_sync(metadata.create_all, tables=[store.changes])
        await until(lambda: follower.cache.starts_over == 1)
        await follower.add("usr_1")
        await until(lambda: follower.cache.heard == ["usr_1"])
    await database.close()
    assert logs[0]["event"] == "changes.read_failed"
