"""Streams of clients, and publishing into them."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
import sqlalchemy as sa

from runtime.errors import Conflict, NotFound
from ssf.errors import LocalProtocolError, StreamError
from ssf.stream import parse_create
from ssf.stream_requests import parse_subject_request
from tests.transmitters.conftest import (
    CREDENTIAL_CHANGE,
    ISSUER,
    NOW_S,
    ONE_ENGINE,
    PAYROLL,
    ROSA,
    SESSION_REVOKED,
    TENANT,
    WIKI,
    World,
    event,
)
from transmitters import management, store
from transmitters.deps import StreamDefaults
from transmitters.model import STREAMS_PER_CLIENT_MAX
from transmitters.receipts import store as receipts_store
from transmitters.subjects import service as subjects_service

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("SSF-OP-1", "SSF-OP-5", "SSF-DEL-4", "SSF-AUTH-5", "EGW-17")
async def test_a_new_stream_is_enabled_and_polled_unless_it_asks_for_push(world: World) -> None:
    created = await world.stream(description="payroll production")
    assert created.status.value == "enabled"
    assert created.method.value == "urn:ietf:rfc:8936"
    assert created.endpoint_url == f"{ISSUER}/ssf/poll/{created.stream_id}"
    assert created.aud == (PAYROLL.client_id,)
    assert created.iss == ISSUER
    assert (
        await management.read_stream(created.stream_id, caller=PAYROLL, deps=world.deps) == created
    )


@pytest.mark.requirement("SSF-DEL-7", "SSF-DEL-3")
async def test_the_authorization_header_is_sealed_at_rest_and_never_read_back(
    world: World,
) -> None:
    created = await world.push_stream(
        "https://payroll.example/ssf", authorization_header="Bearer 9c2e-push-secret"
    )
    stored = await world.stored_stream(created.stream_id)
    assert stored.authorization_header_sealed is not None
    assert "9c2e" not in stored.authorization_header_sealed
    assert world.box.open(stored.authorization_header_sealed) == "Bearer 9c2e-push-secret"
    read = await management.read_stream(created.stream_id, caller=PAYROLL, deps=world.deps)
    assert read.authorization_header is None


@pytest.mark.requirement("SSF-OP-2", "SSF-OP-6", "SSF-OP-11", "EGW-7", "EGW-10", "EGW-11")
async def test_a_client_may_have_several_streams_and_sees_only_its_own(world: World) -> None:
    first, second = await world.stream(), await world.stream()
    other = await world.stream(WIKI)
    mine = await management.list_streams(caller=PAYROLL, deps=world.deps)
    theirs = await management.list_streams(caller=WIKI, deps=world.deps)
    assert [stream.stream_id for stream in mine] == [first.stream_id, second.stream_id]
    assert [stream.stream_id for stream in theirs] == [other.stream_id]
    nobody = replace(PAYROLL, client_id="cli_new")
    assert await management.list_streams(caller=nobody, deps=world.deps) == []


@pytest.mark.requirement("SSF-AUTH-2", "SSF-OP-10", "PD-7")
async def test_a_stream_of_another_client_or_tenant_does_not_exist(world: World) -> None:
    created = await world.stream()
    strangers = (WIKI, replace(PAYROLL, tenant_id="blue"))
    for stranger in strangers:
        with pytest.raises(NotFound):
            await management.read_stream(created.stream_id, caller=stranger, deps=world.deps)
        with pytest.raises(NotFound):
            await management.delete_stream(created.stream_id, caller=stranger, deps=world.deps)
    assert await management.list_streams(caller=PAYROLL, deps=world.deps) == [created]


@pytest.mark.requirement("SSF-OP-4")
async def test_a_create_request_that_claims_our_members_falsely_is_refused(world: World) -> None:
    wanted = parse_create(b'{"aud": "https://somebody.example"}')
    with pytest.raises(StreamError) as caught:
        await management.create_stream(wanted, caller=PAYROLL, deps=world.deps)
    assert caught.value.status_hint == 400
    assert await management.list_streams(caller=PAYROLL, deps=world.deps) == []


@ONE_ENGINE
async def test_the_number_of_streams_of_a_client_has_a_limit(world: World) -> None:
    stored = await world.stored_stream((await world.stream()).stream_id)
    async with world.db.transaction() as connection:
        for number in range(STREAMS_PER_CLIENT_MAX - 1):
            await store.add_stream(connection, replace(stored, stream_id=f"str_{number:026}"))
    with pytest.raises(Conflict):
        await world.stream()


@pytest.mark.requirement("SSF-OP-40", "SSF-OP-41", "EGW-9")
async def test_deleting_a_stream_drops_what_is_queued_and_works_once(world: World) -> None:
    gone, stays = await world.stream(), await world.stream()
    await world.publish(event(), event("usr_2"))
    await management.delete_stream(gone.stream_id, caller=PAYROLL, deps=world.deps)
    states = {(row.stream_id, row.state) for row in (await world.rows()).values()}
    assert states == {(gone.stream_id, "dropped"), (stays.stream_id, "pending")}
    with pytest.raises(NotFound):
        await management.delete_stream(gone.stream_id, caller=PAYROLL, deps=world.deps)
    with pytest.raises(NotFound):
        await world.poll(gone.stream_id)


async def test_a_stream_of_an_app_starts_with_the_subject_format_of_the_app(world: World) -> None:
    world.stream_defaults["app_payroll"] = StreamDefaults(subject_formats=("iss_sub", "email"))
    created = await world.stream()
    assert (await world.stored_stream(created.stream_id)).subject_format == "iss_sub"
    without = await world.stream(WIKI)
    assert (await world.stored_stream(without.stream_id)).subject_format is None


async def test_a_change_of_streams_is_announced_to_the_caches(world: World) -> None:
    before = world.feed.version(TENANT, "streams")
    created = await world.stream()
    await world.feed.refresh()
    after_create = world.feed.version(TENANT, "streams")
    await management.delete_stream(created.stream_id, caller=PAYROLL, deps=world.deps)
    await world.feed.refresh()
    assert before < after_create < world.feed.version(TENANT, "streams")


@pytest.mark.requirement("SET-5", "SET-14", "EGW-49")
async def test_an_event_is_stored_once_and_queued_for_every_stream_that_selects_it(
    world: World,
) -> None:
    wanting = [await world.stream() for _ in range(3)]
    await world.stream(events=(CREDENTIAL_CHANGE,))
    published = await world.publish(event(), event())
    assert [one.stream_id for one in published] == [s.stream_id for s in wanting] * 2
    assert [one.index for one in published] == [0, 0, 0, 1, 1, 1]
    assert len({one.jti for one in published}) == 6
    assert len({one.event_id for one in published}) == 2
    rows = await world.rows()
    assert set(rows) == {one.jti for one in published}
    assert {row.iat for row in rows.values()} == {NOW_S}
    assert {row.kid for row in rows.values()} == {None}


@pytest.mark.requirement("SET-3")
async def test_two_events_about_one_subject_are_two_sets_of_one_event_each(world: World) -> None:
    stream = await world.stream(events=(SESSION_REVOKED, CREDENTIAL_CHANGE))
    change = {"credential_type": "password", "change_type": "revoke"}
    await world.publish(event(), event(event_type=CREDENTIAL_CHANGE, payload=change))
    sets = (await world.poll(stream.stream_id)).sets
    said: list[str] = []
    for raw in sets.values():
        jws, _ = await world.opened(raw)
        # As pairs: a member that is there twice would be seen.
        claims = dict(json.loads(jws.payload, object_pairs_hook=list))
        ((event_type, _payload),) = claims["events"]
        said.append(event_type)
    assert said == [SESSION_REVOKED, CREDENTIAL_CHANGE]


async def test_an_event_that_nobody_selects_leaves_no_row(world: World) -> None:
    await world.stream(events=(CREDENTIAL_CHANGE,))
    assert await world.publish(event()) == []
    async with world.db.snapshot() as connection:
        count = await connection.scalar(sa.select(sa.func.count()).select_from(store.events))
    assert count == 0


async def test_events_reach_only_streams_of_their_own_tenant(world: World) -> None:
    mine = await world.stream()
    await world.stream(replace(WIKI, tenant_id="blue"))
    published = await world.publish(event())
    assert [one.stream_id for one in published] == [mine.stream_id]


@pytest.mark.requirement("SSF-STAT-4", "SSF-STAT-6", "EGW-27")
async def test_a_paused_stream_holds_events_and_a_disabled_one_drops_them(world: World) -> None:
    paused, disabled = await world.stream(), await world.stream()
    await world.set_stream(paused.stream_id, status="paused")
    await world.set_stream(disabled.stream_id, status="disabled")
    published = await world.publish(event())
    assert [one.stream_id for one in published] == [paused.stream_id]


async def test_an_event_can_be_meant_for_the_streams_of_one_app(world: World) -> None:
    await world.stream()
    wiki = await world.stream(WIKI)
    published = await world.publish(event(only_app_id="app_wiki"))
    assert [(one.stream_id, one.app_id) for one in published] == [(wiki.stream_id, "app_wiki")]


@pytest.mark.requirement("SET-15")
async def test_every_set_of_one_cause_carries_its_txn(world: World) -> None:
    await world.stream()
    with_cause, without = await world.publish(event(txn="ctn_7"), event(txn=None))
    assert with_cause.txn == "ctn_7"
    assert without.txn == without.event_id


@pytest.mark.requirement("SET-63")
async def test_an_event_that_breaks_its_definition_is_never_published(world: World) -> None:
    await world.stream(events=(CREDENTIAL_CHANGE,))
    broken = event(event_type=CREDENTIAL_CHANGE, payload={})
    with pytest.raises(LocalProtocolError) as caught:
        await world.publish(broken)
    assert caught.value.code == "broken_event"
    assert await world.rows() == {}


@pytest.mark.requirement("SET-10")
async def test_a_payload_is_stored_in_the_form_of_its_definition(world: World) -> None:
    stream = await world.stream()
    payload = {"event_timestamp": NOW_S * 1000, "subject": {"format": "email", "email": "a@b.c"}}
    await world.publish(event(payload=payload))
    polled = await world.poll(stream.stream_id)
    _, claims = await world.opened(next(iter(polled.sets.values())))
    assert claims["events"] == {SESSION_REVOKED: {"event_timestamp": NOW_S}}


async def test_an_event_whose_subject_cannot_be_read_stops_no_other(world: World) -> None:
    """One malformed subject once failed the batch, and with it the pipeline's transaction."""
    world.default_subjects[TENANT] = "NONE"
    choosy = await world.stream()
    body = msgspec.json.encode({"stream_id": choosy.stream_id, "subject": ROSA[0]})
    await subjects_service.add_subject(parse_subject_request(body), caller=PAYROLL, deps=world.deps)
    world.default_subjects[TENANT] = "ALL"
    open_to_all = await world.stream()
    broken = ({"format": "email", "email": 7},)
    published = await world.publish(
        *(event(f"usr_{number}") for number in range(5)),
        event("usr_broken", subjects=broken),
        *(event(f"usr_{number}") for number in range(5, 9)),
    )
    assert len(published) == 20
    for stream in (choosy, open_to_all):
        assert len((await world.poll(stream.stream_id)).sets) == 9
    async with world.db.snapshot() as connection:
        letters = await receipts_store.dead_letters(connection, TENANT, limit=9)
    assert {(letter.stream_id, letter.attempts, letter.err) for letter in letters} == {
        (choosy.stream_id, 1, "invalid_request"),
        (open_to_all.stream_id, 1, "invalid_request"),
    }
    assert all("required member" in (letter.detail or "") for letter in letters)


@ONE_ENGINE
@pytest.mark.requirement("SET-3")
async def test_each_set_carries_one_event_even_when_many_are_published_at_once(
    world: World,
) -> None:
    stream = await world.stream()
    await world.publish(*(event("usr_rosa") for _ in range(5)))
    sets = (await world.poll(stream.stream_id)).sets
    assert len(sets) == 5
    for raw in sets.values():
        _, claims = await world.opened(raw)
        assert list(claims["events"]) == [SESSION_REVOKED]


async def test_a_filter_holds_back_other_values_and_nothing_without_the_member(
    world: World,
) -> None:
    created = await world.stream()
    stored = await world.stored_stream(created.stream_id)
    async with world.db.transaction() as connection:
        choosy = replace(stored, filters={"initiating_entity": ["admin", "user"]})
        await store.change_stream(connection, choosy, now=world.clock.now())
    everybody = await world.stream()
    await world.publish(
        event("usr_1"),
        event("usr_2", payload={"event_timestamp": 1, "initiating_entity": "admin"}),
        event("usr_3", payload={"event_timestamp": 2}),
    )
    rows = (await world.rows()).values()
    assert [row.ordering_key for row in rows if row.stream_id == created.stream_id] == [
        "usr_2",
        "usr_3",
    ]
    assert len([row for row in rows if row.stream_id == everybody.stream_id]) == 3
