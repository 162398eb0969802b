"""The SQLite side of the database, and what does not depend on an engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from runtime.database import Database, chunks
from tests.runtime import ledger
from tests.runtime.background import LIMIT_S


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.connect(f"sqlite:///{tmp_path}/ledger.db")
    await ledger.create(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def neighbour(database: Database, tmp_path: Path) -> AsyncIterator[Database]:
    """A second database object on the same file, as another process has it."""
    opened = Database.connect(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    await opened.close()


async def _add(database: Database, name: str) -> None:
    async with database.transaction() as connection:
        await ledger.write(connection, [ledger.Entry(name)])


async def _pragma(database: Database, name: str) -> object:
    async with database.snapshot() as connection:
        return (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10_000)],
)
async def test_every_connection_is_durable_and_patient(
    database: Database, pragma: str, value: object
) -> None:
    assert await _pragma(database, pragma) == value


async def test_writers_of_two_database_objects_never_fail_with_locked(
    database: Database, neighbour: Database
) -> None:
    async with asyncio.timeout(LIMIT_S * 2):
        await asyncio.gather(
            *(_add(database, f"a{number}") for number in range(40)),
            *(_add(neighbour, f"b{number}") for number in range(40)),
        )
    assert len(await ledger.names(database)) == 80


@pytest.mark.scenario
@pytest.mark.parametrize("owns_writes", [False, True], ids=["threaded", "in-place"])
async def test_writers_of_two_processes_never_fail_with_locked(
    database: Database, tmp_path: Path, *, owns_writes: bool
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    here = Database.connect(url, owns_writes=owns_writes)
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.runtime.busy_writer", url, "b", "40"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    async with asyncio.timeout(LIMIT_S * 3):
        assert await other.stdout.readline() == b"ready\n"
        other.stdin.write(b"go\n")
        for number in range(40):
            await _add(here, f"a{number}")
        await other.communicate()
    await here.close()
    assert other.returncode == 0
    assert len(await ledger.names(database)) == 80


async def test_writes_in_place_obey_the_same_rules(tmp_path: Path) -> None:
    """The driver without a thread: commit, roll back, and go on after an error."""
    here = Database.connect(f"sqlite:///{tmp_path}/in-place.db", owns_writes=True)
    await ledger.create(here)
    await _add(here, "a")
    with pytest.raises(IntegrityError):
        await _add(here, "a")
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(_add(here, f"b{number}") for number in range(20)))
    assert len(await ledger.names(here)) == 21
    await here.close()


async def test_readers_do_not_wait_for_a_writer_of_another_process(
    database: Database, neighbour: Database
) -> None:
    async with database.transaction() as connection, asyncio.timeout(LIMIT_S):
        await ledger.write(connection, [ledger.Entry("a")])
        assert await ledger.names(neighbour) == set()
    assert await ledger.names(neighbour) == {"a"}


async def test_a_transaction_that_reads_before_it_writes_is_not_upset_by_another_writer(
    database: Database, neighbour: Database
) -> None:
    """A deferred transaction would fail here: its reading is outdated when it begins to write."""

    async def count_up(which: Database, side: str) -> None:
        for _ in range(15):
            async with which.transaction() as connection:
                (so_far,) = await ledger.count(connection, ["n"])
                await ledger.write(connection, [ledger.Entry(f"n{so_far}-{side}")])

    async with asyncio.timeout(LIMIT_S * 2):
        await asyncio.gather(count_up(database, "a"), count_up(neighbour, "b"))
    numbers = sorted(int(name[1:].split("-")[0]) for name in await ledger.names(database))
    assert numbers == list(range(30))


async def test_a_writer_that_gives_up_waiting_leaves_the_file_free(
    database: Database, neighbour: Database
) -> None:
    async with neighbour.transaction():
        waiting = asyncio.create_task(_add(database, "gave-up"))
        await asyncio.sleep(0)  # it asks for its connection
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(LIMIT_S):
        await _add(database, "a")
        await _add(neighbour, "b")
    assert await ledger.names(database) == {"a", "b"}


async def test_more_readers_than_connections_take_turns(database: Database) -> None:
    async with asyncio.timeout(LIMIT_S):
        found = await asyncio.gather(*(ledger.names(database) for _ in range(50)))
    assert found == [set()] * 50


async def test_a_snapshot_cannot_hold_up_writers(database: Database, neighbour: Database) -> None:
    async with database.snapshot() as connection, asyncio.timeout(LIMIT_S):
        await connection.execute(sa.select(ledger.entries))
        await _add(neighbour, "a")
    assert await ledger.names(database) == {"a"}


@pytest.mark.parametrize("url", ["mysql://localhost/hub", "oracle://localhost/hub"])
def test_another_database_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="is not supported"):
        Database.connect(url)


@given(st.lists(st.integers(), max_size=200), st.integers(1, 50))
def test_chunks_keep_order_and_stay_within_their_size(values: list[int], size: int) -> None:
    parts = list(chunks(values, size))
    assert [value for part in parts for value in part] == values
    assert all(1 <= len(part) <= size for part in parts)
    assert all(len(part) == size for part in parts[:-1])
