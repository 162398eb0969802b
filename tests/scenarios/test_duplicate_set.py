"""A SET that comes again is answered like the first time and changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from hub.demo.world import World
from tests.scenarios.kit import assert_flawless, enrolled, push, signals

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

ACCEPTED = 202
AT_ONCE = 16


@pytest.mark.requirement("SET-61", "PUSH-10")
async def test_a_repeat_is_accepted_and_changes_nothing(world: World) -> None:
    incident = await enrolled(world, "repeated")
    await incident.sign_in()
    first = await incident.report_compromised(jti="repeated-1")
    await incident.contained()
    again = await push(world, world.vendor, first["set"])
    assert (first["status"], again.status) == (ACCEPTED, ACCEPTED)
    assert len(await signals(world, "repeated-1")) == 1
    await incident.report_clean()
    await incident.restored()
    late = await push(world, world.vendor, first["set"])
    assert late.status == ACCEPTED
    await incident.sign_in_again()
    await assert_flawless(world, incident)
    assert await incident.is_at("LOW")()


@pytest.mark.requirement("SET-61", "PUSH-10", "PUSH-11")
async def test_repeats_that_arrive_together_are_stored_once(world: World) -> None:
    incident = await enrolled(world, "flooded")
    await incident.sign_in()
    made = await incident.report_compromised(jti="flooded-1", deliver=False, wait=False)
    replies = await asyncio.gather(
        *(push(world, world.vendor, made["set"]) for _ in range(AT_ONCE))
    )
    assert {reply.status for reply in replies} == {ACCEPTED}
    await incident.contained()
    assert len(await signals(world, "flooded-1")) == 1
    await incident.report_clean()
    await incident.restored()
    await assert_flawless(world, incident)
