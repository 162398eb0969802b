"""Trouble of one SET, and trouble of a whole stream: which of them holds what, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
import sqlalchemy as sa
from aiohttp import web

from ssf.stream import StreamStatus, parse_patch
from tests.transmitters.conftest import PAYROLL, TENANT, World, event
from tests.transmitters.test_upkeep import set_status
from tests.transmitters.test_worker import Pusher, Receiver, outbound, pusher, receiver
from transmitters import management, store
from transmitters.delivery.model import LONE_ATTEMPTS_MAX, PushSettlement

#: fixtures
__all__ = ["outbound", "pusher", "receiver"]

pytestmark = pytest.mark.anyio

#: further than any rest of a stream
A_REST_S = 61


def fails_at(receiver: Receiver, *jtis: str) -> Callable[[], web.Response]:
    """Answer 500 to these SETs and 202 to all others; for one request at a time."""
    return lambda: web.Response(status=500 if receiver.last_jti() in jtis else 202)


async def push_one_by_one(world: World, pusher: Pusher, *, last: str = "") -> None:
    """Push what is due, so that a receiver knows what it answers. last: a jti, settled last."""
    done = [await pusher.perform(work) for work in await pusher.due()]
    for one in sorted(done, key=lambda one: one.jti == last):
        await world.writer.submit(pusher.source.settle, one)


# --- one SET that its receiver fails at -----------------------------------------------------------


@pytest.mark.requirement("PUSH-17", "PUSH-44")
async def test_a_set_that_the_receiver_fails_at_holds_no_subject_that_comes_later(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    (poison,) = await world.publish(event("rosa"))
    receiver.answer = fails_at(receiver, poison.jti)
    for _ in range(3):
        await pusher.run_once()
        world.clock.advance(A_REST_S)
    (good,) = await world.publish(event("noah"))
    await pusher.run_once()
    rows = await world.rows()
    assert (rows[good.jti].state, rows[poison.jti].state) == ("delivered", "pending")


@pytest.mark.requirement("PUSH-17", "PUSH-44")
async def test_a_set_whose_failure_is_known_last_holds_none_of_hundreds_of_others(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    poison, *others = await world.publish(*(event(f"usr_{n}") for n in range(200)))
    receiver.answer = fails_at(receiver, poison.jti)
    for _ in range(40):
        await push_one_by_one(world, pusher, last=poison.jti)
        world.clock.advance(A_REST_S)
    rows = await world.rows()
    assert {rows[one.jti].state for one in others} == {"delivered"}


@pytest.mark.requirement("PUSH-17", "PUSH-44")
async def test_several_such_sets_do_not_take_turns_to_hold_the_others(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    poison = [one.jti for one in await world.publish(*(event(f"bad_{n}") for n in range(10)))]
    receiver.answer = fails_at(receiver, *poison)
    for _ in range(20):
        await push_one_by_one(world, pusher)
        world.clock.advance(A_REST_S)
    others = await world.publish(*(event(f"usr_{n}") for n in range(10)))
    for _ in range(3):
        await push_one_by_one(world, pusher)
        world.clock.advance(A_REST_S)
    rows = await world.rows()
    assert {rows[one.jti].state for one in others} == {"delivered"}


@pytest.mark.requirement("PUSH-17", "PUSH-46")
async def test_such_a_set_is_given_up_once_its_stream_took_others_between_its_attempts(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    (poison,) = await world.publish(event("rosa"))
    receiver.answer = fails_at(receiver, poison.jti)
    for number in range(2 * LONE_ATTEMPTS_MAX):
        await world.publish(event(f"usr_{number}"))
        await push_one_by_one(world, pusher, last=poison.jti)
        world.clock.advance(A_REST_S)
        await push_one_by_one(world, pusher)
    row = (await world.rows())[poison.jti]
    assert (row.state, row.lone_attempts) == ("dead", LONE_ATTEMPTS_MAX)


# --- a receiver that is down ----------------------------------------------------------------------


async def down_for_long(world: World, pusher: Pusher, receiver: Receiver) -> None:
    """Let the receiver answer 503 for more attempts than a SET has alone."""
    receiver.answer = lambda: web.Response(status=503)
    for _ in range(LONE_ATTEMPTS_MAX + 1):
        await pusher.run_once()
        world.clock.advance(A_REST_S)


@pytest.mark.requirement("PUSH-44", "PUSH-46")
async def test_after_an_outage_a_failure_of_the_stream_that_was_enabled_again_kills_no_set(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    (one,) = await world.publish(event())
    await down_for_long(world, pusher, receiver)
    await set_status(world, stream.stream_id, StreamStatus.ENABLED)
    assert len(await pusher.run_once()) == 1
    row = (await world.rows())[one.jti]
    assert (row.state, row.attempts) == ("pending", LONE_ATTEMPTS_MAX + 2)


@pytest.mark.requirement("PUSH-44", "PUSH-46")
async def test_after_an_outage_a_failure_behind_another_set_that_was_taken_kills_none(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    (one,) = await world.publish(event("rosa"))
    await down_for_long(world, pusher, receiver)
    (two,) = await world.publish(event("noah"))
    receiver.answer = lambda: web.Response(status=202)
    await pusher.run_once()
    receiver.answer = lambda: web.Response(status=503)
    assert [done.jti for done in await pusher.run_once()] == [one.jti]
    rows = await world.rows()
    assert (rows[one.jti].state, rows[two.jti].state) == ("pending", "delivered")


# --- an endpoint that the stream has no more ------------------------------------------------------


async def moved(world: World, stream_id: str, url: str, **delivery: str) -> None:
    """Give the stream another endpoint, as its receiver does."""
    method = {"method": "urn:ietf:rfc:8935", "endpoint_url": url, **delivery}
    body = msgspec.json.encode({"stream_id": stream_id, "delivery": method})
    change = parse_patch(body, allow_http=True)
    await management.change_stream(change, caller=PAYROLL, deps=world.deps)


async def answered(pusher: Pusher, receiver: Receiver, status: int) -> PushSettlement:
    """Push the one SET that is due, and keep what came of it from being settled."""
    receiver.answer = lambda: web.Response(status=status)
    (work,) = await pusher.due()
    return await pusher.perform(work)


@pytest.mark.requirement("SSF-OP-20", "PUSH-42")
async def test_what_the_endpoint_before_refused_goes_to_the_new_one(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    (one,) = await world.publish(event())
    late = await answered(pusher, receiver, 410)
    await moved(world, stream.stream_id, receiver.url + "?new")
    assert await world.writer.submit(pusher.source.settle, late)
    row = (await world.rows())[one.jti]
    assert (row.state, row.attempts) == ("pending", 0)
    receiver.answer = lambda: web.Response(status=202)
    await pusher.run_once()
    assert (await world.rows())[one.jti].state == "delivered"


@pytest.mark.requirement("SSF-OP-20", "PUSH-43")
async def test_credentials_that_are_of_the_past_rest_no_stream(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url, authorization_header="Bearer old")
    await world.publish(event())
    late = await answered(pusher, receiver, 401)
    await moved(world, stream.stream_id, receiver.url, authorization_header="Bearer new")
    await world.writer.submit(pusher.source.settle, late)
    receiver.answer = lambda: web.Response(status=202)
    assert [one.klass for one in await pusher.run_once()] == ["delivered"]


async def test_what_the_endpoint_before_took_is_delivered(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    (one,) = await world.publish(event())
    late = await answered(pusher, receiver, 202)
    await moved(world, stream.stream_id, receiver.url + "?new")
    await world.writer.submit(pusher.source.settle, late)
    assert (await world.rows())[one.jti].state == "delivered"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_failure_that_is_settled_while_the_endpoint_changes_waits_for_the_change(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    (one,) = await world.publish(event())
    late = await answered(pusher, receiver, 410)
    async with world.db.transaction() as connection:
        before = await store.get_stream(connection, TENANT, stream_id=stream.stream_id, lock=True)
        assert before is not None
        changed = replace(before, delivery_epoch=before.delivery_epoch + 1)
        await store.change_stream(connection, changed, now=world.clock.now())
        settling = asyncio.create_task(world.writer.submit(pusher.source.settle, late))
        await until_somebody_waits(world)
    assert await settling
    assert (await world.rows())[one.jti].state == "pending"


async def until_somebody_waits(world: World) -> None:
    """Return when a transaction waits for another one."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    found = 0
    async with asyncio.timeout(20):
        while not found:
            async with world.db.snapshot() as connection:
                found = await connection.scalar(waiting) or 0
