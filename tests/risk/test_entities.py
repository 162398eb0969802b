"""Users, devices and their names, on both databases."""

from __future__ import annotations

import pytest

from risk import service as risk
from risk.entities import service
from risk.entities.service import EntityFacts
from risk.model import EntityKind, Level
from runtime.errors import Conflict, Invalid, NotFound
from ssf.subject import opaque
from tests.risk.kit import (
    IDP,
    JIM,
    LAPTOP,
    NOW,
    TENANT,
    TINA,
    World,
    device_risk,
    hours,
    pair,
)

SUBJECT = {"format": "iss_sub", "iss": IDP, "sub": "u-1"}


async def test_a_user_is_found_by_every_name(world: World) -> None:
    user_id = await world.add_user(TINA, SUBJECT, external_id="0042", groups=["sales"])
    async with world.database.snapshot() as connection:
        for name in (user_id, "email:TINA@Customer.example", "ext:0042", f"iss_sub:{IDP}|u-1"):
            assert await service.resolve(connection, TENANT, name) == user_id
        view = await service.view(connection, TENANT, user_id)
    assert (view.entity.label, view.entity.groups) == ("tina@customer.example", ("sales",))
    assert len(view.identifiers) == 2


@pytest.mark.parametrize(
    "name", ["usr_nobody", "email:nobody@customer.example", "ext:nobody", "iss_sub:x|y"]
)
async def test_an_unknown_user_is_not_found_and_not_made(world: World, name: str) -> None:
    async with world.database.transaction() as connection:
        with pytest.raises(NotFound):
            await service.resolve(connection, TENANT, name)
        assert await risk.count_users(connection, TENANT) == 0


async def test_a_user_of_another_tenant_is_not_found(world: World) -> None:
    user_id = await world.add_user(TINA)
    async with world.database.snapshot() as connection:
        for name in (user_id, "email:tina@customer.example"):
            with pytest.raises(NotFound):
                await service.resolve(connection, "blue", name)
        with pytest.raises(NotFound):
            await service.view(connection, "blue", user_id)


async def test_adding_again_adds_names_and_facts(world: World) -> None:
    first = await world.added(EntityKind.USER, TINA)
    assert (first.created, first.new_alias_keys) == (True, ("email:tina@customer.example",))
    again = await world.added(EntityKind.USER, TINA, SUBJECT, label="Tina", groups=["sales"])
    assert (again.entity_id, again.created) == (first.entity_id, False)
    assert len(again.new_alias_keys) == 1
    same = await world.added(EntityKind.USER, TINA, label="Tina")
    assert same.new_alias_keys == ()
    async with world.database.snapshot() as connection:
        view = await service.view(connection, TENANT, first.entity_id)
    assert (view.entity.label, view.entity.groups) == ("Tina", ("sales",))


async def test_names_of_different_users_do_not_become_one(world: World) -> None:
    await world.add_user(TINA)
    await world.add_user(JIM, external_id="0042")
    with pytest.raises(Conflict):
        await world.add_user(TINA, JIM)
    with pytest.raises(Conflict):
        await world.add_user(TINA, external_id="0042")


@pytest.mark.parametrize(
    "facts",
    [
        {"label": ""},
        {"label": "x" * 201},
        {"external_id": "a\0"},
        {"groups": ["g"] * 201},
        {"groups": [""]},
    ],
)
async def test_facts_are_bounded(world: World, facts: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        await world.add_user(TINA, **facts)


async def test_users_are_listed_and_counted_by_tenant(world: World) -> None:
    ids = [await world.add_user(each) for each in (TINA, JIM)]
    await world.added(EntityKind.DEVICE, LAPTOP)
    await World(world.database, tenant_id="blue").add_user(TINA)
    async with world.database.snapshot() as connection:
        listed = await service.list_views(connection, TENANT, kind=EntityKind.USER, limit=1)
        rest = await service.list_views(
            connection, TENANT, kind=EntityKind.USER, after=listed[-1].entity.entity_id
        )
        assert await risk.count_users(connection, TENANT) == 2
    assert [each.entity.entity_id for each in (*listed, *rest)] == sorted(ids)


async def test_the_same_name_can_be_a_user_and_a_device(world: World) -> None:
    user_id = await world.add_user(LAPTOP)
    device = await world.added(EntityKind.DEVICE, LAPTOP)
    assert device.entity_id != user_id


async def test_a_new_owner_of_a_compromised_device_is_assessed(world: World) -> None:
    device = await world.added(EntityKind.DEVICE, LAPTOP)
    user_id = await world.add_user(TINA)
    await world.assess(device_risk("high", about=LAPTOP))
    assert await world.level() == "LOW"
    async with world.database.transaction() as connection:
        await service.state_owner(
            connection, TENANT, device_id=device.entity_id, user_id=user_id, now=NOW
        )
        assert await risk.tenants_to_reassess(connection, NOW) == {TENANT}
    (made,) = await world.reassess()
    assert (made.user_id, made.level) == (user_id, Level.HIGH)
    assert await world.level() == "HIGH"


async def test_a_provider_that_names_another_owner_takes_its_own_word_back(world: World) -> None:
    await world.add_user(TINA)
    jim = await world.add_user(JIM)
    await world.assess(device_risk("none"))
    later = NOW + hours(1)
    result = await world.assess(device_risk("high", about=pair(JIM, LAPTOP), at=later), now=later)
    assert [each.user_id for each in result.assessments] == [jim]


async def test_two_transactions_that_make_the_same_device_end_with_one(world: World) -> None:
    wanted = {"opaque:LT-1": opaque("LT-1")}
    async with world.database.transaction() as connection:
        made, new = await service.make_entities(
            connection, TENANT, kind=EntityKind.DEVICE, wanted=wanted, now=NOW
        )
    async with world.database.transaction() as connection:
        again, none = await service.make_entities(
            connection, TENANT, kind=EntityKind.DEVICE, wanted=wanted, now=NOW
        )
    assert (again, new, none) == (made, {"opaque:LT-1"}, set())


async def test_a_page_is_bounded(world: World) -> None:
    async with world.database.snapshot() as connection:
        assert await service.list_views(connection, TENANT, kind=EntityKind.USER, limit=10**6) == []


def test_facts_need_identifiers() -> None:
    assert EntityFacts(identifiers=[TINA]).groups is None
