"""Detections and remedies by name: from the door to the level, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from risk.catalogue_entries import ENTRIES, LAUNCH, TWELVE
from risk.finding_type import FindingType
from risk.model import EntityKind
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import ROSA, TIM, Story, begin

DETECTIONS = "/v1/signals/detections"
REMEDIES = "/v1/signals/remedies"
ABOUT_ROSA = {"format": "email", "email": ROSA}


@pytest.fixture
async def story(hub: Hub) -> Story:
    return await begin(hub)


@pytest.fixture
async def sensor(story: Story) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client whose word is that of the provider `sensor`."""
    made = await story.post("/admin/v1/clients", {"name": "sensor", "scopes": ["signals.write"]})
    await story.post(
        "/admin/v1/providers",
        {
            "name": "sensor",
            "issuer": "https://sensor.customer.example",
            "client_id": made["id"],
            "source_class": "network",
        },
    )
    async with story.hub.client(made["token"]) as client:
        yield client


async def say(
    sensor: httpx2.AsyncClient, story: Story, *items: dict[str, Any], at: str = DETECTIONS
) -> httpx2.Response:
    """Say something about Rosa, unless it says about whom; let the hub work."""
    bodies = [
        item if {"sub_id", "entity"} & set(item) else {"sub_id": ABOUT_ROSA, **item}
        for item in items
    ]
    answer = await sensor.post(at, json=bodies[0] if len(bodies) == 1 else bodies)
    await story.hub.settle()
    return answer


async def level_of(story: Story, name: str = "rosa") -> str:
    found = await story.get(f"/v1/risk/users/{story.ids[name]}")
    level: str = found["level"]
    return level


async def detections_of(story: Story, **query: str) -> list[dict[str, Any]]:
    answer = await story.admin.get("/v1/detections", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


# --- each of the catalogue, and its twin ---------------------------------------------------------


# All at once would make a runaway of the provider.
@pytest.mark.parametrize("names", [TWELVE, LAUNCH], ids=["twelve", "launch"])
async def test_row_7_each_detection_fires_once_at_its_level_and_its_twin_does_not(
    story: Story, sensor: httpx2.AsyncClient, names: tuple[str, ...]
) -> None:
    by_name = [each for each in ENTRIES if each.name in names and each.is_raisable]

    def about(finding: FindingType, who: str) -> dict[str, Any]:
        user = {"format": "email", "email": f"{finding.name}-{who}@customer.example"}
        if finding.about is not EntityKind.DEVICE:
            return user
        device = {"format": "opaque", "id": f"{finding.name}-{who}"}
        return {"format": "complex", "user": user, "device": device}

    people: dict[tuple[str, str], str] = {}
    for finding in by_name:
        for who in ("victim", "twin"):
            email = {"format": "email", "email": f"{finding.name}-{who}@customer.example"}
            made = await story.post("/admin/v1/users", {"identifiers": [email]})
            people[finding.name, who] = made["id"]
    # The twin: a message of the same shape, of which the detector itself is far from sure.
    twins = [
        {"name": each.name, "sub_id": about(each, "twin"), "level": "LOW", "confidence": 0.1}
        for each in by_name
    ]
    victims = [{"name": each.name, "sub_id": about(each, "victim")} for each in by_name]
    for said in (twins, victims, victims):
        assert (await say(sensor, story, *said)).status_code == 202

    for finding in by_name:
        found = await story.get(f"/v1/risk/users/{people[finding.name, 'victim']}/explain")
        (evidence,) = found["evidence"]
        assert (evidence["name"], found["level"]) == (finding.name, finding.level.name)
        assert evidence["source_class"] == finding.source_class
        assert evidence["mitre"] == list(finding.mitre)
        assert len(evidence["evidence"]) == 1
        unmoved = await story.get(f"/v1/risk/users/{people[finding.name, 'twin']}/explain")
        assert (unmoved["level"], unmoved["causes"]) == ("LOW", [])


# --- the door -----------------------------------------------------------------------------------


async def test_a_detection_about_an_unknown_subject_waits_for_it(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    stranger = {"format": "email", "email": "new@customer.example"}
    answer = await say(sensor, story, {"name": "aitm_replay", "sub_id": stranger})
    assert answer.status_code == 202
    assert [each["state"] for each in await unmatched(story)] == ["unmatched"]
    made = await story.post("/admin/v1/users", {"identifiers": [stranger]})
    await story.hub.settle()
    assert (await story.get(f"/v1/risk/users/{made['id']}"))["level"] == "HIGH"


async def unmatched(story: Story) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await story.get("/admin/v1/unmatched"))["items"]
    return items


async def test_an_entity_of_ours_is_named_as_in_all_apis(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    by_id = {"kind": "user", "id": story.ids["rosa"]}
    by_name = {"kind": "user", "id": f"email:{TIM}"}
    answer = await say(
        sensor,
        story,
        {"name": "brute_force_attack", "entity": by_id},
        {"name": "brute_force_attack", "entity": by_name},
    )
    assert [each["outcome"] for each in answer.json()["items"]] == ["stored", "stored"]
    assert (await level_of(story), await level_of(story, "tim")) == ("MEDIUM", "MEDIUM")


async def test_apps_and_service_accounts_have_detections_of_their_own(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    account = await story.post(
        "/admin/v1/service-accounts",
        {"identifiers": [{"format": "opaque", "id": "svc-export"}], "external_id": "svc-export"},
    )
    answer = await say(
        sensor,
        story,
        {"name": "anomalous_token", "entity": {"kind": "app", "id": story.ids["crm"]}},
        {"name": "honeytoken_use", "entity": {"kind": "service_account", "id": "ext:svc-export"}},
    )
    assert answer.status_code == 202
    found = {each["name"]: each["entity"] for each in await detections_of(story)}
    assert found == {
        "anomalous_token": {"kind": "app", "id": story.ids["crm"]},
        "honeytoken_use": {"kind": "service_account", "id": account["id"]},
    }
    assert await level_of(story) == "LOW"


async def test_a_client_without_a_provider_is_nobodys_word(story: Story) -> None:
    async with story.hub.client(await story.hub.token("signals.write")) as client:
        said = {"name": "brute_force_attack", "sub_id": ABOUT_ROSA}
        refused = await client.post(DETECTIONS, json=said)
    assert refused.status_code == 403
    assert await level_of(story) == "LOW"


async def test_the_providers_cap_scope_and_status_apply(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    (provider,) = [
        each for each in (await story.get("/admin/v1/providers"))["items"]
        if each["name"] == "sensor"
    ]  # fmt: skip
    path = f"/admin/v1/providers/{provider['id']}"
    assert (await story.admin.patch(path, json={"level_cap": "MEDIUM"})).status_code == 200
    await say(sensor, story, {"name": "aitm_replay"})
    assert await level_of(story) == "MEDIUM"
    scope = {"subject_scope": {"domains": ["other.example"], "issuers": []}}
    assert (await story.admin.patch(path, json=scope)).status_code == 200
    assert (await say(sensor, story, {"name": "honeytoken_use"})).status_code == 403
    by_app = {"name": "honeytoken_use", "entity": {"kind": "app", "id": story.ids["crm"]}}
    assert (await say(sensor, story, by_app)).status_code == 403
    assert (await story.admin.patch(path, json={"status": "inactive"})).status_code == 200
    assert (await say(sensor, story, {"name": "honeytoken_use"})).status_code == 403


async def test_a_remedy_by_name_ends_what_it_ends(story: Story, sensor: httpx2.AsyncClient) -> None:
    await say(sensor, story, {"name": "breached_credential_detected"})
    for harmless in ("sessions_revoked", "phishing_resistant_sign_in", "factors_reviewed"):
        answer = await say(sensor, story, {"remedy": harmless}, at=REMEDIES)
        assert answer.status_code == 202
        assert await level_of(story) == "HIGH", harmless
    await say(sensor, story, {"remedy": "credential_changed:password"}, at=REMEDIES)
    # The same instant counts as compromised: a remedy must be newer.
    assert await level_of(story) == "HIGH"
    story.hub.clock.advance(60)
    again = {"id": "later", "remedy": "credential_changed:password"}
    await say(sensor, story, again, at=REMEDIES)
    assert await level_of(story) == "LOW"


@ONE_ENGINE
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        ([7], 400),
        ([{"name": "aitm_replay", "sub_id": ABOUT_ROSA}] * 101, 400),
        ({"name": "aitm_replay"}, 400),
        ({"name": "aitm_replay", "sub_id": "rosa"}, 400),
        ({"name": "aitm_replay", "sub_id": {"format": "email"}}, 400),
        ({"name": "aitm_replay", "sub_id": ABOUT_ROSA, "entity": {"kind": "user", "id": "x"}}, 400),
        ({"name": "aitm_replay", "entity": {"kind": "user", "id": 7}}, 400),
        ({"name": "aitm_replay", "entity": {"kind": "ip", "id": "198.51.100.7"}}, 400),
        ({"name": "aitm_replay", "entity": {"kind": ["user"], "id": "x"}}, 400),
        ({"name": "aitm_replay", "entity": {"kind": "user", "id": "email:no@where.example"}}, 404),
        ({"name": "aitm_replay", "entity": {"kind": "app", "id": "app_0"}}, 404),
        ({"name": "aitm_replay", "entity": {"kind": "app", "id": "a\0"}}, 400),
        ({"name": "aitm_replay", "entity": {"kind": "service_account", "id": "ext:no"}}, 404),
        ({"name": "aitm_replay", "sub_id": ABOUT_ROSA, "entity_kind": "app"}, 400),
        ({"name": "aitm_replay", "sub_id": ABOUT_ROSA, "id": ""}, 400),
        ({"name": "aitm_replay", "sub_id": ABOUT_ROSA, "id": "x" * 201}, 400),
        ({"name": "aitm_replay", "sub_id": ABOUT_ROSA, "occurred_at": "yesterday"}, 400),
        ({"name": "aitm_replay", "sub_id": ABOUT_ROSA, "occurred_at": "2020-01-01T00:00:00Z"}, 400),
        ({"name": "aitm_replay", "sub_id": ABOUT_ROSA,
          "occurred_at": "0001-01-01T00:00:00+14:00"}, 400),
    ],
)  # fmt: skip
async def test_what_is_no_detection_is_refused(
    story: Story, sensor: httpx2.AsyncClient, body: object, status: int
) -> None:
    answer = await sensor.post(DETECTIONS, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert await detections_of(story) == []


@ONE_ENGINE
async def test_bodies_have_a_type_and_a_limit(sensor: httpx2.AsyncClient) -> None:
    assert (await sensor.post(DETECTIONS, content=b"{}")).status_code == 415
    json = {"content-type": "application/json"}
    too_large = b'{"name": "' + b"x" * 300_000 + b'"}'
    assert (await sensor.post(DETECTIONS, content=too_large, headers=json)).status_code == 413
    twice = b'{"name": "aitm_replay", "name": "new_country"}'
    assert (await sensor.post(DETECTIONS, content=twice, headers=json)).status_code == 400


async def test_the_door_of_one_tenant_reaches_no_other(
    story: Story, sensor: httpx2.AsyncClient
) -> None:
    await story.hub.add_tenant("green")
    rosa = {"kind": "user", "id": story.ids["rosa"]}
    async with story.hub.client(await story.hub.token(tenant="green"), tenant="green") as admin:
        made = (
            await admin.post(
                "/admin/v1/clients", json={"name": "sensor", "scopes": ["signals.write"]}
            )
        ).json()
        provider = {"name": "s", "issuer": "https://s.example", "client_id": made["id"]}
        assert (await admin.post("/admin/v1/providers", json=provider)).status_code == 201
    async with story.hub.client(made["token"], tenant="green") as stranger:
        answer = await stranger.post(DETECTIONS, json={"name": "aitm_replay", "entity": rosa})
        assert answer.status_code == 404
        by_name = {"name": "aitm_replay", "sub_id": ABOUT_ROSA}
        assert (await stranger.post(DETECTIONS, json=by_name)).status_code == 202
    await story.hub.settle()
    assert await level_of(story) == "LOW"
