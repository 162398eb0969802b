"""Mappings through the admin API and the command line: shipped, own, tried, moved."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from hub.admin.mappings import DRY_RUN_SIGNALS_MAX
from risk.mappings.comparison import CHANGES_SHOWN_MAX
from ssf.events.registry import EVENT_TYPES
from tests.hub.commands import Shell
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import COMPLIANCE_CHANGE, LAPTOP, ROSA, Story, begin, sign

THREAT = "https://mdm.vendor.example/event-type/threat"
PATH = "/admin/v1/mappings"
ABOUT_ROSA = {
    "format": "complex",
    "user": {"format": "email", "email": ROSA},
    "device": {"format": "opaque", "id": LAPTOP},
}


def threat(level: str = "HIGH", **more: Any) -> dict[str, Any]:
    """Return a mapping of the vendor's private type."""
    raised = {
        "do": "raise",
        "detection": "x_threat",
        "about": "device",
        "level": level,
        "clears_on": ["device_healthy"],
    }
    dirty = {"when": [{"member": "found", "op": "gte", "value": 1}], "then": [raised]}
    clean = {"then": [{"do": "clear", "remedy": "device_healthy", "about": "device"}]}
    return {"name": "threat", "event_type": THREAT, "rules": [dirty, clean]} | more


async def say(story: Story, found: int, **changes: Any) -> None:
    claims = story.claims(sub_id=ABOUT_ROSA, events={THREAT: {"found": found}}, **changes)
    answer = await story.push_raw(sign(claims))
    assert answer.status_code == 202, answer.text
    await story.hub.settle()
    story.hub.clock.advance(60)


async def level(story: Story) -> str:
    shown: str = (await story.get(f"/api/v1/users/{story.ids['rosa']}/risk"))["riskLevel"]
    return shown


async def test_a_private_event_type_is_assessed_once_it_is_mapped(hub: Hub) -> None:
    story = await begin(hub)
    await say(story, 3)
    before = (await story.get("/admin/v1/signals"))["items"][0]
    assert (before["state"], await level(story)) == ("ignored", "LOW")

    made = await story.post(PATH, threat())
    await say(story, 3)

    assert await level(story) == "HIGH"
    risk = await story.get(f"/v1/risk/users/{story.ids['rosa']}/explain")
    assert [each["name"] for each in risk["evidence"]] == ["x_threat"]
    assert (await story.get("/admin/v1/containments"))["items"][0]["state"] == "open"

    await say(story, 0)
    assert await level(story) == "LOW"

    answer = await story.admin.put(f"{PATH}/{made['id']}", json=threat(level="LOW"))
    assert answer.json()["version"] == 2
    await say(story, 3)
    assert await level(story) == "LOW"
    assert (await story.admin.delete(f"{PATH}/{made['id']}")).status_code == 204
    await say(story, 3)
    assert (await story.get("/admin/v1/signals"))["items"][0]["state"] == "ignored"


@ONE_ENGINE
async def test_a_policy_may_name_a_detection_of_the_tenants_own(hub: Hub) -> None:
    story = await begin(hub)
    rule = {
        "name": "threats",
        "priority": 1,
        "level": "ANY",
        "actions": ["NOTIFY"],
        "detections": {"include": ["x_threat"]},
    }
    answer = await story.admin.put(
        "/admin/v1/policies/entity-risk", json={"mode": "enforce", "rules": [rule]}
    )
    assert answer.status_code == 200, answer.text


@ONE_ENGINE
async def test_the_list_shows_what_every_event_type_means(admin: httpx2.AsyncClient) -> None:
    shown = (await admin.get(f"{PATH}?limit=100")).json()["items"]
    assert {each["event_type"] for each in shown} == EVENT_TYPES.keys()
    assert {each["source"] for each in shown} == {"default"}

    own = {"name": "quiet", "event_type": COMPLIANCE_CHANGE, "rules": []}
    made = (await admin.post(PATH, json=own)).json()
    shipped = (await admin.get(f"{PATH}/caep:device-compliance-change")).json()
    assert (made["in_force"], shipped["in_force"]) == (True, False)
    changed = await admin.patch(f"{PATH}/{made['id']}", json={"then_defaults": True})
    assert changed.json()["name"] == "quiet"
    shipped = (await admin.get(f"{PATH}/caep:device-compliance-change")).json()
    assert shipped["in_force"] is True


@ONE_ENGINE
async def test_a_shipped_mapping_stays(admin: httpx2.AsyncClient) -> None:
    path = f"{PATH}/caep:session-revoked"
    assert (await admin.patch(path, json={"name": "mine"})).status_code == 409
    assert (await admin.put(path, json=threat())).status_code == 409
    assert (await admin.delete(path)).status_code == 409


@ONE_ENGINE
async def test_what_is_wrong_is_pointed_at(admin: httpx2.AsyncClient) -> None:
    wrong = threat()
    wrong["rules"][0]["when"][0]["op"] = "matches"
    answer = await admin.post(PATH, json=wrong)
    assert answer.status_code == 400
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/rules/0/when/0/op"]
    answer = await admin.post(f"{PATH}:import", json={"mappings": [threat(), wrong]})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/mappings/1/rules/0/when/0/op"


async def test_what_is_exported_can_be_imported(hub: Hub) -> None:
    await hub.add_tenant("green")
    async with hub.client(await hub.token()) as admin:
        await admin.post(PATH, json=threat())
        exported = (await admin.post(f"{PATH}:export")).json()
    async with hub.client(await hub.token(tenant="green"), tenant="green") as green:
        old = threat(event_type=THREAT + "/old")
        await green.post(PATH, json=old)
        assert (await green.post(f"{PATH}:import", json=exported)).json() == {"imported": 1}
        assert (await green.post(f"{PATH}:export")).json() == exported
    actions = [(entry.action, entry.actor) for entry in await hub.audit("green")]
    assert [action for action, _ in actions] == ["mapping.create", "mapping.import"]


# --- dry run ------------------------------------------------------------------------------------


async def test_a_dry_run_tells_what_would_differ_and_changes_nothing(hub: Hub) -> None:
    story = await begin(hub)
    await story.play()
    await say(story, 5)
    audit = await hub.audit()

    body = {"mappings": [threat(level="MEDIUM")]}
    told = await story.post(f"{PATH}:dry-run", body)

    assert (told["signals"], told["unreadable"], told["changed"]) == (2, 0, 1)
    assert told["totals"]["now"] == {
        "raise device_not_compliant HIGH": 1,
        "report_posture": 1,
    }
    assert told["totals"]["then"] == {
        "raise device_not_compliant HIGH": 1,
        "report_posture": 1,
        "raise x_threat MEDIUM": 1,
    }
    (change,) = told["changes"]
    assert (change["event_type"], change["now"]) == (THREAT, [])
    assert change["then"][0]["detection"] == "x_threat"
    assert change["then"][0]["level"] == "MEDIUM"
    # Nothing was written, and the signal stands as it stood.
    assert await hub.audit() == audit
    assert (await story.get("/admin/v1/signals"))["items"][0]["state"] == "ignored"
    assert (await story.post(f"{PATH}:export", {})) == {"mappings": []}


@ONE_ENGINE
async def test_a_dry_run_applies_the_cap_of_the_provider_and_what_is_saved(hub: Hub) -> None:
    story = await begin(hub)
    await story.post(PATH, threat())
    await say(story, 1)
    await story.admin.patch(
        f"/admin/v1/providers/{story.ids['provider']}", json={"level_cap": "LOW"}
    )

    same = await story.post(f"{PATH}:dry-run", {"mappings": []})
    without = await story.post(f"{PATH}:dry-run", {"mappings": [], "replace": True})

    assert same["changed"] == 0
    assert same["totals"]["now"] == {"raise x_threat LOW": 1}
    assert (without["changed"], without["totals"]["then"]) == (1, {})


@ONE_ENGINE
async def test_a_dry_run_is_bounded(hub: Hub) -> None:
    story = await begin(hub)
    for _ in range(CHANGES_SHOWN_MAX + 5):
        claims = story.claims(sub_id=ABOUT_ROSA, events={THREAT: {"found": 1}})
        assert (await story.push_raw(sign(claims))).status_code == 202

    told = await story.post(f"{PATH}:dry-run", {"mappings": [threat()]})
    few = await story.post(f"{PATH}:dry-run", {"mappings": [threat()], "limit": 3})
    too_many = await story.admin.post(
        f"{PATH}:dry-run", json={"mappings": [], "limit": DRY_RUN_SIGNALS_MAX + 1}
    )

    assert told["changed"] == CHANGES_SHOWN_MAX + 5
    assert len(told["changes"]) == CHANGES_SHOWN_MAX
    assert few["signals"] == 3
    assert too_many.status_code == 400


@ONE_ENGINE
async def test_a_dry_run_needs_to_read_and_a_mapping_to_write(hub: Hub) -> None:
    async with hub.client(await hub.token("admin.read")) as reader:
        assert (await reader.post(f"{PATH}:dry-run", json={"mappings": []})).status_code == 200
        assert (await reader.post(f"{PATH}:import", json={"mappings": []})).status_code == 403
        assert (await reader.post(PATH, json=threat())).status_code == 403
    async with hub.client(await hub.token("risk.write")) as other:
        assert (await other.post(f"{PATH}:dry-run", json={"mappings": []})).status_code == 403


# --- command line -------------------------------------------------------------------------------


@pytest.mark.usefixtures("used_folder")
def test_mappings_are_kept_as_files(shell: Shell) -> None:
    (shell.folder / "threat.json").write_text(json.dumps(threat()))
    made = shell.good("mapping", "add", "--body", "threat.json")
    assert made["rules"][0]["then"][0]["detection"] == "x_threat"
    exported = shell.good("mapping", "export")
    (shell.folder / "all.json").write_text(json.dumps(exported))
    tried = shell.good("mapping", "dry-run", "--body", "all.json", "limit=10")
    assert (tried["signals"], tried["changed"]) == (0, 0)
    assert shell.run("mapping", "delete", made["id"]).out == "deleted\n"
    assert shell.good("mapping", "import", "--body", "all.json") == {"imported": 1}
    assert shell.good("mapping", "export") == exported
    listed = shell.run("mapping", "list")
    assert "caep:session-revoked" in listed.out


@pytest.mark.parametrize("words", [("dry-run",), ("import",)])
@pytest.mark.usefixtures("used_folder")
def test_a_needed_member_is_asked_for(shell: Shell, words: tuple[str, ...]) -> None:
    assert "/mappings" in shell.run("mapping", *words).err
