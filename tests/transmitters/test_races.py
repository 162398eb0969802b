"""Publishing while a stream is deleted or stopped in another transaction, on PostgreSQL.

SQLite has one writer: there is no such thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
import sqlalchemy as sa

from runtime.database import Database
from ssf.stream import StreamStatus
from ssf.stream_requests import StatusUpdate
from tests.transmitters.conftest import PAYROLL, TENANT, World, event
from tests.transmitters.test_upkeep import set_status
from transmitters import management, service, store

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
]
LIMIT_S = 20.0
_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)

End: TypeAlias = Callable[[World, str], Coroutine[Any, Any, None]]


async def until_it_waits(database: Database, task: asyncio.Task[Any]) -> None:
    """Return when the task stands before a lock, or is through because it met none."""
    async with asyncio.timeout(LIMIT_S):
        while not task.done():
            async with database.snapshot() as connection:
                if await connection.scalar(_WAITING):
                    return


@asynccontextmanager
async def overtaken_by(
    world: World, work: Coroutine[Any, Any, Any]
) -> AsyncIterator[store.Connection]:
    """Yield a transaction; before it commits the work begins, and ends if nothing holds it."""
    async with world.db.transaction() as connection:
        yield connection
        task = asyncio.create_task(work)
        await until_it_waits(world.db, task)
    await task


async def delete(world: World, stream_id: str) -> None:
    await management.delete_stream(stream_id, caller=PAYROLL, deps=world.deps)


async def disable(world: World, stream_id: str) -> None:
    await set_status(world, stream_id, StreamStatus.DISABLED)


@pytest.mark.requirement("SSF-STAT-6", "SSF-OP-41")
@pytest.mark.parametrize("end", [delete, disable])
async def test_what_was_just_published_is_dropped_with_its_stream(world: World, end: End) -> None:
    stream = await world.stream()
    async with overtaken_by(world, end(world, stream.stream_id)) as connection:
        (one,) = await service.publish(connection, [event()], world.clock.now())
    assert (await world.rows())[one.jti].state == "dropped"


async def _delete_inside(connection: store.Connection, world: World, stream_id: str) -> None:
    await store.delete_stream(connection, TENANT, stream_id=stream_id, now=world.clock.now())


async def _disable_inside(connection: store.Connection, world: World, stream_id: str) -> None:
    stream = await store.get_stream(connection, TENANT, stream_id=stream_id, lock=True)
    assert stream is not None
    update = StatusUpdate(stream_id=stream_id, status=StreamStatus.DISABLED)
    now = world.clock.now()
    await management.set_status_by_transmitter(connection, stream, update, now=now)


@pytest.mark.requirement("SSF-STAT-6", "SSF-OP-41")
@pytest.mark.parametrize("end", [_delete_inside, _disable_inside])
async def test_nothing_is_queued_for_a_stream_that_ends_while_an_event_is_published(
    world: World, end: Callable[[store.Connection, World, str], Awaitable[None]]
) -> None:
    ends, stays = await world.stream(), await world.stream()
    published: list[str] = []

    async def publish() -> None:
        published.extend(one.stream_id for one in await world.publish(event()))

    async with overtaken_by(world, publish()) as connection:
        await end(connection, world, ends.stream_id)
    assert published == [stays.stream_id]
    rows = (await world.rows()).values()
    # Of the stream that ends nothing is there but its announcement, where it has one.
    of_users = {row.stream_id for row in rows if row.ordering_key == "usr_rosa"}
    assert of_users == {stays.stream_id}


async def test_who_polls_waits_for_no_publication(world: World) -> None:
    stream = await world.stream()
    (older,) = await world.publish(event())
    async with asyncio.timeout(LIMIT_S), world.db.transaction() as connection:
        await service.publish(connection, [event("usr_noah")], world.clock.now())
        polled = await asyncio.create_task(world.poll(stream.stream_id))
        assert list(polled.sets) == [older.jti]
