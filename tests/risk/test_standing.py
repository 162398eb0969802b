"""The risk of anything, now and at any time: replay, order of arrival, devices, sessions."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime

import pytest

from risk import standing
from risk.lookups import service as lookups
from risk.lookups import store as lookup_store
from risk.lookups.service import Subject
from risk.model import AdminWord, EntityKind, Level, Signal
from risk.service import set_user_risk
from risk.standing import Standing, Wanted, Weights
from tests.risk.kit import (
    CAEP,
    EDR,
    JIM,
    LAPTOP,
    MDM,
    NOW,
    RISC,
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

USER = "email:tina@customer.example"


async def has_app(_tenant_id: str, app_id: str) -> bool:
    return app_id == "app_1"


def weights(now: datetime = NOW) -> Weights:
    return Weights(caps={}, reliability={}, now=now)


async def find(world: World, kind: EntityKind, reference: str) -> Subject:
    async with world.database.snapshot() as connection:
        return await lookups.find(
            connection, TENANT, kind=kind, reference=reference, has_app=has_app
        )


async def now_of(world: World, subject: Subject, now: datetime = NOW) -> Standing:
    async with world.database.snapshot() as connection:
        known = await standing.known_now(connection, TENANT, subject, now=now)
    return standing.stand(known, weights(now))


async def at_of(world: World, subject: Subject, at: datetime) -> Standing:
    async with world.database.snapshot() as connection:
        known = await standing.known_at(connection, TENANT, subject, at=at)
    return standing.stand(known, weights(at))


async def kept_at(world: World, user_id: str, at: datetime) -> Level:
    async with world.database.snapshot() as connection:
        return await lookup_store.level_at(connection, TENANT, entity_id=user_id, at=at)


def a_day() -> list[Signal]:
    """Return what several issuers say within a day, remedies among it."""
    return [
        user_level("MEDIUM", at=NOW, iss=EDR, source_class="network"),
        device_risk("high", at=NOW + hours(1), source_class="device"),
        compliance("compliant", at=NOW + hours(3), source_class="device"),
        user_level("MEDIUM", at=NOW + hours(4), iss=MDM, source_class="session"),
        signal(
            RISC + "credential-compromise",
            {"credential_type": "password"},
            at=NOW + hours(5),
            iss=EDR,
            source_class="credential",
        ),
        signal(
            CAEP + "credential-change",
            {"credential_type": "password", "change_type": "update"},
            at=NOW + hours(7),
            iss=EDR,
            source_class="credential",
        ),
        user_level("LOW", at=NOW + hours(8), iss=EDR, source_class="network"),
        user_level("HIGH", at=NOW + hours(9), iss=EDR, source_class="network"),
        user_level("MEDIUM", at=NOW + hours(10), iss=EDR, source_class="network"),
    ]


async def deliver(world: World, signals: Iterable[Signal], *, step_h: float = 0) -> None:
    now = NOW + hours(11)
    for number, each in enumerate(signals):
        await world.assess(each, now=now + hours(number * step_h))


@pytest.mark.requirement("SET-18")
@pytest.mark.parametrize("seed", range(6))
async def test_row_3_any_order_of_delivery_ends_in_the_same_level(world: World, seed: int) -> None:
    await world.add_user(TINA)
    said = a_day()
    random.Random(seed).shuffle(said)  # noqa: S311 - an order, no secret
    await deliver(world, said)
    found = await now_of(world, await find(world, EntityKind.USER, USER), NOW + hours(12))
    assert found.result.level is Level.HIGH
    assert {(each.name, each.level) for each in found.known.evidence if each.state == "active"} == {
        ("partner_reported_risk", Level.MEDIUM),
    }
    assert await world.level() == "HIGH"


async def test_row_10_a_replay_of_any_moment_gives_what_was_told_then(world: World) -> None:
    user_id = await world.add_user(TINA)
    await deliver(world, a_day(), step_h=1)
    async with world.database.transaction() as connection:
        word = AdminWord(level=Level.LOW, reason="on the phone with her", by="soc")
        later = NOW + hours(30)
        await set_user_risk(connection, TENANT, USER, word, caps={}, now=later)
    await world.reassess(now=NOW + hours(55))
    subject = await find(world, EntityKind.USER, USER)
    seen = set()
    for hour in range(60):
        at = NOW + hours(hour + 0.5)
        past = await at_of(world, subject, at)
        kept = await kept_at(world, user_id, at)
        if hour < 54:
            # The end of the pin is noticed when it is looked at, a little later.
            assert past.result.level is kept, hour
        seen.add(kept)
    assert seen == {Level.LOW, Level.MEDIUM, Level.HIGH}
    end = NOW + hours(60)
    now = await now_of(world, subject, end)
    assert (await at_of(world, subject, end)).result.level is now.result.level


async def test_row_10_what_came_later_is_not_known_before(world: World) -> None:
    await world.add_user(TINA)
    await world.assess(device_risk("high", at=NOW - hours(5)), now=NOW + hours(1))
    subject = await find(world, EntityKind.USER, USER)
    assert (await at_of(world, subject, NOW)).known.evidence == ()
    assert (await at_of(world, subject, NOW + hours(1))).result.level is Level.HIGH


async def test_a_device_and_its_live_sessions_stand_as_high_as_its_findings(world: World) -> None:
    await world.put_session("s1", device="LT-1")
    await world.put_session("s2", user=JIM, device="LT-2")
    await world.assess(device_risk("high", about=LAPTOP))
    async with world.database.snapshot() as connection:
        (device_id,) = await lookup_store.entities_at_risk(
            connection, TENANT, kind=EntityKind.DEVICE, after="", limit=10
        )
    device = await find(world, EntityKind.DEVICE, device_id)
    assert (await now_of(world, device)).result.level is Level.HIGH
    expected = {"s1": Level.HIGH, "s2": Level.LOW}
    for sid, level in expected.items():
        session = await find(world, EntityKind.SESSION, sid)
        assert (await now_of(world, session)).result.level is level
    async with world.database.snapshot() as connection:
        changes = await standing.history(connection, TENANT, device, weights())
        listed, after = await standing.list_at_risk(
            connection, TENANT, EntityKind.DEVICE, Wanted(level=Level.HIGH), weights()
        )
        nobody, _ = await standing.list_at_risk(
            connection, TENANT, EntityKind.DEVICE, Wanted(since=NOW + hours(1)), weights()
        )
    assert [(each.previous_level, each.level) for each in changes] == [(Level.LOW, Level.HIGH)]
    assert [each.known.subject.entity_id for each in listed] == [device_id]
    assert (after, nobody) == (None, [])


async def test_a_list_goes_on_where_it_ended(world: World) -> None:
    for number in range(5):
        laptop = {"format": "opaque", "id": f"LT-{number}"}
        user = {"format": "email", "email": f"u{number}@customer.example"}
        await world.add_user(user)
        await world.assess(device_risk("medium", about=pair(user, laptop)))
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        async with world.database.snapshot() as connection:
            page, after = await standing.list_at_risk(
                connection, TENANT, EntityKind.DEVICE, Wanted(after=after, limit=2), weights()
            )
        seen += [each.known.subject.entity_id for each in page]
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen)
