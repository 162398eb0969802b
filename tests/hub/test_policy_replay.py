"""A replay tells before a policy is switched on what it would have done; real processes do it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from hub.replays import Replays
from risk.contexts.store import add_contexts
from risk.model import Level
from risk.policies.recorded import RecordedContext, encode
from risk.policy import parse_policy
from risk.verdict import Decision
from runtime.errors import Conflict, Unavailable
from runtime.ids import new_id
from tests.hub.conftest import Hub
from tests.risk.policy_kit import everywhere, facts, rule

REPLAY = "/admin/v1/policies:replay"
RULES = [
    {
        "name": "abroad",
        "priority": 10,
        "when": {"changes": {"include": ["country"]}},
        "then": {"decision": "TERMINATE"},
    },
    {
        "name": "risky",
        "priority": 20,
        "when": {"expression": "level >= MEDIUM"},
        "then": {"decision": "STEP_UP"},
    },
]
POLICY = {"type": "global_session", "rules": RULES}


def context(
    user: str, at: datetime, *, tenant: str = "default", raw: bytes | None = None, **more: Any
) -> RecordedContext:
    return RecordedContext(
        tenant_id=tenant,
        context_id=new_id("ctx"),
        user_id=user,
        session_id="ses_1",
        at=at,
        facts=encode(facts(**more)) if raw is None else raw,
        decision=Decision.ALLOW,
    )


async def record(hub: Hub) -> datetime:
    """Record three days: a prompt yesterday, a logout and a prompt the day before, much silence."""
    now = hub.clock.now()
    noon = now.replace(hour=0, minute=1, second=0, microsecond=0)
    risky: dict[str, Any] = {"level": Level.MEDIUM, "changes": ("asn",)}
    written = [
        context("usr_tim", noon - timedelta(days=2), **risky),
        context("usr_rosa", noon - timedelta(days=2), changes=("asn", "country")),
        context("usr_rosa", noon - timedelta(days=2), kind="sign_in"),
        context("usr_tim", noon - timedelta(days=1), **risky),
        context("usr_tim", noon - timedelta(days=1), changes=("asn",)),
        context("usr_old", noon - timedelta(days=40), **risky),
        context("usr_odd", noon - timedelta(days=1), raw=b"\xc1"),
        context("usr_other", noon - timedelta(days=1), tenant="other", **risky),
    ]
    async with hub.node.database.transaction() as connection:
        await add_contexts(connection, written)
    return noon


async def test_row_17_prompts_logouts_and_users_are_counted_by_day(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    noon = await record(hub)
    answer = await admin.post(REPLAY, json={"policy": POLICY, "days": 7}, timeout=60)
    assert answer.status_code == 200, answer.text
    told = answer.json()

    def day(ago: int, **counted: int) -> dict[str, Any]:
        date = (noon - timedelta(days=ago)).date().isoformat()
        return {"day": date, "denials": 0, "logouts": 0, **counted}

    assert told["days"] == [
        day(2, contexts=3, prompts=1, logouts=1, users=2),
        day(1, contexts=2, prompts=1, users=1),
    ]
    assert {name: told[name] for name in ("contexts", "prompts", "logouts", "users")} == {
        "contexts": 5,
        "prompts": 2,
        "logouts": 1,
        "users": 2,
    }
    assert told["prompts_per_user_day"] == round(2 / 3, 4)
    assert told["top_reasons"][0] == {"reason": "global-session/risky", "contexts": 2}
    assert (told["stricter_than_then"], told["milder_than_then"], told["unreadable"]) == (3, 0, 1)
    # It was a question: nothing is stored, nobody is judged otherwise.
    assert (await admin.get("/admin/v1/policies/global-session")).json()["version"] == 0


async def test_a_version_that_was_stored_can_be_named(hub: Hub, admin: httpx2.AsyncClient) -> None:
    await record(hub)
    await admin.patch("/admin/v1/policies/global-session", json={"rules": RULES})
    await admin.patch("/admin/v1/policies/global-session", json={"rules": []})
    named = {"policy": {"id": "global-session"}, "version": 1}
    answer = await admin.post(REPLAY, json=named, timeout=60)
    assert answer.json()["prompts"] == 2
    missing = await admin.post(REPLAY, json={**named, "version": 9}, timeout=60)
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"policy": POLICY, "days": 0}, 400),
        ({"policy": POLICY, "days": 10_000}, 400),
        ({"policy": {"id": "pol_none", "name": "x"}}, 404),
        ({"policy": {"name": "x", "apps": ["app_none"]}}, 400),
        ({"policy": {"type": "global_session", "rules": [{"name": 1}]}}, 400),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    admin: httpx2.AsyncClient, body: dict[str, Any], status: int
) -> None:
    assert (await admin.post(REPLAY, json=body, timeout=60)).status_code == status


async def test_whoever_may_read_may_ask_and_nobody_else(hub: Hub) -> None:
    for scope, status in (("admin.read", 200), ("risk.read", 403)):
        async with hub.client(await hub.token(scope)) as client:
            answer = await client.post(REPLAY, json={"policy": POLICY}, timeout=60)
            assert answer.status_code == status


async def test_one_replay_at_a_time_and_a_failed_one_leaves_room(hub: Hub) -> None:
    now = hub.clock.now()
    policies = [everywhere(rule("out", "TERMINATE"))]
    span: dict[str, Any] = {"since": now - timedelta(days=7), "until": now}
    await record(hub)
    replays = Replays(hub.database, hub.node.config.database_url)
    first = asyncio.create_task(replays.run("default", policies, **span))
    await asyncio.sleep(0)
    with pytest.raises(Conflict):
        await replays.run("default", policies, **span)
    assert (await first)["contexts"] == 5
    broken = Replays(hub.database, "sqlite:////nowhere/at/all.db")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await broken.run("default", policies, **span)


async def test_where_nothing_was_recorded_no_process_is_needed(hub: Hub) -> None:
    now = hub.clock.now()
    span: dict[str, Any] = {"since": now - timedelta(days=7), "until": now}
    replays = Replays(hub.database, "sqlite:////nowhere/at/all.db")
    policies = [everywhere(rule("out", "TERMINATE"))]
    told = await replays.run("default", policies, **span)
    assert (told["contexts"], told["days"], told["is_cut"]) == (0, [], False)
    policy = parse_policy({"rules": LOGOUT_AT_MEDIUM})
    told = await replays.run_levels("default", policy, exempt=(), contained_max=5, **span)
    assert (told["changes"], told["days"]) == (0, [])
    # What others recorded, or what is too old, does not count.
    await record(hub)
    told = await replays.run("green", policies, **span)
    assert told["contexts"] == 0


async def test_more_contexts_than_a_replay_looks_at_are_told(hub: Hub) -> None:
    await record(hub)
    now = hub.clock.now()
    report = await Replays(hub.database, hub.node.config.database_url).run(
        "default",
        [everywhere(rule("out", "TERMINATE"))],
        since=now - timedelta(days=7),
        until=now,
        contexts_max=3,
    )
    assert (report["contexts"], report["is_cut"]) == (3, True)


ENTITY = {"type": "entity_risk"}
LOGOUT_AT_MEDIUM = [
    {"name": "out", "priority": 1, "level": "MEDIUM", "actions": ["UNIVERSAL_LOGOUT", "NOTIFY"]}
]


async def raise_users(admin: httpx2.AsyncClient, *levels: str) -> None:
    """Make users and raise them, one after the other; the policy monitors."""
    for number, level in enumerate(levels):
        email = f"user{number}@customer.example"
        made = await admin.post(
            "/admin/v1/users", json={"identifiers": [{"format": "email", "email": email}]}
        )
        assert made.is_success, made.text
        said = await admin.put(f"/api/v1/users/email:{email}/risk", json={"riskLevel": level})
        assert said.is_success, said.text


async def test_an_entity_risk_policy_is_asked_about_recorded_changes_of_levels(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    await raise_users(admin, "HIGH", "MEDIUM", "MEDIUM", "MEDIUM", "MEDIUM")
    hub.clock.advance(1)
    present = await admin.post(REPLAY, json={"policy": ENTITY}, timeout=60)
    assert present.status_code == 200, present.text
    told = present.json()
    counted = ("changes", "logouts", "quarantines", "prompts", "alerts", "users", "held_by_guard")
    assert [told[name] for name in counted] == [5, 1, 1, 4, 5, 5, 0]
    assert [day["users"] for day in told["days"]] == [5]

    proposed = {**ENTITY, "rules": LOGOUT_AT_MEDIUM}
    answer = await admin.post(REPLAY, json={"policy": proposed, "days": 1}, timeout=60)
    told = answer.json()
    assert [told[name] for name in counted] == [5, 4, 0, 0, 4, 4, 1]
    assert told["top_reasons"] == [{"reason": "entity-risk/out", "changes": 4}]
    # Nobody felt anything.
    assert (await admin.get("/admin/v1/containments")).json()["items"] == []

    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as foreign:
        answer = await foreign.post(REPLAY, json={"policy": ENTITY}, timeout=60)
        assert answer.json()["changes"] == 0


async def test_what_is_no_entity_risk_policy_is_refused(admin: httpx2.AsyncClient) -> None:
    for policy in (
        {**ENTITY, "rules": [{"name": "x", "priority": 1, "actions": ["FLY"]}]},
        {**ENTITY, "apps": ["app_1"]},
        {"id": "entity-risk", "rules": 7},
    ):
        assert (await admin.post(REPLAY, json={"policy": policy})).status_code in {400, 422}
    versioned = await admin.post(REPLAY, json={"policy": ENTITY, "version": 1})
    assert versioned.status_code == 400
