"""What people say of risk: each word's effect on level, score and reliability; undo; attacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import LAPTOP, ROSA, Story, begin

SENSOR = "https://sensor.customer.example"
CASB = "https://casb.customer.example"
ABOUT_ROSA = {"format": "email", "email": ROSA}
PLURALS = ("users", "devices", "sessions", "apps", "service-accounts")
WORDS = ("confirm-compromised", "confirm-safe", "dismiss", "undo")


@pytest.fixture
async def story(hub: Hub) -> Story:
    return await begin(hub)


@pytest.fixture
async def sensor(story: Story) -> AsyncIterator[httpx2.AsyncClient]:
    async with await provider(story, SENSOR, "network") as client:
        yield client


async def provider(story: Story, issuer: str, source_class: str) -> httpx2.AsyncClient:
    name = issuer.partition("//")[2]
    made = await story.post("/admin/v1/clients", {"name": name, "scopes": ["signals.write"]})
    members = {"name": name, "issuer": issuer, "client_id": made["id"]}
    await story.post("/admin/v1/providers", members | {"source_class": source_class})
    return story.hub.client(made["token"])


async def raise_about_rosa(
    sensor: httpx2.AsyncClient, story: Story, name: str, **more: Any
) -> None:
    said = {"name": name, "sub_id": ABOUT_ROSA, **more}
    answer = await sensor.post("/v1/signals/detections", json=said)
    assert answer.status_code == 202, answer.text
    await story.hub.settle()


async def say(
    story: Story, word: str, path: str | None = None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    at = path or f"/v1/risk/users/{story.ids['rosa']}"
    answer = await story.admin.post(f"{at}/{word}", json=body)
    assert answer.status_code == 200, answer.text
    await story.hub.settle()
    said: dict[str, Any] = answer.json()
    return said


async def rosa(story: Story, below: str = "") -> dict[str, Any]:
    return await story.get(f"/v1/risk/users/{story.ids['rosa']}{below}")


async def states(story: Story, **query: str) -> dict[str, str]:
    params = {"user": story.ids["rosa"], **query}
    answer = await story.admin.get("/v1/detections", params=params)
    return {each["name"]: each["state"] for each in answer.json()["items"]}


# --- the words ----------------------------------------------------------------------------------


async def test_row_9_confirm_safe_ends_the_effect_stays_quiet_and_can_be_undone(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    await raise_about_rosa(sensor, story, "aitm_replay", id="1")
    assert (await rosa(story))["level"] == "HIGH"
    said = await say(story, "confirm-safe", body={"reason": "Her second phone."})
    assert (said["level"], said["previous_level"], said["changed"]) == ("LOW", "HIGH", True)
    assert [each["name"] for each in said["closed"]] == ["aitm_replay"]
    assert (await rosa(story))["level"] == "LOW"
    (kept,) = (await rosa(story, "/explain"))["feedback"]
    assert (kept["word"], kept["reason"]) == ("confirm-safe", "Her second phone.")
    assert kept["by"]
    assert await states(story) == {"aitm_replay": "confirmed_safe"}

    story.hub.clock.advance(3600)
    await raise_about_rosa(sensor, story, "aitm_replay", id="2")
    assert (await rosa(story))["level"] == "LOW"
    # Another kind of finding is no old story.
    await raise_about_rosa(sensor, story, "brute_force_attack", id="3")
    assert (await rosa(story))["level"] == "MEDIUM"

    undone = await say(story, "undo")
    assert (undone["changed"], undone["level"]) == (True, "HIGH")
    assert len(undone["closed"]) == 2
    assert (await rosa(story))["level"] == "HIGH"
    assert (await say(story, "undo"))["changed"] is False


async def test_row_9_the_quiet_ends_when_it_was_said_to_end(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    await raise_about_rosa(sensor, story, "aitm_replay", id="1")
    until = story.hub.clock.now().timestamp() + 7200
    said = await say(story, "confirm-safe", body={"until": until})
    assert said["feedback"]["until"] is not None
    story.hub.clock.advance(7201)
    await raise_about_rosa(sensor, story, "aitm_replay", id="2")
    assert (await rosa(story))["level"] == "HIGH"


async def test_row_9_confirm_compromised_makes_high_and_the_policy_runs(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    await raise_about_rosa(sensor, story, "new_country")
    said = await say(story, "confirm-compromised", body={"reason": "She called."})
    assert (said["level"], said["previous_level"]) == ("HIGH", "LOW")
    assert "UNIVERSAL_LOGOUT" in said["users"][0]["actions"]
    containments = (await story.get("/admin/v1/containments"))["items"]
    assert [each["user_id"] for each in containments] == [story.ids["rosa"]]
    assert (await say(story, "confirm-compromised"))["changed"] is False
    # It is a floor: neither a pin nor a dismissal gets below it.
    path = f"/api/v1/users/{story.ids['rosa']}/risk"
    lowered = await story.admin.put(path, json={"riskLevel": "LOW"})
    assert lowered.json()["riskLevel"] == "HIGH"
    dismissed = await say(story, "dismiss")
    assert [each["name"] for each in dismissed["kept"]] == ["admin_confirmed_compromised"]
    assert dismissed["level"] == "HIGH"


async def test_undo_of_confirm_compromised_ends_it_and_nothing_else(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    await raise_about_rosa(sensor, story, "brute_force_attack")
    await say(story, "confirm-compromised")
    undone = await say(story, "undo")
    assert (undone["level"], undone["previous_level"]) == ("MEDIUM", "HIGH")
    assert await states(story) == {
        "admin_confirmed_compromised": "superseded",
        "brute_force_attack": "active",
    }


async def test_row_9_dismiss_clears_without_learning_and_may_fire_again(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    await raise_about_rosa(sensor, story, "brute_force_attack", id="1")
    before = (await rosa(story, "/explain"))["ranking"]["terms"][0]["reliability"]
    assert (await say(story, "dismiss"))["level"] == "LOW"
    assert (await say(story, "dismiss"))["changed"] is False
    await raise_about_rosa(sensor, story, "brute_force_attack", id="2")
    found = await rosa(story, "/explain")
    assert found["level"] == "MEDIUM"
    assert found["ranking"]["terms"][0]["reliability"] == before == 1.0


async def test_dismiss_never_hides_a_floor(story: Story, sensor: httpx2.AsyncClient) -> None:
    await raise_about_rosa(sensor, story, "breached_credential_detected", id="1")
    await raise_about_rosa(sensor, story, "brute_force_attack", id="2")
    said = await say(story, "dismiss")
    assert [each["name"] for each in said["closed"]] == ["brute_force_attack"]
    assert [each["name"] for each in said["kept"]] == ["breached_credential_detected"]
    assert (await rosa(story))["level"] == "HIGH"


async def test_feedback_on_a_device_moves_the_users_on_it(story: Story) -> None:
    device = {"format": "opaque", "id": LAPTOP}
    async with await provider(story, CASB, "device") as casb:
        answer = await casb.post(
            "/v1/signals/detections",
            json={
                "name": "device_compromised",
                "sub_id": {"format": "complex", "user": ABOUT_ROSA, "device": device},
            },
        )
        assert answer.status_code == 202
    await story.hub.settle()
    at = f"/v1/risk/devices/{story.ids['rosa device']}"
    assert (await story.get(at))["level"] == (await rosa(story))["level"] == "HIGH"
    # A word about the user does not clean the device.
    assert (await say(story, "confirm-safe"))["level"] == "HIGH"
    said = await say(story, "confirm-safe", at)
    assert said["level"] == "LOW"
    assert said["users"][0]["level"] == (await rosa(story))["level"] == "LOW"
    assert (await say(story, "undo", at))["level"] == "HIGH"
    assert (await rosa(story))["level"] == "HIGH"
    confirmed = await say(story, "confirm-compromised", at)
    assert confirmed["changed"] is True


async def test_feedback_on_a_session_is_about_what_it_led_to(story: Story) -> None:
    said = await say(story, "confirm-compromised", "/v1/risk/sessions/sid-rosa")
    assert (said["level"], said["sid"]) == ("HIGH", "sid-rosa")
    assert (await rosa(story))["level"] == "HIGH"
    by_id = f"/v1/risk/sessions/{said['id']}"
    assert (await story.get(by_id))["level"] == "HIGH"
    assert (await say(story, "confirm-safe", by_id))["level"] == "LOW"
    assert (await rosa(story))["level"] == "LOW"


async def test_feedback_on_one_detection_leaves_the_others(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    await raise_about_rosa(sensor, story, "aitm_replay", id="1")
    await raise_about_rosa(sensor, story, "brute_force_attack", id="2")
    evidence = (await rosa(story, "/explain"))["evidence"]
    (replay,) = [each for each in evidence if each["name"] == "aitm_replay"]
    at = f"/v1/detections/{replay['detection_id']}"
    said = await say(story, "confirm-safe", at)
    assert (said["level"], said["feedback"]["detection_id"]) == ("MEDIUM", replay["detection_id"])
    assert (await story.get(at))["state"] == "confirmed_safe"
    assert (await say(story, "undo", at))["level"] == "HIGH"


async def test_feedback_makes_an_issuer_weigh_less_or_more(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    async def weight() -> float:
        found = await rosa(story, "/explain")
        reliability: float = found["ranking"]["terms"][0]["reliability"]
        assert found["score"] == found["ranking"]["score"]
        return reliability

    for number in range(3):
        await raise_about_rosa(sensor, story, f"x_kind_{number}", level="MEDIUM")
        await say(story, "confirm-safe")
    await raise_about_rosa(sensor, story, "x_kind_9", level="MEDIUM")
    doubted = await weight()
    assert doubted < 1.0
    await say(story, "confirm-compromised")
    found = await rosa(story, "/explain")
    (term,) = [each for each in found["ranking"]["terms"] if each["issuer"] == SENSOR]
    assert term["reliability"] > doubted
    await say(story, "undo")
    assert await weight() == doubted


# --- attacks ------------------------------------------------------------------------------------


@ONE_ENGINE
async def test_only_analysts_and_above_say_anything(story: Story) -> None:
    paths = [f"/v1/risk/users/{story.ids['rosa']}/{word}" for word in WORDS]
    for role, status in (("viewer", 403), ("analyst", 200)):
        made = await story.post("/admin/v1/clients", {"name": role, "role": role})
        async with story.hub.client(made["token"]) as client:
            for path in paths[:3]:
                assert (await client.post(path)).status_code == status, (role, path)
    async with story.hub.client() as nobody:
        assert (await nobody.post(paths[0])).status_code == 401


@ONE_ENGINE
async def test_what_is_no_feedback_is_refused(story: Story) -> None:
    at = f"/v1/risk/users/{story.ids['rosa']}"
    now = story.hub.clock.now().timestamp()
    for word, body, status in (
        ("confirm-safe", {"reason": 7}, 400),
        ("confirm-safe", {"reason": "x" * 501}, 400),
        ("confirm-safe", {"reason": "a\nb"}, 400),
        ("confirm-safe", {"until": now - 1}, 400),
        ("confirm-safe", {"until": now + 31 * 86400}, 400),
        ("confirm-safe", {"until": "soon"}, 400),
        ("dismiss", {"until": now + 60}, 400),
        ("dismiss", {"level": "LOW"}, 400),
        ("dismiss", ["x"], 400),
        ("undo", {"reason": "x"}, 400),
        ("undo", None, 409),
    ):
        answer = await story.admin.post(f"{at}/{word}", json=body)
        assert answer.status_code == status, (word, body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    json = {"content-type": "application/json"}
    broken = await story.admin.post(f"{at}/dismiss", content=b"{", headers=json)
    assert broken.status_code == 400
    assert (await story.admin.get(f"{at}/dismiss")).status_code == 405


@ONE_ENGINE
async def test_a_foreign_tenants_entity_is_404(story: Story) -> None:
    await story.hub.add_tenant("green")
    token = await story.hub.token(tenant="green")
    await say(story, "confirm-compromised", "/v1/risk/sessions/sid-rosa")
    detections = (await story.get("/v1/detections"))["items"]
    named = {
        "users": story.ids["rosa"],
        "devices": story.ids["rosa device"],
        "sessions": "sid-rosa",
        "apps": story.ids["crm"],
        "service-accounts": "svc_0",
    }
    async with story.hub.client(token, tenant="green") as stranger:
        for plural in PLURALS:
            at = f"/v1/risk/{plural}/{named[plural]}"
            for below in ("", "/history", "/explain"):
                assert (await stranger.get(at + below)).status_code == 404, at + below
            for word in WORDS:
                assert (await stranger.post(f"{at}/{word}")).status_code == 404, at
        at = f"/v1/detections/{detections[0]['detection_id']}"
        assert (await stranger.get(at)).status_code == 404
        for word in WORDS:
            assert (await stranger.post(f"{at}/{word}")).status_code == 404
    assert (await rosa(story))["level"] == "HIGH"


@ONE_ENGINE
async def test_every_word_leaves_an_audit_entry(story: Story, sensor: httpx2.AsyncClient) -> None:
    await raise_about_rosa(sensor, story, "aitm_replay")
    before = len(await story.hub.audit())
    for word in WORDS:
        await say(story, word)
    entries = (await story.hub.audit())[before:]
    assert [each.action for each in entries] == [f"risk.{word}" for word in WORDS]
    assert {each.ref for each in entries} == {story.ids["rosa"]}
