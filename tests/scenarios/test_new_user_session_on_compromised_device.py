"""Whoever has a session on a compromised device is concerned, not only its owner."""

from __future__ import annotations

import pytest

from hub.demo.incident import Incident
from hub.demo.world import PLACES, World
from tests.scenarios.kit import enrolled, live_sessions

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]


async def _guest_on(world: World, host: Incident, name: str) -> Incident:
    """Return somebody with sessions on the host's first device, and none elsewhere."""
    guest = await enrolled(world, name, devices=0)
    for place in PLACES:
        await world.open_session(place, guest.user, host.person.devices[0])
    await guest.note_sessions()
    return guest


async def test_a_user_who_signs_in_on_it_later_is_contained_too(world: World) -> None:
    owner = await enrolled(world, "owner-first")
    await owner.sign_in()
    await owner.report_compromised()
    await owner.contained()
    guest = await _guest_on(world, owner, "guest-later")
    await guest.contained()
    await owner.report_clean()
    await owner.restored()
    await guest.restored()


async def test_a_user_who_is_signed_in_on_it_is_contained_with_the_owner(world: World) -> None:
    owner = await enrolled(world, "owner-shares")
    bystander = await enrolled(world, "on-another-device")
    await owner.sign_in()
    await bystander.sign_in()
    guest = await _guest_on(world, owner, "guest-before")
    before = await live_sessions(world, bystander.user)
    await owner.report_compromised()
    await owner.contained()
    await guest.contained()
    assert await live_sessions(world, bystander.user) == before
    assert await bystander.is_at("LOW")()
    await owner.report_clean()
    await owner.restored()
    await guest.restored()
