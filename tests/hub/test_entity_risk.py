"""Rows 1 to 4, 6 and 10 of the mission table, as far as detectors of this release reach."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from runtime.clock import epoch_s
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, LAPTOP, RISK_LEVEL_CHANGE, ROSA, Story, begin
from tests.hub.test_inline import HOME, OFFICE, SID, request_from, state_of
from tests.hub.test_inline import LAPTOP as LAPTOP_TOKEN
from tests.risk.test_contexts import CHROME

ABOUT_ROSA = {"format": "email", "email": ROSA}


@pytest.fixture
async def story(hub: Hub) -> Story:
    return await begin(hub)


async def provider(story: Story, name: str, **settings: Any) -> httpx2.AsyncClient:
    made = await story.post("/admin/v1/clients", {"name": name, "scopes": ["signals.write"]})
    members = {"name": name, "issuer": f"https://{name}.example", "client_id": made["id"]}
    await story.post("/admin/v1/providers", members | settings)
    return story.hub.client(made["token"])


async def raised(story: Story, client: httpx2.AsyncClient, name: str, **more: Any) -> str:
    """Raise a detection about Rosa; return her level."""
    said = {"name": name, "sub_id": ABOUT_ROSA, **more}
    answer = await client.post("/v1/signals/detections", json=said)
    assert answer.status_code == 202, answer.text
    await story.hub.settle()
    return str((await rosa(story))["level"])


async def rosa(story: Story, below: str = "") -> dict[str, Any]:
    return await story.get(f"/v1/risk/users/{story.ids['rosa']}{below}")


async def signed_in(story: Story) -> dict[str, Any]:
    """Let Rosa sign in at the sixth try; return what was judged, as it is read afterwards."""
    said = {
        "user": f"email:{ROSA}",
        "ip": HOME,
        "user_agent": CHROME,
        "device": {"token_hash": LAPTOP_TOKEN},
        "phase": "after",
        "sid": SID,
    }
    token = await story.hub.token("sessions.evaluate", app_id=story.ids["idp"])
    async with story.hub.client(token) as idp:
        for outcome in (*["failure"] * 5, "success"):
            answer = await idp.post("/v1/sign-ins/evaluate", json=said | {"outcome": outcome})
            assert answer.status_code == 200, answer.text
    await state_of(story.hub).sign_ins.log.flush()
    (kept,) = (await story.get(f"/v1/sign-ins?user=email:{ROSA}&limit=1"))["items"]
    return dict(kept)


async def moved(story: Story) -> dict[str, Any]:
    """Let Rosa's session move to another network; return the answer."""
    decided: dict[str, Any] = {}
    async with story.hub.client(await story.hub.token("sessions.evaluate")) as http:
        for ip in (HOME, OFFICE):
            answer = await http.post(f"/v1/sessions/{SID}/evaluate", json=request_from(ip))
            assert answer.status_code == 200, answer.text
            await state_of(story.hub).inline.behind.flush()
            decided = answer.json()
    return decided


async def test_row_1_a_sign_in_a_change_and_a_partners_word_are_three_risks_joined_by_ids(
    story: Story,
) -> None:
    login = await signed_in(story)
    assert login["login_risk"]["level"] == "LOW"
    assert login["login_risk"]["reasons"] == ["failures"]

    change = await moved(story)
    assert change["risk"]["level"] == "MEDIUM"
    assert "asn_changed" in change["risk"]["reasons"]

    said = {
        "principal": "USER",
        "current_level": "HIGH",
        "risk_reason": "Mail of a known phisher was answered.",
        "event_timestamp": epoch_s(story.hub.clock.now()),
    }
    pushed = await story.push(sub_id=ABOUT_ROSA, events={RISK_LEVEL_CHANGE: said})
    assert pushed.status_code == 202
    await story.hub.settle()

    # Each is read by itself, and none of them is the other two.
    session = await story.get(f"/v1/risk/sessions/{SID}")
    newest, anchor = session["contexts"]
    assert (newest["level"], newest["state"], newest["decision"]) == ("MEDIUM", "asked", "STEP_UP")
    assert "asn_changed" in newest["reasons"]
    assert (anchor["level"], anchor["state"]) == ("LOW", "anchor")
    entity = await rosa(story)
    assert entity["level"] == "HIGH"
    (reason,) = entity["reasons"]
    assert reason.endswith("Mail of a known phisher was answered.")
    again = (await story.get(f"/v1/sign-ins?user=email:{ROSA}&limit=1"))["items"]
    assert again == [login]

    # One user; the session that the sign-in began; the change by its trace.
    assert {login["user_id"], session["user_id"], entity["user_id"]} == {story.ids["rosa"]}
    assert (login["iss"], login["sid"]) == (session["iss"], session["sid"]) == (IDP, SID)
    assert newest["trace_id"] == change["trace_id"]
    assert (newest["ip"], anchor["ip"]) == (OFFICE, login["ip"]) == (OFFICE, HOME)


async def test_row_1_a_word_about_a_session_stays_there_and_reaches_its_user(story: Story) -> None:
    session = await story.get(f"/v1/risk/sessions/{SID}")
    assert session["contexts"] == []
    said = {
        "principal": "SESSION",
        "current_level": "HIGH",
        "risk_reason": "Two countries at once.",
        "event_timestamp": epoch_s(story.hub.clock.now()),
    }
    about = {"format": "complex", "session": {"format": "iss_sub", "iss": IDP, "sub": "sid-rosa"}}
    async with await provider(story, "casb") as casb:
        answer = await story.push(sub_id=about, events={RISK_LEVEL_CHANGE: said})
        assert answer.status_code == 202
        assert await raised(story, casb, "partner_reported_risk", level="LOW") == "MEDIUM"
    of_session = await story.get("/v1/risk/sessions/sid-rosa/explain")
    assert (of_session["level"], of_session["evidence"][0]["reasons"]) == (
        "HIGH",
        ["Two countries at once."],
    )
    names = {each["name"]: each for each in (await rosa(story, "/explain"))["evidence"]}
    assert set(names) == {"session_influenced_user_risk", "partner_reported_risk"}
    assert names["session_influenced_user_risk"]["related"] == [session["id"]]


async def findings(story: Story, name: str) -> list[dict[str, Any]]:
    found = await story.get(f"/v1/detections?user={story.ids['rosa']}&name={name}")
    items: list[dict[str, Any]] = found["items"]
    return items


async def test_row_7_an_admins_high_is_one_finding_and_an_admins_low_is_none(story: Story) -> None:
    path = f"/api/v1/users/{story.ids['rosa']}/risk"
    assert (await story.admin.put(path, json={"riskLevel": "LOW"})).is_success
    assert await findings(story, "admin_reported_user_risk") == []
    story.hub.clock.advance(25 * 3600)  # a LOW is pinned for a day
    for _ in range(2):
        assert (await story.admin.put(path, json={"riskLevel": "HIGH"})).is_success
        story.hub.clock.advance(1)
    found = await findings(story, "admin_reported_user_risk")
    (active,) = [each for each in found if each["state"] == "active"]
    assert active["level"] == (await rosa(story))["level"] == "HIGH"
    assert active["mitre"]


async def test_row_7_a_partners_event_is_one_finding_and_one_that_says_down_at_low_is_none(
    story: Story,
) -> None:
    async def said(level: str, before: str) -> None:
        event = {
            "principal": "USER",
            "current_level": level,
            "previous_level": before,
            "event_timestamp": epoch_s(story.hub.clock.now()),
        }
        answer = await story.push(sub_id=ABOUT_ROSA, events={RISK_LEVEL_CHANGE: event})
        assert answer.status_code == 202
        await story.hub.settle()
        story.hub.clock.advance(1)

    await said("LOW", "MEDIUM")
    assert await findings(story, "partner_reported_risk") == []
    await said("HIGH", "LOW")
    await said("HIGH", "LOW")
    (found,) = await findings(story, "partner_reported_risk")
    assert (found["level"], found["state"]) == ("HIGH", "active")
    assert (await rosa(story))["level"] == "HIGH"
    assert found["mitre"]


async def test_row_2_a_word_about_an_idle_user_is_seen_and_the_policy_has_run(
    story: Story,
) -> None:
    story.hub.clock.advance(600)
    async with await provider(story, "agents", source_class="device") as edr:
        device = {"format": "opaque", "id": LAPTOP}
        about = {"format": "complex", "user": ABOUT_ROSA, "device": device}
        assert await raised(story, edr, "device_compromised", sub_id=about) == "HIGH"
    short = await story.get(f"/api/v1/users/{story.ids['rosa']}/risk")
    assert short["riskLevel"] == "HIGH"
    containments = (await story.get("/admin/v1/containments"))["items"]
    assert [each["user_id"] for each in containments] == [story.ids["rosa"]]


async def test_row_3_two_medium_of_different_classes_make_high_of_one_class_do_not(
    story: Story,
) -> None:
    async with await provider(story, "sensor") as sensor, await provider(story, "soc") as soc:
        assert await raised(story, sensor, "brute_force_attack") == "MEDIUM"
        # (b) another of the same class, whoever says it
        assert await raised(story, soc, "push_harassment") == "MEDIUM"
        # (a) another class within a day
        assert await raised(story, soc, "impossible_travel") == "HIGH"
    assert any("different source classes" in each for each in (await rosa(story))["reasons"])


async def test_row_3_three_low_of_different_classes_make_medium(story: Story) -> None:
    async with await provider(story, "sensor") as sensor, await provider(story, "soc") as soc:
        assert await raised(story, sensor, "new_country") == "LOW"
        assert await raised(story, soc, "brute_force_attack", level="LOW") == "LOW"
        assert await raised(story, soc, "mass_app_access", level="LOW") == "MEDIUM"


async def test_row_3_an_issuer_capped_at_medium_never_alone_gives_high(story: Story) -> None:
    async with await provider(story, "sensor", level_cap="MEDIUM") as sensor:
        assert await raised(story, sensor, "threat_intelligence") == "MEDIUM"
        assert await raised(story, sensor, "brute_force_attack") == "MEDIUM"
        assert await raised(story, sensor, "mass_app_access") == "MEDIUM"


async def test_row_4_the_preset_logs_low_steps_up_at_medium_and_logs_out_at_high(
    story: Story,
) -> None:
    async def policy() -> tuple[str, list[str]]:
        found = (await rosa(story, "/explain"))["policy"]
        return found["rule"], found["actions"]

    async with await provider(story, "sensor") as sensor:
        await raised(story, sensor, "new_country")
        assert await policy() == ("low-log", ["LOG"])
        await raised(story, sensor, "brute_force_attack")
        assert await policy() == ("medium-step-up", ["NOTIFY", "REQUIRE_STEP_UP_NEXT"])
        await raised(story, sensor, "threat_intelligence")
        assert await policy() == ("high-contain", ["NOTIFY", "QUARANTINE", "UNIVERSAL_LOGOUT"])


async def test_row_6_the_level_is_set_by_api_and_told_with_the_one_before(story: Story) -> None:
    path = f"/api/v1/users/{story.ids['rosa']}/risk"
    first_body = {"riskLevel": "HIGH", "riskReason": "a-b, c.d 1"}
    assert (await story.admin.put(path, json=first_body)).status_code == 201
    answer = await story.admin.put(path, json={"riskLevel": "MEDIUM"})
    assert answer.status_code == 200
    assert (answer.json()["previousLevel"], answer.json()["riskLevel"]) == ("HIGH", "MEDIUM")
    (newest, first) = (await rosa(story, "/history"))["items"]
    assert (first["previous_level"], first["level"]) == ("LOW", "HIGH")
    assert (newest["previous_level"], newest["level"]) == ("HIGH", "MEDIUM")
    for body in (
        {"riskLevel": "EXTREME"},
        {"riskLevel": "NONE"},
        {"riskLevel": "HIGH", "riskReason": "x" * 501},
        {"riskLevel": "HIGH", "riskReason": "<script>"},
        {"riskLevel": "HIGH", "riskReason": "a; b"},
        {"riskLevel": "HIGH", "riskReason": ["a"]},
    ):
        assert (await story.admin.put(path, json=body)).status_code == 400


async def test_row_10_the_past_is_told_with_its_evidence(story: Story) -> None:
    start = story.hub.clock.now()
    async with await provider(story, "sensor") as sensor:
        story.hub.clock.advance(60)
        await raised(story, sensor, "aitm_replay", reasons=["seen through a proxy"])
    high_at = story.hub.clock.now()
    story.hub.clock.advance(60)
    at = f"/v1/risk/users/{story.ids['rosa']}"
    assert (await story.admin.post(f"{at}/confirm-safe")).status_code == 200
    now = story.hub.clock.now()
    for moment, level, causes in ((start, "LOW", 0), (high_at, "HIGH", 1), (now, "LOW", 0)):
        answer = await story.admin.get(at, params={"asOf": moment.isoformat()})
        assert answer.status_code == 200, answer.text
        past = answer.json()
        assert past["level"] == past["replayed_level"] == level
        assert len(past["cause_ids"]) == causes
    answer = await story.admin.get(at, params={"asOf": high_at.timestamp()})
    assert answer.status_code == 400
    spelled = high_at.isoformat()
    past = (await story.admin.get(f"{at}?asOf={spelled}")).json()
    assert past["evidence"][0]["reasons"] == ["seen through a proxy"]
    assert past["evidence"][0]["clears_on"] == ["sessions_secured", "confirmed_safe"]


@ONE_ENGINE
async def test_the_riskiest_of_one_level_come_first(story: Story) -> None:
    async with await provider(story, "sensor") as sensor:
        await raised(story, sensor, "honeytoken_use")
        await raised(story, sensor, "threat_intelligence")
        tim = {"kind": "user", "id": story.ids["tim"]}
        said = {"name": "honeytoken_use", "entity": tim}
        assert (await sensor.post("/v1/signals/detections", json=said)).status_code == 202
    await story.hub.settle()
    ranked = (await story.get("/v1/risk/users?level=HIGH&order=score"))["items"]
    assert [each["user_id"] for each in ranked] == [story.ids["rosa"], story.ids["tim"]]
    assert ranked[0]["score"] > ranked[1]["score"]
    one = (await story.get("/v1/risk/users?order=score&limit=1"))["items"]
    assert [each["user_id"] for each in one] == [story.ids["rosa"]]


@ONE_ENGINE
async def test_detections_are_found_by_what_they_are(story: Story) -> None:
    async with await provider(story, "sensor") as sensor:
        await raised(story, sensor, "honeytoken_use")
        await raised(story, sensor, "brute_force_attack")
        app = {"kind": "app", "id": story.ids["crm"]}
        said = {"name": "anomalous_token", "entity": app}
        assert (await sensor.post("/v1/signals/detections", json=said)).status_code == 202
    await story.hub.settle()

    async def names(**query: str) -> set[str]:
        answer = await story.admin.get("/v1/detections", params=query)
        assert answer.status_code == 200, answer.text
        return {each["name"] for each in answer.json()["items"]}

    assert await names(name="honeytoken_use") == {"honeytoken_use"}
    assert await names(timing="nearrealtime") == {"brute_force_attack"}
    assert await names(timing="offline") == set()
    assert await names(app=story.ids["crm"]) == {"anomalous_token"}
    assert await names(issuer="https://sensor.example", user=story.ids["rosa"]) == {
        "honeytoken_use",
        "brute_force_attack",
    }
    assert await names(issuer="https://nobody.example") == set()
    apps = (await story.get("/v1/risk/apps?level=HIGH"))["items"]
    assert [each["id"] for each in apps] == [story.ids["crm"]]
    assert (await story.get(f"/v1/risk/apps/{story.ids['crm']}"))["level"] == "HIGH"
    for query in ({"timing": "soon"}, {"state": "odd"}, {"issuer": "x" * 2000}):
        assert (await story.admin.get("/v1/detections", params=query)).status_code == 400


@ONE_ENGINE
async def test_what_is_no_question_about_risk_is_refused(story: Story) -> None:
    at = f"/v1/risk/users/{story.ids['rosa']}"
    tomorrow = datetime(2100, 1, 1, tzinfo=UTC).isoformat()
    for path, status in (
        (f"{at}?asOf=yesterday", 400),
        (f"{at}?asOf={tomorrow}", 400),
        (f"{at}?asOf=2020-01-01T00:00:00", 400),
        ("/v1/risk/users?order=odd", 400),
        ("/v1/risk/devices?order=score", 400),
        ("/v1/risk/devices?level=high", 400),
        ("/v1/risk/devices?since=soon", 400),
        ("/v1/risk/sessions/none", 404),
        ("/v1/risk/sessions/none/history", 404),
        ("/v1/risk/apps/app_none", 404),
        ("/v1/risk/service-accounts/ext:none", 404),
        (f"/v1/risk/devices/{story.ids['rosa']}", 400),
        ("/v1/risk/devices/dev_none", 404),
        ("/v1/risk/devices/none", 400),
        (f"/v1/risk/devices/{story.ids['rosa device']}/history?cursor=x", 400),
        ("/v1/detections/det_none", 404),
        ("/v1/risk/planets/earth", 404),
    ):
        answer = await story.admin.get(path)
        assert answer.status_code == status, (path, answer.text)
