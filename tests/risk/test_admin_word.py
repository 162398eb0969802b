"""A level set by hand, and what can be read about it: on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from risk import explanation, service
from risk.explanation import Explanation
from risk.levels.model import LevelChange
from risk.lookups import service as lookups
from risk.lookups.service import DetectionQuery
from risk.model import AdminWord, Assessment, DetectionState, Level, SignalMode
from risk.policies import service as policies
from risk.policies.store import policies as table
from risk.policy import DEFAULT_POLICY, PolicyMode, render_rule
from runtime.errors import NotFound
from tests.risk.kit import (
    EDR,
    JIM,
    MDM,
    NOW,
    TENANT,
    TINA,
    World,
    compliance,
    device_risk,
    hours,
    user_level,
)

USER = "email:tina@customer.example"


async def set_risk(
    world: World, level: Level, *, now: Any = NOW, user: str = USER
) -> tuple[Assessment, bool]:
    word = AdminWord(level=level, reason="seen on camera", by="soc")
    async with world.database.transaction() as connection:
        return await service.set_user_risk(connection, TENANT, user, word, caps=world.caps, now=now)


async def explain(world: World, now: Any = NOW) -> Explanation:
    async with world.database.snapshot() as connection:
        return await explanation.explain(connection, TENANT, USER, caps=world.caps, now=now)


async def history(world: World) -> list[LevelChange]:
    async with world.database.snapshot() as connection:
        return await explanation.history(connection, TENANT, USER)


async def test_the_first_word_creates_and_the_next_updates(world: World) -> None:
    await world.add_user(TINA)
    made, created = await set_risk(world, Level.HIGH)
    assert (made.previous_level, made.level, created) == (Level.LOW, Level.HIGH, True)
    assert "QUARANTINE" in made.actions
    assert "seen on camera" in made.reasons[0]
    made, created = await set_risk(world, Level.HIGH)
    assert (made.previous_level, made.level, created) == (Level.HIGH, Level.HIGH, False)


@pytest.mark.parametrize("level", list(Level))
async def test_every_level_creates_once(world: World, level: Level) -> None:
    await world.add_user(TINA)
    assert [(await set_risk(world, level))[1] for _ in range(2)] == [True, False]
    assert await world.level() == level.name


async def test_a_medium_word_after_a_high_one_lowers(world: World) -> None:
    await world.add_user(TINA)
    await set_risk(world, Level.HIGH)
    made, _ = await set_risk(world, Level.MEDIUM)
    assert (made.previous_level, made.level) == (Level.HIGH, Level.MEDIUM)


async def test_low_closes_what_was_set_and_pins_for_a_day(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(user_level("HIGH"))
    await set_risk(world, Level.HIGH)
    made, _ = await set_risk(world, Level.LOW)
    assert (made.level, made.causes) == (Level.LOW, ())
    assert "Pinned LOW by soc" in made.reasons[0]
    (back,) = await world.reassess(NOW + hours(24))
    assert (back.previous_level, back.level) == (Level.LOW, Level.HIGH)
    assert [cause.issuer for cause in back.causes] == [MDM]


async def test_low_never_goes_below_a_floor(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(device_risk("high"))
    made, created = await set_risk(world, Level.LOW)
    assert (made.level, created) == (Level.HIGH, False)
    assert "not applied" in made.reasons[0]
    later = NOW + hours(1)
    (low,) = (await world.assess(compliance("compliant", at=later), now=later)).assessments
    assert low.level is Level.LOW


async def test_a_word_above_low_takes_the_pin_away(world: World) -> None:
    await world.add_user(TINA)
    await set_risk(world, Level.LOW)
    made, _ = await set_risk(world, Level.MEDIUM)
    assert made.level is Level.MEDIUM


async def test_an_unknown_user_is_not_made(world: World) -> None:
    with pytest.raises(NotFound):
        await set_risk(world, Level.HIGH)


# --- what can be read ---------------------------------------------------------------------------


async def test_the_history_tells_every_change_newest_first(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(device_risk("high", txn="t-7"))
    await world.assess(device_risk("high", at=NOW + hours(1)))
    await set_risk(world, Level.HIGH)
    await world.assess(compliance("compliant", at=NOW + hours(2)), now=NOW + hours(2))
    await set_risk(world, Level.LOW, now=NOW + hours(3))
    changes = await history(world)
    assert [(each.previous_level, each.level) for each in changes] == [
        (Level.HIGH, Level.LOW),
        (Level.LOW, Level.HIGH),
    ]
    assert changes[1].trace_id == "t-7"
    assert changes[1].cause_ids
    async with world.database.snapshot() as connection:
        rest = await explanation.history(
            connection, TENANT, USER, before=changes[0].history_id, limit=5
        )
    assert rest == changes[1:]


async def test_the_explanation_names_evidence_its_path_and_its_remedies(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(
        device_risk("high"),
        user_level("HIGH", iss=EDR),
        user_level("MEDIUM", iss="https://quiet.example", mode=SignalMode.LOG_ONLY),
        compliance("compliant", iss=EDR),
    )
    world.caps = {(TENANT, EDR): Level.MEDIUM, ("blue", MDM): Level.LOW}
    shown = await explain(world)
    assert shown.judgement.result.level is Level.HIGH
    by_issuer = {each.detection.issuer: each for each in shown.evidence}
    device = by_issuer[MDM]
    assert (device.counts_as, device.is_cause) == (Level.HIGH, True)
    assert [link.source for link in device.via] == [MDM, EDR] or len(device.via) == 2
    assert "device_healthy" in device.detection.clears_on
    assert by_issuer[EDR].counts_as is Level.MEDIUM
    assert by_issuer["https://quiet.example"].counts_as is None
    assert by_issuer["https://quiet.example"].expires_at == NOW + timedelta(days=14)
    assert "device_healthy" in {each.remedy for each in shown.remedies}


async def test_detections_are_listed_as_they_stand(world: World) -> None:
    user_id = await world.add_user(TINA)
    await world.assess(device_risk("high"), user_level("MEDIUM"))
    later = NOW + hours(1)
    await world.assess(compliance("compliant", at=later), now=later)

    async def listed(**query: Any) -> list[tuple[str, str]]:
        async with world.database.snapshot() as connection:
            found = await lookups.list_detections(connection, TENANT, DetectionQuery(**query))
        return [(each.name, each.state.value) for each in found]

    both = [("partner_reported_risk", "active"), ("device_compromised", "remediated")]
    assert sorted(await listed()) == sorted(both)
    assert await listed(entity_id=user_id) == [both[0]]
    assert await listed(state=DetectionState.REMEDIATED) == [both[1]]
    async with world.database.snapshot() as connection:
        first = await lookups.list_detections(connection, TENANT, DetectionQuery(limit=1))
    assert len(await listed(before=first[0].detection_id)) == 1


async def test_users_are_listed_by_level(world: World) -> None:
    tina = await world.add_user(TINA)
    jim = await world.add_user(JIM)
    await world.assess(device_risk("high"), user_level("MEDIUM", about=JIM))

    async def listed(**query: Any) -> list[str]:
        async with world.database.snapshot() as connection:
            found = await explanation.list_user_risks(connection, TENANT, **query)
        return [each.user_id for each in found]

    assert await listed(level=Level.HIGH) == [tina]
    assert await listed(level=None) == sorted([tina, jim])
    assert await listed(level=None, after=min(tina, jim)) == [max(tina, jim)]
    assert await listed(level=None, since=NOW + hours(1)) == []
    assert await listed(level=None, since=NOW) == sorted([tina, jim])


async def test_somebody_nothing_was_said_about_is_low(world: World) -> None:
    await world.add_user(TINA)
    assert await world.level() == "LOW"
    async with world.database.snapshot() as connection:
        found = await explanation.user_risk(connection, TENANT, USER)
    assert (found.record, found.pin) == (None, None)


# --- the policy ---------------------------------------------------------------------------------


async def test_a_fresh_tenant_monitors(world: World) -> None:
    fresh = World(world.database, tenant_id="blue")
    await fresh.add_user(TINA)
    (made,) = (await fresh.assess(device_risk("high", tenant_id="blue"))).assessments
    assert (made.mode, made.actions, made.level) == ("monitor", frozenset(), Level.HIGH)
    assert made.would_have == {"QUARANTINE", "UNIVERSAL_LOGOUT", "NOTIFY"}
    async with world.database.snapshot() as connection:
        stored = await policies.get_policy(connection, "blue")
    assert (stored.policy, stored.version) == (DEFAULT_POLICY, 0)


async def test_a_policy_is_replaced_as_a_new_version(world: World) -> None:
    document = {"mode": "enforce", "rules": [{"name": "n", "priority": 1, "actions": ["NOTIFY"]}]}
    async with world.database.transaction() as connection:
        stored = await policies.set_policy(connection, TENANT, document, now=NOW)
    assert (stored.version, stored.policy.mode) == (2, PolicyMode.ENFORCE)
    await world.add_user(TINA)
    (made,) = (await world.assess(device_risk("high"))).assessments
    assert (made.rule, set(made.actions)) == ("n", {"NOTIFY"})


async def test_groups_decide_over_rules(world: World) -> None:
    rule = {"name": "vip", "priority": 1, "actions": ["LOG"], "groups": {"include": ["board"]}}
    document = {
        "mode": "enforce",
        "rules": [rule, render_rule(DEFAULT_POLICY.rules[0])],
    }
    async with world.database.transaction() as connection:
        await policies.set_policy(connection, TENANT, document, now=NOW)
    await world.add_user(TINA, groups=["board"])
    await world.add_user(JIM)
    result = await world.assess(user_level("HIGH"), user_level("HIGH", about=JIM))
    assert {each.label: each.rule for each in result.assessments} == {
        "tina@customer.example": "vip",
        "jim@customer.example": "high-contain",
    }


async def test_a_stored_rule_that_can_no_longer_be_read_stops_nothing(world: World) -> None:
    await world.add_user(TINA)
    async with world.database.transaction() as connection:
        await connection.execute(
            sa.update(table).values(
                rules=[{"name": "broken"}, render_rule(DEFAULT_POLICY.rules[0])]
            )
        )
    (made,) = (await world.assess(device_risk("high"))).assessments
    assert made.rule == "high-contain"
