"""Policies that want a recent sign-in want it again when it is old, in sessions that live on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from runtime.clock import epoch_s
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA, begin
from tests.hub.test_inline import HOME, OFFICE, Gateway, request_from

SID = "aged"
HOUR_S = 3600
OVER_AN_HOUR = {"auth_age": {"over_s": HOUR_S}}
ASKS = {"decision": "STEP_UP", "max_age": HOUR_S}
#: rules that all want a sign-in of the last hour
HOURLY: dict[str, dict[str, Any]] = {
    "age": {"when": OVER_AN_HOUR, "then": ASKS},
    "age, now": {"when": OVER_AN_HOUR, "then": {"decision": "STEP_UP"}},
    "max_age": {"when": {}, "then": ASKS},
    "expression": {
        "when": {"expression": "auth_age_s > 3600.0"},
        "then": {"decision": "STEP_UP", "max_age": 0},
    },
}


async def govern(gateway: Gateway, *rules: dict[str, Any]) -> None:
    named = [
        {"name": f"rule-{place}", "priority": place} | rule for place, rule in enumerate(rules, 1)
    ]
    body = {"name": "global-session", "mode": "enforce", "rules": named}
    put = await gateway.story.admin.put("/admin/v1/policies/global-session", json=body)
    assert put.is_success, put.text
    await gateway.story.hub.node.feed.refresh()


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    """A session of Rosa, who has just signed in."""
    story = await begin(hub)
    put = {"iss": IDP, "user": f"email:{ROSA}", "auth_time": epoch_s(hub.clock.now())}
    assert (await story.admin.put(f"/v1/sessions/{SID}", json=put)).is_success
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def prove(gateway: Gateway, step_up_id: str) -> None:
    now = gateway.story.hub.clock.now()
    proof = {"iss": IDP, "outcome": "passed", "auth_time": epoch_s(now)}
    path = f"/v1/sessions/{SID}/step-ups/{step_up_id}"
    assert (await gateway.story.admin.post(path, json=proof)).status_code == 204
    await gateway.settle()


@ONE_ENGINE
@pytest.mark.parametrize("rule", HOURLY)
async def test_an_answer_that_is_held_grows_old(gateway: Gateway, rule: str) -> None:
    clock = gateway.story.hub.clock
    await govern(gateway, HOURLY[rule])
    for _ in range(2):
        assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
        await gateway.settle()
    clock.advance(HOUR_S - 10)
    assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
    assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
    # With the five seconds that clocks may be off.
    clock.advance(16)
    assert await gateway.decision(request_from(HOME), SID) == "STEP_UP"


@pytest.mark.parametrize("rule", HOURLY)
async def test_a_proof_grows_old(gateway: Gateway, rule: str) -> None:
    await govern(gateway, HOURLY[rule])
    assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
    await gateway.settle()
    asked: list[str] = []
    for hours in (2, 12, 3):
        gateway.story.hub.clock.advance(hours * HOUR_S)
        decided = await gateway.ask(request_from(HOME), SID)
        assert decided["decision"] == "STEP_UP", hours
        # Nobody is asked twice for one proof.
        again = await gateway.ask(request_from(HOME), SID)
        assert again["step_up"] == {"id": decided["step_up"]["id"], "new": False}
        asked.append(decided["step_up"]["id"])
        await prove(gateway, asked[-1])
        for _ in range(2):
            assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
            gateway.inline.live.start_over()
    assert len(set(asked)) == len(asked)


@ONE_ENGINE
async def test_a_proof_for_another_reason_is_asked_for_by_age_as_well(gateway: Gateway) -> None:
    """One rule asks once per context, another every hour: the first does not end the second."""
    story = gateway.story
    by_level = {"when": {"level": {"at_least": "MEDIUM"}}, "then": {"decision": "STEP_UP"}}
    await govern(gateway, HOURLY["age, now"], by_level)
    assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
    await gateway.settle()
    for _ in range(3):
        decided = await gateway.ask(request_from(OFFICE), SID)
        assert decided["decision"] == "STEP_UP"
        await prove(gateway, decided["step_up"]["id"])
        assert await gateway.decision(request_from(OFFICE), SID) == "ALLOW"
        story.hub.clock.advance(HOUR_S - 60)
        assert await gateway.decision(request_from(OFFICE), SID) == "ALLOW"
        story.hub.clock.advance(120)


@ONE_ENGINE
async def test_what_looks_at_no_age_is_held_as_long_as_nothing_changes(gateway: Gateway) -> None:
    for _ in range(2):
        assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
        await gateway.settle()
    live = await gateway.inline.live.find("default", IDP, SID, None)
    assert live is not None
    assert [held.until for held in live.answers.values()] == [None]


async def test_a_refresh_that_comes_late_takes_no_proof_away(gateway: Gateway) -> None:
    """Regression: with the sign-in it knew of, it had the user asked again."""
    story = gateway.story
    signed_in = epoch_s(story.hub.clock.now())
    await govern(gateway, HOURLY["age"])
    assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
    await gateway.settle()
    story.hub.clock.advance(2 * HOUR_S)
    decided = await gateway.ask(request_from(HOME), SID)
    await prove(gateway, decided["step_up"]["id"])
    late = {"iss": IDP, "user": f"email:{ROSA}", "auth_time": signed_in}
    assert (await story.admin.put(f"/v1/sessions/{SID}", json=late)).is_success
    await gateway.settle()
    assert await gateway.decision(request_from(HOME), SID) == "ALLOW"


async def test_a_step_up_that_allows_an_older_proof_takes_no_newer_one_away(
    gateway: Gateway,
) -> None:
    story = gateway.story
    elsewhere = {"changes": {"include": ["network", "asn", "country"]}}
    await govern(gateway, {"when": elsewhere, "then": ASKS})
    assert await gateway.decision(request_from(HOME), SID) == "ALLOW"
    await gateway.settle()
    story.hub.clock.advance(1.5 * HOUR_S)
    before = epoch_s(story.hub.clock.now())
    story.hub.clock.advance(0.5 * HOUR_S)
    step_up_id = (await gateway.ask(request_from(OFFICE), SID))["step_up"]["id"]
    proof = {"auth_time": epoch_s(story.hub.clock.now()), "acr": "phr", "amr": ["hwk"]}
    user = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put(f"/v1/sessions/{SID}", json=user | proof)).is_success
    word = {"iss": IDP, "outcome": "passed", "auth_time": before, "acr": "pwd", "amr": ["pwd"]}
    path = f"/v1/sessions/{SID}/step-ups/{step_up_id}"
    assert (await story.admin.post(path, json=word)).status_code == 204
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE), SID) == "ALLOW"
    session = await story.get(f"/v1/sessions/{SID}?iss={IDP}")
    assert (session["acr"], session["amr"]) == ("phr", ["hwk"])
    assert datetime.fromisoformat(session["auth_time"]).timestamp() == proof["auth_time"]
