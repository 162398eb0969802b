"""The feed of single changes on both engines: written with the change, read back in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runtime import store
from runtime.database import Database
from runtime.ids import new_id
from runtime.store import Change

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _change(minute: int, *, tenant_id: str = "default", ref: str = "ses_1") -> Change:
    at = NOON + timedelta(minutes=minute)
    return Change(tenant_id=tenant_id, change_id=new_id("chg"), kind="sessions", ref=ref, at=at)


async def _add(database: Database, *changes: Change) -> None:
    async with database.transaction() as connection:
        await store.add_changes(connection, changes)


async def _since(database: Database, minute: int, *, limit: int = 100) -> list[Change]:
    async with database.snapshot() as connection:
        return await store.system_changes_since(
            connection, since=NOON + timedelta(minutes=minute), limit=limit
        )


async def test_changes_of_all_tenants_come_back_oldest_first(database: Database) -> None:
    late, early, foreign = _change(3), _change(1), _change(2, tenant_id="acme")
    await _add(database, late, early, foreign)
    assert await _since(database, 0) == [early, foreign, late]
    assert await _since(database, 2) == [foreign, late]
    assert await _since(database, 0, limit=1) == [early]
    assert await _since(database, 4) == []


async def test_no_change_is_nothing_to_write(database: Database) -> None:
    await _add(database)
    assert await _since(database, 0) == []


async def test_a_change_that_is_rolled_back_was_none(database: Database) -> None:
    async def change_and_fail() -> None:
        async with database.transaction() as connection:
            await store.add_changes(connection, [_change(1)])
            raise LookupError

    with pytest.raises(LookupError):
        await change_and_fail()
    assert await _since(database, 0) == []


async def test_old_changes_are_purged_and_counted(database: Database) -> None:
    kept = _change(5)
    await _add(database, _change(1), _change(2, tenant_id="acme"), kept)
    async with database.transaction() as connection:
        purged = await store.system_purge_changes(connection, before=kept.at)
    assert purged == 2
    assert await _since(database, 0) == [kept]
