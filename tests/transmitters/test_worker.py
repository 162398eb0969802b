"""The push worker: what it takes up, what it sends, and what becomes of it.

The receivers are real HTTP servers on loopback, reached through the guarded client.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from aiohttp import web

from runtime.clock import Clock, SystemClock
from runtime.database import chunks
from runtime.egress import EgressRules
from runtime.lanes import WINDOW, Lanes
from runtime.lean import LeanOutbound
from runtime.outbound import Outbound
from runtime.queue import BUCKETS, Fence, LeaseKeeper, bucket_of
from ssf.jose import split_jws
from ssf.stream import DeliveryMethod, StreamStatus, parse_patch
from ssf.stream_requests import StatusUpdate
from tests.runtime.background import until
from tests.transmitters.conftest import (
    NOW_S,
    ONE_ENGINE,
    PAYROLL,
    TENANT,
    WIKI,
    World,
    event,
    issuer_of,
)
from tests.transmitters.test_upkeep import set_status, tend
from transmitters import management, store
from transmitters.delivery.model import (
    OVERDUE_MAX_S,
    REFUSED_IN_ROW_MAX,
    STREAM_WINDOW,
    PushSettlement,
    PushWork,
    StreamHealth,
)
from transmitters.health import store as health_store
from transmitters.receipts import store as receipts_store
from transmitters.selection import AHEAD_MAX, AHEAD_S
from transmitters.silence import SILENT_MAX
from transmitters.worker import PushSource

pytestmark = pytest.mark.anyio

ALL_BUCKETS = range(BUCKETS)


@dataclass
class Receiver:
    """A push receiver: answers as told, remembers what reached it."""

    url: str = ""
    answer: Callable[[], web.Response] = lambda: web.Response(status=202)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    held: int = 0
    lets_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self.arrived:
            self.requests.append(({k.lower(): v for k, v in request.headers.items()}, body))
            self.arrived.notify_all()
        return self.answer()

    async def hold(self, request: web.Request) -> web.Response:
        """Take a request, and answer when all of them are let go."""
        await request.read()
        self.held += 1
        await self.lets_go.wait()
        return web.Response(status=503)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    def jtis(self) -> list[str]:
        return [_jti_of(body) for _, body in self.requests]

    def last_jti(self) -> str:
        return _jti_of(self.requests[-1][1])


def _jti_of(raw: bytes) -> str:
    jti: str = msgspec.json.decode(split_jws(raw).payload)["jti"]
    return jti


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Yield a receiver that accepts everything, until told otherwise."""
    made = Receiver()
    application = web.Application()
    application.router.add_post("/ssf", made.receive)
    application.router.add_post("/ssf/never/{number}", made.hold)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{port}/ssf"
    yield made
    await runner.cleanup()


@dataclass
class Pusher:
    """The push source with a lease on every bucket, driven step by step."""

    world: World
    source: PushSource
    leases: LeaseKeeper

    async def due(self, *, limit: int = 64, busy: tuple[str, ...] = ()) -> list[PushWork]:
        lanes = dict.fromkeys(busy, True)
        return list(await self.source.due(ALL_BUCKETS, self.world.clock.now(), limit, lanes))

    def at_hand(self, *, limit: int, busy: Sequence[str] = ()) -> list[PushWork]:
        return list(self.source.at_hand(self.world.clock.now(), limit, dict.fromkeys(busy, True)))

    def fence(self, work: PushWork) -> Fence:
        return self.leases.fence(work.target.bucket)

    async def perform(self, work: PushWork) -> PushSettlement:
        return await self.source.perform(work, self.fence(work))

    async def run_once(self) -> list[PushSettlement]:
        """Do and settle everything that is due now."""
        works = await self.due()
        done = await asyncio.gather(*(self.perform(work) for work in works))
        settled = [self.world.writer.submit(self.source.settle, one) for one in done]
        assert all(await asyncio.gather(*settled))
        return list(done)


@pytest.fixture
async def outbound() -> AsyncIterator[LeanOutbound]:
    opened = LeanOutbound(EgressRules(dev_insecure=True))
    yield opened
    await opened.close()


def source_of(world: World, outbound: Outbound, clock: Clock) -> PushSource:
    return PushSource(
        world.db,
        outbound,
        keys=world.keys,
        box=world.box,
        clock=clock,
        issuer=issuer_of,
        mark=lambda: world.notifier.count("config"),
    )


@pytest.fixture
async def pusher(world: World, outbound: LeanOutbound) -> Pusher:
    source = source_of(world, outbound, world.clock)
    leases = LeaseKeeper(source.kind, "test", writer=world.writer, clock=world.clock)
    await leases.renew()
    return Pusher(world, source, leases)


@ONE_ENGINE
@pytest.mark.requirement("PUSH-1", "PUSH-2", "PUSH-3", "PUSH-5", "EGW-31", "SSF-DEL-3")
async def test_a_set_is_posted_as_it_is_with_the_receivers_own_authorization(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url, authorization_header="Bearer 9c2e-push-secret")
    (one,) = await world.publish(event())
    await pusher.run_once()
    ((headers, body),) = receiver.requests
    assert headers["content-type"] == "application/secevent+jwt"
    assert headers["accept"] == "application/json"
    assert headers["authorization"] == "Bearer 9c2e-push-secret"
    _, claims = await world.opened(body)
    assert (claims["jti"], claims["iat"], claims["aud"]) == (one.jti, NOW_S, PAYROLL.client_id)
    row = (await world.rows())[one.jti]
    assert (row.state, row.kid, row.attempts, row.err) == ("delivered", "set-1", 1, None)
    assert await pusher.due() == []


@ONE_ENGINE
@pytest.mark.requirement("PUSH-5")
async def test_without_an_authorization_header_none_is_sent(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    await world.publish(event())
    await pusher.run_once()
    assert "authorization" not in receiver.requests[0][0]


@pytest.mark.requirement("PUSH-44", "PUSH-16", "SET-5", "SET-36")
async def test_a_set_is_repeated_with_its_jti_iat_and_kid_after_trouble(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    await world.publish(event())
    receiver.answer = lambda: web.Response(status=503)
    await pusher.run_once()
    assert await pusher.due() == []
    await world.rotate()
    receiver.answer = lambda: web.Response(status=202)
    world.clock.advance(60)
    await pusher.run_once()
    first, second = (body for _, body in receiver.requests)
    assert first == second
    assert split_jws(second).header.kid == "set-1"


@pytest.mark.requirement("PUSH-44")
async def test_trouble_of_the_endpoint_rests_the_whole_stream_and_no_other(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    sick = await world.push_stream("http://127.0.0.1:1/ssf")
    well = await world.push_stream(receiver.url, WIKI)
    await world.publish(*(event(f"usr_{n}") for n in range(3)))
    outcomes = {(one.stream_id, one.klass) for one in await pusher.run_once()}
    assert outcomes == {(sick.stream_id, "transient"), (well.stream_id, "delivered")}
    await world.publish(event("usr_9"))
    assert {work.target.stream_id for work in await pusher.due()} == {well.stream_id}
    async with world.db.snapshot() as connection:
        ids = [sick.stream_id, well.stream_id]
        health = await health_store.stream_health(connection, TENANT, stream_ids=ids)
    # Three attempts side by side are one failure of the stream.
    assert health[sick.stream_id].failures == 1
    assert health[sick.stream_id].failing_since == world.clock.now()
    assert health[well.stream_id] == StreamHealth()


@pytest.mark.requirement("PUSH-44")
async def test_a_failing_stream_is_probed_with_one_set_until_it_answers(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    await world.publish(*(event(f"usr_{n}") for n in range(3)))
    receiver.answer = lambda: web.Response(status=500)
    assert len(await pusher.run_once()) == 3
    world.clock.advance(60)
    assert len(await pusher.run_once()) == 1
    receiver.answer = lambda: web.Response(status=202)
    world.clock.advance(60)
    assert len(await pusher.run_once()) == 1
    assert len(await pusher.run_once()) == 2


@ONE_ENGINE
@pytest.mark.requirement("PUSH-44")
async def test_retry_after_is_honoured(world: World, pusher: Pusher, receiver: Receiver) -> None:
    await world.push_stream(receiver.url)
    await world.publish(event())
    receiver.answer = lambda: web.Response(status=429, headers={"retry-after": "300"})
    await pusher.run_once()
    world.clock.advance(299)
    assert await pusher.due() == []
    world.clock.advance(1)
    assert len(await pusher.due()) == 1


@pytest.mark.requirement("PUSH-30", "PUSH-17", "PUSH-42")
async def test_a_poison_set_is_set_aside_and_its_subject_goes_on(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    poison, after, other = await world.publish(event("rosa"), event("rosa"), event("noah"))
    refusal = web.json_response

    def answer() -> web.Response:
        if receiver.jtis()[-1] == poison.jti:
            return refusal({"err": "invalid_request", "description": "no"}, status=400)
        return web.Response(status=202)

    receiver.answer = answer
    works = await pusher.due()
    assert [work.pending.jti for work in works] == [poison.jti, other.jti]
    for work in works:
        await world.writer.submit(pusher.source.settle, await pusher.perform(work))
    await pusher.run_once()
    rows = await world.rows()
    assert (rows[poison.jti].state, rows[poison.jti].err) == ("dead", "invalid_request")
    assert "no" in rows[poison.jti].detail
    assert (rows[after.jti].state, rows[other.jti].state) == ("delivered", "delivered")


@pytest.mark.requirement("PUSH-42")
async def test_an_endpoint_that_refuses_everything_gets_no_more_and_its_stream_is_paused(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    receiver.answer = lambda: web.Response(status=404)
    await world.publish(*(event(f"usr_{n}") for n in range(REFUSED_IN_ROW_MAX - 1)))
    assert len(await pusher.run_once()) == REFUSED_IN_ROW_MAX - 1
    assert not await tend(world)
    await world.publish(event("last"))
    await pusher.run_once()
    await world.publish(event("held"))
    assert await pusher.due() == []

    receiver.answer = lambda: web.Response(status=202)
    assert await tend(world)
    assert (await world.stored_stream(stream.stream_id)).status is StreamStatus.PAUSED
    # The receiver hears why, if it hears at all; what was published meanwhile waits.
    (told,) = await pusher.run_once()
    assert told.klass == "delivered"
    await set_status(world, stream.stream_id, StreamStatus.ENABLED)
    (held,) = await pusher.run_once()
    assert held.klass == "delivered"
    assert not await tend(world)


@pytest.mark.requirement("PUSH-42")
async def test_refusals_with_a_reason_or_between_deliveries_pause_nothing(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    await world.publish(*(event(f"usr_{n}") for n in range(REFUSED_IN_ROW_MAX)))
    receiver.answer = lambda: web.json_response({"err": "invalid_request"}, status=400)
    while await pusher.run_once():
        pass
    await world.publish(*(event(f"usr_{n}") for n in range(REFUSED_IN_ROW_MAX - 1)))
    receiver.answer = lambda: web.Response(status=404)
    while await pusher.run_once():
        pass
    receiver.answer = lambda: web.Response(status=202)
    await world.publish(event("good"))
    await pusher.run_once()
    receiver.answer = lambda: web.Response(status=404)
    await world.publish(event("bad"))
    await pusher.run_once()
    assert not await tend(world)
    assert (await world.stored_stream(stream.stream_id)).status is StreamStatus.ENABLED


@pytest.mark.requirement("PUSH-31")
async def test_a_set_refused_for_now_holds_its_own_subject_only(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    await world.publish(event("rosa"))
    receiver.answer = lambda: web.json_response({"err": "invalid_key"}, status=400)
    await pusher.run_once()
    _, noah = await world.publish(event("rosa"), event("noah"))
    assert [work.pending.jti for work in await pusher.due()] == [noah.jti]


@ONE_ENGINE
@pytest.mark.requirement("PUSH-45", "SSF-DEL-6")
async def test_a_redirect_is_never_followed(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    await world.publish(event())
    receiver.answer = lambda: web.Response(status=307, headers={"location": receiver.url})
    (one,) = await pusher.run_once()
    assert one.klass == "stream_misconfigured"
    assert len(receiver.requests) == 1


@ONE_ENGINE
@pytest.mark.requirement("SSF-DEL-6")
async def test_a_blocked_address_is_not_called_and_the_stream_waits(
    world: World, pusher: Pusher
) -> None:
    await world.push_stream("http://169.254.169.254/latest/meta-data")
    await world.publish(event())
    (one,) = await pusher.run_once()
    assert (one.klass, one.err, one.status) == ("stream_misconfigured", "address_blocked", 0)
    assert await pusher.due() == []


@ONE_ENGINE
@pytest.mark.requirement("SUB-24")
async def test_a_set_that_cannot_be_rendered_is_dead_and_nothing_is_sent(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    await world.set_stream(stream.stream_id, subject_format="phone_number")
    (one,) = await world.publish(event())
    await pusher.run_once()
    assert receiver.requests == []
    row = (await world.rows())[one.jti]
    assert (row.state, row.err) == ("dead", "subject_unmapped")


@ONE_ENGINE
@pytest.mark.requirement("SUB-24", "SUB-35")
async def test_each_stream_gets_the_subject_in_its_own_format(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    for subject_format in ("email", "iss_sub"):
        stream = await world.push_stream(receiver.url)
        await world.set_stream(stream.stream_id, subject_format=subject_format)
    await world.publish(event())
    await pusher.run_once()
    opened = [await world.opened(body) for _, body in receiver.requests]
    assert {claims["sub_id"]["format"] for _, claims in opened} == {"email", "iss_sub"}


async def test_only_the_oldest_set_of_a_subject_is_due_and_subjects_go_side_by_side(
    world: World, pusher: Pusher
) -> None:
    await world.push_stream("http://127.0.0.1:1/ssf")
    published = await world.publish(event("a"), event("a"), event("b"), event("b"), event("c"))
    due = await pusher.due()
    assert [work.pending.jti for work in due] == [published[i].jti for i in (0, 2, 4)]
    rest = await pusher.due(busy=tuple(work.lane for work in due[:2]))
    assert [work.pending.jti for work in rest] == [published[4].jti]


async def test_no_stream_takes_more_than_its_window_and_every_stream_gets_its_turn(
    world: World, pusher: Pusher
) -> None:
    streams = [await world.push_stream("http://127.0.0.1:1/ssf") for _ in range(4)]
    await world.publish(*(event(f"usr_{n}") for n in range(3 * STREAM_WINDOW)))
    busy: list[str] = []
    for _ in range(4):
        works = await pusher.due(limit=STREAM_WINDOW, busy=tuple(busy))
        # All of them get their first ones before any gets its second one.
        assert {work.target.stream_id for work in works[:4]} == {one.stream_id for one in streams}
        taken = Tally(work.target.stream_id for work in works)
        assert taken == dict.fromkeys(taken, STREAM_WINDOW // 4)
        busy += [work.lane for work in works]
    assert await pusher.due(limit=64, busy=tuple(busy)) == []
    # With free places one at a time, they still go round.
    ones = [(await pusher.due(limit=1))[0].target.stream_id for _ in range(4)]
    assert set(ones) == {stream.stream_id for stream in streams}


async def test_work_is_only_taken_from_the_buckets_asked_for(world: World, pusher: Pusher) -> None:
    stream = await world.push_stream("http://127.0.0.1:1/ssf")
    await world.publish(event())
    bucket = bucket_of(TENANT, stream.stream_id)
    others = [number for number in ALL_BUCKETS if number != bucket]
    now = world.clock.now()
    assert await pusher.source.due(others, now, 64, {}) == []
    (work,) = await pusher.source.due([bucket], now, 64, {})
    assert (pusher.source.bucket(work), pusher.source.lane(work)) == (bucket, work.lane)


async def test_streams_that_may_not_be_called_hide_none_behind_them(
    world: World, pusher: Pusher
) -> None:
    model = await world.push_stream("http://127.0.0.1:1/ssf")
    await world.publish(event())
    async with world.db.transaction() as connection:
        stream = (await connection.execute(store.streams.select())).mappings().one()
        waits = (await connection.execute(store.deliveries.select())).mappings().one()
        names = [f"str_00{number:04}" for number in range(4_000)]
        paused = [{**stream, "stream_id": name, "status": "paused"} for name in names]
        held = [{**waits, "stream_id": name} for name in names]
        for some in chunks(paused, 500):
            await connection.execute(store.streams.insert(), some)
        for some in chunks(held, 500):
            await connection.execute(store.deliveries.insert(), some)
    assert names[-1] < model.stream_id
    assert [work.target.stream_id for work in await pusher.due()] == [model.stream_id]


async def test_a_search_reads_all_streams_together_and_of_a_long_queue_its_share(
    world: World, pusher: Pusher
) -> None:
    small = [await world.push_stream("http://127.0.0.1:1/ssf") for _ in range(3)]
    await world.publish(event())
    long = await world.push_stream("http://127.0.0.1:1/ssf")
    queued = [event(f"usr_{n}", only_stream_id=long.stream_id) for n in range(2 * AHEAD_MAX)]
    await world.publish(*queued)
    statements = counted_statements(world)
    works = await pusher.due()
    taken = Tally(work.target.stream_id for work in works)
    assert taken == {long.stream_id: STREAM_WINDOW, **{one.stream_id: 1 for one in small}}
    # Which streams wait, which of them may be called, their SETs, and what these say.
    assert len([statement for statement in statements if "SELECT" in statement]) == 4


def counted_statements(world: World) -> list[str]:
    statements: list[str] = []
    sa.event.listen(
        world.db.reader.sync_engine,
        "before_cursor_execute",
        lambda _c, _cur, statement, *_: statements.append(statement),
    )
    return statements


async def test_what_a_search_found_beyond_the_free_places_is_at_hand_for_the_next_ones(
    world: World, pusher: Pusher
) -> None:
    await world.push_stream("http://127.0.0.1:1/ssf")
    published = await world.publish(*(event(f"usr_{n}") for n in range(6)))
    first = await pusher.due(limit=2)
    statements = counted_statements(world)
    second = pusher.at_hand(limit=3, busy=[work.lane for work in first])
    third = pusher.at_hand(limit=3, busy=[work.lane for work in (*first, *second)])
    found = [work.pending.jti for work in (*first, *second, *third)]
    assert found == [one.jti for one in published]
    assert not statements
    assert pusher.at_hand(limit=3) == []


async def test_what_is_at_hand_stays_within_the_window_of_its_stream(
    world: World, pusher: Pusher
) -> None:
    await world.push_stream("http://127.0.0.1:1/ssf")
    await world.publish(*(event(f"usr_{n}") for n in range(2 * STREAM_WINDOW)))
    first = [work.lane for work in await pusher.due(limit=STREAM_WINDOW)]
    assert pusher.at_hand(limit=64, busy=first) == []
    uncommitted = dict.fromkeys(first[:5], False) | dict.fromkeys(first[5:], True)
    now = world.clock.now()
    assert len(pusher.source.at_hand(now, 64, uncommitted)) == 5


@pytest.mark.parametrize("event_between", ["time", "paused", "disabled", "deleted", "endpoint"])
@pytest.mark.requirement("SSF-STAT-4", "SSF-OP-41")
async def test_what_is_at_hand_is_forgotten_soon_and_at_once_when_streams_change(
    world: World, pusher: Pusher, event_between: str
) -> None:
    stream = await world.push_stream("http://127.0.0.1:1/ssf")
    await world.publish(*(event(f"usr_{n}") for n in range(3)))
    assert len(await pusher.due(limit=1)) == 1
    by: dict[str, Any] = {"caller": PAYROLL, "deps": world.deps}
    match event_between:
        case "time":
            world.clock.advance(2 * AHEAD_S)
        case "deleted":
            await management.delete_stream(stream.stream_id, **by)
        case "endpoint":
            delivery = {"method": DeliveryMethod.PUSH.value, "endpoint_url": "http://127.0.0.1:2/x"}
            change = {"stream_id": stream.stream_id, "delivery": delivery}
            parsed = parse_patch(msgspec.json.encode(change), allow_http=True)
            await management.change_stream(parsed, **by)
        case status:
            update = StatusUpdate(
                stream_id=stream.stream_id, status=StreamStatus(status), reason=None
            )
            await management.set_status(update, **by)
    assert pusher.at_hand(limit=3) == []


async def test_a_stream_in_trouble_gets_nothing_more_from_memory(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    sick = await world.push_stream(receiver.url)
    well = await world.push_stream("http://127.0.0.1:1/ssf")
    await world.publish(*(event(f"usr_{n}") for n in range(3)))
    receiver.answer = lambda: web.Response(status=503)
    (work,) = await pusher.due(limit=1)
    assert work.target.stream_id == sick.stream_id
    settlement = await pusher.perform(work)
    assert not pusher.source.makes_room(settlement)
    left = pusher.at_hand(limit=9)
    assert [one.target.stream_id for one in left] == [well.stream_id] * 3


@pytest.mark.requirement("SSF-STAT-4", "SSF-OP-41")
async def test_nothing_is_pushed_over_a_stopped_or_deleted_stream(
    world: World, pusher: Pusher
) -> None:
    stream = await world.push_stream("http://127.0.0.1:1/ssf")
    await world.publish(event())
    await world.set_stream(stream.stream_id, status="paused")
    assert await pusher.due() == []
    await world.set_stream(stream.stream_id, status="enabled")
    assert len(await pusher.due()) == 1
    await management.delete_stream(stream.stream_id, caller=PAYROLL, deps=world.deps)
    assert await pusher.due() == []


async def test_an_owner_that_lost_its_lease_cannot_settle(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    (one,) = await world.publish(event())
    (work,) = await pusher.due()
    late = await pusher.perform(work)
    again = LeaseKeeper(pusher.source.kind, "test", writer=world.writer, clock=world.clock)
    await again.renew()
    assert await world.writer.submit(pusher.source.settle, late) is False
    assert (await world.rows())[one.jti].state == "pending"


async def test_a_settlement_for_a_deleted_stream_changes_nothing(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    (one,) = await world.publish(event())
    (work,) = await pusher.due()
    settlement = await pusher.perform(work)
    await management.delete_stream(stream.stream_id, caller=PAYROLL, deps=world.deps)
    assert await world.writer.submit(pusher.source.settle, settlement)
    assert (await world.rows())[one.jti].state == "dropped"


async def test_settling_twice_changes_nothing(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    await world.publish(event())
    (settlement,) = await pusher.run_once()
    before = await world.rows()
    await world.writer.submit(pusher.source.settle, settlement)
    assert await world.rows() == before


@ONE_ENGINE
async def test_without_a_signing_key_the_set_waits(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url, PAYROLL)
    stream = await world.stored_stream(
        (await management.list_streams(caller=PAYROLL, deps=world.deps))[0].stream_id
    )
    wanted: dict[str, Any] = {"tenant_id": "keyless"}
    await world.set_stream(stream.stream_id, **wanted)
    async with world.db.transaction() as connection:
        await store.change_stream(connection, replace(stream, **wanted), now=world.clock.now())
    await world.publish(event(tenant_id="keyless"))
    (one,) = await pusher.run_once()
    assert (one.klass, one.kid) == ("transient", None)
    assert receiver.requests == []


async def test_lanes_deliver_what_is_published_and_retry_until_it_is_taken(
    world: World, outbound: LeanOutbound, receiver: Receiver
) -> None:
    """The whole loop, with the machine's clock: leases, lanes, pushes, settlements."""
    clock = SystemClock()
    world.clock.at = clock.now()
    await world.push_stream(receiver.url)
    answers = iter([503, 202, 202, 202])
    receiver.answer = lambda: web.Response(status=next(answers))
    source = source_of(world, outbound, clock)
    lanes = Lanes(
        source,
        leases=LeaseKeeper("deliveries", "test", writer=world.writer, clock=clock),
        writer=world.writer,
        notifier=world.notifier,
        clock=clock,
    )
    running = asyncio.create_task(lanes.run())
    first, second = await world.publish(event("rosa"), event("rosa"))
    await receiver.wait_for(3)
    assert receiver.jtis() == [first.jti, first.jti, second.jti]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.requirement("PUSH-46", "SSF-STAT-4")
async def test_only_a_stream_that_fails_for_days_loses_sets_not_one_that_was_paused(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    await world.push_stream(receiver.url)
    (one,) = await world.publish(event())
    world.clock.advance(10 * OVERDUE_MAX_S)
    await pusher.leases.renew()
    receiver.answer = lambda: web.Response(status=503)
    await pusher.run_once()
    assert (await world.rows())[one.jti].state == "pending"
    world.clock.advance(OVERDUE_MAX_S)
    await pusher.leases.renew()
    await pusher.run_once()
    assert (await world.rows())[one.jti].state == "dead"


# --- poison ---------------------------------------------------------------------------------------


@pytest.mark.requirement("PUSH-17", "PUSH-30")
async def test_one_poison_set_among_a_thousand_stops_none_of_the_others(
    world: World, pusher: Pusher, receiver: Receiver
) -> None:
    stream = await world.push_stream(receiver.url)
    people = [f"usr_{number}" for number in range(40)]
    published = await world.publish(*(event(people[n % 40]) for n in range(1_000)))
    poison = published[500].jti
    accepted: list[str] = []

    def answer() -> web.Response:
        jti = receiver.last_jti()
        if jti == poison:
            refusal = {"err": "invalid_request", "description": "reason_admin: no such language"}
            return web.json_response(refusal, status=400)
        accepted.append(jti)
        return web.Response(status=202)

    receiver.answer = answer
    for _ in range(1_000):
        if not await pusher.run_once():
            break
    assert sorted(accepted) == sorted({one.jti for one in published} - {poison})
    for person in range(40):
        of_person = [one.jti for one in published[person::40] if one.jti != poison]
        assert [jti for jti in accepted if jti in set(of_person)] == of_person
    async with world.db.snapshot() as connection:
        (letter,) = await receipts_store.dead_letters(connection, TENANT, limit=9)
    assert (letter.jti, letter.stream_id) == (poison, stream.stream_id)
    assert (letter.err, letter.attempts) == ("invalid_request", 1)
    assert "no such language" in (letter.detail or "")
    assert Tally(row.state for row in (await world.rows()).values()) == {
        "delivered": 999,
        "dead": 1,
    }


# --- silence --------------------------------------------------------------------------------------


@dataclass
class Hole:
    """Endpoints at several ports that take requests and never answer."""

    urls: list[str] = field(default_factory=list)
    held: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self.changed:
            self.held += 1
            self.changed.notify_all()
        try:
            await reader.read(-1)
        finally:
            writer.transport.abort()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: self.held >= count)


@pytest.fixture
async def hole() -> AsyncIterator[Hole]:
    made = Hole()
    # Several, because a client has few connections to one host.
    servers = [await asyncio.start_server(made.swallow, "127.0.0.1", 0) for _ in range(10)]
    made.urls = [f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}/ssf" for one in servers]
    yield made
    for server in servers:
        server.close()


async def add_silent(
    world: World, urls: Sequence[str], streams: int, *, clients: int = 1, **columns: Any
) -> None:
    """Add streams of PAYROLL that never answer, with a SET due on each."""
    silent = await world.push_stream(urls[0])
    (first,) = await world.publish(event("x", only_stream_id=silent.stream_id))
    now = world.clock.now()
    async with world.db.transaction() as connection:
        rows = (await connection.execute(store.streams.select())).mappings().all()
        row = next(row for row in rows if row["stream_id"] == silent.stream_id)
        ids = [f"str_silent_{number:04}" for number in range(streams)]
        copies = [
            {
                **row,
                "stream_id": one,
                "endpoint_url": urls[number % len(urls)],
                "client_id": f"cli_{number % clients}" if number % clients else row["client_id"],
                **columns,
            }
            for number, one in enumerate(ids)
        ]
        await connection.execute(store.streams.insert(), copies)
        pending = {
            "tenant_id": TENANT,
            "event_id": first.event_id,
            "iat": NOW_S,
            "ordering_key": "k",
            "state": "pending",
            "attempts": 0,
            "due_at": now,
            "queued_at": now,
        }
        queued = [{**pending, "stream_id": one, "jti": f"{first.jti}-{one}"} for one in ids]
        await connection.execute(store.deliveries.insert(), queued)
    world.notifier.wake("deliveries")


def lanes_of(world: World, outbound: LeanOutbound, clock: Clock) -> Lanes:
    return Lanes(
        source_of(world, outbound, clock),
        leases=LeaseKeeper("deliveries", "test", writer=world.writer, clock=clock),
        writer=world.writer,
        notifier=world.notifier,
        clock=clock,
    )


async def silent_attempts(world: World) -> set[int]:
    rows = (await world.rows()).values()
    return {row.attempts for row in rows if row.stream_id.startswith("str_silent_")}


@ONE_ENGINE
@pytest.mark.requirement("PUSH-44")
async def test_receivers_that_never_answer_keep_nobody_else_waiting(
    world: World, outbound: LeanOutbound, receiver: Receiver, hole: Hole
) -> None:
    """They had all places for as long as a push may take, one window after the other."""
    clock = SystemClock()
    world.clock.at = clock.now()
    own = await world.push_stream(receiver.url)
    other = await world.push_stream(receiver.url, WIKI)
    running = asyncio.create_task(lanes_of(world, outbound, clock).run(silent_max=SILENT_MAX))
    try:
        await world.publish(event("before", only_stream_id=own.stream_id))
        await receiver.wait_for(1)
        await add_silent(world, hole.urls, 400)
        await hole.wait_for(WINDOW)
        for number, stream in enumerate([own, other] * 2):
            await world.publish(event(f"usr_{number}", only_stream_id=stream.stream_id))
            await receiver.wait_for(2 + number)
        # None of the others had to be given up for them.
        assert await silent_attempts(world) == {0}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@ONE_ENGINE
@pytest.mark.requirement("PUSH-44")
async def test_streams_that_fail_leave_connections_of_their_host_to_others(
    world: World, outbound: LeanOutbound, receiver: Receiver
) -> None:
    """Whoever points streams at a slow path of somebody's host stopped all that goes there."""
    clock = SystemClock()
    world.clock.at = clock.now()
    good = await world.push_stream(receiver.url)
    paths = [f"{receiver.url}/never/{number}" for number in range(2)]
    running = asyncio.create_task(lanes_of(world, outbound, clock).run(silent_max=SILENT_MAX))
    try:
        await add_silent(world, paths, 200, clients=5, failures=1, failing_since=clock.now())
        await until(lambda: receiver.held >= 8)
        await world.publish(event("usr_1", only_stream_id=good.stream_id))
        await receiver.wait_for(1)
        await world.publish(event("usr_2", only_stream_id=good.stream_id))
        await receiver.wait_for(2)
        assert await silent_attempts(world) == {0}
    finally:
        receiver.lets_go.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
