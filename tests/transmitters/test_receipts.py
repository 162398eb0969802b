"""Receipts of SETs, and sending SETs again: redrive, replay, limits, what is found how."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from runtime import ids
from runtime.clock import epoch_s
from runtime.errors import Conflict, NotFound
from ssf.events.ssf import Verification
from ssf.stream import StreamStatus
from ssf.stream_requests import StatusUpdate, VerificationRequest
from ssf.subject import parse_subject
from tests.transmitters.conftest import (
    CREDENTIAL_CHANGE,
    NOW_S,
    ONE_ENGINE,
    PAYROLL,
    ROSA,
    SESSION_REVOKED,
    TENANT,
    World,
    event,
)
from transmitters import management
from transmitters import store as transmitters_store
from transmitters.model import DeadLetter, DeliveryReceipt, DeliveryState
from transmitters.published.store import add_deliveries
from transmitters.receipts import service, store
from transmitters.receipts.model import (
    LOOKED_AT_MAX,
    SENT_AGAIN_MAX,
    Period,
    ReceiptFilter,
    SentAgain,
    Wanted,
)

pytestmark = pytest.mark.anyio

TIM = ({"format": "email", "email": "tim.reed@green.example"},)
POISONED = ({"format": "email", "email": 7},)


async def send_again(
    world: World, stream_id: str, state: DeliveryState = DeliveryState.DEAD, **conditions: Any
) -> SentAgain:
    wanted = Wanted(state=state, **conditions)
    async with world.db.transaction() as connection:
        return await service.send_again(
            connection, TENANT, stream_id=stream_id, wanted=wanted, now=world.clock.now()
        )


async def replay(world: World, stream_id: str, **conditions: Any) -> SentAgain:
    return await send_again(world, stream_id, DeliveryState.DELIVERED, **conditions)


async def letters(world: World) -> list[DeadLetter]:
    async with world.db.snapshot() as connection:
        return await store.dead_letters(connection, TENANT, limit=100)


async def receipts(world: World, *, limit: int = 100, **filters: Any) -> list[DeliveryReceipt]:
    wanted = ReceiptFilter(**filters)
    async with world.db.snapshot() as connection:
        return await store.list_receipts(connection, TENANT, wanted, limit=limit)


async def delivered(world: World, stream_id: str) -> list[str]:
    """Acknowledge all that the stream has; return it in order."""
    sets = list((await world.poll(stream_id)).sets)
    await world.poll(stream_id, ack=tuple(sets), max_events=0)
    return sets


async def killed(world: World, stream_id: str) -> list[str]:
    """Refuse all that the stream has for good; return it in order."""
    sets = list((await world.poll(stream_id)).sets)
    await world.poll(stream_id, errors=dict.fromkeys(sets, "invalid_request"), max_events=0)
    return sets


async def filled(world: World, stream_id: str, count: int, state: DeliveryState) -> None:
    """Give a stream `count` SETs of one event that are settled, one second apart."""
    (one,) = await world.publish(event(only_stream_id=stream_id))
    now = world.clock.now()
    rows = [
        {
            "tenant_id": TENANT,
            "stream_id": stream_id,
            "jti": ids.new_ulid(),
            "event_id": one.event_id,
            "iat": NOW_S + number,
            "ordering_key": "usr_rosa",
            "queued_at": now,
        }
        for number in range(count)
    ]
    table = transmitters_store.deliveries
    async with world.db.transaction() as connection:
        await connection.execute(table.delete())
        await add_deliveries(connection, rows)
        await connection.execute(table.update().values(state=state.value, settled_at=now))


# --- redrive --------------------------------------------------------------------------------------


@pytest.mark.requirement("SET-5", "PUSH-17")
async def test_a_dead_letter_is_redriven_once_and_keeps_its_jti_and_iat(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    await killed(world, stream.stream_id)
    (letter,) = await letters(world)
    assert (letter.jti, letter.err, letter.event_type) == (
        one.jti,
        "invalid_request",
        SESSION_REVOKED,
    )
    async with world.db.snapshot() as connection:
        assert await store.dead_letters(connection, TENANT, limit=9, before=one.jti) == []
    world.clock.advance(3_600)
    assert await send_again(world, stream.stream_id, jti=one.jti) == SentAgain(count=1, after=None)
    with pytest.raises(NotFound):
        await send_again(world, stream.stream_id, jti=one.jti)
    again = await world.poll(stream.stream_id)
    _, claims = await world.opened(again.sets[one.jti])
    assert claims["iat"] == NOW_S


async def test_all_dead_letters_of_a_stream_are_redriven_and_none_of_another(world: World) -> None:
    stream, other = await world.stream(), await world.stream()
    await world.publish(event("a"), event("b"))
    dead = await killed(world, stream.stream_id)
    await killed(world, other.stream_id)
    assert (await send_again(world, stream.stream_id)).count == 2
    assert await send_again(world, stream.stream_id) == SentAgain(count=0, after=None)
    assert list((await world.poll(stream.stream_id)).sets) == dead
    assert {letter.stream_id for letter in await letters(world)} == {other.stream_id}


async def test_conditions_are_taken_together(world: World) -> None:
    stream = await world.stream(events=(SESSION_REVOKED, CREDENTIAL_CHANGE))
    credential = {"credential_type": "password", "change_type": "revoke"}
    of_rosa, of_tim, changed = await world.publish(
        event("rosa"),
        event("tim", subjects=TIM),
        event("rosa", event_type=CREDENTIAL_CHANGE, payload=credential),
    )
    await killed(world, stream.stream_id)
    rosa = parse_subject(dict(ROSA[1]))
    assert (
        await send_again(
            world, stream.stream_id, subject=rosa, event_types=frozenset({CREDENTIAL_CHANGE})
        )
    ).count == 1
    assert {letter.jti for letter in await letters(world)} == {of_rosa.jti, of_tim.jti}
    assert (await send_again(world, stream.stream_id, subject=rosa)).count == 1
    nobody = parse_subject({"format": "opaque", "id": "nobody"})
    assert (await send_again(world, stream.stream_id, subject=nobody)).count == 0
    with pytest.raises(NotFound):
        await send_again(world, stream.stream_id, jti=of_tim.jti, subject=rosa)
    assert (await send_again(world, stream.stream_id, jti=of_tim.jti)).count == 1
    assert list((await world.poll(stream.stream_id)).sets)[-1] == changed.jti


async def test_a_period_is_told_by_when_sets_were_issued(world: World) -> None:
    stream = await world.stream()
    await filled(world, stream.stream_id, 600, DeliveryState.DEAD)
    start = world.clock.now()
    world.clock.advance(86_400)
    period = Period(
        since=start + timedelta(seconds=100), until=start + timedelta(seconds=110, microseconds=1)
    )
    assert (await send_again(world, stream.stream_id, period=period)).count == 11
    issued = sorted(row.iat for row in (await world.rows()).values() if row.state == "pending")
    assert issued == list(range(NOW_S + 100, NOW_S + 111))
    listed = await receipts(world, stream_id=stream.stream_id, period=period)
    assert [one.iat for one in listed] == issued[::-1]
    assert await receipts(world, period=period) == listed
    for nothing in (
        Period(until=start - timedelta(days=30)),
        Period(since=start + timedelta(days=30)),
    ):
        assert await receipts(world, period=nothing) == []
        assert (await send_again(world, stream.stream_id, period=nothing)).count == 0
    assert len(await receipts(world, limit=700, period=Period(since=start))) == 600
    assert (await send_again(world, stream.stream_id, period=Period(until=start))).count == 0


@ONE_ENGINE
async def test_one_call_sends_a_bounded_number_and_says_where_to_go_on(world: World) -> None:
    stream = await world.stream()
    await filled(world, stream.stream_id, SENT_AGAIN_MAX + 5, DeliveryState.DEAD)
    first = await send_again(world, stream.stream_id)
    assert (first.count, first.after is None) == (SENT_AGAIN_MAX, False)
    assert await send_again(world, stream.stream_id, after=first.after) == SentAgain(
        count=5, after=None
    )


@ONE_ENGINE
async def test_one_call_looks_at_a_bounded_number(world: World) -> None:
    stream = await world.stream()
    await filled(world, stream.stream_id, LOOKED_AT_MAX + 3, DeliveryState.DELIVERED)
    nobody = parse_subject({"format": "opaque", "id": "nobody"})
    first = await replay(world, stream.stream_id, subject=nobody)
    assert first.count == 0
    assert first.after is not None
    rest = await replay(world, stream.stream_id, subject=nobody, after=first.after)
    assert rest == SentAgain(count=0, after=None)


@pytest.mark.requirement("SSF-STAT-6")
async def test_nothing_is_sent_again_over_a_disabled_stream_or_one_that_is_gone(
    world: World,
) -> None:
    stream = await world.stream()
    await world.publish(event())
    await killed(world, stream.stream_id)
    await set_status(world, stream.stream_id, StreamStatus.DISABLED)
    with pytest.raises(Conflict, match="disabled"):
        await send_again(world, stream.stream_id)
    assert {row.state for row in (await world.rows()).values()} == {"dead"}
    await management.delete_stream(stream.stream_id, caller=PAYROLL, deps=world.deps)
    with pytest.raises(NotFound):
        await send_again(world, stream.stream_id)


@pytest.mark.requirement("SSF-STAT-4")
async def test_what_is_redriven_on_a_paused_stream_is_held(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    await killed(world, stream.stream_id)
    await set_status(world, stream.stream_id, StreamStatus.PAUSED)
    assert (await send_again(world, stream.stream_id)).count == 1
    assert (await world.poll(stream.stream_id)).sets == {}
    await set_status(world, stream.stream_id, StreamStatus.ENABLED)
    assert list((await world.poll(stream.stream_id)).sets) == [one.jti]


async def test_a_redrive_calls_a_stream_at_once_that_was_left_alone(world: World) -> None:
    stream = await world.push_stream("https://payroll.example/ssf")
    await filled(world, stream.stream_id, 1, DeliveryState.DEAD)
    later = world.clock.now() + timedelta(hours=1)
    await world.set_stream(
        stream.stream_id, failures=9, failing_since=world.clock.now(), backoff_until=later
    )
    await send_again(world, stream.stream_id)
    async with world.db.snapshot() as connection:
        row = (await connection.execute(transmitters_store.streams.select())).one()
    assert (row.failures, row.failing_since, row.backoff_until) == (0, None, None)


# --- replay ---------------------------------------------------------------------------------------


@pytest.mark.requirement("SET-5")
async def test_a_replay_sends_what_was_delivered_unchanged_and_in_order(world: World) -> None:
    stream = await world.stream()
    await world.publish(event("a"), event("a"), event("b"))
    before = (await world.poll(stream.stream_id)).sets
    await world.poll(stream.stream_id, ack=tuple(before), max_events=0)
    await world.publish(event("a"))
    since = Period(since=world.clock.now() - timedelta(seconds=1))
    world.clock.advance(60)
    assert (await replay(world, stream.stream_id, period=since)).count == 3
    after = (await world.poll(stream.stream_id)).sets
    assert list(after)[:3] == list(before)
    for jti, raw in before.items():
        assert (await world.opened(after[jti]))[1] == (await world.opened(raw))[1]


async def test_a_replay_leaves_pending_and_dead_sets_alone(world: World) -> None:
    stream = await world.stream()
    await world.publish(event("a"))
    dead = await killed(world, stream.stream_id)
    (waits,) = await world.publish(event("b"))
    everything = Period(since=world.clock.now() - timedelta(days=1))
    assert (await replay(world, stream.stream_id, period=everything)).count == 0
    states = {jti: row.state for jti, row in (await world.rows()).items()}
    assert states == {dead[0]: "dead", waits.jti: "pending"}


async def test_old_news_of_the_stream_itself_are_replayed_only_by_name(world: World) -> None:
    stream = await world.stream()
    await management.request_verification(
        VerificationRequest(stream_id=stream.stream_id, state=None),
        caller=PAYROLL,
        deps=world.deps,
    )
    (jti,) = await delivered(world, stream.stream_id)
    everything = Period(since=world.clock.now() - timedelta(days=1))
    assert (await replay(world, stream.stream_id, period=everything)).count == 0
    named = frozenset({Verification.type_uri})
    assert (await replay(world, stream.stream_id, event_types=named)).count == 1
    await delivered(world, stream.stream_id)
    assert (await replay(world, stream.stream_id, jti=jti)).count == 1


async def test_a_subject_that_cannot_be_read_is_about_nobody_and_found_by_its_jti(
    world: World,
) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    async with world.db.transaction() as connection:
        await connection.execute(transmitters_store.events.update().values(subjects=list(POISONED)))
        await connection.execute(transmitters_store.deliveries.update().values(state="dead"))
    rosa = parse_subject(dict(ROSA[0]))
    assert (await send_again(world, stream.stream_id, subject=rosa)).count == 0
    assert (await send_again(world, stream.stream_id, jti=one.jti)).count == 1


# --- receipts -------------------------------------------------------------------------------------


async def test_a_receipt_is_found_by_each_of_its_properties(world: World) -> None:
    stream = await world.stream(events=(SESSION_REVOKED, CREDENTIAL_CHANGE))
    other = await world.stream()
    credential = {"credential_type": "password", "change_type": "revoke"}
    await world.publish(
        event(txn="cause-1"),
        event("b", event_type=CREDENTIAL_CHANGE, payload=credential, txn="cause-2"),
    )
    jti = (await delivered(world, stream.stream_id))[1]
    (receipt,) = await receipts(world, jti=jti)
    assert msgspec.to_builtins(receipt) | {"state": "x"}
    assert (receipt.stream_id, receipt.txn, receipt.event_type, receipt.iat, receipt.kid) == (
        stream.stream_id,
        "cause-2",
        CREDENTIAL_CHANGE,
        epoch_s(world.clock.now()),
        "set-1",
    )
    assert [one.jti for one in await receipts(world, txn="cause-2")] == [jti]
    assert [one.jti for one in await receipts(world, event_type=CREDENTIAL_CHANGE)] == [jti]
    assert len(await receipts(world, txn="cause-1")) == 2
    assert len(await receipts(world, txn="cause-1", stream_id=other.stream_id)) == 1
    assert len(await receipts(world, state=DeliveryState.DELIVERED)) == 2
    assert len(await receipts(world, state=DeliveryState.PENDING)) == 1
    assert await receipts(world, state=DeliveryState.DEAD) == []
    assert await receipts(world, txn="cause-3") == []


async def set_status(world: World, stream_id: str, status: StreamStatus) -> None:
    update = StatusUpdate(stream_id=stream_id, status=status, reason=None)
    await management.set_status(update, caller=PAYROLL, deps=world.deps)
