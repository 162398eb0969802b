"""The hub as an AuthZEN decision point: messages, batches, metadata, and how sessions are told."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.hub.authzen_cases import EVALUATION, EVALUATIONS, question
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA, Story, begin

pytestmark = ONE_ENGINE

JSON = {"content-type": "application/json"}
UNKNOWN = {
    "decision": False,
    "context": {
        "decision": "DENY",
        "scope": "session",
        "reasons": ["session_unknown"],
        "mode": "enforce",
        "cache_ttl_ms": 0,
    },
}


@pytest.fixture
async def story(hub: Hub) -> AsyncIterator[Story]:
    story = await begin(hub)
    yield story
    await story.admin.aclose()


@pytest.fixture
async def gateway(story: Story) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client that belongs to no app."""
    async with story.hub.client(await story.hub.token("sessions.evaluate")) as client:
        yield client


async def ask(client: httpx2.AsyncClient, body: Any, path: str = EVALUATION) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    return told


# --- sessions and users -------------------------------------------------------------------------


@pytest.mark.requirement("AZ-4", "AZ-6", "AZH-1", "AZH-5", "AZH-6", "AZH-10", "EGW-60")
async def test_a_session_is_allowed_and_an_unknown_one_is_an_answer_too(
    gateway: httpx2.AsyncClient,
) -> None:
    told = await ask(gateway, question())
    assert told["decision"] is True
    assert told["context"] == {
        "decision": "ALLOW",
        "scope": "session",
        "reasons": [],
        "mode": "enforce",
        "cache_ttl_ms": told["context"]["cache_ttl_ms"],
    }
    assert await ask(gateway, question("nobody's")) == UNKNOWN
    assert await ask(gateway, question("")) == UNKNOWN
    assert await ask(gateway, question("x" * 10_000)) == UNKNOWN


@pytest.mark.requirement("AZH-5", "AZH-8", "AZH-9")
async def test_a_contained_user_is_denied_and_the_trace_is_told(
    story: Story, gateway: httpx2.AsyncClient
) -> None:
    await story.play()
    await story.hub.node.changes.refresh()

    answer = await gateway.post(EVALUATION, json=question())
    told = answer.json()
    assert told["decision"] is False
    assert told["context"]["decision"] in {"DENY", "TERMINATE"}
    assert "quarantined" in told["context"]["reasons"]
    assert told["context"]["trace_id"] == answer.headers["x-signalhub-trace-id"] == "txn-1"
    # Codes, and nothing of what was seen: no object of reasons, and no word of the evidence.
    assert not {"reason_user", "reason_admin"} & set(told["context"])
    explained = await story.get(f"/v1/risk/users/{story.ids['rosa']}/explain")
    for evidence in explained["evidence"]:
        assert all(reason not in answer.text for reason in evidence["reasons"])
        assert evidence["name"] not in answer.text
    batch = await ask(gateway, {**question(), "evaluations": [{}]}, EVALUATIONS)
    assert "trace_id" not in batch["evaluations"][0]["context"]
    for name in (ROSA, "ext-rosa", f"email:{ROSA}", story.ids["rosa"], f"iss_sub:{IDP}|rosa/1"):
        told = await ask(gateway, question(name, kind="user"))
        assert told["decision"] is False, name
        assert told["context"]["scope"] == "user"
        assert told["context"]["reasons"] == ["quarantined"]
        assert "trace_id" not in told["context"]


@pytest.mark.requirement("AZH-1")
async def test_a_user_with_a_session_is_asked_about_by_that_session(
    gateway: httpx2.AsyncClient,
) -> None:
    hers = question(ROSA, kind="user", context={"session_id": "sid-rosa"})
    assert (await ask(gateway, hers))["decision"] is True
    for told_apart in (
        question(ROSA, kind="user", context={"session_id": "sid-tim"}),
        question("nobody@customer.example", kind="user", context={"session_id": "sid-rosa"}),
    ):
        told = await ask(gateway, told_apart)
        assert told["decision"] is False
        assert told["context"]["reasons"] == ["session_user_mismatch"]


@pytest.mark.requirement("AZH-1", "AZF-10")
async def test_users_without_a_session_and_other_subjects(gateway: httpx2.AsyncClient) -> None:
    assert (await ask(gateway, question(ROSA, kind="user")))["decision"] is True
    for name in ("nobody@customer.example", "usr_x", "", "\u0000x"[1:], "x" * 9_000):
        told = await ask(gateway, question(name, kind="user"))
        assert told["context"]["reasons"] == ["user_unknown"], name
    told = await ask(gateway, question("x", kind="spaceship"))
    assert told["decision"] is False
    assert told["context"]["reasons"] == ["subject_type_unknown"]


@pytest.mark.requirement("AZH-1", "AZH-7")
async def test_a_user_at_high_is_denied_where_the_policy_enforces(
    story: Story, gateway: httpx2.AsyncClient
) -> None:
    preset = {"name": "standard", "mode": "monitor"}
    await story.post("/admin/v1/policies:preset", preset)
    await story.admin.put(f"/api/v1/users/{story.ids['tim']}/risk", json={"riskLevel": "HIGH"})
    await story.hub.node.feed.refresh()
    told = await ask(gateway, question("ext-tim", kind="user"))
    assert told["decision"] is True
    assert told["context"]["mode"] == "monitor"
    assert told["context"]["would_have"] == "DENY"

    await story.post("/admin/v1/policies:preset", {**preset, "mode": "enforce"})
    await story.hub.node.feed.refresh()
    told = await ask(gateway, question("ext-tim", kind="user"))
    assert told["decision"] is False


@pytest.mark.requirement("AZH-6", "EGW-68")
async def test_what_a_step_up_has_to_reach_is_one_text(
    story: Story, gateway: httpx2.AsyncClient
) -> None:
    then = {"decision": "STEP_UP", "acr": "phr phrh", "max_age": 0}
    when = {"level": {"at_least": "LOW"}}
    rules = [{"name": "prove", "priority": 10, "when": when, "then": then}]
    policy = {"name": "global-session", "mode": "enforce", "rules": rules}
    changed = await story.admin.put("/admin/v1/policies/global-session", json=policy)
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()
    told = await ask(gateway, question())
    assert (told["decision"], told["context"]["decision"]) == (False, "STEP_UP")
    assert (told["context"]["acr_values"], told["context"]["max_age"]) == ("phr phrh", 0)


@pytest.mark.requirement("AZH-4", "AZ-14")
async def test_a_context_of_wrong_types_is_no_error(gateway: httpx2.AsyncClient) -> None:
    context = {
        "ip": 7,
        "ip_chain": ["198.51.100.1"] * 1_000,
        "ua": {},
        "device": "LT-1",
        "dbsc": {"proof": True},
        "time": "noon",
        "ts": 1e308,
        "strange": [[[]]],
    }
    told = await ask(gateway, question(context=context))
    assert told["decision"] is True
    assert set(told["context"]["reasons"]) == {
        f"context_ignored:{name}"
        for name in ("ip", "ip_chain", "ua", "device", "dbsc", "time", "ts")
    }
    good = {
        "ip": "198.51.100.24",
        "ua": "Mozilla/5.0",
        "device": {"id": "LT-1", "signals": {"encrypted": True, "patch": 7, "bad": []}},
        "time": "2025-06-27T18:03-07:00",
    }
    told = await ask(gateway, question(context=good))
    assert [each for each in told["context"]["reasons"] if each.startswith("context_ignored")] == [
        "context_ignored:device.signals"
    ]


@pytest.mark.requirement("AZH-3", "AZH-11", "AZH-2")
async def test_an_app_asks_about_itself_and_a_gateway_about_any(
    story: Story, gateway: httpx2.AsyncClient
) -> None:
    properties = {"path": "/runs/2026-03?secret=1", "method": "GET"}
    crm = question(type="app", id=story.ids["crm"], properties=properties)
    unknown = question(type="app", id="app_unknown")
    assert (await ask(gateway, crm))["context"]["reasons"] == []
    assert (await ask(gateway, unknown))["context"]["reasons"] == ["app_unknown"]

    made = await story.post("/admin/v1/apps", {"name": "edge", "kind": "gateway"})
    edge_token = await story.hub.token("sessions.evaluate", app_id=made["id"])
    crm_token = await story.hub.token("sessions.evaluate", app_id=story.ids["crm"])
    async with story.hub.client(edge_token) as edge, story.hub.client(crm_token) as app:
        assert (await ask(edge, crm))["decision"] is True
        assert (await ask(app, crm))["decision"] is True
        assert (await app.post(EVALUATION, json=unknown)).status_code == 403
        batch = {**crm, "evaluations": [{}, {"resource": unknown["resource"]}]}
        told = (await ask(app, batch, EVALUATIONS))["evaluations"]
        assert told[0]["decision"] is True
        assert told[1]["context"]["error"]["status"] == 403


@pytest.mark.requirement("AZH-11")
async def test_another_tenants_session_is_unknown(hub: Hub, story: Story) -> None:
    await hub.add_tenant("green")
    async with hub.client(
        await hub.token("sessions.evaluate", tenant="green"), tenant="green"
    ) as stranger:
        for asked in (question(), question(ROSA, kind="user", context={"session_id": "sid-rosa"})):
            told = await ask(stranger, asked)
            assert told["decision"] is False
            assert told["context"]["reasons"] == ["session_unknown"]
        assert (await ask(stranger, question(story.ids["rosa"], kind="user")))["decision"] is False


# --- messages -----------------------------------------------------------------------------------


def without(*path: str) -> dict[str, Any]:
    asked = question()
    inner = asked
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return asked


@pytest.mark.requirement("AZ-2", "AZ-3", "AZ-8", "AZ-10", "AZC-10", "AZC-12", "EGW-65")
@pytest.mark.parametrize(
    "body",
    [
        without("subject"),
        without("action"),
        without("resource"),
        without("subject", "type"),
        without("subject", "id"),
        without("action", "name"),
        without("resource", "type"),
        without("resource", "id"),
        {**question(), "subject": "alice"},
        {**question(), "subject": None},
        {**question(), "action": {"name": 7}},
        {**question(), "resource": {"type": "a", "id": 7}},
        {**question(), "context": "home"},
        {**question(), "context": []},
        {**question(), "subject": {"type": "user", "id": "a", "properties": 1}},
    ],
)
async def test_what_is_missing_or_of_the_wrong_type_is_a_bad_request(
    gateway: httpx2.AsyncClient, body: Any
) -> None:
    answer = await gateway.post(EVALUATION, json=body, headers={"x-request-id": "conformance-1"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-request-id"] == "conformance-1"
    assert answer.text.endswith("\n")
    assert answer.text.count("\n") == 1
    assert "home" not in answer.text
    assert "alice" not in answer.text


@pytest.mark.requirement("AZ-9", "AZ-10", "AZC-13")
async def test_unknown_members_and_nulls_are_ignored_at_every_level(
    gateway: httpx2.AsyncClient,
) -> None:
    asked = question(context=None)
    for entity in ("subject", "action", "resource"):
        asked[entity] |= {"new": {"a": [1, None]}, "properties": None}
    told = await ask(gateway, {**asked, "futureField": 1, "context": None})
    assert told["decision"] is True


@pytest.mark.requirement("AZ-7", "AZ-10", "AZ-13", "AZC-14", "EGW-66")
async def test_the_transport_is_checked(gateway: httpx2.AsyncClient) -> None:
    good = json.dumps(question()).encode()
    for raw, headers, status in (
        (good, {"content-type": "application/json; charset=utf-8"}, 200),
        (good, {"content-type": "text/plain"}, 400),
        (good, {}, 400),
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'"x"', JSON, 400),
        (b"\xff", JSON, 400),
        (good[:-1] + b', "subject": {}}', JSON, 400),
        (good[:-1] + b', "context": {"ip": "\\ud800"}}', JSON, 400),
        (good[:-1] + b', "context": ' + b'{"a":' * 20 + b"1" + b"}" * 21, JSON, 400),
        (good + b" " * 70_000, JSON, 413),
    ):
        answer = await gateway.post(EVALUATION, content=raw, headers=headers)
        assert answer.status_code == status, raw[:80]
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = await gateway.request(method, EVALUATION, content=good, headers=JSON)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"


@pytest.mark.requirement("AZ-11", "AZC-21")
async def test_the_request_id_comes_back(gateway: httpx2.AsyncClient, story: Story) -> None:
    name = "X-Request-ID"
    for wanted in ("conformance-1", "!" * 200):
        answer = await gateway.post(EVALUATION, json=question(), headers={name: wanted})
        assert answer.headers[name] == wanted
    assert len((await gateway.post(EVALUATION, json=question())).headers[name]) == 36
    for bad in (b"a b", b"x" * 201, "é".encode()):
        answer = await gateway.post(EVALUATION, json=question(), headers={name.encode(): bad})
        assert answer.status_code == 400
        assert name not in answer.headers
    async with story.hub.client() as nobody:
        answer = await nobody.post(EVALUATION, json=question(), headers={name: "r-1"})
        assert (answer.status_code, answer.headers[name]) == (401, "r-1")


@pytest.mark.requirement("AZ-12", "AZC-5", "AZC-6", "AZC-24")
async def test_bearers_and_basic_credentials_are_taken(story: Story) -> None:
    made = await story.post("/admin/v1/clients", {"name": "pep", "scopes": ["sessions.evaluate"]})
    good = base64.b64encode(f"{made['id']}:{made['token']}".encode()).decode()
    other = base64.b64encode(f"{story.ids['idp client']}:{made['token']}".encode()).decode()
    async with story.hub.client() as client:
        for authorization, status in (
            (f"Bearer {made['token']}", 200),
            (f"Basic {good}", 200),
            (f"basic {good}", 200),
            (f"Basic {other}", 401),
            ("Basic !", 401),
            ("Basic " + "A" * 9_000, 401),
            ("Basic " + base64.b64encode(made["token"].encode()).decode(), 401),
            ("Bearer invalid-bogus-credential", 401),
            (None, 401),
        ):
            headers = {"authorization": authorization} if authorization else {}
            answer = await client.post(EVALUATION, json=question(), headers=headers)
            assert answer.status_code == status, authorization
            assert ("www-authenticate" in answer.headers) == (status == 401)
        answer = await client.get("/admin/v1/apps", headers={"authorization": f"Basic {good}"})
        assert answer.status_code == 401


# --- batches ------------------------------------------------------------------------------------


@pytest.mark.requirement("AZB-1", "AZC-19", "EGW-61")
@pytest.mark.parametrize("items", [{}, {"evaluations": []}, {"evaluations": None}])
async def test_a_batch_without_items_is_a_single_question(
    gateway: httpx2.AsyncClient, items: dict[str, Any]
) -> None:
    told = await ask(gateway, {**question(), **items}, EVALUATIONS)
    assert told["decision"] is True
    assert "evaluations" not in told


@pytest.mark.requirement("AZB-2", "AZB-3", "AZB-7", "AZC-15", "AZC-20", "EGW-62")
async def test_items_are_answered_in_order_and_a_broken_one_is_false(
    gateway: httpx2.AsyncClient,
) -> None:
    nobody = {"subject": {"type": "session", "id": "nobody's"}}
    broken = {"subject": {"type": "session", "id": 7}}
    no_subject = {name: value for name, value in question().items() if name != "subject"}
    items: list[Any] = [{}, nobody, "x", broken, {"subject": {"type": "session", "id": "sid-tim"}}]
    told = await ask(gateway, {**question(), "evaluations": items}, EVALUATIONS)
    assert set(told) == {"evaluations"}
    decisions = [each["decision"] for each in told["evaluations"]]
    assert decisions == [True, False, False, False, True]
    assert told["evaluations"][3]["context"] == {
        "error": {"status": 400, "message": "subject.id is not a string."}
    }
    told = await ask(gateway, {**no_subject, "evaluations": [{}]}, EVALUATIONS)
    assert told["evaluations"] == [
        {
            "decision": False,
            "context": {"error": {"status": 400, "message": "subject is missing."}},
        }
    ]


@pytest.mark.requirement("AZB-3", "AZB-4", "AZC-16")
async def test_an_items_entity_replaces_the_default_but_for_its_names(
    gateway: httpx2.AsyncClient,
) -> None:
    default = {
        **question(),
        "subject": {"type": "session", "id": "nobody's", "properties": {"iss": "https://x"}},
    }
    items = [{"subject": {"id": "sid-rosa"}}, {"subject": {"id": "sid-rosa", "properties": {}}}]
    told = await ask(gateway, {**default, "evaluations": items}, EVALUATIONS)
    # The issuer of the default would make the session unknown: properties are not merged.
    assert [each["decision"] for each in told["evaluations"]] == [True, True]


@pytest.mark.requirement("AZB-5", "AZB-6", "AZB-8", "AZC-17", "EGW-63")
@pytest.mark.parametrize(
    ("semantic", "sids", "decisions"),
    [
        ("execute_all", ["sid-rosa", "x", "sid-tim"], [True, False, True]),
        ("deny_on_first_deny", ["sid-rosa", "x", "sid-tim"], [True, False]),
        ("deny_on_first_deny", ["sid-rosa", 7, "sid-tim"], [True, False]),
        ("permit_on_first_permit", ["x", "sid-rosa", "sid-tim"], [False, True]),
        (None, ["x", "sid-rosa"], [False, True]),
    ],
)
async def test_a_batch_ends_where_its_semantic_says(
    gateway: httpx2.AsyncClient, semantic: str | None, sids: list[Any], decisions: list[bool]
) -> None:
    body = {
        **question(),
        "options": {"evaluations_semantic": semantic, "unknown": 1},
        "evaluations": [{"subject": {"type": "session", "id": sid}} for sid in sids],
    }
    told = await ask(gateway, body, EVALUATIONS)
    assert [each["decision"] for each in told["evaluations"]] == decisions


@pytest.mark.requirement("AZB-5", "AZB-7", "AZ-13", "AZC-18")
@pytest.mark.parametrize(
    "member",
    [
        {"options": {"evaluations_semantic": "bogus_value"}},
        {"options": {"evaluations_semantic": 7}},
        {"options": []},
        {"evaluations": {}},
        {"evaluations": "x"},
        {"evaluations": [{}] * 101},
    ],
)
async def test_faults_of_the_whole_batch_are_bad_requests(
    gateway: httpx2.AsyncClient, member: dict[str, Any]
) -> None:
    body = {**question(), "evaluations": [{}], **member}
    assert (await gateway.post(EVALUATIONS, json=body)).status_code == 400


@pytest.mark.requirement("AZC-22", "AZC-23", "AZH-9", "EGW-64")
async def test_the_same_batch_gets_the_same_bytes(gateway: httpx2.AsyncClient) -> None:
    body = {**question(), "evaluations": [{}, {"subject": {"type": "session", "id": "x"}}]}
    answers = {(await gateway.post(EVALUATIONS, json=body)).content for _ in range(3)}
    assert len(answers) == 1


# --- metadata -----------------------------------------------------------------------------------


@pytest.mark.requirement(
    "AZ-1", "AZM-1", "AZM-2", "AZM-3", "AZM-4", "AZM-6", "AZC-1", "AZC-2", "AZC-3", "EGW-67"
)
async def test_the_metadata_names_the_endpoints_of_each_tenant(hub: Hub) -> None:
    await hub.add_tenant("green")
    async with hub.client() as client:
        for suffix in ("", "/t/green"):
            answer = await client.get(f"/.well-known/authzen-configuration{suffix}")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.json() == {
                "policy_decision_point": ISSUER + suffix,
                "access_evaluation_endpoint": f"{ISSUER}{suffix}/access/v1/evaluation",
                "access_evaluations_endpoint": f"{ISSUER}{suffix}/access/v1/evaluations",
            }
        assert (await client.get("/.well-known/authzen-configuration/t/no")).status_code == 404
