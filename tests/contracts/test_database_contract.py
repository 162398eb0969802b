"""What every store relies on, on both engines: transactions, times, documents, duplicates."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, StatementError

from runtime.database import Database, in_transaction, insert_new
from tests.contracts import things
from tests.contracts.things import row
from tests.runtime.background import LIMIT_S

NOON = datetime(2026, 3, 29, 12, 0, 0, 123_456, tzinfo=UTC)


@pytest.fixture
async def db(database: Database) -> Database:
    await things.create(database)
    return database


async def test_a_transaction_commits_at_its_end(db: Database) -> None:
    await things.add(db, row("a"), row("b"))
    assert await things.names(db) == ["a", "b"]


async def test_an_error_rolls_everything_back(db: Database) -> None:
    async def write_and_fail() -> None:
        async with db.transaction() as connection:
            await connection.execute(sa.insert(things.things), [row("a")])
            raise LookupError

    with pytest.raises(LookupError):
        await write_and_fail()
    assert await things.names(db) == []


async def test_a_broken_constraint_rolls_everything_back_and_the_next_write_works(
    db: Database,
) -> None:
    async def write_twice() -> None:
        async with db.transaction() as connection:
            await connection.execute(sa.insert(things.things), [row("a")])
            await connection.execute(sa.insert(things.things), [row("a")])

    with pytest.raises(IntegrityError):
        await write_twice()
    await things.add(db, row("b"))
    assert await things.names(db) == ["b"]


async def test_a_cancelled_transaction_is_rolled_back_and_frees_the_database(db: Database) -> None:
    written = asyncio.Event()

    async def write_and_wait() -> None:
        async with db.transaction() as connection:
            await connection.execute(sa.insert(things.things), [row("a")])
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_and_wait())
    async with asyncio.timeout(LIMIT_S):
        await written.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await things.add(db, row("b"))
    assert await things.names(db) == ["b"]


async def test_a_reader_does_not_see_what_is_not_committed(db: Database) -> None:
    async with db.transaction() as connection:
        await connection.execute(sa.insert(things.things), [row("a")])
        assert await things.names(db) == []
    assert await things.names(db) == ["a"]


@pytest.mark.parametrize(
    "moment", [NOON, NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))]
)
async def test_times_come_back_as_aware_utc_with_microseconds(
    db: Database, moment: datetime
) -> None:
    await things.add(db, row("a", at=moment))
    async with db.snapshot() as connection:
        at, _ = await things.read(connection, "a")
    assert at == NOON
    assert at is not None
    assert at.tzinfo is UTC


async def test_times_compare_and_sort_as_moments(db: Database) -> None:
    await things.add(
        db, *(row(f"n{hours}", at=NOON + timedelta(hours=hours)) for hours in range(-2, 3))
    )
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    async with db.snapshot() as connection:
        later = await connection.scalars(
            sa.select(things.things.c.name)
            .where(things.things.c.tenant_id == "default", things.things.c.at >= tokyo)
            .order_by(things.things.c.at)
        )
        assert list(later) == ["n0", "n1", "n2"]


async def test_a_naive_time_is_refused_when_written(db: Database) -> None:
    with pytest.raises(StatementError, match="naive datetime"):
        await things.add(db, row("a", at=NOON.replace(tzinfo=None)))
    assert await things.names(db) == []


async def test_a_naive_time_is_refused_when_compared(db: Database) -> None:
    query = sa.select(things.things.c.name).where(
        things.things.c.tenant_id == "default", things.things.c.at < NOON.replace(tzinfo=None)
    )
    async with db.snapshot() as connection:
        with pytest.raises(StatementError, match="naive datetime"):
            await connection.execute(query)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"n": None, "list": [None, 1, 2.5, True, "ä☃𝄞"], "nested": {"": {"a.b": "'; --"}}},
        {"large": 2**53 + 1, "negative": -(2**63), "small": 5e-324},
        "a text",
        0,
        False,
    ],
)
async def test_documents_come_back_as_they_were(db: Database, document: Any) -> None:
    await things.add(db, row("a", document=document))
    async with db.snapshot() as connection:
        _, found = await things.read(connection, "a")
    assert found == document
    assert type(found) is type(document)


async def test_no_document_is_sql_null_and_not_json_null(db: Database) -> None:
    await things.add(db, row("none"), row("empty", document={}))
    query = sa.select(things.things.c.name).where(
        things.things.c.tenant_id == "default", things.things.c.document.is_(sa.null())
    )
    async with db.snapshot() as connection:
        assert list(await connection.scalars(query)) == ["none"]
        assert await things.read(connection, "none") == (None, None)


async def test_insert_new_returns_what_was_new(db: Database) -> None:
    await things.add(db, row("a"))
    async with db.transaction() as connection:
        new = await insert_new(connection, things.things, [row("a"), row("b"), row("c")], "name")
    assert new == {"b", "c"}
    assert await things.names(db) == ["a", "b", "c"]


async def test_insert_new_skips_a_repeat_within_one_batch(db: Database) -> None:
    async with db.transaction() as connection:
        new = await insert_new(
            connection, things.things, [row("a", label="first"), row("a", label="second")], "name"
        )
        assert new == {"a"}
        assert await connection.scalar(sa.select(things.things.c.label)) == "first"


async def test_insert_new_obeys_every_uniqueness_rule(db: Database) -> None:
    async with db.transaction() as connection:
        new = await insert_new(
            connection, things.things, [row("a", label="x"), row("b", label="x")], "name"
        )
    assert new == {"a"}


async def test_insert_new_keeps_what_the_row_already_says(db: Database) -> None:
    await things.add(db, row("a", document={"version": 1}))
    async with db.transaction() as connection:
        assert not await insert_new(
            connection, things.things, [row("a", document={"version": 2})], "name"
        )
        assert await things.read(connection, "a") == (None, {"version": 1})


async def test_insert_new_takes_thousands_of_rows_and_none(db: Database) -> None:
    async with db.transaction() as connection:
        assert await insert_new(connection, things.things, [], "name") == set()
        rows = [row(f"n{number % 4_000}") for number in range(5_000)]
        new = await insert_new(connection, things.things, rows, "name")
    assert len(new) == 4_000


async def test_two_inserters_of_the_same_row_agree_on_one(db: Database) -> None:
    async def insert() -> set[str]:
        async with db.transaction() as connection:
            return await insert_new(connection, things.things, [row("a")], "name")

    async with asyncio.timeout(LIMIT_S):
        found = await asyncio.gather(*(insert() for _ in range(4)))
    assert sorted(map(len, found)) == [0, 0, 0, 1]


async def test_it_is_known_whether_a_transaction_is_open(db: Database) -> None:
    assert not in_transaction()
    async with db.transaction():
        assert in_transaction()
    async with db.snapshot():
        assert in_transaction()
    assert not in_transaction()


async def test_a_task_begun_in_a_transaction_is_free_when_that_ended(db: Database) -> None:
    """Regression: such a task was taken for one that holds a transaction, for all its life."""
    ended = asyncio.Event()

    async def look() -> tuple[bool, bool]:
        during = in_transaction()
        await ended.wait()
        return during, in_transaction()

    async with db.transaction():
        task = asyncio.create_task(look())
        await asyncio.sleep(0)
    ended.set()
    assert await task == (True, False)


async def test_a_transaction_inside_a_transaction_is_refused(db: Database) -> None:
    """Regression: on SQLite it waited for itself, for ever."""
    async with db.transaction(), asyncio.timeout(LIMIT_S):
        with pytest.raises(RuntimeError, match="inside a transaction"):
            await things.add(db, row("a"))
    await things.add(db, row("b"))
    assert await things.names(db) == ["b"]


async def test_a_transaction_may_begin_while_the_task_reads(db: Database) -> None:
    async with db.snapshot(), asyncio.timeout(LIMIT_S):
        await things.add(db, row("a"))
    assert await things.names(db) == ["a"]


async def test_another_task_waits_for_its_turn(db: Database) -> None:
    async with db.transaction() as connection:
        other = asyncio.create_task(things.add(db, row("b")))
        await connection.execute(sa.insert(things.things), [row("a")])
    async with asyncio.timeout(LIMIT_S):
        await other
    assert await things.names(db) == ["a", "b"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_insert_new_refuses_what_is_too_long_and_does_not_cut_it(db: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        async with db.transaction() as connection:
            await insert_new(connection, things.things, [row("n" * 65)], "name")
    assert await things.names(db) == []
