"""Signals in, assessments out, on a real database."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from risk import service
from risk.entities import service as entities
from risk.levels import store as levels_store
from risk.model import EntityKind, Level, SignalMode
from risk.sessions import service as sessions
from risk.sessions.model import parse_session
from tests.risk.kit import (
    EDR,
    IDP,
    JIM,
    LAPTOP,
    MDM,
    NOW,
    PHONE,
    TENANT,
    TINA,
    World,
    compliance,
    device_risk,
    hours,
    pair,
    signal,
    user_level,
)

#: aliases, sessions, links, people, detections, clearances, policy, identifiers; and the writes:
#: aliases, entities, links, detections, levels, history; on PostgreSQL also two locks
STATEMENTS_MAX = 19

CONTAIN = frozenset({"QUARANTINE", "UNIVERSAL_LOGOUT", "NOTIFY"})


async def test_a_compromised_device_raises_its_owner_and_the_clean_device_restores_him(
    world: World,
) -> None:
    user_id = await world.add_user(TINA, label="Tina Smith")
    raised = await world.assess(device_risk("high", txn="t-1"))
    (high,) = raised.assessments
    assert (high.user_id, high.previous_level, high.level) == (user_id, Level.LOW, Level.HIGH)
    assert high.actions == CONTAIN
    assert high.would_have == frozenset()
    assert (high.rule, high.mode, high.label) == ("high-contain", "enforce", "Tina Smith")
    assert high.trace_id == "t-1"
    assert high.identifiers == (TINA,)
    (cause,) = high.causes
    assert (cause.name, cause.level, cause.issuer) == ("device_compromised", Level.HIGH, MDM)
    assert "Malware on the disk" in cause.summary
    assert [mark.state for mark in raised.marks] == ["assessed"]
    assert await world.level() == "HIGH"

    restored = await world.assess(compliance("compliant", at=NOW + hours(1)), now=NOW + hours(1))
    (low,) = restored.assessments
    assert (low.previous_level, low.level, low.causes) == (Level.HIGH, Level.LOW, ())
    assert not low.actions & CONTAIN
    assert await world.level() == "LOW"


@pytest.mark.parametrize(
    ("about", "iss"),
    [
        pytest.param(pair(TINA, LAPTOP), EDR, id="from another issuer"),
        pytest.param(pair(TINA, PHONE), MDM, id="about another device"),
        pytest.param(TINA, MDM, id="about no device"),
    ],
)
async def test_a_healthy_word_changes_nothing(
    world: World, about: dict[str, object], iss: str
) -> None:
    await world.add_user(TINA)
    await world.assess(device_risk("high"))
    result = await world.assess(
        compliance("compliant", about=about, iss=iss, at=NOW + hours(1)), now=NOW + hours(1)
    )
    assert result.assessments == ()
    assert await world.level() == "HIGH"


@pytest.mark.requirement("SET-18")
async def test_a_clean_event_that_arrives_first_closes_an_older_compromise(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(compliance("compliant", at=NOW))
    result = await world.assess(device_risk("high", at=NOW - hours(1)))
    assert result.assessments == ()
    assert await world.level() == "LOW"


@pytest.mark.requirement("SET-18")
async def test_at_equal_times_the_device_counts_as_compromised(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(compliance("compliant"))
    await world.assess(device_risk("high"))
    assert await world.level() == "HIGH"


async def test_a_remedy_from_the_future_counts_as_of_its_arrival(world: World) -> None:
    await world.add_user(TINA)
    late = NOW + timedelta(days=400)
    await world.assess(compliance("compliant", at=late, received_at=NOW))
    await world.assess(device_risk("high", at=NOW + hours(1)), now=NOW + hours(1))
    assert await world.level() == "HIGH"


async def test_a_bystander_on_another_device_is_untouched(world: World) -> None:
    await world.add_user(TINA)
    await world.put_session("s1", device="LT-1")
    await world.put_session("s2", user=JIM, device="LT-2")
    result = await world.assess(device_risk("high"))
    assert [each.identifiers for each in result.assessments] == [(TINA,)]
    assert await world.level("email:jim@customer.example") == "LOW"


async def test_a_compromised_device_raises_who_has_a_session_on_it(world: World) -> None:
    await world.put_session("s1", user=TINA, device="LT-1")
    await world.put_session("s2", user=JIM, device="LT-1")
    result = await world.assess(device_risk("high", about=LAPTOP))
    assert {each.level for each in result.assessments} == {Level.HIGH}
    assert len(result.assessments) == 2


async def test_a_session_that_ended_before_the_compromise_raises_nobody(world: World) -> None:
    await world.put_session("s1", device="LT-1", started_at=1_772_400_000, expires_at=1_772_403_600)
    result = await world.assess(device_risk("high", about=LAPTOP))
    assert result.assessments == ()


async def test_a_session_that_was_on_since_the_compromise_raises_its_user(world: World) -> None:
    await world.put_session("s1", device="LT-1", started_at=(NOW - hours(3)).timestamp())
    await world.put_session(
        "s1",
        device="LT-1",
        started_at=(NOW - hours(3)).timestamp(),
        expires_at=(NOW - hours(1)).timestamp(),
    )
    result = await world.assess(device_risk("high", about=LAPTOP, at=NOW - hours(2)))
    assert [each.level for each in result.assessments] == [Level.HIGH]


async def test_a_new_session_on_a_compromised_device_raises_its_user_soon(world: World) -> None:
    await world.put_session("s1", user=TINA, device="LT-1")
    await world.assess(device_risk("high", about=LAPTOP))
    put = await world.put_session("s2", user=JIM, device="LT-1")
    (made,) = await world.reassess()
    assert (made.user_id, made.level, made.actions) == (put.user_id, Level.HIGH, CONTAIN)
    assert await world.reassess() == []


async def test_a_new_session_of_a_user_at_risk_lets_the_policy_run_again(world: World) -> None:
    user_id = await world.add_user(TINA)
    await world.assess(user_level("HIGH"))
    await world.put_session("s1", device="LT-9")
    (made,) = await world.reassess()
    assert (made.user_id, made.level, made.previous_level) == (user_id, Level.HIGH, Level.HIGH)


async def test_two_medium_words_of_different_source_classes_make_high(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(user_level("MEDIUM", iss=MDM, source_class="device"))
    assert await world.level() == "MEDIUM"
    (made,) = (
        await world.assess(user_level("MEDIUM", iss=EDR, source_class="network"))
    ).assessments
    assert made.level is Level.HIGH
    assert len(made.causes) == 2


async def test_two_medium_words_of_one_source_class_stay_medium(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(user_level("MEDIUM", iss=MDM), user_level("MEDIUM", iss=EDR))
    assert await world.level() == "MEDIUM"


async def test_of_several_words_about_a_user_the_strongest_is_named_as_the_cause(
    world: World,
) -> None:
    """A change used to carry the `txn` of whatever came first in the batch."""
    await world.add_user(TINA)
    (made,) = (
        await world.assess(
            user_level("LOW", txn="small"),
            device_risk("high", txn="grave"),
            user_level("MEDIUM", iss=EDR, txn="middling"),
        )
    ).assessments
    assert (made.level, made.trace_id) == (Level.HIGH, "grave")


async def test_a_capped_issuer_never_alone_makes_high(world: World) -> None:
    await world.add_user(TINA)
    capped = World(world.database, caps={(TENANT, MDM): Level.MEDIUM})
    await capped.assess(
        device_risk("high", source_class="device"), user_level("HIGH", source_class="network")
    )
    assert await world.level() == "MEDIUM"


async def test_the_cap_that_comes_with_a_signal_counts(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(device_risk("high", level_cap=Level.LOW))
    assert await world.level() == "LOW"


async def test_a_batch_keeps_tenants_apart(world: World) -> None:
    await world.add_user(TINA)
    other = World(world.database, tenant_id="blue")
    await other.add_user(TINA)
    result = await world.assess(
        device_risk("high", tenant_id="blue"), user_level("LOW"), device_risk("high", iss=EDR)
    )
    assert [mark.tenant_id for mark in result.marks] == ["blue", TENANT, TENANT]
    assert sorted((each.tenant_id, each.mode) for each in result.assessments) == [
        ("blue", "monitor"),
        (TENANT, "enforce"),
    ]


async def test_a_repeated_report_is_no_new_cause(world: World) -> None:
    await world.add_user(TINA)
    (first,) = (await world.assess(device_risk("high"))).assessments
    (again,) = (await world.assess(device_risk("high", at=NOW + hours(2)))).assessments
    assert [each.detection_id for each in again.causes] == [
        each.detection_id for each in first.causes
    ]


async def test_a_signal_assessed_twice_changes_nothing_the_second_time(world: World) -> None:
    await world.add_user(TINA)
    same = device_risk("high")
    await world.assess(same)
    assert (await world.assess(same)).assessments == ()


async def test_a_log_only_provider_changes_no_level_and_shows_what_it_would_have_done(
    world: World,
) -> None:
    await world.add_user(TINA)
    (made,) = (await world.assess(device_risk("high", mode=SignalMode.LOG_ONLY))).assessments
    assert (made.level, made.causes) == (Level.LOW, ())
    assert not made.actions & CONTAIN
    assert made.would_have >= CONTAIN


async def test_a_log_only_word_clears_nothing_of_others(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(
        signal(
            "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
            {"credential_type": "password"},
            iss=EDR,
        )
    )
    change = {"credential_type": "password", "change_type": "update"}
    later = NOW + hours(1)
    event = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
    await world.assess(signal(event, change, iss=IDP, at=later, mode=SignalMode.LOG_ONLY))
    assert await world.level() == "HIGH"
    await world.assess(signal(event, change, iss=IDP, at=later))
    assert await world.level() == "LOW"


async def test_a_provider_of_mode_none_is_ignored(world: World) -> None:
    await world.add_user(TINA)
    result = await world.assess(device_risk("high", mode=SignalMode.NONE))
    assert [mark.state for mark in result.marks] == ["ignored"]
    assert result.assessments == ()


async def test_an_unknown_user_is_never_made_by_a_signal(world: World) -> None:
    result = await world.assess(device_risk("high"))
    (mark,) = result.marks
    assert mark.state == "unmatched"
    assert set(mark.alias_keys) == {"email:tina@customer.example", "opaque:LT-1"}
    assert result.assessments == ()


async def test_an_unmatched_signal_applies_once_its_user_appears(world: World) -> None:
    waiting = device_risk("high")
    (mark,) = (await world.assess(waiting)).marks
    put = await world.put_session("s1", device="PH-1")
    assert set(put.new_alias_keys) & set(mark.alias_keys)
    (made,) = (await world.assess(waiting)).assessments
    assert (made.user_id, made.level) == (put.user_id, Level.HIGH)


async def test_a_known_device_with_an_unknown_user_is_recorded_and_stays_visible(
    world: World,
) -> None:
    await world.put_session("s1", user=JIM, device="LT-1")
    waiting = device_risk("high")
    result = await world.assess(waiting)
    (mark,) = result.marks
    assert (mark.state, mark.alias_keys) == ("unmatched", ("email:tina@customer.example",))
    assert [each.level for each in result.assessments] == [Level.HIGH]
    await world.add_user(TINA)
    again = await world.assess(waiting)
    assert [each.state for each in again.marks] == ["assessed"]
    assert [each.identifiers for each in again.assessments] == [(TINA,)]


async def test_an_unknown_device_alone_is_unmatched(world: World) -> None:
    (mark,) = (await world.assess(device_risk("high", about=LAPTOP))).marks
    assert (mark.state, mark.alias_keys) == ("unmatched", ("opaque:LT-1",))


async def test_a_newer_lower_word_of_the_same_partner_lowers(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(user_level("HIGH"))
    later = NOW + hours(1)
    await world.assess(user_level("LOW", iss=EDR, at=later), now=later)
    assert await world.level() == "HIGH"
    await world.assess(user_level("MEDIUM", at=later), now=later)
    assert await world.level() == "MEDIUM"
    await world.assess(user_level("LOW", at=later + hours(1)), now=later + hours(1))
    assert await world.level() == "LOW"


async def test_medium_ages_and_high_does_not(world: World) -> None:
    await world.add_user(TINA)
    await world.add_user(JIM)
    await world.assess(user_level("MEDIUM"), user_level("HIGH", about=JIM))
    assert await world.reassess(NOW + timedelta(days=13)) == []
    (made,) = await world.reassess(NOW + timedelta(days=15))
    assert (made.previous_level, made.level) == (Level.MEDIUM, Level.LOW)
    assert await world.reassess(NOW + timedelta(days=400)) == []
    assert await world.level("email:jim@customer.example") == "HIGH"


async def test_a_second_open_cause_keeps_the_level_up(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(device_risk("high"), user_level("HIGH", iss=EDR))
    later = NOW + hours(1)
    (made,) = (await world.assess(compliance("compliant", at=later), now=later)).assessments
    assert made.level is Level.HIGH
    assert [cause.issuer for cause in made.causes] == [EDR]


async def test_reassessments_are_taken_a_bounded_number_at_a_time(world: World) -> None:
    blue = World(world.database, tenant_id="blue")
    for each in (world, blue):
        for about in (TINA, JIM):
            await each.add_user(about)
            await each.assess(user_level("MEDIUM", about=about, tenant_id=each.tenant_id))
    aged = NOW + timedelta(days=15)
    async with world.database.transaction() as connection:
        due = await service.tenants_to_reassess(connection, aged)
        assert due == {"blue", TENANT}
        assert await service.tenants_to_reassess(connection, NOW) == set()
        sizes = []
        for _ in range(5):
            made = await service.reassess_due(connection, aged, limit=3, caps={}, tenant_ids=due)
            sizes.append(len(made))
    assert sizes == [3, 1, 0, 0, 0]


async def test_a_user_with_a_new_link_and_no_risk_causes_nothing(world: World) -> None:
    device = await world.added(EntityKind.DEVICE, LAPTOP)
    user_id = await world.add_user(TINA)
    async with world.database.transaction() as connection:
        await entities.state_owner(
            connection, TENANT, device_id=device.entity_id, user_id=user_id, now=NOW
        )
    assert await world.reassess() == []


async def test_a_device_is_no_user(world: World) -> None:
    """A reference that names a device never reaches the level of a user."""
    device = await world.added(EntityKind.DEVICE, LAPTOP)
    async with world.database.transaction() as connection:
        people = await levels_store.read_people(connection, TENANT, user_ids=[device.entity_id])
    assert people == {}


async def test_external_ids_find_users_only_among_users(world: World) -> None:
    await world.added(EntityKind.DEVICE, LAPTOP, external_id="0042")
    user_id = await world.add_user(TINA, external_id="0042")
    async with world.database.snapshot() as connection:
        assert await entities.resolve(connection, TENANT, "ext:0042") == user_id


async def test_a_finding_about_a_device_of_nobody_is_kept(world: World) -> None:
    await world.added(EntityKind.DEVICE, LAPTOP)
    result = await world.assess(device_risk("high", about=LAPTOP))
    assert result.assessments == ()
    assert [mark.state for mark in result.marks] == ["assessed"]
    put = await world.put_session("s1", device="LT-1")
    (made,) = await world.reassess()
    assert (made.user_id, made.level) == (put.user_id, Level.HIGH)


async def test_more_users_than_one_statement_takes_are_assessed(world: World) -> None:
    body = {"device": "LT-1"}
    items = [
        parse_session(
            {**body, "user": {"format": "email", "email": f"u{number}@customer.example"}},
            tenant_id=TENANT,
            iss=IDP,
            sid=f"s{number}",
            now=NOW,
        )
        for number in range(520)
    ]
    async with world.database.transaction() as connection:
        await sessions.put_sessions(connection, items)
    result = await world.assess(device_risk("high", about=LAPTOP))
    assert len(result.assessments) == 520
    assert {each.level for each in result.assessments} == {Level.HIGH}


async def test_a_batch_costs_as_many_statements_as_one_signal(world: World) -> None:
    """The hot path reads once per table and writes with executemany."""
    people = [{"format": "email", "email": f"u{number}@customer.example"} for number in range(64)]
    for about in people:
        await world.add_user(about)
    counted: list[str] = []

    def count(*details: object) -> None:
        counted.append(str(details[2]))

    engine = world.database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", count)
    try:
        for each in ([people[0]], people):
            signals = [device_risk("high", about=pair(about, device_of(about))) for about in each]
            del counted[:]
            result = await world.assess(*signals)
            assert len(result.assessments) == len(each)
            statements = [text for text in counted if not text.startswith(("BEGIN", "COMMIT"))]
            assert len(statements) <= STATEMENTS_MAX, statements
    finally:
        sa.event.remove(engine, "before_cursor_execute", count)


def device_of(user: dict[str, str]) -> dict[str, str]:
    return {"format": "opaque", "id": f"device of {user['email']}"}


async def test_a_session_that_is_put_while_its_device_is_reported_is_not_missed(
    world: World,
) -> None:
    for number in range(6):
        device = {"format": "opaque", "id": f"D{number}"}
        await world.added(EntityKind.DEVICE, device)
        user = {"format": "email", "email": f"u{number}@customer.example"}
        await asyncio.gather(
            world.put_session(f"s{number}", user=user, device=f"D{number}"),
            world.assess(device_risk("high", about=device)),
        )
        await world.reassess()
        assert await world.level(f"email:u{number}@customer.example") == "HIGH"


async def test_two_batches_about_one_user_at_once_see_each_other(world: World) -> None:
    for number in range(6):
        user = {"format": "email", "email": f"u{number}@customer.example"}
        await world.add_user(user)
        await asyncio.gather(
            world.assess(user_level("MEDIUM", about=user, iss=MDM, source_class="device")),
            world.assess(user_level("MEDIUM", about=user, iss=EDR, source_class="network")),
        )
        assert await world.level(f"email:u{number}@customer.example") == "HIGH"
