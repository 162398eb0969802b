"""Release of a containment: a person lets a user go, and everything is undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from hub.admin.roles import ROLES
from hub.demo.processes import until
from tests.hub.commands import LIMIT_S, Served
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import ROSA, TIM, Story, begin
from tests.hub.test_revocation import PATH

CONTAINMENTS = "/admin/v1/containments"


@pytest.fixture
async def story(hub: Hub) -> AsyncIterator[Story]:
    made = await begin(hub)
    yield made
    await made.admin.aclose()


async def suspect(story: Story, user: str = ROSA) -> None:
    """Let an administrator set a user to HIGH, and everything happen that follows."""
    answer = await story.admin.put(f"/api/v1/users/email:{user}/risk", json={"riskLevel": "HIGH"})
    assert answer.is_success, answer.text
    await story.hub.settle()


async def containment(story: Story, user: str = "rosa") -> dict[str, Any]:
    (found,) = (await story.get(f"{CONTAINMENTS}?user={story.ids[user]}"))["items"]
    return await story.get(f"{CONTAINMENTS}/{found['id']}")


async def release(story: Story, containment_id: str, **body: str) -> httpx2.Response:
    return await story.admin.post(f"{CONTAINMENTS}/{containment_id}/release", json=body)


async def decision(story: Story, user: str = ROSA) -> str:
    await story.hub.node.changes.refresh()
    answer = await story.admin.post("/v1/sign-ins/evaluate", json={"user": f"email:{user}"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["decision"])


def tasks(shown: dict[str, Any], kind: str) -> list[str]:
    """Return the states of the tasks of a kind."""
    return [task["state"] for task in shown["tasks"] if task["kind"] == kind]


async def test_a_released_user_is_let_in_and_only_what_we_added_is_undone(story: Story) -> None:
    await suspect(story)
    held = await containment(story)
    assert held["state"] == "open"
    assert tasks(held, "quarantine_add") == ["done"]
    assert await decision(story) == "DENY"

    answer = await release(story, held["id"], reason="Asked in person.")
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "restoring"
    assert [cause["cleared_at"] is None for cause in answer.json()["causes"]] == [False]
    assert await decision(story) == "ALLOW"

    await story.hub.settle()
    over = await containment(story)
    assert over["state"] == "closed"
    assert tasks(over, "quarantine_remove") == ["done"]
    risk = await story.get(f"/v1/risk/users/{story.ids['rosa']}")
    assert risk["level"] == "LOW"
    (entry,) = [e for e in await story.hub.audit() if e.action == "containment.release"]
    assert entry.ref == held["id"]
    assert entry.detail == {"reason": "Asked in person."}


@ONE_ENGINE
async def test_released_twice_nothing_happens_again(story: Story) -> None:
    await suspect(story)
    held = await containment(story)
    key = {"idempotency-key": "once"}
    path = f"{CONTAINMENTS}/{held['id']}/release"
    first = await story.admin.post(path, json={}, headers=key)
    again = await story.admin.post(path, json={}, headers=key)
    assert first.status_code == 200, first.text
    assert again.content == first.content
    without_key = await release(story, held["id"])
    assert without_key.json() == first.json()
    await story.hub.settle()
    shown = await containment(story)
    assert tasks(shown, "quarantine_remove") == ["done"]
    assert (await release(story, held["id"])).json() == shown
    assert await containment(story) == shown


@ONE_ENGINE
async def test_what_holds_until_it_is_remedied_is_not_dismissed_and_nothing_changes(
    story: Story,
) -> None:
    await story.play()
    before = await containment(story)
    answer = await release(story, before["id"])
    assert answer.status_code == 409, answer.text
    assert "not compliant" in answer.json()["detail"]
    assert await containment(story) == before
    assert await decision(story) == "DENY"
    assert [e for e in await story.hub.audit() if e.action == "containment.release"] == []

    answer = await release(story, before["id"], word="confirm-safe")
    assert answer.status_code == 200, answer.text
    await story.hub.settle()
    assert (await containment(story))["state"] == "closed"
    assert await decision(story) == "ALLOW"


@ONE_ENGINE
async def test_of_several_causes_all_are_closed_or_none(story: Story) -> None:
    await suspect(story)
    await story.play()
    before = await containment(story)
    assert len([c for c in before["causes"] if c["cleared_at"] is None]) == 2
    assert (await release(story, before["id"])).status_code == 409
    assert await containment(story) == before
    answer = await release(story, before["id"], word="confirm-safe")
    assert answer.status_code == 200, answer.text
    assert all(cause["cleared_at"] for cause in answer.json()["causes"])


@ONE_ENGINE
async def test_a_new_finding_contains_a_released_user_again(story: Story) -> None:
    await suspect(story)
    assert (await release(story, (await containment(story))["id"])).status_code == 200
    await story.play()
    shown = await story.get(f"{CONTAINMENTS}?user={story.ids['rosa']}")
    assert "open" in {each["state"] for each in shown["items"]}
    assert await decision(story) == "DENY"


@ONE_ENGINE
async def test_row_39_a_held_containment_is_released_and_never_carried_out(story: Story) -> None:
    people = [f"user-{number}@customer.example" for number in range(3)]
    for mail in people:
        named = {"identifiers": [{"format": "email", "email": mail}]}
        await story.post("/admin/v1/users", named)
        await suspect(story, mail)
    await suspect(story, TIM)
    held = await containment(story, "tim")
    assert held["state"] == "held"
    story.hub.outside.requests.clear()

    answer = await release(story, held["id"], word="confirm-safe")
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "closed"
    await story.hub.settle()
    assert [r for r in story.hub.outside.requests if "/gtr" in r.url or "/scim" in r.url] == []
    approved = await story.admin.post(f"{CONTAINMENTS}/{held['id']}/approve", json={})
    assert approved.status_code == 409


@ONE_ENGINE
async def test_a_held_containment_whose_level_fell_is_not_carried_out_later(story: Story) -> None:
    """With the guard's leave it was: a user at MEDIUM went into quarantine."""
    for number in range(3):
        mail = f"user-{number}@customer.example"
        named = {"identifiers": [{"format": "email", "email": mail}]}
        await story.post("/admin/v1/users", named)
        await suspect(story, mail)
    await suspect(story, TIM)
    assert (await containment(story, "tim"))["state"] == "held"
    story.hub.clock.advance(3_600)
    answer = await story.admin.put(f"/api/v1/users/email:{TIM}/risk", json={"riskLevel": "MEDIUM"})
    assert answer.is_success, answer.text
    await story.hub.settle()
    assert (await containment(story, "tim"))["state"] == "closed"
    assert await decision(story, TIM) != "DENY"


@ONE_ENGINE
async def test_a_requested_logout_that_is_held_is_released(story: Story) -> None:
    for number in range(4):
        named = {"identifiers": [{"format": "email", "email": f"u{number}@customer.example"}]}
        await story.post("/admin/v1/users", named)
    token = await story.hub.token("logout", app_id=story.ids["idp"])
    statuses = []
    async with story.hub.client(token) as asker:
        for number in range(4):
            email = {"format": "email", "email": f"u{number}@customer.example"}
            body = {"sub_id": email}
            answer = await asker.post(PATH, json=body)
            statuses.append(answer.status_code)
    assert statuses == [204, 204, 204, 422]
    (held,) = (await story.get(f"{CONTAINMENTS}?state=held"))["items"]
    answer = await release(story, held["id"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "closed"
    assert {task["state"] for task in answer.json()["tasks"]} <= {"cancelled"}


# --- who may, and what is refused ---------------------------------------------------------------


@ONE_ENGINE
async def test_only_who_may_respond_releases_and_only_what_is_the_tenants_own(
    hub: Hub, story: Story
) -> None:
    await suspect(story)
    held = await containment(story)
    path = f"{CONTAINMENTS}/{held['id']}/release"
    for scope, status in (("admin.read", 403), ("risk.write", 403), ("sessions.evaluate", 403)):
        async with hub.client(await hub.token(scope)) as client:
            assert (await client.post(path, json={})).status_code == status, scope
    async with hub.client() as nobody:
        assert (await nobody.post(path, json={})).status_code == 401
    for role in ROLES[:2]:
        made = await story.post("/admin/v1/clients", {"name": role, "role": role})
        await hub.node.feed.refresh()
        async with hub.client(made["token"]) as client:
            assert (await client.post(path, json={})).status_code == 403, role
    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as stranger:
        assert (await stranger.post(path, json={})).status_code == 404
    assert await containment(story) == held


@ONE_ENGINE
@pytest.mark.parametrize(
    "body",
    [
        {"word": "confirm-compromised"},
        {"word": None},
        {"reason": 7},
        {"reason": "x" * 501},
        {"reason": "two\nlines"},
        {"until": "2027-01-01T00:00:00Z"},
        [],
    ],
)
async def test_what_is_no_release_is_refused(story: Story, body: Any) -> None:
    await suspect(story)
    held = await containment(story)
    answer = await story.admin.post(f"{CONTAINMENTS}/{held['id']}/release", json=body)
    assert answer.status_code == 400, answer.text
    assert await containment(story) == held


@ONE_ENGINE
@pytest.mark.parametrize("name", ["ctn_none", "x", "ctn_" + "0" * 26])
async def test_what_is_not_there_is_not_released(story: Story, name: str) -> None:
    assert (await release(story, name)).status_code == 404
    assert [e for e in await story.hub.audit() if e.action == "containment.release"] == []


# --- against real processes ---------------------------------------------------------------------


async def test_a_served_hub_releases_by_command_and_denies_a_foreign_tenant(
    hub_process: Served,
) -> None:
    def client(token: str, base: str = hub_process.issuer) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(base_url=base, headers=headers, timeout=LIMIT_S)

    async with client(hub_process.token) as admin:
        preset = {"name": "standard", "mode": "enforce"}
        assert (await admin.post("/admin/v1/policies:preset", json=preset)).is_success
        email = {"format": "email", "email": "held@released.example"}
        user = (await admin.post("/admin/v1/users", json={"identifiers": [email]})).json()["id"]
        risk = f"/api/v1/users/{user}/risk"
        assert (await admin.put(risk, json={"riskLevel": "HIGH"})).is_success
        (held,) = (await admin.get(f"{CONTAINMENTS}?user={user}")).json()["items"]
        assert held["state"] == "open"

        async def decides(wanted: str) -> bool:
            asked = await admin.post("/v1/sign-ins/evaluate", json={"user": user})
            return bool(asked.json()["decision"] == wanted)

        await until("the user is denied", lambda: decides("DENY"))
        tenant = (await admin.post("/admin/v1/tenants", json={"id": "red", "name": "red"})).json()
        base = f"{hub_process.issuer}/t/red"
        async with client(tenant["admin_token"], base) as stranger:
            answer = await stranger.post(f"{CONTAINMENTS}/{held['id']}/release", json={})
            assert answer.status_code == 404, answer.text
        shell = hub_process.shell
        shown = shell.good("containment", "release", held["id"], "reason=Known test.")
        assert shown["state"] in {"restoring", "closed"}
        await until("the user is let in", lambda: decides("ALLOW"))
        again = await admin.post(f"{CONTAINMENTS}/{held['id']}/release", json={})
        assert (again.status_code, again.json()["id"]) == (200, held["id"])
        audit = (await admin.get("/admin/v1/audit")).json()["items"]
        released = [each for each in audit if each["action"] == "containment.release"]
        assert {each["actor"] for each in released} >= {"cli"}
        lax = {"mode": "monitor"}
        for policy in ("entity-risk", "global-session"):
            assert (await admin.patch(f"/admin/v1/policies/{policy}", json=lax)).is_success
