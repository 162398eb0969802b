"""Wake-ups: none is lost between looking and waiting, unknown topics are refused."""

from __future__ import annotations

import asyncio

import pytest

from runtime.notify import TOPICS, Notifier
from tests.runtime.background import LIMIT_S


async def test_a_wake_up_releases_everybody_who_waits() -> None:
    notifier = Notifier()
    waits = [asyncio.create_task(notifier.wait("tasks", LIMIT_S)) for _ in range(5)]
    await asyncio.sleep(0)  # one turn of the loop: all have started
    notifier.wake("tasks")
    assert await asyncio.gather(*waits) == [True] * 5


async def test_a_wake_up_between_looking_and_waiting_is_not_lost() -> None:
    notifier = Notifier()
    seen = notifier.count("signals")
    notifier.wake("signals")
    assert await notifier.wait("signals", LIMIT_S, since=seen)


async def test_without_a_mark_an_earlier_wake_up_does_not_count() -> None:
    notifier = Notifier()
    notifier.wake("signals")
    assert not await notifier.wait("signals", 0)


async def test_waiting_ends_at_the_limit_and_leaves_nothing_behind() -> None:
    notifier = Notifier()
    assert not await notifier.wait("polls", 0.001, since=notifier.count("polls"))
    assert not notifier._waiters["polls"]


async def test_topics_do_not_wake_each_other() -> None:
    notifier = Notifier()
    seen = notifier.count("polls")
    notifier.wake_all(TOPICS - {"polls"})
    assert notifier.count("polls") == seen
    assert not await notifier.wait("polls", 0, since=seen)


async def test_a_waiter_that_gave_up_does_not_hurt_the_others() -> None:
    notifier = Notifier()
    gone = asyncio.create_task(notifier.wait("tasks", LIMIT_S))
    stays = asyncio.create_task(notifier.wait("tasks", LIMIT_S))
    await asyncio.sleep(0)  # one turn of the loop: both have started
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    notifier.wake("tasks")
    assert await stays


async def test_wake_ups_made_here_are_forwarded_and_those_from_elsewhere_are_not() -> None:
    notifier = Notifier()
    forwarded: list[str] = []
    notifier.forward_to(forwarded.append)
    notifier.wake("tasks")
    notifier.deliver("polls")
    assert forwarded == ["tasks"]


def test_an_unknown_topic_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown topic"):
        Notifier().wake("weather")


async def test_a_producer_and_a_consumer_never_lose_an_item() -> None:
    """The pattern of every loop: mark, look, wait since the mark."""
    notifier, made, found = Notifier(), list[int](), list[int]()

    async def produce() -> None:
        for number in range(500):
            made.append(number)
            notifier.wake("tasks")
            await asyncio.sleep(0)

    async def consume() -> None:
        while len(found) < 500:
            seen = notifier.count("tasks")
            await asyncio.sleep(0)  # somebody else runs between the mark and the look
            found.extend(made[len(found) :])
            await asyncio.sleep(0)
            if len(found) < 500:
                assert await notifier.wait("tasks", LIMIT_S, since=seen)

    await asyncio.gather(produce(), consume())
    assert found == made
