"""The device is clean before everybody was told: what was not sent is dropped, the rest undone."""

from __future__ import annotations

import pytest

from hub.demo.world import World
from tests.scenarios.kit import enrolled, fault, live_sessions

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]


async def test_a_logout_that_was_not_delivered_in_time_never_comes(world: World) -> None:
    incident = await enrolled(world, "clean-in-time")
    await incident.sign_in()
    await fault(world, "mail", "status")
    try:
        await incident.report_compromised()
        for place in incident.doomed.keys() - {"mail"}:
            await incident.logged_out(place)
        await incident.report_clean()
        await incident.restored()
        (containment,) = await world.containments(incident.user)
        shown = await world.admin("GET", f"/admin/v1/containments/{containment['id']}")
        states = {task["target"]: task["state"] for task in shown["tasks"]}
        assert states["mail"] == "cancelled", states
    finally:
        await fault(world, "mail", "ok")
    await incident.sign_in_again()
    before = await live_sessions(world, incident.user)
    # What was still waiting for the mail app would arrive before a later logout there.
    later = await enrolled(world, "after-clean-in-time")
    await later.play()
    assert await live_sessions(world, incident.user) == before
    assert incident.doomed["mail"] <= incident.later["mail"], "the old sessions live as well"


async def test_clean_right_behind_compromised_leaves_nothing_behind(world: World) -> None:
    """Wherever the second signal overtakes the work of the first, all of it is undone."""
    incidents = [await enrolled(world, f"no-sooner-{number}") for number in range(3)]
    for incident in incidents:
        await incident.sign_in()
    for incident in incidents:
        await incident.report_compromised(wait=False)
        await incident.report_clean()
    for incident in incidents:
        if await world.containments(incident.user):
            await incident.restored()
        assert await incident.is_at("LOW")()
        assert not await incident.is_quarantined()
        await incident.sign_in_again()
        changes = await world.ledger(
            "idp", what="scim.member_", user=incident.user, outcome="effect"
        )
        assert [entry["what"] for entry in changes] in (
            [],
            ["scim.member_added", "scim.member_removed"],
        )


@pytest.mark.requirement("SET-18")
async def test_a_clean_word_that_arrives_first_still_counts(world: World) -> None:
    incident = await enrolled(world, "overtaken")
    await incident.sign_in()
    made = await incident.report_compromised(deliver=False, wait=False)
    await incident.report_clean()
    sent = await world.http.ask(
        "POST", f"{world.vendor.url}/control/emit", {"shape": "raw", "body": made["set"]}
    )
    assert sent["status"] == 202
    # The signals of one vendor about one device are handled in the order they were stored.
    other = await enrolled(world, "after-overtaken")
    await other.play()
    assert await incident.is_at("LOW")()
    assert not await world.containments(incident.user)
    assert await world.alive("mail", incident.user) == len(incident.doomed["mail"])
