"""Deliveries in the admin API: receipts by filter, redrive and replay, and what they refuse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.hub.commands import Served
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import RISK_LEVEL_CHANGE, ROSA, SESSION_REVOKED, Story, begin

REDRIVE = "/admin/v1/dead-letters:redrive"


async def with_dead_letters(hub: Hub) -> Story:
    """Play the story with a push receiver that refuses everything, and is mended afterwards."""
    story = await begin(hub)
    hub.outside.answer("https://pay.example/ssf", 400, {"err": "invalid_request"})
    await story.play()
    hub.outside.answer("https://pay.example/ssf", 202)
    hub.outside.requests.clear()
    return story


def pushed(hub: Hub) -> int:
    return sum(1 for one in hub.outside.requests if one.url == "https://pay.example/ssf")


async def test_dead_letters_are_redriven_by_condition_and_arrive(hub: Hub) -> None:
    story = await with_dead_letters(hub)
    stream = story.ids["pay stream"]
    body: dict[str, Any] = {"stream_id": stream, "event_types": [SESSION_REVOKED]}
    subject = {"format": "email", "email": ROSA}
    nobody = {"format": "email", "email": "nobody@customer.example"}
    assert (await story.post(REDRIVE, {**body, "subject": nobody}))["redriven"] == 0
    assert (await story.post(REDRIVE, {**body, "subject": subject}))["redriven"] == 1
    await hub.settle()
    assert pushed(hub) == 1
    hour = timedelta(hours=1)
    past = {"stream_id": stream, "until": (hub.clock.now() - hour).isoformat()}
    assert (await story.post(REDRIVE, past))["redriven"] == 0
    answer = await story.post(REDRIVE, {**past, "until": (hub.clock.now() + hour).isoformat()})
    assert answer == {"redriven": 1, "more": False, "after": None}
    await hub.settle()
    assert (await story.get("/admin/v1/dead-letters"))["items"] == []
    actions = [entry.action for entry in await hub.audit()]
    assert actions.count("dead_letter.redrive") == 4


async def test_delivered_sets_are_replayed_with_the_same_jti(hub: Hub) -> None:
    story = await begin(hub)
    await story.play()
    stream = story.ids["pay stream"]
    sent = {one.body for one in hub.outside.requests if one.url == "https://pay.example/ssf"}
    hub.outside.requests.clear()
    path = f"/admin/v1/streams/{stream}/replay"
    assert len(sent) == 2
    assert (await story.post(path, {"event_types": [RISK_LEVEL_CHANGE]}))["replayed"] == 1
    since = (hub.clock.now() - timedelta(minutes=5)).isoformat()
    assert await story.post(path, {"since": since}) == {
        "replayed": 1,
        "more": False,
        "after": None,
    }
    await hub.settle()
    # RS256 gives the same signature for the same claims.
    assert {one.body for one in hub.outside.requests if one.url.startswith("https://pay")} == sent
    assert "stream.replay" in [entry.action for entry in await hub.audit()]


@ONE_ENGINE
@pytest.mark.parametrize(
    "body",
    [
        {"stream_id": 7},
        {"stream_id": "x" * 65},
        {"jti": "only"},
        {"stream_id": "str_x", "subject": "rosa"},
        {"stream_id": "str_x", "subject": {"format": "email"}},
        {"stream_id": "str_x", "subject": {"format": "complex"}},
        {"stream_id": "str_x", "event_types": []},
        {"stream_id": "str_x", "event_types": ["x"] * 101},
        {"stream_id": "str_x", "event_types": "x"},
        {"stream_id": "str_x", "since": "2026-03-02T16:00:00"},
        {"stream_id": "str_x", "since": 1772469300},
        {"stream_id": "str_x", "until": "yesterday"},
        {"stream_id": "str_x", "after": "x" * 65},
        {"stream_id": "str_x", "everything": True},
    ],
)
async def test_a_redrive_refuses_what_it_cannot_read(hub: Hub, body: dict[str, Any]) -> None:
    async with hub.client(await hub.token()) as admin:
        answer = await admin.post(REDRIVE, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"]


@ONE_ENGINE
async def test_a_replay_needs_a_condition_and_a_stream_that_may_send(hub: Hub) -> None:
    story = await begin(hub)
    stream = story.ids["pay stream"]
    path = f"/admin/v1/streams/{stream}/replay"
    everything = {"since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59-14:00"}
    assert (await story.admin.post(path, json={})).status_code == 400
    assert (await story.admin.post(path, json={"after": "0"})).status_code == 400
    assert (await story.admin.post(path, json=everything)).status_code == 200
    await story.post(f"/admin/v1/streams/{stream}/status", {"status": "disabled"})
    refused = await story.admin.post(path, json=everything)
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "The stream is disabled: nothing is sent over it. Enable it first.",
    )
    redriven = await story.admin.post(REDRIVE, json={"stream_id": stream})
    assert redriven.status_code == 409
    absent = await story.admin.post("/admin/v1/streams/str_none/replay", json=everything)
    assert absent.status_code == 404


@ONE_ENGINE
async def test_who_only_reads_sends_nothing_again(hub: Hub) -> None:
    story = await with_dead_letters(hub)
    stream = story.ids["pay stream"]
    async with hub.client(await hub.token("admin.read")) as reader:
        assert (await reader.get("/admin/v1/deliveries")).status_code == 200
        for path in (REDRIVE, f"/admin/v1/streams/{stream}/replay"):
            answer = await reader.post(path, json={"stream_id": stream})
            assert answer.status_code == 403
    assert len((await story.get("/admin/v1/dead-letters"))["items"]) == 2


@ONE_ENGINE
async def test_receipts_are_filtered_by_all_that_they_show(hub: Hub) -> None:
    story = await with_dead_letters(hub)
    everything = (await story.get("/admin/v1/deliveries"))["items"]
    one = everything[0]
    assert await story.get(f"/admin/v1/deliveries/{one['id']}") == one
    for query, member in (
        (f"jti={one['jti']}", "jti"),
        (f"txn={one['txn']}", "txn"),
        (f"event_type={one['event_type']}", "event_type"),
        (f"stream={one['stream_id']}", "stream_id"),
        (f"state={one['state']}", "state"),
    ):
        found = (await story.get(f"/admin/v1/deliveries?{query}"))["items"]
        assert found == [other for other in everything if other[member] == one[member]], query
    now = hub.clock.now()
    soon, before = (quote((now + timedelta(hours=h)).isoformat()) for h in (1, -1))
    assert (await story.get(f"/admin/v1/deliveries?since={soon}"))["items"] == []
    between = await story.get(f"/admin/v1/deliveries?since={before}&until={soon}")
    assert between["items"] == everything
    for bad in ("since=yesterday", "until=2026-03-02T16:00:00", "state=gone", "since="):
        answer = await story.admin.get(f"/admin/v1/deliveries?{bad}")
        assert answer.status_code == 400, bad
        assert answer.json()["errors"][0]["parameter"] == bad.partition("=")[0]
    assert (await story.admin.get("/admin/v1/deliveries/nothing")).status_code == 404


def test_the_command_line_redrives_and_replays(any_hub_process: Served) -> None:
    shell = any_hub_process.shell
    client = shell.good("client", "add", "name=redriven", "scopes=ssf.manage,ssf.read")
    assert client["id"]
    done = shell.run("dead-letter", "redrive", "stream_id=str_none", "since=2026-03-02T16:00:00Z")
    assert (done.code, "No such stream" in done.err) == (2, True)
    done = shell.run("stream", "replay", "str_none", 'subject={"format":"opaque","id":"x"}')
    assert (done.code, "No such stream" in done.err) == (2, True)
    done = shell.run("stream", "replay", "str_none")
    assert (done.code, "Say which SETs" in done.err) == (2, True)
    listed = shell.good("delivery", "list", "--json", "--where", "since=2026-03-02T16:00:00Z")
    assert listed["items"] == []
