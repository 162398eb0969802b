"""Stream management: update, replace, status, subjects, verification, announcements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from runtime.errors import Conflict, NotFound, TooManyRequests
from ssf.errors import StreamError
from ssf.events.caep import RiskLevelChange
from ssf.events.ssf import StreamUpdated, Verification
from ssf.stream import StreamConfiguration, StreamStatus, parse_patch, parse_put
from ssf.stream_requests import StatusUpdate, VerificationRequest, parse_subject_request
from tests.transmitters.conftest import (
    CREDENTIAL_CHANGE,
    ISSUER,
    PAYROLL,
    ROSA,
    SESSION_REVOKED,
    TENANT,
    WIKI,
    World,
    event,
)
from transmitters import management, store
from transmitters.deps import REMOVAL_GRACE_S
from transmitters.model import MIN_VERIFICATION_INTERVAL_S
from transmitters.subjects import model as subjects
from transmitters.subjects import service as subjects_service
from transmitters.subjects.store import stream_subjects

pytestmark = pytest.mark.anyio

PUSH = {"method": "urn:ietf:rfc:8935", "endpoint_url": "https://payroll.example/ssf"}
POLL_METHOD = "urn:ietf:rfc:8936"
ROSA_EMAIL, ROSA_SUB = ROSA
TIM_EMAIL = {"format": "email", "email": "tim.reed@green.example"}
LAPTOP = {"format": "opaque", "id": "LT-9"}


async def patch(world: World, stream_id: str, **members: Any) -> StreamConfiguration:
    body = msgspec.json.encode({"stream_id": stream_id, **members})
    change = parse_patch(body, allow_http=True)
    return await management.change_stream(change, caller=PAYROLL, deps=world.deps)


async def put(world: World, stream_id: str, **members: Any) -> StreamConfiguration:
    body = msgspec.json.encode({"stream_id": stream_id, **members})
    change = parse_put(body, allow_http=True)
    return await management.change_stream(change, caller=PAYROLL, deps=world.deps)


async def set_status(
    world: World, stream_id: str, status: str, *, reason: str | None = None
) -> StreamConfiguration:
    update = StatusUpdate(stream_id=stream_id, status=StreamStatus(status), reason=reason)
    return await management.set_status(update, caller=PAYROLL, deps=world.deps)


async def announce(world: World, stream_id: str, status: str, reason: str | None = None) -> None:
    """Set a status for the hub's own reasons."""
    update = StatusUpdate(stream_id=stream_id, status=StreamStatus(status), reason=reason)
    async with world.db.transaction() as connection:
        stream = await store.get_stream(connection, TENANT, stream_id=stream_id, lock=True)
        assert stream is not None
        await management.set_status_by_transmitter(
            connection, stream, update, now=world.clock.now()
        )


async def add(world: World, stream_id: str, subject: dict[str, Any]) -> None:
    body = msgspec.json.encode({"stream_id": stream_id, "subject": subject})
    await subjects_service.add_subject(parse_subject_request(body), caller=PAYROLL, deps=world.deps)


async def remove(world: World, stream_id: str, subject: dict[str, Any]) -> None:
    body = msgspec.json.encode({"stream_id": stream_id, "subject": subject})
    await subjects_service.remove_subject(
        parse_subject_request(body), caller=PAYROLL, deps=world.deps
    )


async def claims(world: World, raw: str) -> dict[str, Any]:
    _, found = await world.opened(raw)
    return found


# --- update and replace ---------------------------------------------------------------------------


@pytest.mark.requirement("SSF-OP-20", "SSF-OP-24")
async def test_an_update_changes_what_it_names_and_nothing_else(world: World) -> None:
    created = await world.push_stream(
        "https://payroll.example/ssf", authorization_header="Bearer s"
    )
    sealed = (await world.stored_stream(created.stream_id)).authorization_header_sealed
    changed = await patch(world, created.stream_id, description="payroll, second floor")
    assert changed == replace(created, description="payroll, second floor")
    stored = await world.stored_stream(created.stream_id)
    assert stored.authorization_header_sealed == sealed
    wider = await patch(world, created.stream_id, events_requested=[CREDENTIAL_CHANGE, "urn:x"])
    assert wider.events_requested == (CREDENTIAL_CHANGE, "urn:x")
    assert wider.events_delivered == (CREDENTIAL_CHANGE,)
    assert wider.description == "payroll, second floor"
    assert await management.read_stream(created.stream_id, caller=PAYROLL, deps=world.deps) == wider


@pytest.mark.requirement("SSF-OP-30", "SSF-DEL-4", "EGW-15")
async def test_a_replacement_deletes_what_it_leaves_out(world: World) -> None:
    created = await world.push_stream(
        "https://payroll.example/ssf", authorization_header="Bearer s"
    )
    await patch(world, created.stream_id, description="payroll")
    replaced = await put(world, created.stream_id)
    assert replaced.description is None
    assert replaced.events_requested == replaced.events_delivered == ()
    assert replaced.method.value == POLL_METHOD
    assert replaced.endpoint_url == f"{ISSUER}/ssf/poll/{created.stream_id}"
    assert (replaced.stream_id, replaced.iss, replaced.aud) == (
        created.stream_id,
        created.iss,
        created.aud,
    )
    stored = await world.stored_stream(created.stream_id)
    assert stored.authorization_header_sealed is None
    assert stored.endpoint_url is None


@pytest.mark.requirement("SSF-OP-22")
async def test_an_empty_list_of_events_is_taken_and_delivers_nothing(world: World) -> None:
    created = await world.stream()
    changed = await patch(world, created.stream_id, events_requested=[])
    assert changed.events_delivered == ()
    assert await world.publish(event()) == []


@pytest.mark.requirement("SSF-OP-33")
async def test_what_was_queued_before_a_type_went_still_comes_and_nothing_after(
    world: World,
) -> None:
    """It may be dropped; we keep it, as the receiver had asked for it when it happened."""
    created = await world.stream()
    (queued,) = await world.publish(event())
    await patch(world, created.stream_id, events_requested=[CREDENTIAL_CHANGE])
    assert await world.publish(event()) == []
    assert list((await world.poll(created.stream_id)).sets) == [queued.jti]


@pytest.mark.requirement("SSF-OP-21", "EGW-13", "EGW-14")
async def test_what_is_ours_may_be_sent_back_but_not_changed(world: World) -> None:
    created = await world.stream()
    same = {"iss": ISSUER, "aud": [PAYROLL.client_id], "events_delivered": [SESSION_REVOKED]}
    changed = await patch(world, created.stream_id, events_requested=[CREDENTIAL_CHANGE], **same)
    assert changed.events_delivered == (CREDENTIAL_CHANGE,)
    for wrong in (
        {"iss": "https://other.example"},
        {"aud": "somebody"},
        {"events_delivered": [SESSION_REVOKED]},
        {"min_verification_interval": 1},
    ):
        for change in (patch, put):
            with pytest.raises(StreamError):
                await change(world, created.stream_id, description="no", **wrong)
    read = await management.read_stream(created.stream_id, caller=PAYROLL, deps=world.deps)
    assert read == changed


@pytest.mark.requirement("SSF-OP-32")
async def test_what_is_queued_moves_with_the_stream_to_another_method(world: World) -> None:
    created = await world.stream()
    (held,) = await world.publish(event())
    assert list((await world.poll(created.stream_id)).sets) == [held.jti]
    pushed = await patch(world, created.stream_id, delivery=PUSH)
    assert pushed.endpoint_url == PUSH["endpoint_url"]
    with pytest.raises(NotFound):
        await world.poll(created.stream_id)
    await world.set_stream(created.stream_id, failures=9, backoff_until=world.clock.now())
    polled = await patch(world, created.stream_id, delivery={"method": POLL_METHOD})
    assert polled.endpoint_url == created.endpoint_url
    # Nobody who held a page before the change keeps it from the receiver now.
    assert list((await world.poll(created.stream_id)).sets) == [held.jti]
    async with world.db.snapshot() as connection:
        row = (await connection.execute(store.streams.select())).one()
    assert (row.failures, row.backoff_until) == (0, None)


@pytest.mark.requirement("SSF-AUTH-2", "SSF-OP-40")
async def test_a_stream_of_somebody_else_is_not_there_for_any_operation(world: World) -> None:
    theirs = (await world.stream(WIKI)).stream_id
    before = await world.stored_stream(theirs)
    for attempt in (
        patch(world, theirs, description="mine"),
        put(world, theirs),
        set_status(world, theirs, "disabled"),
        add(world, theirs, ROSA_EMAIL),
        remove(world, theirs, ROSA_EMAIL),
        remove(world, theirs, {"format": "opaque", "id": theirs}),
        management.request_verification(
            VerificationRequest(stream_id=theirs), caller=PAYROLL, deps=world.deps
        ),
        management.delete_stream(theirs, caller=PAYROLL, deps=world.deps),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await world.stored_stream(theirs) == before
    assert await world.rows() == {}


async def test_every_write_is_audited_without_secrets(world: World) -> None:
    created = await world.push_stream(
        "https://payroll.example/ssf", authorization_header="Bearer s"
    )
    await patch(world, created.stream_id, description="x")
    await set_status(world, created.stream_id, "paused", reason="upgrade")
    await remove(world, created.stream_id, ROSA_EMAIL)
    await add(world, created.stream_id, ROSA_EMAIL)
    await verify(world, created.stream_id, "Bearer state")
    await management.delete_stream(created.stream_id, caller=PAYROLL, deps=world.deps)
    assert [(note.action, note.actor) for note in world.audited] == [
        (action, PAYROLL.client_id)
        for action in (
            "stream.create",
            "stream.change",
            "stream.status",
            "stream.subject_remove",
            "stream.subject_add",
            "stream.verify",
            "stream.delete",
        )
    ]
    assert {note.ref for note in world.audited} == {created.stream_id}
    text = repr(world.audited)
    assert "Bearer" not in text
    assert "rosa" not in text


# --- status ---------------------------------------------------------------------------------------


@pytest.mark.requirement(
    "SSF-STAT-3", "SSF-STAT-4", "SSF-STAT-5", "SSF-STAT-7", "SSF-STAT-12", "EGW-28", "EGW-29"
)
async def test_a_paused_stream_holds_and_sends_in_order_once_it_is_enabled(world: World) -> None:
    created = await world.stream()
    paused = await set_status(world, created.stream_id, "paused", reason="upgrade")
    assert (paused.status, paused.reason) == (StreamStatus.PAUSED, "upgrade")
    held = [(await world.publish(event()))[0].jti for _ in range(3)]
    assert (await world.poll(created.stream_id)).sets == {}
    enabled = await set_status(world, created.stream_id, "enabled")
    assert (enabled.status, enabled.reason) == (StreamStatus.ENABLED, None)
    assert list((await world.poll(created.stream_id)).sets) == held


@pytest.mark.requirement("SSF-STAT-11")
async def test_the_status_of_one_stream_is_not_that_of_another(world: World) -> None:
    first, second = await world.stream(), await world.stream()
    await set_status(world, first.stream_id, "disabled", reason="moving")
    (published,) = await world.publish(event())
    assert published.stream_id == second.stream_id
    read = await management.read_stream(second.stream_id, caller=PAYROLL, deps=world.deps)
    assert (read.status, read.reason) == (StreamStatus.ENABLED, None)


@pytest.mark.requirement("SSF-STAT-6", "SSF-STAT-9")
async def test_a_disabled_stream_loses_what_was_queued_and_what_comes(world: World) -> None:
    created = await world.stream()
    (queued,) = await world.publish(event())
    await set_status(world, created.stream_id, "disabled")
    assert (await world.rows())[queued.jti].state == "dropped"
    assert await world.publish(event()) == []
    await set_status(world, created.stream_id, "disabled")
    await set_status(world, created.stream_id, "enabled")
    assert (await world.poll(created.stream_id)).sets == {}
    (fresh,) = await world.publish(event())
    assert list((await world.poll(created.stream_id)).sets) == [fresh.jti]


@pytest.mark.requirement(
    "SSF-UPD-1", "SSF-UPD-2", "SSF-UPD-4", "SSF-UPD-5", "SSF-STAT-12", "EGW-29"
)
@pytest.mark.parametrize("status", ["paused", "disabled"])
async def test_what_the_hub_does_to_a_stream_is_announced_and_nothing_else_is_sent(
    world: World, status: str
) -> None:
    created = await world.stream()
    (older,) = await world.publish(event())
    await announce(world, created.stream_id, status, "no answers for a day")
    await world.publish(event())
    polled = await world.poll(created.stream_id)
    ((jti, raw),) = polled.sets.items()
    said = await claims(world, raw)
    assert said["sub_id"] == {"format": "opaque", "id": created.stream_id}
    assert said["events"] == {
        StreamUpdated.type_uri: {"status": status, "reason": "no answers for a day"}
    }
    assert (await world.poll(created.stream_id, ack=(jti,))).sets == {}
    expected = "pending" if status == "paused" else "dropped"
    assert (await world.rows())[older.jti].state == expected


@pytest.mark.requirement("SSF-UPD-3")
async def test_enabling_by_the_hub_is_announced_too_and_lets_go_what_was_held(
    world: World,
) -> None:
    created = await world.stream()
    await set_status(world, created.stream_id, "paused")
    (held,) = await world.publish(event())
    await announce(world, created.stream_id, "enabled")
    sets = (await world.poll(created.stream_id)).sets
    assert len(sets) == 2
    assert held.jti in sets
    types = [next(iter((await claims(world, raw))["events"])) for raw in sets.values()]
    assert StreamUpdated.type_uri in types
    await announce(world, created.stream_id, "enabled")
    assert len(await world.rows()) == 2  # what is no change is not announced


# --- verification ---------------------------------------------------------------------------------


async def verify(world: World, stream_id: str, state: str | None = None) -> None:
    await management.request_verification(
        VerificationRequest(stream_id=stream_id, state=state), caller=PAYROLL, deps=world.deps
    )


@pytest.mark.requirement(
    "SSF-VER-2", "SSF-VER-3", "SSF-VER-5", "SSF-VER-6", "SUB-46", "EGW-23", "EGW-24"
)
async def test_a_verification_event_brings_back_the_state_over_any_stream(world: World) -> None:
    world.default_subjects[TENANT] = "NONE"
    created = await world.stream(events=())
    await verify(world, created.stream_id, "VGhpcyBpcyBhbg==")
    world.clock.advance(MIN_VERIFICATION_INTERVAL_S)
    await verify(world, created.stream_id)
    sets = (await world.poll(created.stream_id)).sets
    first, second = [await claims(world, raw) for raw in sets.values()]
    assert first["sub_id"] == {"format": "opaque", "id": created.stream_id}
    assert first["aud"] == PAYROLL.client_id
    assert first["events"] == {Verification.type_uri: {"state": "VGhpcyBpcyBhbg=="}}
    assert second["events"] == {Verification.type_uri: {}}


@pytest.mark.requirement("SSF-VER-7", "SSF-CFG-8", "EGW-56")
async def test_verification_too_often_is_refused_exactly_as_advertised(world: World) -> None:
    created = await world.stream()
    assert created.min_verification_interval_s == MIN_VERIFICATION_INTERVAL_S
    assert MIN_VERIFICATION_INTERVAL_S <= 120, "suites wait no longer"
    await verify(world, created.stream_id)
    world.clock.advance(MIN_VERIFICATION_INTERVAL_S - 1)
    with pytest.raises(TooManyRequests) as refusal:
        await verify(world, created.stream_id)
    assert refusal.value.retry_after_s == pytest.approx(1.0)
    world.clock.advance(1)
    await verify(world, created.stream_id)
    other = await world.stream()
    await verify(world, other.stream_id)
    assert len(await world.rows()) == 3


@pytest.mark.requirement("SSF-VER-13")
async def test_verification_is_held_while_paused_and_refused_while_disabled(world: World) -> None:
    created = await world.stream()
    await set_status(world, created.stream_id, "paused")
    await verify(world, created.stream_id, "s")
    assert (await world.poll(created.stream_id)).sets == {}
    await set_status(world, created.stream_id, "enabled")
    assert len((await world.poll(created.stream_id)).sets) == 1
    await set_status(world, created.stream_id, "disabled")
    world.clock.advance(MIN_VERIFICATION_INTERVAL_S)
    with pytest.raises(StreamError):
        await verify(world, created.stream_id)


@pytest.mark.requirement("EGW-57")
async def test_a_quiet_tenant_hears_its_verification_and_nothing_else(world: World) -> None:
    quiet, busy = replace(PAYROLL, tenant_id="blue"), await world.stream()
    created = await world.stream(quiet)
    assert len(await world.publish(event(), event("usr_2"))) == 2
    await management.request_verification(
        VerificationRequest(stream_id=created.stream_id, state="s"), caller=quiet, deps=world.deps
    )
    rows = [row for row in (await world.rows()).values() if row.stream_id != busy.stream_id]
    assert [(row.tenant_id, row.stream_id) for row in rows] == [("blue", created.stream_id)]


# --- subjects -------------------------------------------------------------------------------------


async def gets(world: World, **about: Any) -> bool:
    """Publish one event; return whether the only stream gets it."""
    return bool(await world.publish(event(**about)))


@pytest.mark.requirement("SSF-SUBJ-7", "SSF-SUBJ-9", "SUB-40", "SUB-41", "SSF-SEC-3")
async def test_a_removed_subject_goes_on_for_the_grace_and_comes_back_when_added(
    world: World,
) -> None:
    created = await world.stream()
    await remove(world, created.stream_id, ROSA_EMAIL)
    world.clock.advance(REMOVAL_GRACE_S - 1)
    assert await gets(world)
    await remove(world, created.stream_id, ROSA_EMAIL)  # again does not make it longer
    world.clock.advance(1)
    assert not await gets(world)
    assert await gets(world, subjects=(TIM_EMAIL,))
    # One identifier of hers was named; the others are the same person (SUB-45).
    assert not await gets(world, subjects=(ROSA_SUB, ROSA_EMAIL))
    assert await gets(world, subjects=(ROSA_SUB,))
    await add(world, created.stream_id, ROSA_EMAIL)
    assert await gets(world)
    assert (await world.stored_stream(created.stream_id)).subject_count == 0


@pytest.mark.requirement("SSF-SUBJ-7", "SSF-META-11", "SUB-40", "SUB-45")
async def test_a_stream_of_nobody_gets_what_was_added_until_the_grace_after_removal_ends(
    world: World,
) -> None:
    world.default_subjects[TENANT] = "NONE"
    created = await world.stream()
    assert not await gets(world)
    await add(world, created.stream_id, ROSA_SUB)
    await add(world, created.stream_id, ROSA_SUB)
    assert await gets(world)
    assert not await gets(world, subjects=(TIM_EMAIL,))
    await remove(world, created.stream_id, ROSA_SUB)
    world.clock.advance(REMOVAL_GRACE_S - 1)
    assert await gets(world)
    world.clock.advance(1)
    assert not await gets(world)
    await add(world, created.stream_id, ROSA_SUB)
    assert await gets(world)


@pytest.mark.requirement("SSF-SUBJ-11")
async def test_adding_a_subject_gives_no_right_to_what_is_not_for_this_stream(
    world: World,
) -> None:
    world.default_subjects[TENANT] = "NONE"
    created = await world.stream()
    await add(world, created.stream_id, ROSA_EMAIL)
    assert not await gets(world, tenant_id="blue")
    assert not await gets(world, only_app_id="app_wiki")
    assert not await gets(world, event_type=CREDENTIAL_CHANGE)
    assert await gets(world)


@pytest.mark.requirement("SSF-SUBJ-5", "SSF-SUBJ-7")
async def test_removing_what_was_never_added_changes_nothing(world: World) -> None:
    world.default_subjects[TENANT] = "NONE"
    created = await world.stream()
    await remove(world, created.stream_id, ROSA_SUB)
    assert not await gets(world)
    assert (await world.stored_stream(created.stream_id)).subject_count == 0


@pytest.mark.requirement("SUB-42", "SUB-43", "SUB-44")
async def test_complex_subjects_match_by_the_members_both_name(world: World) -> None:
    world.default_subjects[TENANT] = "NONE"
    created = await world.stream()
    both = {"format": "complex", "user": ROSA_EMAIL, "device": LAPTOP}
    await add(world, created.stream_id, both)
    other_device = {"format": "opaque", "id": "LT-8"}
    for about, wanted in (
        (both, True),
        ({"format": "complex", "user": ROSA_EMAIL}, True),
        ({"format": "complex", "device": LAPTOP}, True),
        (ROSA_EMAIL, True),
        ({"format": "complex", "user": ROSA_EMAIL, "device": other_device}, False),
        ({"format": "complex", "user": TIM_EMAIL, "device": LAPTOP}, False),
        ({"format": "complex", "tenant": {"format": "opaque", "id": "LT-9x"}}, False),
    ):
        assert await gets(world, subjects=(about,)) is wanted, about


@pytest.mark.requirement("SUB-44")
async def test_a_removal_takes_away_no_more_than_what_it_names(world: World) -> None:
    created = await world.stream()
    both = {"format": "complex", "user": ROSA_EMAIL, "device": LAPTOP}
    await remove(world, created.stream_id, both)
    await remove(world, created.stream_id, TIM_EMAIL)
    world.clock.advance(REMOVAL_GRACE_S)
    session = {"format": "opaque", "id": "S-1"}
    for about, wanted in (
        (both, False),
        ({**both, "session": session}, False),
        (ROSA_EMAIL, True),
        ({"format": "complex", "user": ROSA_EMAIL}, True),
        (TIM_EMAIL, False),
        ({"format": "aliases", "identifiers": [ROSA_EMAIL, TIM_EMAIL]}, False),
        ({"format": "complex", "user": TIM_EMAIL, "device": LAPTOP}, True),
    ):
        assert await gets(world, subjects=(about,)) is wanted, about


@pytest.mark.requirement("SSF-SUBJ-8", "SUB-46")
async def test_a_stream_cannot_be_taken_from_itself(world: World) -> None:
    created = await world.stream()
    with pytest.raises(StreamError):
        await remove(world, created.stream_id, {"format": "opaque", "id": created.stream_id})


@pytest.mark.requirement("SSF-SEC-2")
async def test_streams_choose_for_themselves(world: World) -> None:
    first, second = await world.stream(), await world.stream(WIKI)
    await remove(world, first.stream_id, ROSA_EMAIL)
    world.clock.advance(REMOVAL_GRACE_S)
    (published,) = await world.publish(event())
    assert published.stream_id == second.stream_id


async def test_subjects_are_bounded_and_go_with_their_stream(world: World) -> None:
    created = await world.stream()
    await remove(world, created.stream_id, ROSA_EMAIL)
    await world.set_stream(created.stream_id, subject_count=subjects.SUBJECTS_PER_STREAM_MAX)
    with pytest.raises(Conflict):
        await remove(world, created.stream_id, TIM_EMAIL)
    await remove(world, created.stream_id, ROSA_EMAIL)
    await management.delete_stream(created.stream_id, caller=PAYROLL, deps=world.deps)
    async with world.db.snapshot() as connection:
        table = stream_subjects
        assert (await connection.execute(table.select())).all() == []


async def test_publishing_looks_subjects_up_only_for_streams_that_choose(world: World) -> None:
    created = await world.stream()
    seen: list[str] = []

    def note(_c: Any, _cur: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(world.db.engine.sync_engine, "before_cursor_execute", note)
    await world.publish(event())
    assert not [one for one in seen if "stream_subjects" in one]
    await remove(world, created.stream_id, ROSA_EMAIL)
    seen.clear()
    await world.publish(*(event() for _ in range(20)))
    assert len([one for one in seen if "stream_subjects" in one]) == 1


async def test_publishing_finds_the_streams_that_ask_now_and_reads_no_other(world: World) -> None:
    """What a stream asks for is indexed: the index follows every change of it, and its end."""

    async def asking(event_type: str) -> list[str]:
        async with world.db.snapshot() as connection:
            found = await store.streams_asking_for(connection, TENANT, {event_type})
        return [stream.stream_id for stream in found]

    first, second = await world.stream(), await world.stream()
    assert await asking(SESSION_REVOKED) == [first.stream_id, second.stream_id]
    await patch(
        world,
        first.stream_id,
        events_requested=[RiskLevelChange.type_uri, RiskLevelChange.type_uri],
    )
    assert await asking(SESSION_REVOKED) == [second.stream_id]
    assert await asking(RiskLevelChange.type_uri) == [first.stream_id]
    await put(world, first.stream_id)
    assert await asking(RiskLevelChange.type_uri) == []
    await management.delete_stream(second.stream_id, caller=PAYROLL, deps=world.deps)
    assert await asking(SESSION_REVOKED) == []
