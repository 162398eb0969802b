"""What our own logouts say about risk: sessions are over, or, where a tenant wants it, all is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA, Story, begin


@pytest.fixture
async def story(hub: Hub) -> Story:
    return await begin(hub)


async def raised(story: Story, name: str) -> None:
    """Let a sensor say something about Rosa, and the hub act on it until it is at rest."""
    sensor = await story.post("/admin/v1/clients", {"name": "s", "scopes": ["signals.write"]})
    provider = {"name": "s", "issuer": "https://s.example", "client_id": sensor["id"]}
    await story.post("/admin/v1/providers", provider)
    said = {"name": name, "sub_id": {"format": "email", "email": ROSA}}
    async with story.hub.client(sensor["token"]) as client:
        assert (await client.post("/v1/signals/detections", json=said)).status_code == 202
    # The logouts take a moment: what is as old as they are is not over with them.
    story.hub.clock.advance(1)
    await story.hub.settle()


async def returns(story: Story) -> None:
    """Let Rosa sign in with a key that cannot be phished."""
    story.hub.clock.advance(60)
    body = {"user": story.ids["rosa"], "amr": ["hwk"]}
    async with story.hub.client(story.tokens["idp"]) as idp:
        assert (await idp.put("/v1/sessions/sid-back", json=body)).status_code == 201
    await story.hub.settle()


async def level(story: Story) -> str:
    return str((await story.get(f"/v1/risk/users/{story.ids['rosa']}"))["level"])


async def reset_wanted(story: Story) -> None:
    changed = await story.admin.patch(
        "/admin/v1/tenants/default", json={"reset_on_universal_logout": True}
    )
    assert changed.is_success, changed.text
    assert changed.json()["reset_on_universal_logout"] is True


@pytest.mark.parametrize(("status", "expected"), [(404, "LOW"), (204, "HIGH")])
async def test_row_5_a_logout_that_the_idp_confirms_ends_a_hijack_with_a_safe_return(
    story: Story, status: int, expected: str
) -> None:
    """204 says that the IdP began; only that nobody is signed in there proves it."""
    story.hub.outside.answer(f"{IDP}/gtr", status, None)
    await raised(story, "aitm_replay")
    assert await level(story) == "HIGH"
    await returns(story)
    assert await level(story) == expected


async def test_a_tenant_may_take_a_finished_logout_for_the_end_of_risk(story: Story) -> None:
    await reset_wanted(story)
    await raised(story, "honeytoken_use")
    assert await level(story) == "LOW"
    history: list[dict[str, Any]] = (
        await story.get(f"/v1/risk/users/{story.ids['rosa']}/history")
    )["items"]
    assert [each["level"] for each in history] == ["LOW", "HIGH"]
    (found,) = (await story.get(f"/v1/detections?user=email:{ROSA}&state=superseded"))["items"]
    (containment,) = (await story.get("/admin/v1/containments"))["items"]
    assert found["state_by"] == f"universal_logout:{containment['id']}"
    assert containment["state"] == "closed"


async def test_without_the_switch_a_logout_does_not_hide_what_was_found(story: Story) -> None:
    await raised(story, "honeytoken_use")
    assert await level(story) == "HIGH"


@ONE_ENGINE
async def test_a_reset_never_gets_below_a_compromised_device(story: Story) -> None:
    await reset_wanted(story)
    await story.play()
    assert await level(story) == "HIGH"
    assert (await story.get("/admin/v1/containments"))["items"][0]["state"] == "open"


@ONE_ENGINE
async def test_a_logout_that_one_app_did_not_do_resets_nothing(story: Story) -> None:
    await reset_wanted(story)
    story.hub.outside.answer("https://crm.example/gtr", 400, None)
    await raised(story, "honeytoken_use")
    assert await level(story) == "HIGH"


@ONE_ENGINE
async def test_the_switch_is_one_tenants_own_and_the_owners_to_set(hub: Hub, story: Story) -> None:
    await hub.add_tenant("green")
    token = await hub.token("admin", tenant="green", name="green admin")
    async with hub.client(token, tenant="green") as green:
        body = {"reset_on_universal_logout": True}
        refused = await green.patch("/admin/v1/tenants/default", json=body)
        assert refused.status_code in {403, 404}
    wrong = await story.admin.patch(
        "/admin/v1/tenants/default", json={"reset_on_universal_logout": "perhaps"}
    )
    assert wrong.status_code == 400
    await raised(story, "honeytoken_use")
    assert await level(story) == "HIGH"


async def test_row_5_a_hijack_ends_when_sessions_end_and_the_user_returns_with_a_passkey(
    story: Story,
) -> None:
    rosa = f"/v1/risk/users/{story.ids['rosa']}"
    sensor = await story.post("/admin/v1/clients", {"name": "s", "scopes": ["signals.write"]})
    provider = {"name": "s", "issuer": "https://s.example", "client_id": sensor["id"]}
    await story.post("/admin/v1/providers", provider)
    about = {"sub_id": {"format": "email", "email": ROSA}}
    async with story.hub.client(sensor["token"]) as client:
        said = await client.post("/v1/signals/detections", json={"name": "aitm_replay", **about})
        assert said.status_code == 202
        await story.hub.settle()
        story.hub.clock.advance(60)
        over = {"remedy": "sessions_revoked", **about}
        assert (await client.post("/v1/signals/remedies", json=over)).status_code == 202
    await story.hub.settle()
    async with story.hub.client(story.tokens["idp"]) as idp:
        for sid, amr, level in (("sid-3", ["pwd", "otp"], "HIGH"), ("sid-4", ["hwk"], "LOW")):
            story.hub.clock.advance(60)
            body = {"user": story.ids["rosa"], "amr": amr}
            assert (await idp.put(f"/v1/sessions/{sid}", json=body)).status_code == 201
            await story.hub.settle()
            assert (await story.get(rosa))["level"] == level, amr
