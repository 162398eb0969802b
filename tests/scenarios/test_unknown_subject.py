"""A signal about somebody nobody knows is kept, in plain sight, and applied when they appear."""

from __future__ import annotations

import pytest

from hub.demo.incident import Incident
from hub.demo.processes import until
from hub.demo.world import PLACES, World
from tests.scenarios.kit import person, signals, until_stored_as

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

NOT_FOUND = 404


async def _unknown_to_the_hub(world: World, name: str) -> Incident:
    """Return somebody whom only the IdP and the apps know, signed in everywhere."""
    world.make_room(1)
    incident = Incident(world, person(name))
    await world.enrol_at_idp(incident.person)
    for place in PLACES:
        body: dict[str, object] = {"user": incident.user, "device": incident.person.devices[0]}
        if place == "idp":
            body["register"] = False
        await world.http.ask("POST", f"{world.peer(place).url}/control/sessions", body)
    await incident.note_sessions()
    return incident


async def _assert_waits(world: World, incident: Incident, jti: str) -> None:
    await until_stored_as(world, jti, "unmatched")
    (waiting,) = await signals(world, jti, kind="unmatched")
    assert waiting["detail"]
    reply = await world.http.request(
        "GET",
        f"{world.hub.issuer}/api/v1/users/email:{incident.user}/risk",
        token=world.hub.admin_token,
    )
    assert reply.status == NOT_FOUND, "a signal never makes a user"


async def _assert_applied_once(world: World, incident: Incident, jti: str) -> None:
    await until_stored_as(world, jti, "assessed")
    await incident.contained()
    assert not await signals(world, jti, kind="unmatched")
    explained = await world.admin("GET", f"/v1/risk/users/{world.user_ids[incident.user]}/explain")
    assert len(explained["evidence"]) == 1, explained
    assert len(await world.containments(incident.user)) == 1


async def test_it_is_applied_once_an_admin_adds_the_user(world: World) -> None:
    incident = await _unknown_to_the_hub(world, "added-later")
    sent = await incident.report_compromised()
    await _assert_waits(world, incident, sent["jti"])
    added = await world.admin("POST", "/admin/v1/users", world.described(incident.person))
    world.user_ids[incident.user] = added["id"]
    await _assert_applied_once(world, incident, sent["jti"])
    await incident.report_clean()
    await incident.restored()


async def test_it_is_applied_once_the_user_appears_with_a_session(world: World) -> None:
    incident = await _unknown_to_the_hub(world, "seen-later")
    sent = await incident.report_compromised()
    await _assert_waits(world, incident, sent["jti"])
    await world.open_session("idp", incident.user, incident.person.devices[1])

    async def is_known() -> bool:
        reply = await world.http.request(
            "GET",
            f"{world.hub.issuer}/admin/v1/users/email:{incident.user}",
            token=world.hub.admin_token,
        )
        if reply.status == NOT_FOUND:
            return False
        world.user_ids[incident.user] = reply.json["id"]
        return True

    await until("the hub knows the user", is_known)
    await _assert_applied_once(world, incident, sent["jti"])


async def test_a_remedy_that_waited_too_counts_when_the_user_appears(world: World) -> None:
    incident = await _unknown_to_the_hub(world, "over-before-known")
    first = await incident.report_compromised()
    second = await incident.report_clean()
    await until_stored_as(world, second["jti"], "unmatched")
    added = await world.admin("POST", "/admin/v1/users", world.described(incident.person))
    world.user_ids[incident.user] = added["id"]
    await until_stored_as(world, first["jti"], "assessed")
    await until_stored_as(world, second["jti"], "assessed")
    assert await incident.is_at("LOW")()
    assert not await incident.is_quarantined()
