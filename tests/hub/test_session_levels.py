"""What the session check found, from the operation to the user's level (rows 1 and 8)."""

from __future__ import annotations

from typing import Any

import pytest

from hub.operations import NOTE_SESSION_LEVEL
from risk.sessions.levels import SessionLevel
from tests.hub.conftest import Hub
from tests.hub.story import ROSA, Story, begin


@pytest.fixture
async def story(hub: Hub) -> Story:
    return await begin(hub)


async def note(story: Story, level: str, session: dict[str, Any], *, after_s: float = 60) -> None:
    story.hub.clock.advance(after_s)
    item = SessionLevel(
        tenant_id=story.tenant,
        session_id=session["id"],
        user_id=session["user_id"],
        level=level,
        reasons=("Another country, another browser.",),
        at=story.hub.clock.now(),
        trace_id=f"trace-{level}-{after_s}",
    )
    assert await story.hub.node.writer.submit(NOTE_SESSION_LEVEL, item)
    await story.hub.settle()


async def test_row_8_a_session_at_high_makes_its_user_medium_and_names_the_session(
    story: Story,
) -> None:
    session = await story.get("/v1/risk/sessions/sid-rosa")
    rosa = f"/v1/risk/users/{story.ids['rosa']}"
    await note(story, "MEDIUM", session)
    assert (await story.get("/v1/risk/sessions/sid-rosa"))["level"] == "MEDIUM"
    assert (await story.get(rosa))["level"] == "LOW"

    await note(story, "HIGH", session)
    assert (await story.get("/v1/risk/sessions/sid-rosa"))["level"] == "HIGH"
    found = await story.get(f"{rosa}/explain")
    (evidence,) = found["evidence"]
    assert (found["level"], evidence["name"]) == ("MEDIUM", "session_influenced_user_risk")
    assert evidence["related"] == [session["id"]]
    assert evidence["reasons"] == ["Another country, another browser."]

    await note(story, "LOW", session)
    assert (await story.get("/v1/risk/sessions/sid-rosa"))["level"] == "LOW"
    assert (await story.get(rosa))["level"] == "LOW"
    history = (await story.get("/v1/risk/sessions/sid-rosa/history"))["items"]
    assert [each["level"] for each in history] == ["LOW", "HIGH", "MEDIUM"]


async def test_another_session_of_the_user_that_is_well_does_not_end_it(story: Story) -> None:
    async with story.hub.client(story.tokens["idp"]) as idp:
        body = {"user": story.ids["rosa"], "amr": ["pwd"]}
        assert (await idp.put("/v1/sessions/sid-2", json=body)).status_code == 201
    first = await story.get("/v1/risk/sessions/sid-rosa")
    second = await story.get("/v1/risk/sessions/sid-2")
    await note(story, "HIGH", first)
    await note(story, "HIGH", second)
    await note(story, "LOW", second)
    assert (await story.get(f"/v1/risk/users/{story.ids['rosa']}"))["level"] == "MEDIUM"
    await note(story, "LOW", first)
    assert (await story.get(f"/v1/risk/users/{story.ids['rosa']}"))["level"] == "LOW"


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
