"""Rules over attributes: AuthZEN's certification scenario as data, and what a bad rule gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.hub.authzen_cases import EVALUATION, EVALUATIONS, question
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import Story, begin

VECTORS = Path(__file__).parents[2] / "conformance/vectors/authzen"
PATH = "/admin/v1/attribute-rules"
OWN_TODOS = (
    "action.name in ['can_update_todo', 'can_delete_todo'] && (subject.id == 'rick' || "
    "(subject.id == 'morty' && resource.properties.ownerID == 'morty@the-citadel.com'))"
)
NAMES = ("subject", "action", "resource", "context")


def read(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())
    return found


@pytest.fixture
async def story(hub: Hub) -> AsyncIterator[Story]:
    story = await begin(hub)
    yield story
    await story.admin.aclose()


@pytest.fixture
async def pep(story: Story) -> AsyncIterator[httpx2.AsyncClient]:
    for rule in read("rules.json"):
        await story.post(PATH, rule)
    await story.hub.node.feed.refresh()
    async with story.hub.client(await story.hub.token("sessions.evaluate")) as client:
        yield client


async def ask(pep: httpx2.AsyncClient, asked: dict[str, Any]) -> dict[str, Any]:
    answer = await pep.post(EVALUATION, json=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.requirement(
    "AZF-1", "AZF-2", "AZF-3", "AZF-4", "AZF-5", "AZF-6", "AZF-7", "AZF-8", "AZF-9", "AZF-14",
    "AZC-8", "AZC-9", "AZC-11",
)  # fmt: skip
async def test_the_certification_scenario_passes_as_data(pep: httpx2.AsyncClient) -> None:
    questions = read("questions.json")
    assert len(questions) == 9
    context = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}
    for each in questions:
        expected = each.pop("expect")
        for asked in (each, {**each, "context": context}, {**each, "futureField": {"a": True}}):
            told = await ask(pep, asked)
            assert told["decision"] is expected, asked
            assert "trace_id" not in told["context"]
    extra = {
        "subject": {"type": "user", "id": "alice", "properties": {"department": "Sales"}},
        "action": {"name": "read", "properties": {"method": "GET"}},
        "resource": {"type": "record", "id": "record-1", "properties": {"owner": "bob"}},
    }
    assert (await ask(pep, extra))["decision"] is True


@ONE_ENGINE
@pytest.mark.requirement("AZF-10")
@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("subject", {"type": "user", "id": "carol"}),
        ("subject", {"type": "robot", "id": "alice"}),
        ("action", {"name": "burn"}),
        ("resource", {"type": "record", "id": "record-9"}),
    ],
)
async def test_what_no_rule_permits_is_false(
    pep: httpx2.AsyncClient, name: str, member: dict[str, Any]
) -> None:
    asked = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": "record-1"},
    }
    told = await ask(pep, {**asked, name: member})
    assert told["decision"] is False
    assert told["context"]["reasons"] == ["no_attribute_rule"]


@ONE_ENGINE
@pytest.mark.requirement("AZC-15", "AZC-16", "AZC-23")
async def test_the_suites_batch_with_a_default_type_is_answered(pep: httpx2.AsyncClient) -> None:
    batch = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "write"},
        "resource": {"type": "record"},
        "evaluations": [
            {"resource": {"id": "record-1", "properties": {"status": "active"}}},
            {"resource": {"id": "record-2", "properties": {"status": "archived"}}},
        ],
    }
    answers = [(await pep.post(EVALUATIONS, json=batch)).content for _ in range(3)]
    assert len(set(answers)) == 1
    told = json.loads(answers[0])["evaluations"]
    assert [each["decision"] for each in told] == [True, False]


@ONE_ENGINE
@pytest.mark.requirement("AZF-12")
async def test_the_todo_policy_is_data_too(story: Story) -> None:
    rules = (
        ("read", "action.name in ['can_read_user', 'can_read_todos']"),
        ("create", "action.name == 'can_create_todo' && subject.id in ['rick', 'morty']"),
        (
            "own",
            OWN_TODOS,
        ),
    )
    for name, expression in rules:
        rule = {"name": name, "resource_types": ["todo", "user"], "expression": expression}
        await story.post(PATH, rule)
    await story.hub.node.feed.refresh()
    async with story.hub.client(await story.hub.token("sessions.evaluate")) as pep:
        for subject, action, owner, expected in (
            ("jerry", "can_read_todos", None, True),
            ("jerry", "can_create_todo", None, False),
            ("morty", "can_create_todo", None, True),
            ("morty", "can_update_todo", "morty@the-citadel.com", True),
            ("morty", "can_update_todo", "rick@the-citadel.com", False),
            ("morty", "can_delete_todo", None, False),
            ("rick", "can_delete_todo", "morty@the-citadel.com", True),
        ):
            properties = {"ownerID": owner} if owner else {}
            asked = {
                "subject": {"type": "user", "id": subject},
                "action": {"name": action},
                "resource": {"type": "todo", "id": "1", "properties": properties},
            }
            assert (await ask(pep, asked))["decision"] is expected, asked


@ONE_ENGINE
async def test_a_good_session_does_not_open_what_rules_keep_closed(
    story: Story, pep: httpx2.AsyncClient
) -> None:
    told = await ask(pep, question(type="record", id="record-1"))
    assert told["decision"] is False
    rule = {
        "name": "sessions read",
        "resource_types": ["record"],
        "expression": "subject.type == 'session'",
    }
    await story.post(PATH, rule)
    await story.hub.node.feed.refresh()
    assert (await ask(pep, question(type="record", id="record-1")))["decision"] is True
    assert (await ask(pep, question("nobody's", type="record", id="1")))["decision"] is False


@ONE_ENGINE
async def test_a_denial_wins_and_one_that_breaks_denies(
    story: Story, pep: httpx2.AsyncClient
) -> None:
    asked = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": "record-1", "properties": {"secret": True}},
    }
    deny = {
        "name": "secrets",
        "resource_types": ["record"],
        "effect": "deny",
        "expression": "resource.properties.secret == true",
    }
    made = await story.post(PATH, deny)
    await story.hub.node.feed.refresh()
    assert (await ask(pep, asked))["context"]["reasons"] == ["attribute_rule:secrets"]
    bare = {**asked, "resource": {"type": "record", "id": "record-1"}}
    assert (await ask(pep, bare))["context"]["reasons"] == ["attribute_rule_failed:secrets"]
    assert (await story.admin.delete(f"{PATH}/{made['id']}")).is_success
    await story.hub.node.feed.refresh()
    assert (await ask(pep, bare))["decision"] is True


@ONE_ENGINE
@pytest.mark.parametrize(
    "expression",
    [
        "",
        "subject.",
        "nobody == 1",
        "'text'",
        "subject.id.matches('(a+)+$')",
        "context.list.all(x, x > 0)",
        "x" * 1_001,
        "(" * 300 + "true" + ")" * 300,
        " || ".join(["subject.id == 'a'"] * 100)[:1_000],
    ],
)
async def test_a_bad_expression_is_refused_when_it_is_saved(story: Story, expression: str) -> None:
    rule = {"name": "bad", "resource_types": ["record"], "expression": expression}
    answer = await story.admin.post(PATH, json=rule)
    assert answer.status_code == 400, answer.text
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/expression"]


@ONE_ENGINE
async def test_names_are_taken_once_and_rules_belong_to_a_tenant(hub: Hub, story: Story) -> None:
    rule = read("rules.json")[0]
    made = await story.post(PATH, rule)
    assert (await story.admin.post(PATH, json=rule)).status_code == 409
    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as green:
        assert (await green.get(f"{PATH}/{made['id']}")).status_code == 404
        asked = {name: value for name, value in read("questions.json")[0].items() if name in NAMES}
        told = (await green.post(EVALUATION, json=asked)).json()
        assert told["context"]["reasons"] == ["user_unknown"]
