"""Edits of policies: who is live or at risk is judged again, once, also after a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from actions.model import GUARD_WINDOW, ContainmentState
from actions.store import lock_containments, write_containments
from hub.inline.reviews import Reviews
from risk.inline.store import APPS_MAX
from risk.reviews import store as reviews_store
from risk.sessions.model import PutSession
from risk.sessions.service import PUT_SESSION
from risk.sweeps import service, store
from risk.sweeps.model import WAITING_MAX, SweepKind, SweepState
from tests.hub.conftest import DEFAULT, ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA, TIM, begin
from tests.hub.test_inline import (
    HOME,
    OFFICE,
    SID,
    STOLEN,
    Gateway,
    request_from,
    stands_of,
    state_of,
)

GLOBAL = "/admin/v1/policies/global-session"
ENTITY = "/admin/v1/policies/entity-risk"
OUT = {"name": "out", "priority": 1, "when": {}, "then": {"decision": "TERMINATE"}}
ASK = {"name": "ask", "priority": 1, "when": {}, "then": {"decision": "STEP_UP"}}


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    await swept(Gateway(story, story.admin))
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def edit(gateway: Gateway, path: str, **members: Any) -> dict[str, Any]:
    answer = await gateway.story.admin.patch(path, json=members)
    assert answer.is_success, answer.text
    await gateway.story.hub.node.feed.refresh()
    edited: dict[str, Any] = answer.json()
    return edited


async def swept(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """Work the sweeps off as core and api do; return what the API tells of them, by kind."""
    hub = gateway.story.hub
    reviews: Reviews = state_of(hub).reviews
    for _ in range(50):
        await hub.sweep()
        await reviews.work_off()
        async with hub.database.snapshot() as connection:
            if not await store.system_running(connection, limit=1):
                break
    await gateway.settle()
    told = await gateway.story.post("/admin/v1/policies:sweeps", {})
    return {each["kind"]: each for each in told["items"]}


async def is_live(gateway: Gateway) -> bool:
    session = await gateway.story.get(f"/v1/sessions/{SID}?iss={IDP}")
    return bool(session["live"])


async def be_home(gateway: Gateway) -> None:
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await gateway.settle()


# --- sessions -----------------------------------------------------------------------------------


async def test_a_stricter_policy_ends_an_idle_session_at_once(gateway: Gateway) -> None:
    await be_home(gateway)
    await edit(gateway, GLOBAL, rules=[OUT])
    told = (await swept(gateway))["sessions"]

    assert not await is_live(gateway)
    assert (told["state"], told["cause"], told["acted"]) == ("done", "global-session", 1)


async def test_switching_to_enforce_is_an_edit_and_monitor_only_tells(gateway: Gateway) -> None:
    await be_home(gateway)
    await edit(gateway, GLOBAL, mode="monitor", rules=[OUT])
    told = (await swept(gateway))["sessions"]
    assert (told["acted"], told["would_have"]) == (0, 1)
    assert await is_live(gateway)

    await edit(gateway, GLOBAL, mode="enforce")
    told = (await swept(gateway))["sessions"]
    assert (told["acted"], told["would_have"]) == (1, 0)
    assert not await is_live(gateway)


@ONE_ENGINE
async def test_a_policy_of_an_app_is_asked_for_every_app_of_the_session(gateway: Gateway) -> None:
    """The session was last seen at another app than the one whose policy was edited."""
    story = gateway.story
    await be_home(gateway)
    for app in ("crm", "wiki"):
        decided = await gateway.ask(request_from(HOME, app_id=story.ids[app]))
        assert decided["decision"] == "ALLOW", decided
    await gateway.settle()
    made = await story.post(
        "/admin/v1/policies",
        {"name": "crm", "apps": [story.ids["crm"]], "mode": "enforce", "rules": [OUT]},
    )
    await story.hub.node.feed.refresh()
    told = (await swept(gateway))["sessions"]
    assert (told["cause"], told["acted"]) == (made["id"], 1)
    assert await is_live(gateway)  # at the other apps
    assert await gateway.decision(request_from(HOME, app_id=story.ids["crm"])) == "TERMINATE"

    # To delete it is an edit, too.
    gone = await story.admin.delete(f"/admin/v1/policies/{made['id']}")
    assert gone.is_success
    assert (await swept(gateway))["sessions"]["state"] == "done"


@ONE_ENGINE
async def test_after_an_edit_a_session_is_asked_about_all_of_its_apps(gateway: Gateway) -> None:
    """Regression: only about the first 32; a rule of the next one did not end it."""
    story = gateway.story
    made = [
        await story.post("/admin/v1/apps", {"name": f"app {number}", "kind": "gateway"})
        for number in range(APPS_MAX)
    ]
    await story.hub.node.feed.refresh()
    for app in made:
        assert await gateway.decision(request_from(HOME, app_id=app["id"])) == "ALLOW"
    await gateway.settle()
    of_last = {**OUT, "when": {"apps": {"include": [max(app["id"] for app in made)]}}}
    await edit(gateway, GLOBAL, mode="enforce", rules=[of_last])
    await swept(gateway)
    session = await story.get(f"/v1/sessions/{SID}?iss={IDP}")
    assert session["live"] is False


async def test_the_same_text_again_sweeps_nothing_and_nobody_has_to(gateway: Gateway) -> None:
    await edit(gateway, GLOBAL, rules=[ASK])
    first = (await swept(gateway))["sessions"]
    await edit(gateway, GLOBAL, rules=[ASK])
    await edit(gateway, GLOBAL, rules=[OUT], sweep=False)
    assert (await swept(gateway))["sessions"]["id"] == first["id"]


async def test_a_prompt_after_an_edit_is_one_prompt_and_undoing_the_edit_ends_it(
    gateway: Gateway,
) -> None:
    """What was accepted stays known: a thief does not become the session's first context."""
    await be_home(gateway)
    await edit(gateway, GLOBAL, rules=[ASK])
    await swept(gateway)
    decided = await gateway.ask(request_from(HOME))
    assert (decided["decision"], decided["step_up"]["new"]) == ("STEP_UP", False)

    applied = await gateway.story.admin.post(
        "/admin/v1/policies:preset", json={"name": "standard", "mode": "enforce"}
    )
    assert applied.is_success
    await gateway.story.hub.node.feed.refresh()
    await swept(gateway)
    assert await gateway.decision(STOLEN) == "TERMINATE"
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


async def test_looking_at_an_idle_session_is_no_use_of_it(gateway: Gateway) -> None:
    """Rosa goes on at home while the sweep judges the office: that makes no fork of her session."""
    await be_home(gateway)
    asked = await gateway.ask(request_from(OFFICE))
    answer = await gateway.story.hub.client(gateway.story.tokens["idp"]).post(
        f"/v1/sessions/{SID}/step-ups/{asked['step_up']['id']}", json={"outcome": "passed"}
    )
    assert answer.is_success, answer.text
    await gateway.settle()
    for round_ in range(3):
        await be_home(gateway)
        await edit(
            gateway,
            GLOBAL,
            rules=[ASK | {"name": f"r{round_}", "when": {"acr": {"include": ["none"]}}}],
        )
        await swept(gateway)
    decided = await gateway.ask(request_from(HOME))
    assert (decided["decision"], "changed" in decided) == ("ALLOW", False)


@ONE_ENGINE
async def test_a_sweep_goes_on_after_a_crash_and_never_floods(gateway: Gateway) -> None:
    """Each page is written with its place; a newer edit begins anew; ended sessions are left."""
    hub = gateway.story.hub
    now = hub.clock.now()
    for number in range(WAITING_MAX + 20):
        await hub.node.writer.submit(
            PUT_SESSION,
            PutSession(
                tenant_id=DEFAULT,
                iss=IDP,
                sid=f"many-{number}",
                user=gateway.story.ids["tim"],
                device=None,
                started_at=now,
                now=now,
            ),
        )
    await edit(gateway, GLOBAL, rules=[OUT])
    for _ in range(3):
        # Nobody works the reviews off: no more than so many wait.
        await hub.sweep()
        async with hub.database.snapshot() as connection:
            waiting = await reviews_store.system_due_reviews(
                connection, now=hub.clock.now(), limit=1_000
            )
            (sessions,) = [
                each
                for each in await store.list_sweeps(connection, DEFAULT)
                if each.kind is SweepKind.SESSIONS
            ]
        assert len(waiting) == WAITING_MAX
        assert (sessions.state, sessions.looked) == (SweepState.RUNNING, WAITING_MAX)
    # A process that died in between left nothing but this; the next one goes on.
    told = (await swept(gateway))["sessions"]
    assert (told["state"], told["looked"]) == ("done", WAITING_MAX + 20 + 2)


# --- zones and groups ---------------------------------------------------------------------------

BLOCKED: dict[str, Any] = {
    "name": "out of business",
    "type": "IP",
    "usage": "BLOCKLIST",
    "gateways": [{"value": f"{HOME}/32"}],
}


async def zone(gateway: Gateway, method: str, path: str = "", body: object = None) -> Any:
    answer = await gateway.story.admin.request(method, f"/admin/v1/zones{path}", json=body)
    assert answer.is_success, answer.text
    await gateway.story.hub.node.feed.refresh()
    return answer.json() if answer.content else None


async def prompts_nobody(gateway: Gateway) -> None:
    """Let policies leave sessions in peace; what is left is zones."""
    await edit(gateway, GLOBAL, mode="enforce", rules=[])
    await swept(gateway)
    await be_home(gateway)


async def states(gateway: Gateway) -> set[str]:
    return {stand.state for stand in await stands_of(gateway)}


async def test_row_41_a_blocklist_stops_idle_sessions_at_once_and_its_end_lets_them_go_on(
    gateway: Gateway,
) -> None:
    await prompts_nobody(gateway)
    made = await zone(gateway, "POST", body=BLOCKED)
    told = (await swept(gateway))["sessions"]
    assert (told["state"], told["cause"], told["acted"]) == ("done", f"zone:{made['id']}", 1)
    # Nobody asked, and it stands already.
    assert await states(gateway) == {"denied"}
    assert await gateway.decision(request_from(HOME)) == "DENY"

    await zone(gateway, "POST", f"/{made['id']}/deactivate")
    told = (await swept(gateway))["sessions"]
    assert (told["state"], told["acted"]) == ("done", 0)
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


async def test_a_zone_that_a_policy_names_ends_idle_sessions_that_come_to_lie_in_it(
    gateway: Gateway,
) -> None:
    await prompts_nobody(gateway)
    made = await zone(
        gateway, "POST", body={**BLOCKED, "usage": "POLICY", "gateways": [{"value": "192.0.2.1"}]}
    )
    await edit(gateway, GLOBAL, rules=[OUT | {"when": {"zones": {"include": [made["name"]]}}}])
    await swept(gateway)
    assert await is_live(gateway)
    await zone(gateway, "PATCH", f"/{made['id']}", {"gateways": BLOCKED["gateways"]})
    told = (await swept(gateway))["sessions"]
    assert (told["cause"], told["acted"]) == (f"zone:{made['id']}", 1)
    assert not await is_live(gateway)


@ONE_ENGINE
async def test_an_edit_of_a_zone_that_changes_nothing_sweeps_nothing(gateway: Gateway) -> None:
    before = (await swept(gateway)).get("sessions")
    made = await zone(gateway, "POST", body={**BLOCKED, "status": "INACTIVE"})
    path = f"/{made['id']}"
    await zone(gateway, "PATCH", path, {"gateways": [{"value": OFFICE}]})
    await zone(gateway, "PATCH", path, {"status": "ACTIVE", "sweep": False})
    reason = [{"value": OFFICE, "reason": "asked by legal"}]
    await zone(gateway, "PATCH", path, {"gateways": reason})
    assert (await swept(gateway)).get("sessions") == before
    wrong = await gateway.story.admin.patch(f"/admin/v1/zones{path}", json={"sweep": "no"})
    assert wrong.status_code == 400


async def regroup(gateway: Gateway, *groups: str) -> None:
    body = {"identifiers": [{"format": "email", "email": ROSA}], "groups": list(groups)}
    await gateway.story.post("/admin/v1/users", body)


async def reviewed(gateway: Gateway) -> int:
    reviews: Reviews = state_of(gateway.story.hub).reviews
    count = await reviews.work_off()
    await gateway.settle()
    return count


async def test_who_comes_to_another_group_is_judged_by_its_rules_at_once(gateway: Gateway) -> None:
    """Also where the session was never seen in use; nobody else is."""
    await prompts_nobody(gateway)
    phone = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await gateway.story.admin.put("/v1/sessions/phone", json=phone)).is_success
    await edit(gateway, GLOBAL, rules=[OUT | {"when": {"groups": {"include": ["leavers"]}}}])
    await swept(gateway)
    assert await is_live(gateway)

    await regroup(gateway, "sales", "leavers")
    assert await reviewed(gateway) == 2
    assert not await is_live(gateway)
    assert not (await gateway.story.get(f"/v1/sessions/phone?iss={IDP}"))["live"]
    tims = await gateway.story.get(f"/v1/sessions/sid-tim?iss={IDP}")
    assert tims["live"]
    # The same groups again, in whatever order, are no edit.
    await regroup(gateway, "leavers", "sales")
    assert await reviewed(gateway) == 0


async def test_who_leaves_a_group_that_policy_spared_is_contained(gateway: Gateway) -> None:
    await regroup(gateway, "board")
    spared = {
        "name": "all-but-the-board",
        "priority": 1,
        "level": "HIGH",
        "groups": {"exclude": ["board"]},
        "actions": ["QUARANTINE"],
    }
    await edit(gateway, ENTITY, rules=[spared])
    await at_risk(gateway)
    assert await containments(gateway) == []
    await regroup(gateway, "sales")
    await gateway.story.hub.settle()
    (contained,) = await containments(gateway)
    assert (contained["user_id"], contained["actions"]) == (
        gateway.story.ids["rosa"],
        ["QUARANTINE"],
    )


# --- users --------------------------------------------------------------------------------------


async def at_risk(gateway: Gateway, user: str = ROSA, level: str = "HIGH") -> None:
    said = await gateway.story.admin.put(
        f"/api/v1/users/email:{user}/risk", json={"riskLevel": level}
    )
    assert said.is_success, said.text
    await gateway.story.hub.settle()


async def containments(gateway: Gateway) -> list[dict[str, Any]]:
    found = await gateway.story.get("/admin/v1/containments")
    return list(found["items"])


async def test_who_is_high_already_is_contained_when_the_policy_is_enforced_once(
    gateway: Gateway,
) -> None:
    # Else the sessions of a user at HIGH end, which is a containment of its own.
    await edit(gateway, GLOBAL, mode="monitor")
    await edit(gateway, ENTITY, mode="monitor")
    await swept(gateway)
    await at_risk(gateway)
    assert await containments(gateway) == []

    await edit(gateway, ENTITY, mode="enforce")
    told = (await swept(gateway))["users"]
    assert (told["state"], told["cause"], told["looked"], told["acted"]) == (
        "done",
        "entity-risk",
        1,
        1,
    )
    await gateway.story.hub.settle()
    (contained,) = await containments(gateway)
    assert contained["user_id"] == gateway.story.ids["rosa"]
    logouts = len(gateway.story.hub.outside.requests)

    # Off and on again, and edited: the same causes are not answered a second time.
    await edit(gateway, ENTITY, mode="monitor")
    told = (await swept(gateway))["users"]
    assert (told["acted"], told["would_have"]) == (0, 1)
    await edit(gateway, ENTITY, mode="enforce")
    assert (await swept(gateway))["users"]["acted"] == 0
    await gateway.story.hub.settle()
    assert len(await containments(gateway)) == 1
    assert len(gateway.story.hub.outside.requests) == logouts


async def test_an_answer_that_is_over_is_not_given_again_by_an_edit(gateway: Gateway) -> None:
    await at_risk(gateway)
    (contained,) = await containments(gateway)
    async with gateway.story.hub.database.transaction() as connection:
        held = await lock_containments(connection, [(DEFAULT, contained["id"])])
        over = [replace(each, state=ContainmentState.CLOSED) for each in held.values()]
        await write_containments(connection, over, known=set(held))
    rules = [{"name": "all", "priority": 1, "level": "ANY", "actions": ["QUARANTINE", "NOTIFY"]}]
    await edit(gateway, ENTITY, rules=rules)
    assert (await swept(gateway))["users"]["acted"] == 0
    await gateway.story.hub.settle()
    assert len(await containments(gateway)) == 1


async def test_a_rule_that_orders_more_does_that_for_who_is_at_risk_already(
    gateway: Gateway,
) -> None:
    await at_risk(gateway, level="MEDIUM")
    before = await containments(gateway)
    rules = [{"name": "strict", "priority": 1, "level": "MEDIUM", "actions": ["QUARANTINE"]}]
    await edit(gateway, ENTITY, rules=rules)
    assert (await swept(gateway))["users"]["acted"] == 1
    await gateway.story.hub.settle()
    after = await containments(gateway)
    assert len(after) == max(1, len(before))
    assert "QUARANTINE" in after[0]["actions"]


@ONE_ENGINE
async def test_an_edit_contains_no_more_than_the_guard_lets(gateway: Gateway) -> None:
    """Five of a handful of users are HIGH: three are contained, the others wait for a person."""
    await edit(gateway, ENTITY, mode="monitor")
    for name in ("a", "b", "c"):
        email = f"{name}@customer.example"
        await gateway.story.post(
            "/admin/v1/users", {"identifiers": [{"format": "email", "email": email}]}
        )
        await at_risk(gateway, email)
    await at_risk(gateway)
    await at_risk(gateway, TIM)
    gateway.story.hub.clock.advance(GUARD_WINDOW.total_seconds() + 1)
    await edit(gateway, ENTITY, mode="enforce")
    await swept(gateway)
    await gateway.story.hub.settle()
    states = sorted(each["state"] for each in await containments(gateway))
    assert states.count("held") == 2


@ONE_ENGINE
async def test_the_newest_edit_begins_anew(hub: Hub) -> None:
    now = hub.clock.now()
    async with hub.database.transaction() as connection:
        first = await service.request(connection, DEFAULT, SweepKind.USERS, cause="a", now=now)
        second = await service.request(connection, DEFAULT, SweepKind.USERS, cause="b", now=now)
    async with hub.database.transaction() as connection:
        assert await service.take(connection, first) is None
        assert await service.take(connection, second) == second


@ONE_ENGINE
async def test_sweeps_are_told_to_their_tenant_alone(hub: Hub) -> None:
    await hub.add_tenant("green")
    async with hub.client(await hub.token()) as admin:
        assert (await admin.patch(GLOBAL, json={"rules": [ASK]})).is_success
    async with hub.client(await hub.token(tenant="green"), tenant="green") as foreign:
        told = await foreign.post("/admin/v1/policies:sweeps", json={})
        assert told.json() == {"items": []}
    async with hub.client(await hub.token("risk.read")) as reader:
        assert (await reader.post("/admin/v1/policies:sweeps", json={})).status_code == 403
