"""An app that is down for a while delays no other app, and is logged out when it is back."""

from __future__ import annotations

import asyncio

import pytest

from hub.demo.world import World
from tests.scenarios.kit import assert_flawless, enrolled, fault

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]


@pytest.mark.parametrize(
    ("down", "how"), [("mail", "status"), ("crm", "hang"), ("files", "status")]
)
@pytest.mark.requirement("GTR-12", "PUSH-44")
async def test_the_others_do_not_wait_for_it(world: World, down: str, how: str) -> None:
    incidents = [await enrolled(world, f"{down}-down-{number}") for number in range(2)]
    for incident in incidents:
        await incident.sign_in()
    await fault(world, down, how)
    try:
        await asyncio.gather(*(incident.report_compromised() for incident in incidents))
        for incident in incidents:
            for place in incident.doomed.keys() - {down}:
                await incident.logged_out(place)
            assert await world.alive(down, incident.user) == len(incident.doomed[down])
    finally:
        await fault(world, down, "ok")
    for incident in incidents:
        await incident.contained()
    for incident in incidents:
        await incident.report_clean()
        await incident.restored()
    await assert_flawless(world, *incidents)


async def test_an_answer_that_got_lost_is_asked_for_again_without_a_second_effect(
    world: World,
) -> None:
    incident = await enrolled(world, "answers-lost")
    await incident.sign_in()
    for name in ("idp", "mail", "crm", "files", "webhook"):
        await fault(world, name, "lost_answer", count=1)
    await incident.report_compromised()
    await incident.contained()
    await incident.report_clean()
    await incident.restored()
    await incident.sign_in_again()
    await assert_flawless(world, incident)
