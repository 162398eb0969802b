"""A session at HIGH whose user proves themselves: its risk ends, and what that led to."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from hub.lowered import FINDINGS_MAX
from hub.operations import TELL_FINDING
from risk.inline.model import StandState
from risk.inline.orders import SessionFinding
from risk.inline.store import STANDS_MAX, write_stands
from runtime.clock import epoch_s
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, RISK_LEVEL_CHANGE, ROSA, Story, begin
from tests.hub.test_findings_kept import process_that_is_killed
from tests.hub.test_inline import (
    DEVICE_KEY,
    HOME,
    LAPTOP,
    OFFICE,
    SID,
    STOLEN,
    Gateway,
    request_from,
    stands_of,
)
from tests.risk.test_contexts import CHROME, FIREFOX

PHONE = "phone"
PROVE = {
    "name": "prove",
    "priority": 1,
    "when": {"level": {"at_least": "MEDIUM"}},
    "then": {"decision": "STEP_UP"},
}


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    """Rosa with two sessions at home; whatever is at risk has to prove itself."""
    story = await begin(hub)
    body = {"name": "global-session", "mode": "enforce", "rules": [PROVE]}
    changed = await story.admin.put("/admin/v1/policies/global-session", json=body)
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()
    put = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put(f"/v1/sessions/{PHONE}", json=put)).is_success
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        made = Gateway(story, http)
        for sid in (SID, PHONE):
            assert await made.decision(request_from(HOME), sid) == "ALLOW"
        yield made
    await story.admin.aclose()


async def rest(gateway: Gateway) -> None:
    """Let everything be noted and assessed, and some time pass."""
    await gateway.settle()
    await gateway.story.hub.settle()
    gateway.story.hub.clock.advance(30)
    await gateway.story.hub.settle()
    await gateway.settle()


async def asked(gateway: Gateway, request: dict[str, Any] = STOLEN, sid: str = SID) -> str:
    """Ask from elsewhere; return the step-up that is wanted."""
    decided = await gateway.ask(request, sid)
    assert decided["decision"] == "STEP_UP", decided
    await rest(gateway)
    return str(decided["step_up"]["id"])


async def end(gateway: Gateway, step_up_id: str, outcome: str = "passed", sid: str = SID) -> None:
    answer = await gateway.story.admin.post(
        f"/v1/sessions/{sid}/step-ups/{step_up_id}", json={"iss": IDP, "outcome": outcome}
    )
    assert answer.status_code == 204, answer.text
    await rest(gateway)


def fresh(gateway: Gateway, ip: str, **more: Any) -> dict[str, Any]:
    """Return what Rosa's identity provider says of a sign-in just now."""
    return {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "auth_time": epoch_s(gateway.story.hub.clock.now()),
        "context": {"ip": ip, "ua": CHROME, "device": {"token_hash": LAPTOP}} | more,
    }


async def levels(story: Story) -> dict[str, str]:
    """Return the levels of Rosa and of her two sessions."""
    user = await story.get(f"/v1/risk/users/email:{ROSA}")
    found = {sid: (await story.get(f"/v1/risk/sessions/{sid}"))["level"] for sid in (SID, PHONE)}
    return {"user": user["level"], **found}


async def test_a_passed_step_up_lowers_the_session_and_what_it_led_to(gateway: Gateway) -> None:
    story = gateway.story
    step_up_id = await asked(gateway)
    assert await levels(story) == {"user": "MEDIUM", SID: "HIGH", PHONE: "LOW"}

    await end(gateway, step_up_id)
    assert await levels(story) == {"user": "LOW", SID: "LOW", PHONE: "LOW"}
    found = (await story.get(f"/v1/detections?user=email:{ROSA}"))["items"]
    assert {each["name"]: each["state"] for each in found} == {
        "session_influenced_user_risk": "remediated"
    }
    history = (await story.get(f"/v1/risk/users/email:{ROSA}/history"))["items"]
    assert [each["level"] for each in history[:2]] == ["LOW", "MEDIUM"]
    # Proven is proven: the same place raises nothing again.
    assert await gateway.decision(STOLEN) == "ALLOW"
    await rest(gateway)
    assert (await levels(story))["user"] == "LOW"


async def test_who_comes_straight_back_from_a_step_up_is_not_asked_again(
    gateway: Gateway,
) -> None:
    """Regression: until the change feed was read, the question was still open."""
    step_up_id = await asked(gateway)
    before = time.monotonic()
    answer = await gateway.story.admin.post(
        f"/v1/sessions/{SID}/step-ups/{step_up_id}", json={"iss": IDP, "outcome": "passed"}
    )
    assert answer.status_code == 204
    assert gateway.story.hub.node.changes.read_at > before
    assert await gateway.decision(STOLEN) == "ALLOW"


async def test_a_fresh_sign_in_in_that_context_is_a_proof_as_well(gateway: Gateway) -> None:
    await asked(gateway)
    put = fresh(gateway, OFFICE, ua=FIREFOX, device=STOLEN["device"])
    answer = await gateway.story.admin.put(f"/v1/sessions/{SID}", json=put)
    assert answer.is_success, answer.text
    await rest(gateway)
    assert await levels(gateway.story) == {"user": "LOW", SID: "LOW", PHONE: "LOW"}


@pytest.mark.parametrize("outcome", ["refused", "nothing"])
async def test_without_a_proof_it_stays(gateway: Gateway, outcome: str) -> None:
    step_up_id = await asked(gateway)
    if outcome == "refused":
        await end(gateway, step_up_id, "refused")
    assert await levels(gateway.story) == {"user": "MEDIUM", SID: "HIGH", PHONE: "LOW"}


async def test_attack_the_owners_proof_elsewhere_does_not_clear_the_stranger(
    gateway: Gateway,
) -> None:
    """Somebody has the cookie: that the owner proves themselves at the office ends nothing."""
    await asked(gateway)
    await end(gateway, await asked(gateway, request_from(OFFICE)))
    assert await levels(gateway.story) == {"user": "MEDIUM", SID: "HIGH", PHONE: "LOW"}


async def test_attack_a_stranger_found_a_moment_before_the_proof_is_not_cleared(
    gateway: Gateway,
) -> None:
    """Regression: the stranger's finding was told only after the answer, and after the proof."""
    own = request_from(OFFICE, ua=FIREFOX, device={"token_hash": "c" * 64})
    step_up_id = await asked(gateway, own)
    thief = request_from("192.0.2.77", ua=FIREFOX, device=STOLEN["device"])
    decided = await gateway.ask(thief)
    assert (decided["decision"], decided["risk"]["level"]) == ("STEP_UP", "HIGH")
    gateway.story.hub.clock.advance(1)
    await end(gateway, step_up_id)
    assert (await levels(gateway.story))[SID] == "HIGH"


@ONE_ENGINE
@pytest.mark.parametrize(("more", "level"), [(FINDINGS_MAX - 1, "LOW"), (FINDINGS_MAX, "HIGH")])
async def test_with_more_findings_than_are_looked_at_it_stays(
    gateway: Gateway, more: int, level: str
) -> None:
    """One of them may not be proven."""
    story = gateway.story
    step_up_id = await asked(gateway)
    (known, *_) = await stands_of(gateway)
    proven = [
        msgspec.structs.replace(known, context_key=f"{number:x}", state=StandState.PASSED.value)
        for number in range(more)
    ]
    found = [
        SessionFinding(
            tenant_id=each.tenant_id,
            session_id=each.session_id,
            iss=IDP,
            sid=SID,
            context_key=each.context_key,
            at=each.at,
        )
        for each in proven
    ]
    async with story.hub.database.transaction() as connection:
        await write_stands(connection, proven)
        await TELL_FINDING.handle(connection, found)
    await end(gateway, step_up_id)
    assert (await levels(story))[SID] == level


@ONE_ENGINE
async def test_many_strangers_who_were_never_at_high_keep_nobody_at_it(gateway: Gateway) -> None:
    step_up_id = await asked(gateway)
    (known, *_) = await stands_of(gateway)
    denied = [
        msgspec.structs.replace(known, context_key=f"key-{number}", state=StandState.DENIED.value)
        for number in range(STANDS_MAX)
    ]
    async with gateway.story.hub.database.transaction() as connection:
        await write_stands(connection, denied)
    await end(gateway, step_up_id)
    assert (await levels(gateway.story))[SID] == "LOW"


async def test_attack_a_stranger_who_was_let_pass_a_moment_before_the_proof_is_not_cleared(
    gateway: Gateway,
) -> None:
    """He is at HIGH where no rule minds: nothing was settled about him, nor assessed yet."""
    story = gateway.story
    only_medium = PROVE | {"when": {"level": "MEDIUM"}}
    body = {"name": "global-session", "mode": "enforce", "rules": [only_medium]}
    assert (await story.admin.put("/admin/v1/policies/global-session", json=body)).is_success
    await story.hub.node.feed.refresh()
    mine = "c" * 64
    assert await gateway.decision(request_from(OFFICE, ua=FIREFOX, device={"token_hash": mine}))
    await rest(gateway)
    assert (await levels(story))[SID] == "HIGH"

    thief = request_from("192.0.2.77", ua=FIREFOX, device=STOLEN["device"])
    assert await gateway.decision(thief) == "ALLOW"
    await gateway.settle()
    put = fresh(gateway, OFFICE, ua=FIREFOX, device={"token_hash": mine})
    assert (await story.admin.put(f"/v1/sessions/{SID}", json=put)).is_success
    await rest(gateway)
    assert (await levels(story))[SID] == "HIGH"


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_what_is_found_again_after_it_was_proven_counts_again(
    gateway: Gateway, where: str
) -> None:
    """Somebody shows a forged key, the owner proves themselves, and the forger comes again.

    To the same process, or to one that never saw him before.
    """
    story = gateway.story
    body = {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "binding": {"jwk": DEVICE_KEY.export_public(as_dict=True)},
    }
    assert (await story.admin.put("/v1/sessions/bound", json=body)).is_success
    assert await gateway.decision(request_from(HOME), "bound") == "ALLOW"
    await gateway.settle()
    forged = {**STOLEN, "dbsc": {"proof": "a.b.c"}}
    step_up_id = await asked(gateway, forged, "bound")
    assert (await levels(story))["user"] == "MEDIUM"
    await end(gateway, step_up_id, sid="bound")
    assert (await levels(story))["user"] == "LOW"

    async with process_that_is_killed(gateway) as other:
        asked_there = other if where == "elsewhere" else gateway
        for _ in range(2):
            assert (await asked_there.ask(forged, "bound"))["risk"]["level"] == "HIGH"
            await asked_there.settle()
            await rest(gateway)
            assert (await levels(story))["user"] == "MEDIUM"
    # Nor does the proof of before say anything about it.
    assert (await story.get("/v1/risk/sessions/bound"))["level"] == "HIGH"
    again = await story.admin.put("/v1/sessions/bound", json=fresh(gateway, HOME))
    assert again.is_success, again.text
    await rest(gateway)
    assert (await story.get("/v1/risk/sessions/bound"))["level"] == "HIGH"


async def test_of_two_sessions_at_risk_each_is_lowered_and_the_user_with_the_last(
    gateway: Gateway,
) -> None:
    first = await asked(gateway)
    second = await asked(gateway, sid=PHONE)
    await end(gateway, first)
    assert await levels(gateway.story) == {"user": "MEDIUM", SID: "LOW", PHONE: "HIGH"}
    await end(gateway, second, sid=PHONE)
    assert await levels(gateway.story) == {"user": "LOW", SID: "LOW", PHONE: "LOW"}


async def say(story: Story, sid: str, level: str) -> None:
    """Let the provider tell the level of a session."""
    key = {"format": "iss_sub", "iss": IDP, "sub": sid}
    said = {
        "principal": "SESSION",
        "current_level": level,
        "event_timestamp": epoch_s(story.hub.clock.now()),
    }
    answer = await story.push(
        sub_id={"format": "complex", "session": key}, events={RISK_LEVEL_CHANGE: said}
    )
    assert answer.status_code == 202, answer.text


@ONE_ENGINE
@pytest.mark.parametrize("together", [True, False])
async def test_what_a_provider_says_of_one_session_clears_no_other(
    gateway: Gateway,
    together: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    story = gateway.story
    for sid in (SID, PHONE):
        await say(story, sid, "HIGH")
    await rest(gateway)
    assert await levels(story) == {"user": "MEDIUM", SID: "HIGH", PHONE: "HIGH"}
    await say(story, SID, "LOW")
    if not together:
        await rest(gateway)
        assert await levels(story) == {"user": "MEDIUM", SID: "LOW", PHONE: "HIGH"}
    await say(story, PHONE, "LOW")
    await rest(gateway)
    assert await levels(story) == {"user": "LOW", SID: "LOW", PHONE: "LOW"}
