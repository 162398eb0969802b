"""A hub that is stopped and started again knows everything it knew, and goes on with its work."""

from __future__ import annotations

from typing import Any

import pytest

from hub.demo.processes import until
from hub.demo.world import World
from tests.scenarios.kit import assert_flawless, enrolled, fault

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

KINDS = ("providers", "apps", "webhooks", "clients", "policies", "streams", "devices", "keys")


async def _restart(world: World) -> None:
    await world.hub.stop()
    await world.hub.start(world.http)


async def _everything(world: World) -> dict[str, Any]:
    return {kind: await world.admin("GET", f"/admin/v1/{kind}?limit=100") for kind in KINDS}


async def test_what_was_configured_and_decided_is_still_there(world: World) -> None:
    incident = await enrolled(world, "over-a-restart")
    await incident.sign_in()
    await incident.report_compromised()
    await incident.contained()
    before = await _everything(world)
    explained = await world.admin("GET", f"/v1/risk/users/{world.user_ids[incident.user]}/explain")
    (containment,) = await world.containments(incident.user)

    await _restart(world)

    assert await _everything(world) == before
    assert await incident.is_at("HIGH")()
    assert await incident.is_quarantined()
    assert [each["id"] for each in await world.containments(incident.user)] == [containment["id"]]
    again = await world.admin("GET", f"/v1/risk/users/{world.user_ids[incident.user]}/explain")
    assert again["evidence"] == explained["evidence"]
    await incident.report_clean()
    await incident.restored()
    await incident.sign_in_again()
    await assert_flawless(world, incident)


async def test_work_that_was_under_way_is_finished(world: World) -> None:
    incident = await enrolled(world, "stopped-in-between")
    await incident.sign_in()
    await incident.report_compromised()
    await _restart(world)
    await incident.contained()
    await incident.report_clean()
    await _restart(world)
    await incident.restored()
    await incident.sign_in_again()
    await assert_flawless(world, incident)


async def test_a_stop_lets_requests_that_are_under_way_end(world: World) -> None:
    """They used to be cut off, and were sent again by the next start."""
    # An app that has not fetched the hub's keys yet cannot check a call while the hub restarts.
    await (await enrolled(world, "before-the-stop")).play()
    incident = await enrolled(world, "stopped-meanwhile")
    await incident.sign_in()
    await fault(world, "mail", "slow", delay_ms=1_000)
    try:
        await incident.report_compromised()

        async def is_under_way() -> bool:
            return bool(await world.ledger("mail", what="fault.hit", after=incident.marks["mail"]))

        await until("the request to the mail app is under way", is_under_way)
        await _restart(world)
        await incident.contained()
    finally:
        await fault(world, "mail", "ok")
    asked = await world.ledger("mail", what="gtr.", after=incident.marks["mail"])
    assert [entry["what"] for entry in asked] == ["gtr.accepted"]
    await incident.report_clean()
    await incident.restored()
