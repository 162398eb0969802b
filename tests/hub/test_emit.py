"""Test events on demand: `POST /admin/v1/events:emit`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssf.jose import split_jws
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import Story, begin

pytestmark = ONE_ENGINE

REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
ROSA = {"format": "email", "email": "rosa.lind@customer.example"}


def order(stream_id: str, **changes: Any) -> dict[str, Any]:
    return {"stream_id": stream_id, "event_type": REVOKED, "subject": ROSA, **changes}


@pytest.fixture
async def story(hub: Hub) -> Story:
    return await begin(hub)


async def polled(story: Story) -> dict[str, dict[str, Any]]:
    """Return jti to claims of what the poll stream has."""
    async with story.hub.client(story.tokens["wiki"]) as wiki:
        path = f"/ssf/poll/{story.ids['wiki stream']}"
        answer = await wiki.post(path, json={"returnImmediately": True})
    sets = answer.json()["sets"]
    return {jti: msgspec.json.decode(split_jws(raw.encode()).payload) for jti, raw in sets.items()}


async def test_a_test_event_goes_out_over_one_stream_and_changes_no_risk(story: Story) -> None:
    stream = story.ids["wiki stream"]
    event = {"reason_admin": {"en": "a test"}, "initiating_entity": "admin"}
    made = await story.post("/admin/v1/events:emit", order(stream, event=event, txn="t-1"))

    assert made["stream_id"] == stream
    assert made["txn"] == "t-1"
    claims = (await polled(story))[made["jti"]]
    assert claims["sub_id"] == ROSA
    assert claims["events"] == {REVOKED: event}
    listed = (await story.get("/admin/v1/events"))["items"]
    assert [each["id"] for each in listed] == [made["event_id"]]
    await story.hub.settle()
    assert (await story.get("/admin/v1/containments"))["items"] == []
    assert (await story.get("/admin/v1/deliveries"))["items"][0]["jti"] == made["jti"]
    entry = (await story.get("/admin/v1/audit"))["items"][0]
    assert (entry["action"], entry["detail"]["stream_id"]) == ("event.emit", stream)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"stream_id": "str_01KJQ2M80000ZC4T9W6YR0QXN1"}, 404),
        ({"event_type": "https://events.example/never-asked-for"}, 409),
        ({"event_type": "https://schemas.openid.net/secevent/ssf/event-type/verification"}, 400),
        ({"subject": {}}, 400),
        ({"subject": {"format": "email"}}, 400),
        ({"subject": []}, 400),
        ({"event": {"event_timestamp": "yesterday"}}, 400),
        ({"event": []}, 400),
        ({"stream_id": 7}, 400),
        ({"more": 1}, 400),
        ({"txn": ""}, 400),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    story: Story, changes: dict[str, Any], status: int
) -> None:
    body = {**order(story.ids["wiki stream"]), **changes}
    answer = await story.admin.post("/admin/v1/events:emit", json=body)

    assert answer.status_code == status, answer.text
    assert await polled(story) == {}


async def test_what_a_stream_does_not_take_is_told_with_what_it_takes(story: Story) -> None:
    body = order(story.ids["wiki stream"], event_type="https://events.example/never-asked-for")
    of_type = await story.admin.post("/admin/v1/events:emit", json=body)

    assert of_type.status_code == 409
    assert "does not take events of this type; it takes" in of_type.json()["detail"]
    assert REVOKED in of_type.json()["detail"]


async def test_nothing_is_emitted_over_a_disabled_stream(story: Story) -> None:
    stream = story.ids["wiki stream"]
    await story.post(f"/admin/v1/streams/{stream}/status", {"status": "disabled"})
    answer = await story.admin.post("/admin/v1/events:emit", json=order(stream))

    assert answer.status_code == 409


async def test_emitting_needs_the_scope_to_write(story: Story) -> None:
    path, body = "/admin/v1/events:emit", order(story.ids["wiki stream"])
    async with story.hub.client(story.tokens["wiki"]) as app:
        assert (await app.post(path, json=body)).status_code == 403
    async with story.hub.client(await story.hub.token("admin.read")) as reader:
        assert (await reader.post(path, json=body)).status_code == 403
    async with story.hub.client() as nobody:
        assert (await nobody.post(path, json=body)).status_code == 401
