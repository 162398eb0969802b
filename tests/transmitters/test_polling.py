"""Polls by RFC 8936: what is settled, what is handed out, when the answer waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from runtime.errors import NotFound
from ssf.jose import split_jws
from ssf.poll import PollRequest
from tests.transmitters.conftest import (
    ISSUER,
    NOW_S,
    PAYROLL,
    ROSA,
    SESSION_REVOKED,
    TENANT,
    WIKI,
    World,
    event,
)
from transmitters import management, service
from transmitters.delivery.model import (
    POLL_SETS_MAX,
    POLL_VISIBILITY_S,
    REFUSED_ATTEMPTS_MAX,
)
from transmitters.model import DeliveryState
from transmitters.receipts.model import Wanted
from transmitters.receipts.service import send_again

pytestmark = pytest.mark.anyio


@pytest.mark.requirement(
    "POLL-8", "SET-1", "SET-30", "SET-34", "SET-36", "SSF-META-3", "INT-15", "EGW-21"
)
async def test_a_poll_hands_out_signed_sets_by_jti(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    polled = await world.poll(stream.stream_id)
    assert list(polled.sets) == [one.jti]
    assert not polled.more_available
    jws, claims = await world.opened(polled.sets[one.jti])
    assert (jws.header.alg, jws.header.typ, jws.header.kid) == ("RS256", "secevent+jwt", "set-1")
    assert claims["jti"] == one.jti
    assert claims["iss"] == ISSUER
    assert claims["aud"] == PAYROLL.client_id
    assert claims["iat"] == NOW_S
    assert claims["sub_id"] == ROSA[0]
    assert list(claims["events"]) == [SESSION_REVOKED]


@pytest.mark.requirement("POLL-7", "POLL-8", "EGW-32")
async def test_a_poll_that_finds_nothing_answers_an_empty_object_and_writes_nothing(
    world: World,
) -> None:
    stream = await world.stream()
    polled = await world.poll(stream.stream_id)
    assert (polled.sets, polled.more_available) == ({}, False)
    assert world.writer.submits == 0


@pytest.mark.requirement("POLL-10", "POLL-11", "EGW-33")
async def test_an_acknowledgement_is_applied_before_anything_is_chosen(world: World) -> None:
    stream = await world.stream()
    first, second = await world.publish(event(), event())
    assert list((await world.poll(stream.stream_id, max_events=1)).sets) == [first.jti]
    polled = await world.poll(stream.stream_id, ack=(first.jti,))
    assert list(polled.sets) == [second.jti]
    rows = await world.rows()
    assert rows[first.jti].state == "delivered"
    assert rows[first.jti].settled_at is not None


@pytest.mark.requirement("POLL-11", "POLL-14")
async def test_unknown_foreign_and_repeated_acknowledgements_are_ignored(world: World) -> None:
    stream, other = await world.stream(), await world.stream(WIKI)
    published = {one.stream_id: one for one in await world.publish(event())}
    mine, theirs = published[stream.stream_id], published[other.stream_id]
    await world.poll(stream.stream_id)
    for _ in range(2):
        polled = await world.poll(stream.stream_id, ack=(mine.jti, theirs.jti, "no such jti"))
        assert polled.sets == {}
    rows = await world.rows()
    assert (rows[mine.jti].state, rows[theirs.jti].state) == ("delivered", "pending")


@pytest.mark.requirement("POLL-13", "POLL-23", "SET-5", "SET-36")
async def test_a_set_that_nobody_acknowledges_is_handed_out_again_unchanged(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    first = await world.poll(stream.stream_id)
    assert (await world.poll(stream.stream_id)).sets == {}
    await world.rotate()
    world.clock.advance(POLL_VISIBILITY_S - 1)
    assert (await world.poll(stream.stream_id)).sets == {}
    world.clock.advance(1)
    again = await world.poll(stream.stream_id)
    # RS256 is deterministic: the same jti, iat and kid give the same bytes.
    assert again.sets == first.sets
    assert split_jws(again.sets[one.jti].encode()).header.kid == "set-1"


@pytest.mark.requirement("SET-36")
async def test_after_a_rotation_new_sets_are_signed_with_the_new_key(world: World) -> None:
    stream = await world.stream()
    await world.rotate()
    (one,) = await world.publish(event())
    jws, _ = await world.opened((await world.poll(stream.stream_id)).sets[one.jti])
    assert jws.header.kid == "set-2"


@pytest.mark.requirement("POLL-23")
async def test_two_pollers_of_one_stream_never_hold_the_same_set(world: World) -> None:
    stream = await world.stream()
    published = await world.publish(*(event(f"usr_{n}") for n in range(20)))
    polls = [world.poll(stream.stream_id, max_events=7) for _ in range(4)]
    pages = [list(polled.sets) for polled in await asyncio.gather(*polls)]
    handed_out = [jti for page in pages for jti in page]
    assert len(handed_out) == len(set(handed_out)) == 20
    assert set(handed_out) == {one.jti for one in published}
    assert all(page == sorted(page) for page in pages)


@pytest.mark.requirement("POLL-23")
async def test_a_set_waits_while_an_older_one_of_its_subject_is_in_somebodys_hands(
    world: World,
) -> None:
    stream = await world.stream()
    rosa_1, rosa_2, noah = await world.publish(event("rosa"), event("rosa"), event("noah"))
    assert list((await world.poll(stream.stream_id, max_events=1)).sets) == [rosa_1.jti]
    assert list((await world.poll(stream.stream_id)).sets) == [noah.jti]
    polled = await world.poll(stream.stream_id, ack=(rosa_1.jti,))
    assert list(polled.sets) == [rosa_2.jti]


@pytest.mark.requirement("POLL-4", "POLL-9")
async def test_max_events_and_our_own_limit_bound_the_answer_and_more_is_announced(
    world: World,
) -> None:
    stream = await world.stream()
    await world.publish(*(event(f"usr_{n}") for n in range(POLL_SETS_MAX + 3)))
    two = await world.poll(stream.stream_id, max_events=2)
    assert (len(two.sets), two.more_available) == (2, True)
    many = await world.poll(stream.stream_id)
    assert (len(many.sets), many.more_available) == (POLL_SETS_MAX, True)
    rest = await world.poll(stream.stream_id)
    assert (len(rest.sets), rest.more_available) == (1, False)


@pytest.mark.requirement("POLL-5", "POLL-17", "EGW-34")
async def test_an_acknowledge_only_poll_returns_no_set_but_says_that_there_are_some(
    world: World,
) -> None:
    stream = await world.stream()
    first, second = await world.publish(event(), event("usr_2"))
    await world.poll(stream.stream_id, max_events=1)
    polled = await world.poll(stream.stream_id, max_events=0, ack=(first.jti,))
    assert (polled.sets, polled.more_available) == ({}, True)
    rows = await world.rows()
    assert (rows[first.jti].state, rows[second.jti].attempts) == ("delivered", 0)
    writes = world.writer.submits
    assert (await world.poll(stream.stream_id, max_events=0)).more_available
    assert world.writer.submits == writes


@pytest.mark.requirement("POLL-12")
async def test_a_set_refused_for_good_becomes_a_dead_letter_and_frees_its_subject(
    world: World,
) -> None:
    stream = await world.stream()
    poison, good = await world.publish(event("rosa"), event("rosa"))
    await world.poll(stream.stream_id, max_events=1)
    polled = await world.poll(stream.stream_id, errors={poison.jti: "invalid_request", "?": "x"})
    assert list(polled.sets) == [good.jti]
    row = (await world.rows())[poison.jti]
    assert (row.state, row.err, row.detail) == ("dead", "invalid_request", "because")


@pytest.mark.requirement("POLL-12", "PUSH-31")
async def test_a_set_refused_for_its_key_is_offered_again_later_and_then_given_up(
    world: World,
) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    for _ in range(REFUSED_ATTEMPTS_MAX):
        assert list((await world.poll(stream.stream_id)).sets) == [one.jti]
        assert (await world.poll(stream.stream_id, errors={one.jti: "invalid_key"})).sets == {}
        world.clock.advance(3600)
    assert (await world.poll(stream.stream_id)).sets == {}
    assert (await world.rows())[one.jti].state == "dead"


@pytest.mark.requirement("POLL-22", "SSF-STAT-4", "SSF-STAT-6")
@pytest.mark.parametrize("status", ["paused", "disabled"])
async def test_a_stopped_stream_hands_out_nothing_but_takes_acknowledgements(
    world: World, status: str
) -> None:
    stream = await world.stream()
    first, second = await world.publish(event(), event("usr_2"))
    await world.poll(stream.stream_id, max_events=1)
    await world.set_stream(stream.stream_id, status=status)
    polled = await world.poll(stream.stream_id, ack=(first.jti,))
    assert (polled.sets, polled.more_available) == ({}, False)
    rows = await world.rows()
    assert (rows[first.jti].state, rows[second.jti].state) == ("delivered", "pending")
    await world.set_stream(stream.stream_id, status="enabled")
    assert list((await world.poll(stream.stream_id)).sets) == [second.jti]


@pytest.mark.requirement("POLL-19", "SSF-AUTH-2", "PD-7")
async def test_a_stream_of_somebody_else_cannot_be_polled_or_acknowledged(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    with pytest.raises(NotFound):
        await world.poll(stream.stream_id, WIKI, ack=(one.jti,))
    assert (await world.rows())[one.jti].state == "pending"
    push = await world.push_stream("https://payroll.example/ssf")
    with pytest.raises(NotFound):
        await world.poll(push.stream_id)
    with pytest.raises(NotFound):
        await world.poll("str_unknown")


@pytest.mark.requirement("SUB-24")
async def test_a_set_that_cannot_be_put_in_the_streams_form_is_a_visible_dead_letter(
    world: World,
) -> None:
    stream = await world.stream()
    await world.set_stream(stream.stream_id, subject_format="opaque")
    opaque = {"format": "opaque", "id": "u1"}
    broken, good = await world.publish(event("rosa"), event("rosa", subjects=(opaque,)))
    polled = await world.poll(stream.stream_id)
    assert list(polled.sets) == [good.jti]
    row = (await world.rows())[broken.jti]
    assert (row.state, row.err) == ("dead", "subject_unmapped")


@pytest.mark.requirement("POLL-6", "EGW-35")
async def test_a_waiting_poll_answers_as_soon_as_a_set_is_published(world: World) -> None:
    stream = await world.stream()
    waiting = asyncio.create_task(world.poll(stream.stream_id, wait=True))
    await world.poll(stream.stream_id)  # gives the waiting poll its turn
    assert not waiting.done()
    (one,) = await world.publish(event())
    async with asyncio.timeout(10):
        polled = await waiting
    assert list(polled.sets) == [one.jti]


@pytest.mark.requirement("POLL-6", "POLL-8")
async def test_a_poll_waits_no_longer_than_its_limit_and_writes_nothing(world: World) -> None:
    stream = await world.stream()
    world.deps = replace(world.deps, long_poll_s=0.05)
    polled = await world.poll(stream.stream_id, wait=True)
    assert polled.sets == {}
    assert world.writer.submits == 0


@pytest.mark.requirement("POLL-10")
async def test_an_acknowledgement_is_committed_before_the_poll_waits(world: World) -> None:
    stream = await world.stream()
    (one,) = await world.publish(event())
    await world.poll(stream.stream_id)
    world.deps = replace(world.deps, long_poll_s=0.05)
    assert (await world.poll(stream.stream_id, wait=True, ack=(one.jti,))).sets == {}
    assert (await world.rows())[one.jti].state == "delivered"
    assert world.writer.submits == 2


async def test_a_waiting_poll_of_a_deleted_stream_ends(world: World) -> None:
    stream = await world.stream()
    waiting = asyncio.create_task(world.poll(stream.stream_id, wait=True))
    await world.poll(stream.stream_id)
    await management.delete_stream(stream.stream_id, caller=PAYROLL, deps=world.deps)
    with pytest.raises(NotFound):
        async with asyncio.timeout(10):
            await waiting


@pytest.mark.requirement("POLL-13")
async def test_a_poller_that_hung_up_is_handed_nothing(world: World) -> None:
    stream = await world.stream()

    published: list[str] = []

    async def is_gone() -> bool:
        # What it waits for comes at the very moment it hangs up.
        published.extend(one.jti for one in await world.publish(event()))
        return True

    async with asyncio.timeout(10):
        polled = await service.poll(
            stream.stream_id, PollRequest(), caller=PAYROLL, deps=world.deps, is_gone=is_gone
        )
    assert polled.sets == {}
    assert list((await world.poll(stream.stream_id)).sets) == published


async def test_one_batch_of_polls_answers_each_stream_for_itself(world: World) -> None:
    streams = [await world.stream() for _ in range(5)]
    published = {one.stream_id: one.jti for one in await world.publish(event())}
    polled = await asyncio.gather(*(world.poll(stream.stream_id) for stream in streams))
    assert [list(one.sets) for one in polled] == [[published[s.stream_id]] for s in streams]


async def test_a_poll_reads_its_stream_in_few_statements(world: World) -> None:
    stream = await world.stream()
    await world.poll(stream.stream_id)  # from now on the signing keys are in memory
    statements: list[str] = []
    sa.event.listen(
        world.db.reader.sync_engine,
        "before_cursor_execute",
        lambda _c, _cur, statement, *_: statements.append(statement),
    )
    await world.poll(stream.stream_id)
    assert len([s for s in statements if s.startswith(("SELECT", "WITH"))]) == 2


@pytest.mark.requirement("POLL-11", "POLL-14")
async def test_an_answer_that_is_repeated_undoes_no_replay_and_no_redrive(world: World) -> None:
    """An answer of ours gets lost, so that the receiver says again what it said."""
    stream = await world.stream()
    taken, refused = await world.publish(event(), event("usr_noah"))
    said: dict[str, Any] = {"ack": (taken.jti,), "errors": {refused.jti: "invalid_request"}}
    await world.poll(stream.stream_id)
    await world.poll(stream.stream_id, max_events=0, **said)
    for state in (DeliveryState.DELIVERED, DeliveryState.DEAD):
        async with world.db.transaction() as connection:
            await send_again(
                connection,
                TENANT,
                stream_id=stream.stream_id,
                wanted=Wanted(state=state),
                now=world.clock.now(),
            )
    again = await world.poll(stream.stream_id, **said)
    assert list(again.sets) == [taken.jti, refused.jti]
    # Handed out, the same words count again.
    assert (await world.poll(stream.stream_id, **said)).sets == {}
    rows = await world.rows()
    assert (rows[taken.jti].state, rows[refused.jti].state) == ("delivered", "dead")
