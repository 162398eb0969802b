"""Whether callers queue: told to every process of a node, however it writes."""

from __future__ import annotations

import asyncio
import os

import pytest

from runtime.crowd import Crowd
from runtime.database import Database
from runtime.notify import Notifier
from runtime.writer import CROWDED_ITEMS, LocalWriter, Operation
from tests.runtime.background import running


def _operation(*, is_urgent: bool = False, is_own: bool = False) -> Operation[str, str]:
    async def handle(_connection: object, items: object) -> list[str]:
        return list(items)  # type: ignore[call-overload,no-any-return]

    return Operation(
        name="noted", item=str, result=str, handle=handle, is_urgent=is_urgent, is_own=is_own
    )


def test_at_first_nobody_queues() -> None:
    crowd = Crowd()
    assert not crowd.is_crowded
    assert not crowd.is_busy


def test_a_forked_process_tells_the_one_it_was_forked_from() -> None:
    crowd = Crowd()
    pid = os.fork()
    if not pid:
        crowd.note_crowded()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert crowd.is_crowded
    assert crowd.is_busy


def test_callers_that_keep_coming_are_no_queue() -> None:
    crowd = Crowd()
    crowd.note_busy()
    assert crowd.is_busy
    assert not crowd.is_crowded


@pytest.mark.parametrize("is_urgent", [True, False])
async def test_a_queue_at_one_writer_is_seen_at_the_other(
    database: Database, *, is_urgent: bool
) -> None:
    """As api and core on PostgreSQL."""
    crowd = Crowd()
    writer = LocalWriter(database, Notifier(), crowd=crowd)
    operation = _operation(is_urgent=is_urgent)
    async with running(writer.run()):
        await asyncio.gather(*(writer.submit(operation, "item") for _ in range(CROWDED_ITEMS)))
        assert crowd.is_busy
        assert crowd.is_crowded == is_urgent


async def test_the_hubs_own_outcomes_make_nobody_brief(database: Database) -> None:
    crowd = Crowd()
    writer = LocalWriter(database, Notifier(), crowd=crowd)
    own = _operation(is_own=True)
    async with running(writer.run()):
        for _ in range(2):
            await asyncio.gather(*(writer.submit(own, "item") for _ in range(CROWDED_ITEMS)))
        assert not crowd.is_busy
