"""Wake-ups between nodes on PostgreSQL: they arrive, and a lost listener comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from runtime.database import Database
from runtime.notify import TOPICS, Notifier
from runtime.pgnotify import PostgreSQLBridge
from tests.runtime.background import LIMIT_S, running

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


async def _listening(*nodes: Notifier) -> None:
    """Wait until each node listens: then it tells everybody to look again."""
    for node in nodes:
        assert await node.wait("polls", LIMIT_S, since=0)


async def test_a_wake_up_reaches_the_other_nodes_and_does_not_come_back(database_url: str) -> None:
    one, other = Notifier(), Notifier()
    async with running(
        PostgreSQLBridge(database_url, one).run(), PostgreSQLBridge(database_url, other).run()
    ):
        await _listening(one, other)
        mark, own = other.count("tasks"), one.count("tasks")
        one.wake("tasks")
        assert await other.wait("tasks", LIMIT_S, since=mark)
        # The answer to this one comes after whatever came back of the first.
        mark = one.count("signals")
        other.wake("signals")
        assert await one.wait("signals", LIMIT_S, since=mark)
        assert one.count("tasks") == own + 1


async def test_a_listener_whose_connection_was_cut_comes_back_by_itself(
    database: Database, database_url: str
) -> None:
    """Regression: without something to send, a dead listener was noticed by nobody."""
    node = Notifier()
    async with running(PostgreSQLBridge(database_url, node).run()):
        await _listening(node)
        marks = {topic: node.count(topic) for topic in TOPICS}
        async with database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
            )
        # On return it tells everybody to look again, for whatever was said meanwhile.
        async with asyncio.timeout(LIMIT_S):
            for topic, mark in marks.items():
                assert await node.wait(topic, LIMIT_S, since=mark)
