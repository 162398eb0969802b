"""An admin sets how the SETs of a stream look, or stops it; what a receiver then gets over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub
from tests.hub.story import ROSA, SESSION_REVOKED, Story, begin
from tests.hub.test_oauth import party

OLD_PUSH = "https://schemas.openid.net/secevent/risc/delivery-method/push"
FEED = "https://federation.receiver.example/feeds/1"
PAY = "https://pay.example/ssf"
KEY = JWK.generate(kty="RSA", size=2048, kid="pay-1")
STATUSES = ("enabled", "paused", "disabled")


def pushed(hub: Hub, url: str = PAY) -> list[bytes]:
    return [one.body or b"" for one in hub.outside.requests if one.url == url]


async def keys_of(hub: Hub) -> dict[str, JWK]:
    async with hub.client() as anybody:
        found = (await anybody.get("/jwks.json")).json()["keys"]
    return {key["kid"]: JWK(**key) for key in found}


async def claims_of(hub: Hub, raw: bytes) -> dict[str, Any]:
    jws = JWS()
    jws.deserialize(raw.decode())
    jws.verify((await keys_of(hub))[jws.jose_header["kid"]])
    claims: dict[str, Any] = json.loads(jws.payload)
    return claims


def revocation(sets: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (one for one in sets if SESSION_REVOKED in one["events"])
    return found


@pytest.mark.requirement("SET-21")
async def test_a_pushed_set_is_encrypted_for_the_key_an_admin_gave(hub: Hub) -> None:
    story = await begin(hub)
    path = f"/admin/v1/streams/{story.ids['pay stream']}"
    public = KEY.export_public(as_dict=True)
    answer = await story.admin.patch(path, json={"encryption_key": public})
    assert answer.status_code == 200, answer.text
    shown = answer.json()["encryption_key"]
    assert shown == {**public, "alg": "RSA-OAEP-256", "use": "enc"}
    await story.play()
    raws = pushed(hub)
    assert len(raws) == 2
    opened = []
    for raw in raws:
        jwe = JWE()
        jwe.deserialize(raw.decode(), key=KEY)
        assert jwe.jose_header["cty"] == "JWT"
        opened.append(await claims_of(hub, jwe.payload))
    assert revocation(opened)["sub_id"] == {"format": "email", "email": ROSA}
    pushes = [one for one in hub.outside.requests if one.url == PAY]
    assert {one.headers["content-type"] for one in pushes} == {"application/secevent+jwt"}
    # Taken away again, the next one is signed only.
    assert (await story.admin.patch(path, json={"encryption_key": None})).status_code == 200
    hub.outside.requests.clear()
    await story.post(f"{path}/replay", {"event_types": [SESSION_REVOKED]})
    await hub.settle()
    (raw,) = pushed(hub)
    assert SESSION_REVOKED in (await claims_of(hub, raw))["events"]
    assert [entry.action for entry in await hub.audit()].count("stream.change") == 2


@ONE_ENGINE
@pytest.mark.parametrize(
    "body",
    [
        {"encryption_key": KEY.export(as_dict=True)},
        {"encryption_key": {**KEY.export_public(as_dict=True), "alg": "none"}},
        {"encryption_key": {**KEY.export_public(as_dict=True), "alg": "RSA1_5"}},
        {"encryption_key": {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}},
        {"encryption_key": {"kty": "OKP", "crv": "X25519", "x": "AAAA"}},
        {"encryption_key": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
        {"encryption_key": {"kty": {"a": 1}}},
        {"encryption_key": {}},
        {"encryption_key": "https://receiver.example/jwks"},
        {"encryption_key": [KEY.export_public(as_dict=True)]},
        {"profile": None},
        {"profile": "apple"},
        {"profile": 1},
        {"subject_format": "complex"},
        {"subject_format": ["email"]},
        {"aud": "https://other.example"},
        {"client_id": "cli_other"},
    ],
)
@pytest.mark.requirement("SET-21")
async def test_a_shape_that_cannot_be_is_refused_and_changes_nothing(
    hub: Hub, body: dict[str, Any]
) -> None:
    story = await begin(hub)
    path = f"/admin/v1/streams/{story.ids['pay stream']}"
    before = await story.get(path)
    entries = len(await hub.audit())
    answer = await story.admin.patch(path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (KEY.export(as_dict=True)["d"] in answer.text) is False
    assert await story.get(path) == before
    assert len(await hub.audit()) == entries


@ONE_ENGINE
async def test_only_an_admin_shapes_a_stream(hub: Hub) -> None:
    story = await begin(hub)
    stream = story.ids["pay stream"]
    async with hub.client(story.tokens["pay"]) as pay:
        path = f"/admin/v1/streams/{stream}"
        assert (await pay.patch(path, json={"profile": "sse"})).status_code == 403
        # Over SSF these are unknown members: ignored, not obeyed.
        wanted = {"stream_id": stream, "profile": "sse", "subject_format": "opaque"}
        assert (await pay.patch("/ssf/streams", json=wanted)).status_code == 200
    shown = await story.get(path)
    assert (shown["profile"], shown["subject_format"]) == ("final", "email")
    absent = await story.admin.patch("/admin/v1/streams/str_none", json={"profile": "sse"})
    assert absent.status_code == 404


@pytest.mark.requirement("SUB-24")
async def test_an_admin_chooses_how_a_stream_names_users(hub: Hub) -> None:
    story = await begin(hub)
    path = f"/admin/v1/streams/{story.ids['pay stream']}"
    body = {"profile": "sse", "subject_format": "iss_sub"}
    shown = (await story.admin.patch(path, json=body)).json()
    assert shown["configuration"]["delivery"]["method"] == OLD_PUSH
    assert shown["configuration"]["format"] == "iss_sub"
    await story.admin.patch(path, json={"subject_format": None})
    await story.play()
    sent = revocation([await claims_of(hub, raw) for raw in pushed(hub)])
    # As the event has it, in the old form: inside the event, and nothing beside it.
    subject = sent["events"][SESSION_REVOKED]["subject"]
    assert "sub_id" not in sent
    assert subject["user"]
    assert "format" not in subject


@pytest.mark.requirement("OLD-1", "OLD-2")
async def test_an_app_of_an_old_draft_makes_its_stream_itself(hub: Hub) -> None:
    story: Story = await begin(hub)
    app = {"name": "abm", "stream_profile": "sse", "subject_formats": ["email"]}
    made = await story.post("/admin/v1/apps", {**app, "logout": [{"method": "ssf"}]})
    assert made["stream_profile"] == "sse"
    named = {"name": "abm", "scopes": ["ssf.read", "ssf.manage"], "app_id": made["id"]}
    token = (await story.post("/admin/v1/clients", named))["token"]
    wanted = {
        "iss": ISSUER,
        "aud": [FEED],
        "delivery": {"method": OLD_PUSH, "endpoint_url": f"{FEED}/events"},
        "events_requested": [SESSION_REVOKED],
        "format": "email",
    }
    async with hub.client(token) as abm:
        answer = await abm.post("/ssf/streams", json=wanted)
        assert answer.status_code == 201, answer.text
        shown = answer.json()
        # Its draft has no ids of streams: it has one.
        assert (await abm.get("/ssf/streams")).json() == shown
        assert (await abm.get("/ssf/status")).json()["status"] == "enabled"
    assert {name: shown[name] for name in wanted} == wanted
    await hub.settle()
    await story.play()
    verification, sent = [await claims_of(hub, raw) for raw in pushed(hub, f"{FEED}/events")]
    assert verification["sub_id"]["id"] == shown["stream_id"]
    user = {"format": "email", "email": ROSA}
    assert sent["events"][SESSION_REVOKED]["subject"] == {"user": user}
    assert (sent["aud"], sent["iss"]) == (FEED, ISSUER)
    refused = await story.admin.patch(f"/admin/v1/apps/{made['id']}", json={"stream_profile": "x"})
    assert refused.status_code == 400


@ONE_ENGINE
@pytest.mark.requirement("OLD-1", "OLD-2")
async def test_only_a_receiver_of_an_old_draft_leaves_out_which_stream(hub: Hub) -> None:
    story = await begin(hub)
    path = f"/admin/v1/streams/{story.ids['pay stream']}"
    async with hub.client(story.tokens["pay"]) as pay:
        assert (await pay.delete("/ssf/streams")).status_code == 400
        assert len((await pay.get("/ssf/streams")).json()) == 1
        await story.admin.patch(path, json={"profile": "sse"})
        # Empty is not left out, and two streams are not one.
        assert (await pay.delete("/ssf/streams?stream_id=")).status_code == 400
        second = (await pay.post("/ssf/streams", json={"events_requested": []})).json()
        assert (await pay.delete("/ssf/streams")).status_code == 400
        await pay.delete(f"/ssf/streams?stream_id={second['stream_id']}")
        assert (await pay.delete("/ssf/streams")).status_code == 204
        assert (await pay.delete("/ssf/streams")).status_code == 400
    # Nobody else's went with it.
    assert (await story.get(f"/admin/v1/streams/{story.ids['wiki stream']}"))["id"]


@ONE_ENGINE
@pytest.mark.requirement("OLD-1", "OLD-2")
async def test_old_metadata_differ_in_the_names_of_the_methods_alone(hub: Hub) -> None:
    async with hub.client() as anybody:
        final = (await anybody.get("/.well-known/ssf-configuration")).json()
        old = (await anybody.get("/.well-known/sse-configuration")).json()
    assert OLD_PUSH not in final["delivery_methods_supported"]
    assert OLD_PUSH in old["delivery_methods_supported"]
    methods = {"delivery_methods_supported": final["delivery_methods_supported"]}
    assert {**old, **methods} == final


async def test_an_admin_filters_a_stream_by_members_of_events(hub: Hub) -> None:
    story = await begin(hub)
    path = f"/admin/v1/streams/{story.ids['pay stream']}"
    good = {"initiating_entity": ["admin"]}
    assert (await story.admin.patch(path, json={"filters": good})).json()["filters"] == good
    bad_ones: tuple[Any, ...] = (
        {"current_level": []},
        {"current_level": "HIGH"},
        {"current_level": [{"a": 1}]},
        {"": ["HIGH"]},
        {str(number): ["x"] for number in range(11)},
        {"a": ["x"] * 51},
        [],
    )
    for bad in bad_ones:
        answer = await story.admin.patch(path, json={"filters": bad})
        assert answer.status_code == 400, bad
    assert (await story.admin.get(path)).json()["filters"] == good
    await story.play()
    # The hub's own events are the policy's doing.
    assert pushed(hub) == []
    assert (await story.admin.patch(path, json={"filters": None})).json()["filters"] is None


@ONE_ENGINE
@pytest.mark.requirement("SSF-STAT-9", "SSF-STAT-10")
@pytest.mark.parametrize("first", ["enabled", "disabled"])
async def test_what_an_admin_stopped_its_receiver_cannot_let_go_on(hub: Hub, first: str) -> None:
    app = await party(hub)
    async with (
        hub.client(await app.token()) as receiver,
        hub.client(await hub.token()) as admin,
    ):
        made = await receiver.post("/ssf/streams", json={"events_requested": [SESSION_REVOKED]})
        stream_id = made.json()["stream_id"]

        async def ask(status: str) -> int:
            body = {"stream_id": stream_id, "status": status}
            return (await receiver.post("/ssf/status", json=body)).status_code

        async def stop(status: str) -> Any:
            path = f"/admin/v1/streams/{stream_id}/status"
            answer = await admin.post(path, json={"status": status, "reason": "stolen token"})
            assert answer.status_code == 200, answer.text
            return answer.json()["stopped_as"]

        assert await ask(first) == 200
        assert await stop("disabled") == "disabled"
        assert [await ask(status) for status in STATUSES] == [403, 403, 200]
        patch = {"stream_id": stream_id, "description": "mine"}
        assert (await receiver.patch("/ssf/streams", json=patch)).status_code == 200
        told = await receiver.get("/ssf/status", params={"stream_id": stream_id})
        assert told.json()["status"] == "disabled"
        assert await stop("paused") == "paused"
        # Less may go out than the admin lets, and as much; not more.
        assert [await ask(status) for status in STATUSES] == [403, 200, 200]
        assert await ask("paused") == 200
        assert await stop("enabled") is None
        assert [await ask(status) for status in STATUSES] == [200, 200, 200]
        async with hub.client(await (await party(hub, "ssf.manage")).token()) as stranger:
            body = {"stream_id": stream_id, "status": "enabled"}
            assert (await stranger.post("/ssf/status", json=body)).status_code == 404
