"""Sessions and what is known of their users: what is well enters the baseline, once.

What a session brought that turns out not to be the user's is taken out again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from risk.baselines.model import session_mark
from risk.hijacks import SESSIONS_MAX
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA, SECEVENT, Story, begin, sign
from tests.hub.test_feedback import ABOUT_ROSA, SENSOR, provider
from tests.hub.test_inline import (
    DEVICE_KEY,
    HOME,
    OFFICE,
    SID,
    STOLEN,
    THIEF,
    THIEFS_KEY,
    Gateway,
    answer,
    asked,
    proof_of,
    request_from,
    state_of,
)
from tests.hub.test_reviews import ends, govern

HIJACKED = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def recorded(gateway: Gateway) -> list[tuple[str, str | None]]:
    """Return (address, session) of what is known of the session's user."""
    hub: Hub = gateway.story.hub
    state = state_of(hub)
    await state.sign_ins.recorder.flush()
    await hub.node.changes.refresh()
    known = await state.history.baselines.of("default", gateway.story.ids["rosa"])
    return [(each.ip, each.session) for each in known.recent]


async def mark_of(gateway: Gateway, sid: str = SID) -> str:
    """Return how a session of Rosa's is named in what is known of her."""
    session = await gateway.story.get(f"/v1/sessions/{sid}?iss={IDP}")
    return session_mark(IDP, sid, session["session_id"])


@ONE_ENGINE
async def test_row_16_a_contexts_that_are_well_enter_once_and_stopped_ones_never(
    gateway: Gateway,
) -> None:
    for body in (request_from(HOME), request_from(HOME), request_from(OFFICE), STOLEN):
        await gateway.ask(body)
    found = await recorded(gateway)
    assert [ip for ip, _ in found] == [HOME]
    assert found[0][1] == await mark_of(gateway)


@ONE_ENGINE
@pytest.mark.parametrize("times", [3])
async def test_asking_again_records_nothing_twice(gateway: Gateway, times: int) -> None:
    for _ in range(times):
        gateway.inline.live.start_over()
        await gateway.ask(request_from(HOME))
        await recorded(gateway)
    assert len(await recorded(gateway)) == 1


async def confirm_safe(gateway: Gateway, path: str) -> None:
    said = await gateway.story.admin.post(f"/v1/risk/{path}/confirm-safe")
    assert said.status_code == 200, said.text
    assert said.json()["changed"] is True
    await gateway.settle()


@pytest.mark.parametrize("kind", ["sessions", "users"])
async def test_confirm_safe_makes_what_was_seen_known(gateway: Gateway, kind: str) -> None:
    """A person who says that it was Rosa says so of the addresses and devices too."""
    for body in (request_from(HOME), request_from(OFFICE), STOLEN):
        await gateway.ask(body)
    await gateway.settle()
    await gateway.story.hub.settle()
    assert [ip for ip, _ in await recorded(gateway)] == [HOME]
    named = {"sessions": SID, "users": gateway.story.ids["rosa"]}
    await confirm_safe(gateway, f"{kind}/{named[kind]}")
    state = state_of(gateway.story.hub)
    known = await state.history.baselines.of("default", gateway.story.ids["rosa"])
    # Of the user: what was asked for, not what was stopped. Of this session: that as well.
    devices = len({each.device for each in known.recent})
    assert ({each.ip for each in known.recent}, devices) == (
        {HOME, OFFICE},
        2 if kind == "sessions" else 1,
    )
    assert {each.session for each in known.recent} == {await mark_of(gateway)}


# --- what is withdrawn --------------------------------------------------------------------------


async def places(gateway: Gateway) -> set[str]:
    """Return the addresses that are known of the session's user."""
    return {ip for ip, _ in await recorded(gateway)}


async def at_the_office(gateway: Gateway) -> None:
    """Let the session pass a step-up at the office, so that it is known of its user."""
    step_up_id = await asked(gateway)
    assert (await answer(gateway, step_up_id)).status_code == 204
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE)) == "ALLOW"
    assert await places(gateway) == {HOME, OFFICE}


@pytest.mark.parametrize("kind", ["sessions", "users"])
async def test_row_16_a_what_a_person_confirms_as_compromised_leaves_the_baseline(
    gateway: Gateway, kind: str
) -> None:
    await at_the_office(gateway)
    named = {"sessions": SID, "users": gateway.story.ids["rosa"]}[kind]
    said = await gateway.story.admin.post(f"/v1/risk/{kind}/{named}/confirm-compromised")
    assert said.status_code == 200, said.text
    assert await places(gateway) == set()


async def test_row_16_a_a_fork_leaves_nothing_of_the_session_in_the_baseline(
    gateway: Gateway,
) -> None:
    """Nobody knows whose the contexts before were; a person who does says so."""
    await at_the_office(gateway)
    clone = request_from(HOME, device={"token_hash": THIEF})
    for body in (clone, request_from(HOME)):
        await gateway.ask(body)
    assert await places(gateway) == {HOME, OFFICE}
    decided = await gateway.ask(clone)
    assert (decided["decision"], "fork" in decided["changed"]["classes"]) == ("TERMINATE", True)
    assert await places(gateway) == set()
    # Nor does it learn anything more.
    await gateway.ask(request_from("198.51.100.99"))
    assert await places(gateway) == set()

    await gateway.settle()
    await gateway.story.hub.settle()
    await confirm_safe(gateway, f"sessions/{SID}")
    assert await places(gateway) >= {HOME, OFFICE}


async def test_row_16_a_a_thief_who_is_stopped_where_he_comes_costs_the_owner_nothing(
    gateway: Gateway,
) -> None:
    await at_the_office(gateway)
    assert await gateway.decision(STOLEN) == "TERMINATE"
    assert await places(gateway) == {HOME, OFFICE}


async def test_row_16_a_a_session_that_the_check_ends_leaves_the_baseline(
    gateway: Gateway,
) -> None:
    """Where it was accepted, somebody shows a proof of another key."""
    body = {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "binding": {"jwk": DEVICE_KEY.export_public(as_dict=True)},
    }
    assert (await gateway.story.admin.put("/v1/sessions/bound", json=body)).status_code == 201
    decided = await gateway.ask(request_from(HOME), "bound")
    await gateway.ask(request_from(OFFICE))
    await gateway.settle()
    assert await places(gateway) == {HOME, OFFICE}

    guess = request_from(HOME, dbsc=proof_of(decided["dbsc"]["challenge"], THIEFS_KEY))
    assert await gateway.decision(guess, "bound") == "TERMINATE"
    # What another session of the user's brought stays.
    assert await recorded(gateway) == [(OFFICE, await mark_of(gateway))]


async def test_row_16_a_a_session_that_ends_because_of_its_user_is_not_a_hijacked_one(
    gateway: Gateway,
) -> None:
    """Rosa's password is out; she moves within her network, and all of her sessions end."""
    story = gateway.story
    await govern(story, ends("user_level"))
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success
    await gateway.settle()
    decided = await gateway.ask(request_from("198.51.100.8"))
    assert (decided["decision"], decided["risk"]["level"]) == ("TERMINATE", "LOW")
    assert decided["changed"]["classes"] == ["minor"]
    assert await places(gateway) == {HOME}


async def hijack_event(story: Story) -> None:
    """Let the vendor say by a RISC event that Rosa's account was hijacked."""
    told: dict[str, Any] = {"sub_id": ABOUT_ROSA, "events": {HIJACKED: {"reason": "hijacking"}}}
    async with story.hub.client() as vendor:
        said = await vendor.post(
            story.events_url,
            content=sign(story.claims(**told)),
            headers={**SECEVENT, "authorization": "Bearer both-sides"},
        )
    assert said.status_code == 202, said.text


async def detection(story: Story, name: str, **more: object) -> None:
    """Let a sensor of the customer say this of Rosa."""
    async with await provider(story, SENSOR, "network") as sensor:
        said = await sensor.post(
            "/v1/signals/detections", json={"name": name, "sub_id": ABOUT_ROSA, **more}
        )
    assert said.status_code == 202, said.text


async def test_row_16_a_an_account_that_was_hijacked_knows_its_sessions_no_more(
    gateway: Gateway,
) -> None:
    await at_the_office(gateway)
    await hijack_event(gateway.story)
    await gateway.story.hub.settle()
    assert await places(gateway) == set()


@pytest.mark.parametrize(
    ("name", "more", "kept"),
    [
        ("aitm_replay", {}, set()),
        ("anomalous_token", {}, set()),
        ("user_reported_suspicious_activity", {}, set()),
        # Of what is no hijack, or at less than HIGH, nothing follows.
        ("breached_credential_detected", {}, {HOME, OFFICE}),
        ("aitm_replay", {"level": "MEDIUM"}, {HOME, OFFICE}),
        ("aitm_replay", {"confidence": 0.1}, {HOME, OFFICE}),
        # Nor for sessions that began only later.
        ("aitm_replay", {"occurred_at": "2020-01-01T00:00:00Z"}, {HOME, OFFICE}),
    ],
)
async def test_row_16_a_a_finding_of_a_hijack_withdraws_what_it_doubts(
    gateway: Gateway, name: str, more: dict[str, object], kept: set[str]
) -> None:
    await at_the_office(gateway)
    if "occurred_at" in more:
        before = gateway.story.hub.clock.now() - timedelta(days=2)
        more = {"occurred_at": before.isoformat()}
    await detection(gateway.story, name, **more)
    await gateway.story.hub.settle()
    assert await places(gateway) == kept


async def test_row_16_a_a_finding_about_one_session_leaves_the_others(gateway: Gateway) -> None:
    await at_the_office(gateway)
    body = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await gateway.story.admin.put("/v1/sessions/second", json=body)).status_code == 201
    await gateway.ask(request_from(HOME), "second")
    subject = {
        "format": "complex",
        "user": ABOUT_ROSA,
        "session": {"format": "iss_sub", "iss": IDP, "sub": SID},
    }
    await gateway.settle()
    assert len(await recorded(gateway)) == 3
    await detection(gateway.story, "anomalous_token", sub_id=subject)
    await gateway.story.hub.settle()
    assert await recorded(gateway) == [(HOME, await mark_of(gateway, "second"))]


@ONE_ENGINE
@pytest.mark.parametrize("named", [True, False])
async def test_row_16_a_many_newer_sessions_do_not_hide_the_hijacked_one(
    gateway: Gateway,
    named: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The finding names it, or is older than the others; it was looked for among the newest."""
    story = gateway.story
    await at_the_office(gateway)
    found_at = story.hub.clock.now()
    story.hub.clock.advance(60)
    body = {"iss": IDP, "user": f"email:{ROSA}"}
    for number in range(SESSIONS_MAX):
        assert (await story.admin.put(f"/v1/sessions/s{number}", json=body)).status_code == 201
    session = {"format": "iss_sub", "iss": IDP, "sub": SID}
    about = {"format": "complex", "user": ABOUT_ROSA, "session": session}
    if named:
        await detection(story, "anomalous_token", sub_id=about)
    else:
        await detection(story, "anomalous_token", occurred_at=found_at.isoformat())
    await story.hub.settle()
    assert await places(gateway) == set()


@ONE_ENGINE
async def test_a_session_that_begins_anew_under_a_hijacked_ones_name_teaches_again(
    gateway: Gateway,
) -> None:
    clone = request_from(HOME, device={"token_hash": THIEF})
    for body in (request_from(HOME), clone, request_from(HOME)):
        await gateway.ask(body)
    decided = await gateway.ask(clone)
    assert (decided["decision"], "fork" in decided["changed"]["classes"]) == ("TERMINATE", True)
    await gateway.settle()
    assert await places(gateway) == set()
    story = gateway.story
    assert (await story.admin.delete(f"/v1/sessions/{SID}?iss={IDP}")).is_success
    story.hub.clock.advance(3600)
    anew = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put(f"/v1/sessions/{SID}", json=anew)).is_success
    await gateway.settle()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    assert await places(gateway) == {HOME}
