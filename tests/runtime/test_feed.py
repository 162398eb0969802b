"""The change feed: caches reload when told, and a caller that missed sees the newest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs
from structlog.typing import EventDict

from runtime import store
from runtime.database import Database, metadata
from runtime.feed import ConfigCache, ConfigFeed, bump
from runtime.notify import Notifier
from tests.runtime.background import LIMIT_S, running, until


class Loads:
    """Counts loads per tenant; the loaded value is the count."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    async def load(self, tenant_id: str) -> int:
        await asyncio.sleep(0)  # others run while a value is loaded
        self.of[tenant_id] = self.of.get(tenant_id, 0) + 1
        return self.of[tenant_id]


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite file with the tables of `runtime` alone."""
    opened = Database.connect(f"sqlite:///{tmp_path}/hub.db")
    # Quick commits: some tests are about what happens within milliseconds of one.
    sa.event.listen(opened.engine.sync_engine, "connect", _commit_without_waiting_for_the_disk)
    async with opened.transaction() as connection:
        await connection.run_sync(metadata.create_all, tables=[store.config_versions])
    yield opened
    await opened.close()


def _commit_without_waiting_for_the_disk(connection: Any, _record: object) -> None:
    connection.cursor().execute("PRAGMA synchronous=OFF")


@pytest.fixture
def readings(local: Database) -> list[str]:
    """The statements that read the versions, as they are sent."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    sa.event.listen(local.reader.sync_engine, "before_cursor_execute", note)
    return seen


async def _change(database: Database, tenant_id: str = "default", kind: str = "apps") -> None:
    async with database.transaction() as connection:
        await bump(connection, tenant_id, kind)


async def test_each_change_moves_the_version_of_its_tenant_and_kind(database: Database) -> None:
    feed = ConfigFeed(database, Notifier())
    await _change(database)
    await _change(database)
    await _change(database, "acme", "policies")
    await feed.refresh()
    assert feed.version("default", "apps") == 2
    assert feed.version("acme", "policies") == 1
    assert feed.version("acme", "apps") == 0


async def test_a_change_that_is_rolled_back_moves_nothing(database: Database) -> None:
    feed = ConfigFeed(database, Notifier())

    async def change_and_fail() -> None:
        async with database.transaction() as connection:
            await bump(connection, "default", "apps")
            raise LookupError

    with pytest.raises(LookupError):
        await change_and_fail()
    await feed.refresh()
    assert feed.version("default", "apps") == 0


async def test_concurrent_changes_all_count(database: Database) -> None:
    await asyncio.gather(*(_change(database) for _ in range(5)))
    feed = ConfigFeed(database, Notifier())
    await feed.refresh()
    assert feed.version("default", "apps") == 5


async def test_a_value_is_loaded_once_while_nothing_changes(local: Database) -> None:
    loads = Loads()
    cache = ConfigCache(ConfigFeed(local, Notifier()), "apps", loads.load)
    assert await asyncio.gather(*(cache.get("default") for _ in range(20))) == [1] * 20
    assert await cache.get("default") == 1


async def test_a_change_reloads_the_changed_tenant_only(local: Database) -> None:
    loads, feed = Loads(), ConfigFeed(local, Notifier())
    cache = ConfigCache(feed, "apps", loads.load)
    await cache.get("default")
    await cache.get("acme")
    await _change(local)
    await _change(local, "acme", "policies")
    await feed.refresh()
    assert await cache.get("default") == 2
    assert await cache.get("acme") == 1


async def test_a_load_that_fails_is_tried_again_and_the_next_caller_is_not_blocked(
    local: Database,
) -> None:
    tries: list[str] = []

    async def load(tenant_id: str) -> str:
        tries.append(tenant_id)
        if len(tries) == 1:
            raise LookupError
        return "second"

    cache = ConfigCache(ConfigFeed(local, Notifier()), "apps", load)
    with pytest.raises(LookupError):
        await cache.get("default")
    assert await cache.get("default") == "second"


async def test_fresh_sees_what_was_committed_just_before_the_call(local: Database) -> None:
    """Regression: within 20 ms of another reading, a caller that missed was told the old state."""
    loads, feed = Loads(), ConfigFeed(local, Notifier())
    cache = ConfigCache(feed, "apps", loads.load)
    for expected in range(1, 6):
        async with local.transaction() as connection:
            await bump(connection, "default", "apps")
            await feed.refresh()  # sees the old state, a moment before the commit
        assert await cache.get("default", fresh=True) == expected


async def test_a_flood_of_misses_shares_its_readings(local: Database, readings: list[str]) -> None:
    cache = ConfigCache(ConfigFeed(local, Notifier()), "apps", Loads().load)
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(cache.get("default", fresh=True) for _ in range(200)))
    assert len(readings) <= 2


async def test_the_loop_follows_changes_of_other_processes(local: Database) -> None:
    feed = ConfigFeed(local, Notifier())
    cache = ConfigCache(feed, "apps", Loads().load)
    await cache.get("default")
    async with running(feed.run()):
        await _change(local)
        await until(lambda: feed.version("default", "apps") == 1)
        assert await cache.get("default") == 2


async def test_the_loop_looks_when_it_is_woken(local: Database) -> None:
    notifier = Notifier()
    feed = ConfigFeed(local, notifier)
    async with running(feed.run()):
        for expected in range(1, 4):
            await _change(local)
            notifier.wake("config")
            await until(lambda expected=expected: feed.version("default", "apps") == expected)  # type: ignore[misc]  # binds the loop's value


async def test_the_loop_outlives_a_database_that_fails(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    database = Database.connect(f"sqlite:///{tmp_path}/empty.db")
    notifier = Notifier()
    feed = ConfigFeed(database, notifier)
    with pytest.raises(OperationalError):
        await feed.refresh()
    async with running(feed.run()):
        await until(lambda: bool(logs))
        async with database.transaction() as connection:
            await connection.run_sync(metadata.create_all, tables=[store.config_versions])
        await _change(database)
        notifier.wake("config")
        await until(lambda: feed.version("default", "apps") == 1)
    await database.close()
    assert logs[0]["event"] == "feed.read_failed"
