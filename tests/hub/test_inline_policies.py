"""Policies meet sessions and sign-ins: groups of users, and rules that log and that alert."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import structlog

from hub.alerting import QUIET_S
from tests.hub.story import ROSA
from tests.hub.test_inline import HOME, OFFICE, Gateway, gateway, request_from

__all__ = ["gateway"]

POLICIES = "/admin/v1/policies"


async def put_global(gateway: Gateway, *rules: dict[str, Any]) -> None:
    """Replace the rules of the global session policy, and let this process hear of it."""
    admin = gateway.story.admin
    answer = await admin.patch(
        f"{POLICIES}/global-session", json={"mode": "enforce", "rules": list(rules)}
    )
    assert answer.status_code == 200, answer.text
    await gateway.story.hub.node.feed.refresh()


async def told(gateway: Gateway) -> list[dict[str, Any]]:
    """Return what people were told of policies."""
    await gateway.settle()
    await gateway.story.hub.settle()
    bodies = [_decoded(each.body) for each in gateway.story.hub.outside.requests]
    return [each["data"] for each in bodies if each.get("type") == "policy.alerted"]


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


async def test_a_rule_sees_the_users_groups_at_once(gateway: Gateway) -> None:
    story = gateway.story
    await put_global(
        gateway,
        {
            "name": "externals",
            "priority": 10,
            "when": {"groups": {"include": ["ext"]}},
            "then": {"decision": "DENY"},
        },
    )
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await gateway.settle()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"

    rosa = {"identifiers": [{"format": "email", "email": ROSA}]}
    await story.post("/admin/v1/users", {**rosa, "groups": ["ext"]})
    await story.hub.node.changes.refresh()
    assert await gateway.decision(request_from(HOME)) == "DENY"
    assert await sign_in(gateway) == "DENY"

    await story.post("/admin/v1/users", {**rosa, "groups": []})
    await story.hub.node.changes.refresh()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    assert await sign_in(gateway) == "ALLOW"


async def sign_in(gateway: Gateway, ip: str = HOME) -> str:
    body = {"user": f"email:{ROSA}", "ip": ip, "phase": "before"}
    answer: httpx2.Response = await gateway.http.post("/v1/sign-ins/evaluate", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["decision"])


ALERTING = {
    "name": "nowhere-else",
    "priority": 10,
    "when": {"level": {"at_least": "MEDIUM"}},
    "then": {"decision": "DENY", "alert": True},
}


async def test_people_are_told_once_per_session_rule_and_hour(gateway: Gateway) -> None:
    await put_global(gateway, ALERTING)
    await gateway.ask(request_from(HOME))
    assert await told(gateway) == []

    for number in (1, 2, 3):
        assert await gateway.decision(request_from(f"203.0.113.{number}")) == "DENY"
    (alert,) = await told(gateway)
    assert (alert["of"], alert["rule"], alert["decision"]) == ("session", "nowhere-else", "DENY")
    assert alert["user_id"] == gateway.story.ids["rosa"]
    assert alert["session_id"].startswith("ses_")
    assert alert["trace_id"]
    assert "nowhere-else was not satisfied" in alert["message"]

    gateway.story.hub.clock.advance(QUIET_S)
    assert await gateway.decision(request_from(f"192.0.2.{4}")) == "DENY"
    assert len(await told(gateway)) == 2


async def test_a_policy_that_monitors_tells_nobody(gateway: Gateway) -> None:
    await put_global(gateway, ALERTING)
    admin = gateway.story.admin
    await admin.patch(f"{POLICIES}/global-session", json={"mode": "monitor"})
    await gateway.story.hub.node.feed.refresh()
    await gateway.ask(request_from(HOME))
    assert (await gateway.ask(request_from(OFFICE)))["would_have"] == "DENY"
    assert await told(gateway) == []


async def test_sign_ins_alert_and_log_as_well(gateway: Gateway) -> None:
    await put_global(
        gateway,
        {
            "name": "nobody",
            "priority": 10,
            "when": {"action": ["sign_in"]},
            "then": {"decision": "DENY", "alert": True},
        },
    )
    for _ in range(2):
        assert await sign_in(gateway) == "DENY"
    (alert,) = await told(gateway)
    assert (alert["of"], alert["rule"]) == ("sign_in", "nobody")
    assert alert["user_id"] == gateway.story.ids["rosa"]


async def test_a_rule_that_logs_is_a_line_in_the_log(gateway: Gateway) -> None:
    rule = {"name": "all", "priority": 10, "then": {"decision": "ALLOW", "log": True}}
    await put_global(gateway, rule)
    with structlog.testing.capture_logs() as lines:
        assert await gateway.decision(request_from(HOME)) == "ALLOW"
        assert await sign_in(gateway) == "ALLOW"
    logged = [line for line in lines if line["event"] == "policy_rule.logged"]
    assert [line["of"] for line in logged] == ["session", "sign_in"]
    assert {line["rule"].rpartition("/")[2] for line in logged} == {"all"}
    assert {line["user_id"] for line in logged} == {gateway.story.ids["rosa"]}
