"""Lost settlements, late settlements and changes of mind, in seeded random order."""

from __future__ import annotations

import random

import pytest

from actions import service
from actions.model import ContainmentState
from actions.settlement import TaskSettlement
from tests.actions import kit
from tests.actions.conftest import Hub, contained
from tests.actions.services import Services

ROUNDS = 4
STEPS = 10

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def live_through(hub: Hub, services: Services, chance: random.Random) -> None:
    """Do random things; a lane has one attempt under way at a time, as `runtime.queue` keeps it."""
    held: dict[str, list[TaskSettlement]] = {}
    for number in range(STEPS):
        if chance.random() < 0.6:
            await attempt(hub, held, chance)
        else:
            await change_mind(hub, chance, number=number)
    for some in held.values():
        await hub.settle(*some)


async def attempt(hub: Hub, held: dict[str, list[TaskSettlement]], chance: random.Random) -> None:
    works = await hub.due(limit=chance.randint(1, 4), busy=tuple(held))
    match chance.choice(["settle", "settle", "crash", "hold", "late"]):
        case "settle":
            await hub.settle(*await hub.perform(*works))
            await hub.publish()
        case "crash":  # the requests were sent, nobody remembers
            await hub.perform(*works)
        case "hold":
            for work in works:
                held[work.task.lane] = await hub.perform(work)
        case _ if held:
            await hub.settle(*held.pop(chance.choice(sorted(held))))


async def change_mind(hub: Hub, chance: random.Random, *, number: int) -> None:
    match chance.choice(["clean", "dirty", "time"]):
        case "clean":
            await hub.plan(kit.clean())
        case "dirty":
            await hub.plan(kit.order(causes=(kit.cause(f"device{number}"),)))
        case _:
            hub.clock.advance(chance.random())


@pytest.mark.requirement("SCC-19")
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happened_the_end_is_what_the_last_order_wants(
    hub: Hub, services: Services, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a story that can be repeated
    services.tells_groups = chance.random() < 0.5
    await contained(hub, services)
    for number in range(ROUNDS):
        await live_through(hub, services, chance)
        if chance.random() < 0.5:
            await hub.plan(kit.clean())
            await hub.work_off(for_s=3)
            assert await hub.of_user() is None
            assert services.members == set()
            continue
        before = len(services.effects)
        await hub.plan(kit.order(causes=(kit.cause(f"last{number}"),)))
        await hub.work_off(for_s=3)
        held = await hub.of_user()
        assert held is not None
        assert held.denies
        assert services.members == {"2a91"}
        assert set(services.effects[before:]) >= {"/apps/pay/gtr", "/apps/mail/bcl", "/idp/gtr"}


@pytest.mark.requirement("SCC-19")
@pytest.mark.parametrize("seed", range(100, 104))
async def test_whatever_happened_a_member_who_was_there_before_is_never_removed(
    hub: Hub, services: Services, seed: int
) -> None:
    services.members.add("2a91")
    await contained(hub, services)
    chance = random.Random(seed)  # noqa: S311 - a story that can be repeated
    for _ in range(ROUNDS):
        await live_through(hub, services, chance)

    await hub.plan(kit.clean())
    await hub.work_off(for_s=5)

    assert services.members == {"2a91"}
    assert not [effect for effect in services.effects if "removed" in effect]
    async with hub.database.snapshot() as connection:
        states = {one.state for one in await service.list_containments(connection, kit.TENANT)}
    assert states == {ContainmentState.CLOSED}
