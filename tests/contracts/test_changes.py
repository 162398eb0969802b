"""The feed of single changes on both engines: written with the change, read back in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runtime import store
from runtime.database import DELETED_AT_ONCE_MAX, Database
from runtime.ids import new_id
from runtime.store import Change

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _change(minute: int, *, tenant_id: str = "default", ref: str = "ses_1") -> Change:
    at = NOON + timedelta(minutes=minute)
    return Change(tenant_id=tenant_id, change_id=new_id("chg"), kind="sessions", ref=ref, at=at)


async def _add(database: Database, *changes: Change) -> None:
    async with database.transaction() as connection:
        await store.add_changes(connection, changes)


async def _end(database: Database) -> str:
    async with database.snapshot() as connection:
        return await store.system_feed_end(connection)


async def _after(database: Database, mark: str, *, limit: int = 100) -> tuple[list[Change], str]:
    async with database.snapshot() as connection:
        return await store.system_changes_after(connection, mark, limit=limit)


async def test_changes_of_all_tenants_come_once_in_the_order_of_commits(
    database: Database,
) -> None:
    start = await _end(database)
    first, foreign, late = _change(1), _change(2, tenant_id="acme"), _change(3)
    await _add(database, first, foreign)
    found, mark = await _after(database, start)
    assert found == [first, foreign]
    await _add(database, late)
    assert (await _after(database, mark))[0] == [late]
    assert (await _after(database, start))[0] == [first, foreign, late]
    assert (await _after(database, start, limit=1))[0] == [first]
    assert (await _after(database, await _end(database)))[0] == []


async def test_one_made_long_ago_and_committed_now_is_new(database: Database) -> None:
    await _add(database, _change(60))
    mark = await _end(database)
    old = _change(-60)
    await _add(database, old)
    assert (await _after(database, mark))[0] == [old]


async def test_no_change_is_nothing_to_write(database: Database) -> None:
    mark = await _end(database)
    await _add(database)
    assert (await _after(database, mark))[0] == []


async def test_a_change_that_is_rolled_back_was_none(database: Database) -> None:
    async def change_and_fail() -> None:
        async with database.transaction() as connection:
            await store.add_changes(connection, [_change(1)])
            raise LookupError

    mark = await _end(database)
    with pytest.raises(LookupError):
        await change_and_fail()
    assert (await _after(database, mark))[0] == []


async def test_old_changes_are_purged_and_counted(database: Database) -> None:
    kept, mark = _change(5), await _end(database)
    await _add(database, _change(1), _change(2, tenant_id="acme"))
    await _add(database, kept)
    async with database.transaction() as connection:
        purged = await store.system_purge_changes(connection, before=kept.at)
    assert purged == 2
    assert (await _after(database, mark))[0] == [kept]


async def test_many_old_changes_are_purged_a_bounded_number_at_a_time(database: Database) -> None:
    """One deletion of everything would hold up all writers of a busy hub."""
    kept = _change(5)
    await _add(database, *(_change(1) for _ in range(DELETED_AT_ONCE_MAX + 1)))
    await _add(database, kept)
    purged = []
    for _ in range(3):
        async with database.transaction() as connection:
            purged.append(await store.system_purge_changes(connection, before=kept.at))
    assert purged == [DELETED_AT_ONCE_MAX, 1, 0]


async def test_after_everything_was_purged_the_next_one_is_still_new(database: Database) -> None:
    """A mark outlives what it was taken behind; places are not given twice."""
    old = [_change(minute) for minute in range(3)]
    await _add(database, *old)
    mark = await _end(database)
    async with database.transaction() as connection:
        await store.system_purge_changes(connection, before=NOON + timedelta(hours=1))
    new = _change(90)
    await _add(database, new)
    assert (await _after(database, mark))[0] == [new]
