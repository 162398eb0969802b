"""What satisfies a step-up: no less than was asked for, for whichever app it was."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.clock import epoch_s
from tests.hub.conftest import ONE_ENGINE
from tests.hub.story import IDP, ROSA
from tests.hub.test_inline import (
    DEVICE_KEY,
    HOME,
    LAPTOP,
    OFFICE,
    SID,
    Gateway,
    another_process,
    gateway,
    request_from,
)
from tests.risk.test_contexts import CHROME

__all__ = ["gateway"]

MEDIUM = {"level": {"at_least": "MEDIUM"}}
PHR_ALWAYS = {"when": {}, "then": {"decision": "STEP_UP", "acr": "phr", "max_age": 0}}


async def with_apps(gateway: Gateway, **rules: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Register apps with one rule each, and no other policy; return what is asked for them.

    Rosa was at home before, and is at the office now.
    """
    story = gateway.story
    asking = {}
    for name, rule in rules.items():
        app_id = (await story.post("/admin/v1/apps", {"name": name}))["id"]
        body = {
            "name": name,
            "apps": [app_id],
            "mode": "enforce",
            "rules": [{"name": "r", "priority": 1} | rule],
        }
        await story.post("/admin/v1/policies", body)
        asking[name] = request_from(OFFICE, app_id=app_id)
    await with_rule(gateway)
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    return asking


async def with_rule(gateway: Gateway, *rules: dict[str, Any]) -> None:
    """Let these be the rules of the global session policy, and nothing else act."""
    admin = gateway.story.admin
    lax = await admin.patch("/admin/v1/policies/entity-risk", json={"mode": "monitor"})
    assert lax.is_success, lax.text
    named = [
        {"name": f"rule-{place}", "priority": place} | rule for place, rule in enumerate(rules, 1)
    ]
    body = {"name": "global-session", "mode": "enforce", "rules": named}
    put = await admin.put("/admin/v1/policies/global-session", json=body)
    assert put.is_success, put.text
    await gateway.story.hub.node.feed.refresh()


async def prove(gateway: Gateway, step_up_id: str, sid: str = SID, **proof: Any) -> int:
    """Say that a step-up was passed; return the status of the answer."""
    now = gateway.story.hub.clock.now()
    body = {"iss": IDP, "outcome": "passed", "auth_time": epoch_s(now)} | proof
    path = f"/v1/sessions/{sid}/step-ups/{step_up_id}"
    status = (await gateway.story.admin.post(path, json=body)).status_code
    await gateway.settle()
    return status


async def pass_at(gateway: Gateway, request: dict[str, Any], sid: str = SID, **proof: Any) -> None:
    """Have Rosa pass the step-up that an app asks for."""
    decided = await gateway.ask(request, sid)
    assert decided["decision"] == "STEP_UP"
    gateway.story.hub.clock.advance(1)
    assert await prove(gateway, decided["step_up"]["id"], sid, **proof) == 204


async def test_a_weak_proof_for_one_app_is_not_the_strong_one_for_another(
    gateway: Gateway,
) -> None:
    asking = await with_apps(
        gateway, bank=PHR_ALWAYS, mail={"when": MEDIUM, "then": {"decision": "STEP_UP"}}
    )
    await pass_at(gateway, asking["mail"], acr="pwd", amr=["pwd"])
    assert await gateway.decision(asking["mail"]) == "ALLOW"
    decided = await gateway.ask(asking["bank"])
    assert (decided["decision"], decided["acr"]) == ("STEP_UP", "phr")
    await pass_at(gateway, asking["bank"], acr="phr")
    async with another_process(gateway) as other:
        for each in (gateway, other):
            assert await each.decision(asking["bank"]) == "ALLOW"
            assert await each.decision(asking["mail"]) == "ALLOW"


@ONE_ENGINE
async def test_who_is_asked_for_more_than_before_is_not_let_pass_with_less(
    gateway: Gateway,
) -> None:
    """The step-up of the mail app is open when the bank asks for a stronger one."""
    strong = {"when": MEDIUM, "then": {"decision": "STEP_UP", "acr": "phr"}}
    asking = await with_apps(
        gateway, bank=strong, mail={"when": MEDIUM, "then": {"decision": "STEP_UP"}}
    )
    weak = await gateway.ask(asking["mail"])
    gateway.story.hub.clock.advance(1)
    decided = await gateway.ask(asking["bank"])
    assert (decided["decision"], decided["acr"]) == ("STEP_UP", "phr")
    assert decided["step_up"] == {"id": decided["step_up"]["id"], "new": True}
    # Who asks for less joins that, and says what it has to reach; the weaker one is over.
    joined = await gateway.ask(asking["mail"])
    assert joined["step_up"] == {"id": decided["step_up"]["id"], "new": False}
    assert (joined["acr"], joined["max_age"]) == ("phr", 0)
    assert await prove(gateway, weak["step_up"]["id"], acr="pwd") == 404
    assert await prove(gateway, decided["step_up"]["id"], acr="pwd") == 409
    assert await prove(gateway, decided["step_up"]["id"], acr="phr") == 204
    assert await gateway.decision(asking["bank"]) == "ALLOW"
    assert await gateway.decision(asking["mail"]) == "ALLOW"


@ONE_ENGINE
async def test_two_apps_that_want_different_proofs_are_satisfied_one_after_the_other(
    gateway: Gateway,
) -> None:
    """Neither asks for more than the other: what was shown for the first stays shown."""
    then = {"decision": "STEP_UP", "max_age": 0}
    asking = await with_apps(
        gateway,
        bank={"when": {}, "then": {**then, "acr": "phr"}},
        desk={"when": {}, "then": {**then, "acr": "mfa"}},
        door={"when": {}, "then": {**then, "amr_any_of": ["fpt", "face"]}},
    )
    first = await gateway.ask(asking["bank"])
    for name in ("desk", "door"):
        joined = await gateway.ask(asking[name])
        assert joined["step_up"] == {"id": first["step_up"]["id"], "new": False}
        assert (joined["acr"], joined.get("amr_any_of")) == ("phr", None)
    await pass_at(gateway, asking["bank"], acr="phr")
    await pass_at(gateway, asking["desk"], acr="mfa")
    await pass_at(gateway, asking["door"], amr=["face"])
    for _ in range(2):
        assert {await gateway.decision(each) for each in asking.values()} == {"ALLOW"}
        gateway.inline.live.start_over()


@ONE_ENGINE
@pytest.mark.parametrize("said", ["word", "refresh"])
async def test_a_proof_by_another_method_than_was_asked_for_is_none(
    gateway: Gateway, said: str
) -> None:
    strong = {"decision": "STEP_UP", "amr_any_of": ["hwk"], "max_age": 0}
    asking = await with_apps(gateway, bank={"when": {}, "then": strong})
    decided = await gateway.ask(asking["bank"])
    assert (decided["decision"], decided["amr_any_of"]) == ("STEP_UP", ["hwk"])
    for amr in (["pwd"], [], ["pwd", "hwk"]):
        gateway.story.hub.clock.advance(10)
        if said == "word":
            status = await prove(gateway, decided["step_up"]["id"], amr=amr)
            assert status == (204 if "hwk" in amr else 409)
        else:
            await refresh(gateway, amr=amr)
        expected = "ALLOW" if "hwk" in amr else "STEP_UP"
        assert await gateway.decision(asking["bank"]) == expected


async def refresh(gateway: Gateway, **said: Any) -> None:
    """Let the identity provider say that Rosa just proved herself at the office."""
    context = {"ip": OFFICE, "ua": CHROME, "device": {"token_hash": LAPTOP}}
    now = gateway.story.hub.clock.now().isoformat()
    body = {"iss": IDP, "user": f"email:{ROSA}", "context": context, "auth_time": now, **said}
    assert (await gateway.story.admin.put(f"/v1/sessions/{SID}", json=body)).is_success
    await gateway.settle()


@ONE_ENGINE
async def test_what_was_shown_at_one_level_is_asked_for_again_at_a_higher_one(
    gateway: Gateway,
) -> None:
    """A strong proof, then the user is at HIGH, then a weak proof: that is no strong one."""
    story = gateway.story
    asking = await with_apps(
        gateway,
        bank=PHR_ALWAYS,
        mail={"when": {"user_level": "HIGH"}, "then": {"decision": "STEP_UP", "max_age": 0}},
    )
    await pass_at(gateway, asking["bank"], acr="phr")
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success
    await gateway.settle()
    await pass_at(gateway, asking["mail"], acr="pwd")
    assert await gateway.decision(asking["mail"]) == "ALLOW"
    decided = await gateway.ask(asking["bank"])
    assert (decided["decision"], decided["acr"]) == ("STEP_UP", "phr")


async def bound(gateway: Gateway) -> None:
    """Register a session "bound" whose device holds a key; ten minutes later it shows none."""
    body = {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "context": {"ip": HOME, "ua": CHROME, "device": {"token_hash": LAPTOP}},
        "binding": {"jwk": DEVICE_KEY.export_public(as_dict=True)},
    }
    assert (await gateway.story.admin.put("/v1/sessions/bound", json=body)).is_success
    gateway.story.hub.clock.advance(11 * 60)


async def test_a_passed_step_up_is_no_key_for_ever(gateway: Gateway) -> None:
    """With the standard rules, in a session whose device never shows its key again."""
    await bound(gateway)
    asked = []
    for minutes in (0, 11, 24 * 60):
        gateway.story.hub.clock.advance(minutes * 60)
        decided = await gateway.ask(request_from(HOME), "bound")
        assert decided["decision"] == "STEP_UP", minutes
        asked.append(decided["step_up"]["id"])
        assert await prove(gateway, asked[-1], sid="bound") == 204
        gateway.story.hub.clock.advance(9 * 60)
        assert await gateway.decision(request_from(HOME), "bound") == "ALLOW"
    assert len(set(asked)) == len(asked)


@ONE_ENGINE
async def test_a_passed_step_up_is_none_for_a_wrong_key(gateway: Gateway) -> None:
    """Also where a rule only asks at HIGH."""
    await with_rule(gateway, {"when": MEDIUM, "then": {"decision": "STEP_UP"}})
    await bound(gateway)
    forged = request_from(HOME, dbsc={"proof": "a.b.c"})
    for _ in range(2):
        decided = await gateway.ask(forged, "bound")
        assert (decided["decision"], decided["risk"]["level"]) == ("STEP_UP", "HIGH")
        gateway.story.hub.clock.advance(1)
        assert await prove(gateway, decided["step_up"]["id"], sid="bound") == 204
    assert await gateway.decision(request_from(HOME), "bound") == "ALLOW"
