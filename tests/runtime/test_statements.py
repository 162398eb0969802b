"""Statements that are rendered once: the same effects and values as SQLAlchemy's own way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import Database, JSONDocument, UTCDateTime, insert_new
from runtime.sqlite import driver_of
from runtime.statements import LIST_MAX, Query, Write, inserts

NOON = datetime(2026, 3, 29, 12, 0, 0, 123_456, tzinfo=UTC)
ZERO_MICROSECONDS = datetime(2026, 3, 29, 12, tzinfo=UTC)

stones = sa.Table(
    "stones",
    sa.MetaData(),
    sa.Column("tenant_id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("until", UTCDateTime),
    sa.Column("document", JSONDocument),
    sa.Column("is_smooth", sa.Boolean, nullable=False),
    sa.Column("weight", sa.Float, nullable=False),
)

TENANT = sa.bindparam("tenant_id", type_=sa.String)
NAMES = sa.bindparam("names", expanding=True, type_=sa.String)
ADD = inserts(stones, or_nothing=True)
BY_NAME = Query(
    sa.select(*(column for column in stones.c if column.name != "tenant_id"))
    .where(stones.c.tenant_id == TENANT, stones.c.name.in_(NAMES))
    .order_by(stones.c.name),
    scalars=["tenant_id"],
    lists=["names"],
)


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.transaction() as opened:
        await opened.run_sync(stones.metadata.create_all)
        yield opened


def row(name: str, tenant_id: str = "t1", **more: Any) -> dict[str, Any]:
    values = {
        "tenant_id": tenant_id,
        "name": name,
        "at": NOON,
        "until": None,
        "document": {"n": [1, "é"]},
        "is_smooth": True,
        "weight": 0.5,
    }
    return values | more


def seen(written: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(written.values())[1:]


async def test_what_is_written_reads_as_it_was(connection: AsyncConnection) -> None:
    away = datetime(2026, 3, 29, 14, tzinfo=timezone(timedelta(hours=2)))
    rows = [
        row("a", until=away),
        row("b", document=None, is_smooth=False),
        row("c", at=ZERO_MICROSECONDS, document="text"),
    ]
    await ADD.run(connection, rows)
    found = await BY_NAME.rows(connection, tenant_id="t1", names=["a", "b", "c"])
    assert found == [("a", NOON, ZERO_MICROSECONDS, {"n": [1, "é"]}, True, 0.5)] + [
        seen(each) for each in rows[1:]
    ]
    assert {each[1].tzinfo for each in found} == {UTC}


async def test_sqlalchemy_reads_what_was_written_here_and_the_other_way_round(
    connection: AsyncConnection,
) -> None:
    await ADD.run(connection, [row("a")])
    await connection.execute(sa.insert(stones), [row("b")])
    theirs = (await connection.execute(sa.select(stones).order_by(stones.c.name))).all()
    assert [tuple(each[1:]) for each in theirs] == [seen(row("a")), seen(row("b"))]
    ours = await BY_NAME.rows(connection, tenant_id="t1", names=["b", "a"])
    assert ours == [seen(row("a")), seen(row("b"))]


async def test_rows_of_other_tenants_are_not_found(connection: AsyncConnection) -> None:
    await ADD.run(connection, [row("a"), row("a", "t2"), row("b", "t2")])
    found = await BY_NAME.rows(connection, tenant_id="t1", names=["a", "b"])
    assert [each[0] for each in found] == ["a"]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 65, LIST_MAX])
async def test_lists_of_any_length_are_looked_up(connection: AsyncConnection, count: int) -> None:
    names = [f"s{number:04}" for number in range(count)]
    await ADD.run(connection, [row(name) for name in names])
    await ADD.run(connection, [row("another")])
    found = await BY_NAME.rows(connection, tenant_id="t1", names=names)
    assert [each[0] for each in found] == names


async def test_longer_lists_are_refused(connection: AsyncConnection) -> None:
    with pytest.raises(ValueError, match="more than"):
        await BY_NAME.rows(connection, tenant_id="t1", names=["a"] * (LIST_MAX + 1))


async def test_repeats_are_left_out_and_not_counted(connection: AsyncConnection) -> None:
    await ADD.run(connection, [row("a", weight=1.0)])
    # asyncpg does not tell how many rows of several were written.
    knows = connection.dialect.name == "sqlite"
    assert await ADD.run(connection, [row("b"), row("c")]) == (2 if knows else -1)
    assert await ADD.run(connection, [row("a", weight=2.0)]) == 0
    ((*_, weight),) = await BY_NAME.rows(connection, tenant_id="t1", names=["a"])
    assert weight == 1.0


async def test_an_update_goes_row_by_row_with_its_constants(connection: AsyncConnection) -> None:
    await ADD.run(connection, [row("a"), row("b"), row("a", "t2")])
    touch = Write(
        sa.update(stones)
        .where(stones.c.tenant_id == sa.bindparam("of"), stones.c.name == sa.bindparam("key"))
        .values(at=sa.bindparam("new_at", type_=UTCDateTime), is_smooth=False),
        ("new_at", "of", "key"),
    )
    later = NOON + timedelta(seconds=1)
    await touch.run(
        connection, [{"of": "t1", "key": key, "new_at": later} for key in ("a", "nobody")]
    )
    found = await BY_NAME.rows(connection, tenant_id="t1", names=["a", "b"])
    assert [(each[1], each[4]) for each in found] == [(later, False), (NOON, True)]
    assert (await BY_NAME.rows(connection, tenant_id="t2", names=["a"]))[0][1] == NOON


async def test_times_are_compared_as_times(connection: AsyncConnection) -> None:
    due = Query(
        sa.select(stones.c.name)
        .where(
            stones.c.tenant_id == TENANT,
            stones.c.at <= sa.bindparam("now", type_=UTCDateTime),
            stones.c.at > ZERO_MICROSECONDS,
        )
        .limit(sa.bindparam("at_most", type_=sa.Integer)),
        scalars=["tenant_id", "now", "at_most"],
    )
    await ADD.run(connection, [row("a"), row("z", at=ZERO_MICROSECONDS)])
    values = {"tenant_id": "t1", "at_most": 5}
    assert await due.rows(connection, now=NOON, **values) == [("a",)]
    assert await due.rows(connection, now=NOON - timedelta(microseconds=1), **values) == []


async def test_naive_times_are_refused(connection: AsyncConnection) -> None:
    with pytest.raises(ValueError, match="naive"):
        await ADD.run(connection, [row("a", at=datetime(2026, 3, 29, 12))])  # noqa: DTZ001 - naive on purpose


async def test_rows_that_lack_a_value_are_refused(connection: AsyncConnection) -> None:
    incomplete = row("a")
    del incomplete["weight"]
    with pytest.raises(KeyError, match="weight"):
        await ADD.run(connection, [incomplete])


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_on_sqlite_are_the_text_sqlalchemy_writes(at: datetime) -> None:
    dialect = sa.create_engine("sqlite://").dialect
    kind = UTCDateTime().dialect_impl(dialect)
    write, read = kind.bind_processor(dialect), kind.result_processor(dialect, None)
    plain = sa.DateTime().dialect_impl(dialect).bind_processor(dialect)
    assert write is not None
    assert read is not None
    assert plain is not None
    assert write(at) == plain(at.replace(tzinfo=None))
    assert read(write(at)) == at


# --- without SQLAlchemy in between --------------------------------------------------------------


@pytest.fixture
async def in_place(tmp_path: Path) -> AsyncIterator[Database]:
    """A database as the core process has it: its statements go to the driver directly."""
    opened = Database.connect(f"sqlite:///{tmp_path}/stones.db", owns_writes=True)
    async with opened.transaction() as begun:
        await begun.run_sync(stones.metadata.create_all)
    yield opened
    await opened.close()


async def _names(database: Database) -> list[str]:
    async with database.snapshot() as begun:
        return [name for (name,) in (await begun.execute(sa.select(stones.c.name))).all()]


async def test_where_the_driver_runs_in_place_rows_mean_the_same(in_place: Database) -> None:
    async with in_place.transaction() as begun:
        assert driver_of(begun) is not None
        assert await ADD.run(begun, [row("a"), row("b"), row("c", "t2")]) == 3
        assert await ADD.run(begun, [row("a"), row("d")]) == 1
        found = await BY_NAME.rows(begun, tenant_id="t1", names=["a", "b", "c"])
        told = await begun.execute(BY_NAME._select, {"tenant_id": "t1", "names": ["a", "b", "c"]})
        assert found == [tuple(each) for each in told]
    assert sorted(await _names(in_place)) == ["a", "b", "c", "d"]


async def test_what_it_wrote_is_rolled_back_with_the_transaction(in_place: Database) -> None:
    async def fail() -> None:
        async with in_place.transaction() as begun:
            await ADD.run(begun, [row("a")])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await _names(in_place) == []


async def test_its_errors_are_those_of_sqlalchemy_and_name_no_values(in_place: Database) -> None:
    async with in_place.transaction() as begun:
        await ADD.run(begun, [row("a")])
        with pytest.raises(sa.exc.IntegrityError) as raised:
            await inserts(stones).run(begun, [row("secret-name"), row("a")])
    assert "secret-name" not in str(raised.value)


async def test_somebody_who_listens_hears_of_every_statement(in_place: Database) -> None:
    heard: list[str] = []
    sa.event.listen(
        in_place.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cursor, text, *_: heard.append(text),
    )
    async with in_place.transaction() as begun:
        assert driver_of(begun) is None
        await ADD.run(begun, [row("a")])
        await BY_NAME.rows(begun, tenant_id="t1", names=["a"])
    assert [text.split()[0] for text in heard] == ["BEGIN", "INSERT", "SELECT"]


@pytest.mark.parametrize("repeat", [False, True])
async def test_new_rows_are_told_from_repeats_in_place(in_place: Database, *, repeat: bool) -> None:
    async with in_place.transaction() as begun:
        if repeat:
            await ADD.run(begun, [row("b")])
        new = await insert_new(begun, stones, [row("a"), row("b")], "name")
    assert new == ({"a"} if repeat else {"a", "b"})
    assert sorted(await _names(in_place)) == ["a", "b"]


async def test_a_failed_attempt_in_place_leaves_the_rest_of_the_transaction(
    in_place: Database,
) -> None:
    async with in_place.transaction() as begun:
        await ADD.run(begun, [row("a")])
        broken = {**row("b"), "is_smooth": None}
        driver = driver_of(begun)
        assert driver is not None
        with pytest.raises(sa.exc.IntegrityError):
            async with driver.savepoint():
                await inserts(stones).run(begun, [row("c"), broken])
    assert await _names(in_place) == ["a"]
