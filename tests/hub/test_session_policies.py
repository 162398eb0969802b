"""Policies of sessions and sign-ins over the admin API: written, refused, presets, seen at once."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from hub.admin.examples_policies import POLICY_EXAMPLE
from risk.model import Level
from risk.policies.sessions import policies_cache
from runtime.store import StoredKey
from tests.hub.conftest import Hub, opened_hub
from tests.risk.policy_kit import facts

POLICIES = "/admin/v1/policies"
STRICT = {
    "name": "strict",
    "priority": 10,
    "when": {"level": {"at_least": "MEDIUM"}},
    "then": {"decision": "DENY"},
}


def with_when(**when: Any) -> dict[str, Any]:
    return {"name": "x", "rules": [{**STRICT, "when": when}]}


def asks_for(max_age: int) -> dict[str, Any]:
    """Return what a rule wants ten minutes after the last proof."""
    then = {"decision": "STEP_UP", "amr_any_of": ["hwk"], "max_age": max_age}
    return {"when": {"auth_age": {"over_s": 600}}, "then": then}


async def add_app(admin: httpx2.AsyncClient, name: str) -> str:
    answer = await admin.post("/admin/v1/apps", json={"name": name})
    assert answer.status_code == 201, answer.text
    app_id: str = answer.json()["id"]
    return app_id


async def items(admin: httpx2.AsyncClient) -> dict[str, Any]:
    return {each["id"]: each for each in (await admin.get(POLICIES)).json()["items"]}


async def test_a_fresh_tenant_has_all_kinds_in_monitor(admin: httpx2.AsyncClient) -> None:
    found = await items(admin)
    assert {name: (each["type"], each["mode"]) for name, each in found.items()} == {
        "app-sign-in": ("app_sign_in", "monitor"),
        "entity-risk": ("entity_risk", "monitor"),
        "global-session": ("global_session", "monitor"),
        "session-protection": ("session_protection", "monitor"),
    }
    assert all(each["rules"][-1]["name"] == "catch-all" for each in found.values() if each["rules"])
    assert not any(each["warnings"] for each in found.values())


async def test_the_preset_sets_risk_and_sessions_together(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post(f"{POLICIES}:preset", json={"name": "standard", "mode": "enforce"})
    assert answer.json()["id"] == "entity-risk"
    assert {
        name: (each["mode"], each["version"]) for name, each in (await items(admin)).items()
    } == {
        "app-sign-in": ("monitor", 0),
        "entity-risk": ("enforce", 1),
        "global-session": ("enforce", 1),
        "session-protection": ("enforce", 1),
    }


async def test_a_policy_is_seen_by_the_next_decision_and_its_end_too(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    cache = policies_cache(hub.node.feed, hub.node.database)
    crm = await add_app(admin, "crm")
    body = {"name": "crm", "apps": [crm], "mode": "enforce", "rules": [STRICT]}
    made = (await admin.post(POLICIES, json=body)).json()

    async def decision() -> str:
        await hub.node.feed.refresh()
        policies = await cache.get("default")
        sign_in = facts("sign_in", Level.HIGH, app_id=crm)
        name: str = policies.judge_sign_in(sign_in).decision.name
        return name

    assert await decision() == "DENY"
    await admin.patch(f"{POLICIES}/{made['id']}", json={"mode": "monitor"})
    assert await decision() == "ALLOW"
    await admin.patch(f"{POLICIES}/{made['id']}", json={"mode": "enforce"})
    assert (await admin.delete(f"{POLICIES}/{made['id']}")).status_code == 204
    assert await decision() == "ALLOW"
    assert (await admin.get(f"{POLICIES}/{made['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"name": "x", "type": "global_session"}, 400, "/type"),
        ({"name": "x", "type": "nonsense"}, 400, "/type"),
        ({}, 400, "/name"),
        ({"name": "x", "apps": ["app_none"]}, 400, "/apps"),
        ({"name": "x", "detection": {}}, 400, "/detection"),
        (
            {"name": "x", "rules": [{**STRICT, "when": {"apps": {"include": ["no"]}}}]},
            400,
            "/rules/0/when/apps",
        ),
        (
            {"name": "x", "rules": [{**STRICT, "when": {"expression": "1"}}]},
            400,
            "/rules/0/when/expression",
        ),
        (
            {"name": "x", "rules": [{**STRICT, "when": {"expression": "x" * 5000}}]},
            400,
            "/rules/0/when/expression",
        ),
        (
            {"name": "x", "rules": [{**STRICT, **asks_for(601)}]},
            400,
            "/rules/0/then/max_age",
        ),
        ({"name": "x", "rules": [STRICT] * 101}, 400, "/rules"),
        ({"name": "x", "rules": [[]]}, 400, "/rules/0"),
        ({"name": "x", "apps": [1]}, 400, "/apps/0"),
        ({"name": "x", "mode": {}}, 400, "/mode"),
        ({"name": "app-sign-in"}, 409, None),
    ],
)
async def test_what_is_wrong_is_refused_with_its_place(
    admin: httpx2.AsyncClient, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = await admin.post(POLICIES, json=body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    if pointer is not None:
        assert pointer in answer.text, problem
    assert set(await items(admin)) == {
        "app-sign-in",
        "entity-risk",
        "global-session",
        "session-protection",
    }


async def test_an_app_has_one_policy_and_a_name_is_given_once(admin: httpx2.AsyncClient) -> None:
    crm = await add_app(admin, "crm")
    await admin.post(POLICIES, json={"name": "one", "apps": [crm]})
    for body in ({"name": "two", "apps": [crm]}, {"name": "one"}):
        assert (await admin.post(POLICIES, json=body)).status_code == 409
    default = await admin.patch(f"{POLICIES}/app-sign-in", json={"apps": [crm]})
    assert default.status_code == 400


async def test_what_every_tenant_has_is_changed_and_not_deleted(admin: httpx2.AsyncClient) -> None:
    for name in ("global-session", "session-protection", "app-sign-in", "entity-risk"):
        assert (await admin.delete(f"{POLICIES}/{name}")).status_code in {400, 409}
    changed = await admin.patch(
        f"{POLICIES}/session-protection", json={"detection": {"min_level": "HIGH"}}
    )
    assert changed.json()["detection"]["min_level"] == "HIGH"
    assert changed.json()["mode"] == "monitor"
    wrong = await admin.patch(f"{POLICIES}/entity-risk", json={"type": "global_session"})
    assert wrong.status_code == 400
    assert (await admin.patch(f"{POLICIES}/pol_none", json={})).status_code == 404


async def test_a_zone_that_a_policy_names_stays_until_it_does_not(
    admin: httpx2.AsyncClient,
) -> None:
    zone = {"name": "office", "type": "IP", "gateways": [{"type": "CIDR", "value": "192.0.2.0/24"}]}
    made = await admin.post("/admin/v1/zones", json=zone)
    assert made.status_code == 201, made.text
    zone_id = made.json()["id"]
    named = with_when(zones={"include": ["office"]})
    unknown = await admin.post(POLICIES, json=with_when(zones={"include": ["nowhere"]}))
    assert unknown.status_code == 400
    assert "there is no zone nowhere" in unknown.text
    policy = (await admin.post(POLICIES, json=named)).json()
    await admin.post(f"/admin/v1/zones/{zone_id}/deactivate")
    refused = await admin.delete(f"/admin/v1/zones/{zone_id}")
    assert refused.status_code == 409, refused.text
    await admin.patch(f"{POLICIES}/{policy['id']}", json={"rules": []})
    assert (await admin.delete(f"/admin/v1/zones/{zone_id}")).status_code == 204


async def test_if_match_keeps_two_writers_apart(admin: httpx2.AsyncClient) -> None:
    path = f"{POLICIES}/global-session"
    seen = (await admin.get(path)).headers["etag"]
    first = await admin.patch(path, json={"fallback": "DENY"}, headers={"if-match": seen})
    second = await admin.patch(path, json={"fallback": "ALLOW"}, headers={"if-match": seen})
    assert (first.status_code, second.status_code) == (200, 412)


async def test_apply_adds_replaces_and_repeats_without_effect(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post(f"{POLICIES}:apply", json=POLICY_EXAMPLE)).json()
    again = (await admin.post(f"{POLICIES}:apply", json=POLICY_EXAMPLE)).json()
    assert again == made
    changed = {**POLICY_EXAMPLE, "mode": "enforce"}
    assert (await admin.post(f"{POLICIES}:apply", json=changed)).json()["version"] == 2
    everybody = {"type": "global_session", "rules": [STRICT], "fallback": "ALLOW"}
    shown = (await admin.post(f"{POLICIES}:apply", json=everybody)).json()
    assert (shown["id"], shown["rules"][0]["name"]) == ("global-session", "strict")


async def test_rules_that_are_never_reached_are_told(admin: httpx2.AsyncClient) -> None:
    rules = [
        STRICT,
        {**STRICT, "name": "shadowed", "priority": 20, "when": {"level": "HIGH"}},
        {
            **STRICT,
            "name": "fragile",
            "priority": 30,
            "when": {"level": "LOW", "expression": "posture.firewall == 'off'"},
        },
    ]
    answer = await admin.patch(f"{POLICIES}/global-session", json={"rules": rules})
    shadowed, fragile = answer.json()["warnings"]
    assert shadowed == "rule shadowed is never reached: strict matches before it"
    assert "has(...)" in fragile


async def test_every_write_is_audited_with_what_was_written(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post(POLICIES, json={"name": "one"})).json()
    await admin.patch(f"{POLICIES}/{made['id']}", json={"mode": "enforce"})
    await admin.delete(f"{POLICIES}/{made['id']}")
    entries = (await admin.get("/admin/v1/audit")).json()["items"]
    assert {"policy.create", "policy.change", "policy.delete"} <= {
        each["action"] for each in entries
    }


async def test_a_policy_of_another_tenant_is_not_there(
    database_url: str, signing_keys: tuple[StoredKey, ...]
) -> None:
    async with (
        opened_hub(database_url, signing_keys, ("default", "green", "blue")) as hub,
        hub.client(await hub.token(tenant="green"), tenant="green") as green,
        hub.client(await hub.token(tenant="blue"), tenant="blue") as blue,
    ):
        made = (await green.post(POLICIES, json={"name": "one"})).json()
        path = f"{POLICIES}/{made['id']}"
        answers = [
            await blue.get(path),
            await blue.patch(path, json={"name": "mine"}),
            await blue.put(path, json={"name": "mine"}),
            await blue.delete(path),
            await blue.post(f"{POLICIES}:apply", json={"id": made["id"], "name": "mine"}),
        ]
        assert [each.status_code for each in answers] == [404] * len(answers)
