"""What a receiver is told of the status of its stream: once, alone, and nothing that is over."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from ssf.events.ssf import StreamUpdated
from ssf.stream import StreamStatus
from ssf.stream_requests import StatusUpdate, VerificationRequest
from tests.transmitters.conftest import PAYROLL, TENANT, World, event
from tests.transmitters.test_receipts import send_again
from tests.transmitters.test_upkeep import set_status
from tests.transmitters.test_worker import Pusher, Receiver, outbound, pusher, receiver
from transmitters import management
from transmitters.model import DeliveryState

#: fixtures
__all__ = ["outbound", "pusher", "receiver"]

pytestmark = pytest.mark.anyio

PAUSED, ENABLED = StreamStatus.PAUSED, StreamStatus.ENABLED


async def by_the_hub(world: World, stream_id: str, status: StreamStatus) -> None:
    """Set the status as the hub does for its own reasons."""
    update = StatusUpdate(stream_id=stream_id, status=status, reason="why")
    stream = await world.stored_stream(stream_id)
    async with world.db.transaction() as connection:
        await management.set_status_by_transmitter(
            connection, stream, update, now=world.clock.now()
        )


async def verification_asked(world: World, stream_id: str) -> None:
    request = VerificationRequest(stream_id=stream_id, state="x")
    await management.request_verification(request, caller=PAYROLL, deps=world.deps)


async def told(world: World, receiver: Receiver) -> list[str]:
    """Return the statuses that the receiver was told, in order."""
    events: list[dict[str, Any]] = [
        (await world.opened(body))[1]["events"] for _, body in receiver.requests
    ]
    uri = StreamUpdated.type_uri
    return [one[uri]["status"] for one in events if uri in one]


@pytest.mark.requirement("SSF-UPD-2", "SSF-STAT-12")
async def test_a_pause_is_announced_though_a_verification_is_held(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    await verification_asked(world, stream.stream_id)
    await by_the_hub(world, stream.stream_id, PAUSED)
    assert [one.klass for one in await pusher.run_once()] == ["delivered"]
    assert await pusher.due() == []
    assert await told(world, receiver) == ["paused"]


@pytest.mark.requirement("SSF-UPD-2", "POLL-22")
async def test_a_pause_is_announced_to_a_poller_that_holds_a_verification(world: World) -> None:
    stream = await world.stream()
    await verification_asked(world, stream.stream_id)
    assert len((await world.poll(stream.stream_id)).sets) == 1
    await by_the_hub(world, stream.stream_id, PAUSED)
    (raw,) = (await world.poll(stream.stream_id)).sets.values()
    assert StreamUpdated.type_uri in (await world.opened(raw))[1]["events"]


@pytest.mark.requirement("SSF-UPD-2", "SSF-STAT-12")
async def test_a_receiver_that_enabled_its_stream_is_not_told_that_it_is_paused(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    (held,) = await world.publish(event())
    await by_the_hub(world, stream.stream_id, PAUSED)
    await set_status(world, stream.stream_id, ENABLED)
    assert [one.jti for one in await pusher.run_once()] == [held.jti]
    assert await told(world, receiver) == []
    states = {row.err: row.state for row in (await world.rows()).values()}
    assert states == {None: "delivered", "superseded": "dropped"}


@pytest.mark.requirement("SSF-UPD-2")
async def test_a_second_pause_is_announced_though_the_first_one_was_never_heard_of(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    for status in (PAUSED, ENABLED, PAUSED):
        await by_the_hub(world, stream.stream_id, status)
    await pusher.run_once()
    assert await pusher.due() == []
    assert await told(world, receiver) == ["paused"]


@pytest.mark.requirement("SSF-UPD-2")
async def test_what_the_hub_did_and_undid_is_told_in_order(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    for status in (PAUSED, ENABLED):
        await by_the_hub(world, stream.stream_id, status)
    for _ in range(3):
        await pusher.run_once()
    assert await told(world, receiver) == ["paused", "enabled"]


@pytest.mark.requirement("SSF-UPD-2", "PUSH-17")
async def test_a_redrive_tells_of_no_pause_that_is_over(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    receiver.answer = lambda: web.Response(status=404)
    await by_the_hub(world, stream.stream_id, PAUSED)
    await pusher.run_once()
    await set_status(world, stream.stream_id, ENABLED)
    receiver.answer = lambda: web.Response(status=202)
    receiver.requests.clear()
    assert (await send_again(world, stream.stream_id)).count == 0
    await pusher.run_once()
    assert await told(world, receiver) == []
    (dead,) = (await world.rows()).values()
    assert (dead.state, TENANT) == (DeliveryState.DEAD, dead.tenant_id)
    assert (await send_again(world, stream.stream_id, jti=dead.jti)).count == 1
