"""Signals that fail: what fails by itself is set aside, what the database fails is tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from hub.core import FAILURES_MAX
from runtime.database import Database
from tests.hub.conftest import Hub
from tests.hub.story import Story, begin

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
#: what the server says of a statement that took too long, or ends for a restart; and of a deadlock
CANCELLED, RESTARTING, DEADLOCK = "57014", "57P01", "40P01"
BAD_VALUE = "22001"


@asynccontextmanager
async def failing(database: Database, sqlstate: str) -> AsyncIterator[None]:
    """Inside, PostgreSQL fails whoever writes a finding, with an error of its own."""
    make = f"""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'as asked for' USING ERRCODE = '{sqlstate}'; END $$
    """
    async with database.transaction() as connection:
        await connection.execute(sa.text(make))
        trigger = "CREATE TRIGGER fails BEFORE INSERT ON detections EXECUTE FUNCTION fail()"
        await connection.execute(sa.text(trigger))
    try:
        yield
    finally:
        async with database.transaction() as connection:
            await connection.execute(sa.text("DROP FUNCTION fail() CASCADE"))


async def state(story: Story) -> str:
    async with story.hub.database.snapshot() as connection:
        found = await connection.scalar(
            sa.text("SELECT state FROM signals WHERE tenant_id = :tenant"),
            {"tenant": story.tenant},
        )
    return str(found)


async def level(story: Story) -> str:
    return str((await story.get(f"/v1/risk/users/{story.ids['rosa']}"))["level"])


@pytest.mark.parametrize("sqlstate", [CANCELLED, RESTARTING, DEADLOCK])
async def test_what_the_database_failed_is_taken_up_again(hub: Hub, sqlstate: str) -> None:
    """Regression: tried alone after its batch had failed, it was given up: an event was lost."""
    story = await begin(hub)
    await story.push()
    async with failing(hub.database, sqlstate):
        failures = 0
        for _ in range(FAILURES_MAX // 2):
            try:
                await hub._core_step()
            except sa.exc.DBAPIError:
                failures += 1
        assert failures >= FAILURES_MAX // 2 - 1
        assert await state(story) == "received"
    await hub.settle()
    assert await level(story) == "HIGH"


async def test_what_fails_by_itself_is_set_aside_at_once(hub: Hub) -> None:
    story = await begin(hub)
    await story.push()
    async with failing(hub.database, BAD_VALUE):
        await hub.settle()
    assert await state(story) == "failed"


async def test_what_the_database_always_fails_stops_nobody_for_ever(hub: Hub) -> None:
    story = await begin(hub)
    await story.push()
    async with failing(hub.database, CANCELLED):
        for _ in range(FAILURES_MAX - 1):
            with pytest.raises(sa.exc.DBAPIError):
                await hub.settle()
        await hub.settle()
    assert await state(story) == "failed"
