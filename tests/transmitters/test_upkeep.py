"""The upkeep: limits of what is held, retention, and pausing whose receiver is silent."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from runtime import ids
from runtime.clock import epoch_s
from ssf.events.ssf import StreamUpdated
from ssf.stream import StreamStatus, parse_patch, render_configuration
from ssf.stream_requests import StatusUpdate, VerificationRequest, parse_subject_request
from tests.transmitters.conftest import ONE_ENGINE, PAYROLL, ROSA, TENANT, World, event
from transmitters import management, store
from transmitters.model import DeliveryState
from transmitters.published.store import add_deliveries
from transmitters.receipts.model import Wanted
from transmitters.receipts.service import send_again
from transmitters.store import Connection, deliveries, events
from transmitters.subjects import service as subjects_service
from transmitters.upkeep.model import BATCH_ROWS, Limits, activity_every_s
from transmitters.upkeep.service import Upkeep

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0
TIMEOUT_S = 3_600
#: what is written down of activity may be this old
COARSE_S = activity_every_s(TIMEOUT_S)
LIMITS = Limits(sets_max=1_000_000, age_max_s=14 * DAY_S, settled_max_s=30 * DAY_S)


async def _breathe() -> None:
    pass


def upkeep(world: World, **limits: Any) -> Upkeep:
    return Upkeep(
        database=world.db, clock=world.clock, limits=replace(LIMITS, **limits), breathe=_breathe
    )


async def tend(world: World, kept: Upkeep | None = None, **limits: Any) -> bool:
    @asynccontextmanager
    async def begin() -> AsyncIterator[Connection]:
        async with world.db.transaction() as connection:
            yield connection

    return await (kept or upkeep(world, **limits)).tend(TENANT, begin)


async def set_status(world: World, stream_id: str, status: StreamStatus) -> None:
    update = StatusUpdate(stream_id=stream_id, status=status)
    await management.set_status(update, caller=PAYROLL, deps=world.deps)


async def event_ids(world: World) -> list[str]:
    async with world.db.snapshot() as connection:
        return list(await connection.scalars(sa.select(events.c.event_id)))


async def pile_up(world: World, stream_id: str, count: int) -> list[str]:
    """Let a stream hold `count` SETs of one event."""
    (one,) = await world.publish(event(only_stream_id=stream_id))
    now = world.clock.now()
    rows = [
        {
            "tenant_id": TENANT,
            "stream_id": stream_id,
            "jti": ids.new_ulid(),
            "event_id": one.event_id,
            "iat": epoch_s(now),
            "ordering_key": "usr_rosa",
            "queued_at": now,
        }
        for _ in range(count - 1)
    ]
    async with world.db.transaction() as connection:
        await add_deliveries(connection, rows)
    return [one.jti, *(str(row["jti"]) for row in rows)]


# --- what is held ---------------------------------------------------------------------------------


@pytest.mark.requirement("SSF-STAT-13", "SSF-STAT-4")
async def test_a_paused_stream_holds_for_a_stated_time_and_then_drops_the_oldest(
    world: World,
) -> None:
    stream = await world.stream()
    await set_status(world, stream.stream_id, StreamStatus.PAUSED)
    (old,) = await world.publish(event())
    world.clock.advance(10 * DAY_S)
    (young,) = await world.publish(event())
    world.clock.advance(4 * DAY_S)
    await tend(world)
    rows = await world.rows()
    assert (rows[old.jti].state, rows[old.jti].err) == ("dropped", "held_too_long")
    assert rows[old.jti].settled_at == world.clock.now()
    await set_status(world, stream.stream_id, StreamStatus.ENABLED)
    assert list((await world.poll(stream.stream_id)).sets) == [young.jti]


@pytest.mark.requirement("SSF-STAT-13")
@pytest.mark.parametrize("sets_max", [1, 7, BATCH_ROWS + 5])
async def test_a_stream_holds_a_stated_number_and_keeps_the_newest(
    world: World, sets_max: int
) -> None:
    full, other = await world.stream(), await world.stream()
    jtis = await pile_up(world, full.stream_id, 2 * BATCH_ROWS)
    (untouched,) = await pile_up(world, other.stream_id, 1)
    await tend(world, sets_max=sets_max)
    await tend(world, sets_max=sets_max)
    rows = await world.rows()
    assert [jti for jti in jtis if rows[jti].state == "pending"] == jtis[-sets_max:]
    assert {rows[jti].err for jti in jtis[:-sets_max]} == {"held_too_many"}
    assert rows[untouched].state == "pending"


@ONE_ENGINE
async def test_a_stream_within_its_limits_loses_nothing(world: World) -> None:
    stream = await world.stream()
    await pile_up(world, stream.stream_id, 40)
    world.clock.advance(14 * DAY_S - 1)
    await tend(world, sets_max=40)
    assert Tally(row.state for row in (await world.rows()).values()) == {"pending": 40}


async def test_what_is_queued_for_a_stream_that_is_gone_is_dropped_and_purged(
    world: World,
) -> None:
    """An older release could leave it behind; it kept all later events from being purged."""
    gone, stays = await world.stream(), await world.stream()
    jtis = await pile_up(world, gone.stream_id, BATCH_ROWS + 5)
    (kept,) = await pile_up(world, stays.stream_id, 1)
    async with world.db.transaction() as connection:
        await connection.execute(
            sa.delete(store.streams).where(store.streams.c.stream_id == gone.stream_id)
        )
    await tend(world)
    rows = await world.rows()
    assert {(rows[jti].state, rows[jti].err) for jti in jtis} == {("dropped", "stream_deleted")}
    assert rows[kept].state == "pending"
    await settle(world, stays.stream_id)
    world.clock.advance(400 * DAY_S)
    await tend(world)
    assert await world.rows() == {}
    assert await event_ids(world) == []


async def test_what_was_redriven_is_held_anew(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    await world.poll(stream.stream_id)
    await world.poll(stream.stream_id, errors={one.jti: "invalid_request"})
    world.clock.advance(20 * DAY_S)
    async with world.db.transaction() as connection:
        wanted = Wanted(state=DeliveryState.DEAD)
        await send_again(
            connection, TENANT, stream_id=stream.stream_id, wanted=wanted, now=world.clock.now()
        )
    await tend(world)
    assert (await world.rows())[one.jti].state == "pending"


async def test_dropped_sets_say_why(world: World) -> None:
    disabled, deleted = await world.stream(), await world.stream()
    await world.publish(event())
    await set_status(world, disabled.stream_id, StreamStatus.DISABLED)
    await management.delete_stream(deleted.stream_id, caller=PAYROLL, deps=world.deps)
    assert {row.stream_id: row.err for row in (await world.rows()).values()} == {
        disabled.stream_id: "stream_disabled",
        deleted.stream_id: "stream_deleted",
    }


# --- retention ------------------------------------------------------------------------------------


async def test_receipts_go_after_their_retention_and_events_with_the_last_of_them(
    world: World,
) -> None:
    first, second = await world.stream(), await world.stream()
    await world.publish(event())
    await settle(world, first.stream_id)
    world.clock.advance(10 * DAY_S)
    await settle(world, second.stream_id)
    world.clock.advance(20 * DAY_S)
    await tend(world)
    assert {row.stream_id for row in (await world.rows()).values()} == {second.stream_id}
    assert len(await event_ids(world)) == 1
    world.clock.advance(10 * DAY_S)
    await tend(world)
    assert await world.rows() == {}
    # As long as a clock may differ, an event may still get deliveries.
    assert await event_ids(world) == []


async def test_what_is_pending_or_young_stays_with_its_event(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    world.clock.advance(31 * DAY_S)
    await tend(world, age_max_s=100 * DAY_S)
    assert list(await world.rows()) == [one.jti]
    assert await event_ids(world) == [one.event_id]
    await settle(world, stream.stream_id)
    await tend(world)
    assert list(await world.rows()) == [one.jti]
    assert await event_ids(world) == [one.event_id]


@ONE_ENGINE
async def test_many_receipts_go_in_small_batches_around_what_is_kept(world: World) -> None:
    stream, held = await world.stream(), await world.stream()
    kept = await pile_up(world, held.stream_id, BATCH_ROWS + 3)
    jtis = await pile_up(world, stream.stream_id, 2 * BATCH_ROWS)
    async with world.db.transaction() as connection:
        await connection.execute(
            deliveries.update()
            .where(deliveries.c.jti.in_(jtis))
            .values(state="delivered", settled_at=world.clock.now())
        )
    world.clock.advance(30 * DAY_S)
    await tend(world, age_max_s=100 * DAY_S)
    assert sorted(await world.rows()) == kept


async def test_a_redriven_receipt_is_not_purged_under_way(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    await settle(world, stream.stream_id)
    world.clock.advance(40 * DAY_S)
    async with world.db.transaction() as connection:
        wanted = Wanted(state=DeliveryState.DELIVERED, jti=one.jti)
        await send_again(
            connection, TENANT, stream_id=stream.stream_id, wanted=wanted, now=world.clock.now()
        )
    await tend(world)
    assert list((await world.poll(stream.stream_id)).sets) == [one.jti]


async def test_a_process_that_leads_no_longer_changes_nothing(world: World) -> None:
    stream = await world.stream()
    await world.publish(event())
    world.clock.advance(100 * DAY_S)

    @asynccontextmanager
    async def begin() -> AsyncIterator[None]:
        yield None

    kept = upkeep(world, inactivity_timeout_s=60)
    assert not await kept.tend(TENANT, begin)
    assert [row.state for row in (await world.rows()).values()] == ["pending"]
    assert (await world.stored_stream(stream.stream_id)).status is StreamStatus.ENABLED


# --- silence --------------------------------------------------------------------------------------


def timed(world: World) -> None:
    world.deps = replace(world.deps, inactivity_timeout_s=TIMEOUT_S)


async def is_paused(world: World, stream_id: str) -> bool:
    await tend(world, inactivity_timeout_s=TIMEOUT_S)
    return (await world.stored_stream(stream_id)).status is StreamStatus.PAUSED


@pytest.mark.requirement("SSF-CFG-10", "SSF-CFG-12", "SSF-UPD-2")
async def test_a_silent_receivers_stream_is_paused_and_it_is_told(world: World) -> None:
    timed(world)
    stream = await world.stream()
    assert render_configuration(stream)["inactivity_timeout"] == TIMEOUT_S
    world.clock.advance(TIMEOUT_S)
    assert not await is_paused(world, stream.stream_id)
    world.clock.advance(COARSE_S)
    await world.publish(event())
    assert await tend(world, inactivity_timeout_s=TIMEOUT_S)
    assert (await world.stored_stream(stream.stream_id)).status is StreamStatus.PAUSED
    assert not await tend(world, inactivity_timeout_s=TIMEOUT_S)
    (raw,) = (await world.poll(stream.stream_id)).sets.values()
    _, claims = await world.opened(raw)
    assert claims["events"] == {
        StreamUpdated.type_uri: {
            "status": "paused",
            "reason": f"No activity of the receiver for {TIMEOUT_S} s.",
        }
    }
    await set_status(world, stream.stream_id, StreamStatus.ENABLED)
    assert not await is_paused(world, stream.stream_id)
    # What was held, and no more of the announcement, though nobody acknowledged it.
    assert len((await world.poll(stream.stream_id)).sets) == 1


@pytest.mark.requirement("SSF-CFG-11", "POLL-26")
@pytest.mark.parametrize("what", ["read", "change", "status", "verify", "subject", "poll"])
async def test_activity_of_the_receiver_restarts_the_timer(world: World, what: str) -> None:
    timed(world)
    stream = await world.stream()
    stream_id = stream.stream_id
    world.clock.advance(TIMEOUT_S - 1)
    body = {"stream_id": stream_id, "subject": dict(ROSA[0])}
    if what == "read":
        await management.read_stream(stream_id, caller=PAYROLL, deps=world.deps)
    elif what == "change":
        change = parse_patch(msgspec.json.encode({"stream_id": stream_id, "description": "x"}))
        await management.change_stream(change, caller=PAYROLL, deps=world.deps)
    elif what == "status":
        await set_status(world, stream_id, StreamStatus.ENABLED)
    elif what == "verify":
        request = VerificationRequest(stream_id=stream_id)
        await management.request_verification(request, caller=PAYROLL, deps=world.deps)
    elif what == "subject":
        wanted = parse_subject_request(msgspec.json.encode(body))
        await subjects_service.add_subject(wanted, caller=PAYROLL, deps=world.deps)
    else:
        await world.poll(stream_id)
    world.clock.advance(TIMEOUT_S)
    assert not await is_paused(world, stream_id)
    world.clock.advance(COARSE_S + 1)
    assert await is_paused(world, stream_id)


@ONE_ENGINE
@pytest.mark.requirement("SSF-CFG-11")
async def test_the_activity_of_many_polls_is_written_down_now_and_then(world: World) -> None:
    timed(world)
    stream = await world.stream()
    before = world.writer.submits
    for _ in range(100):
        await world.poll(stream.stream_id)
        world.clock.advance(10)
    assert world.writer.submits - before == 1_000 // COARSE_S


@ONE_ENGINE
@pytest.mark.requirement("SSF-CFG-11", "EGW-30")
async def test_accepting_a_push_is_no_activity(world: World) -> None:
    timed(world)
    stream = await world.push_stream("https://payroll.example/ssf")
    (one,) = await world.publish(event())
    world.clock.advance(TIMEOUT_S)
    async with world.db.transaction() as connection:
        await connection.execute(
            deliveries.update().values(state="delivered", settled_at=world.clock.now())
        )
    world.clock.advance(COARSE_S)
    assert await is_paused(world, stream.stream_id)
    assert one.jti in await world.rows()


async def test_a_stream_from_before_the_time_out_has_its_whole_time(world: World) -> None:
    stream = await world.stream()
    await world.set_stream(stream.stream_id, active_at=None)
    world.clock.advance(10 * TIMEOUT_S)
    assert not await is_paused(world, stream.stream_id)
    world.clock.advance(TIMEOUT_S + COARSE_S)
    assert await is_paused(world, stream.stream_id)


async def test_without_a_time_out_nobody_is_paused_and_no_poll_writes(world: World) -> None:
    stream = await world.stream()
    before = world.writer.submits
    world.clock.advance(365 * DAY_S)
    await world.poll(stream.stream_id)
    assert not await tend(world)
    assert world.writer.submits == before
    assert "inactivity_timeout" not in render_configuration(stream)
    assert (await world.stored_stream(stream.stream_id)).status is StreamStatus.ENABLED


async def settle(world: World, stream_id: str) -> None:
    sets = (await world.poll(stream_id)).sets
    await world.poll(stream_id, ack=tuple(sets), max_events=0)
