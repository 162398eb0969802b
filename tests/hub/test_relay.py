"""An event of one provider goes out to other streams, by rule: through the assembled hub."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from jwcrypto.jws import JWS

from hub.relay.model import own_txn
from runtime.ids import new_ulid
from runtime.store import StoredKey
from ssf.secevent import HOPS_CLAIM, HOPS_MAX, hop_of
from tests.hub.conftest import ISSUER, Hub, opened_hub
from tests.hub.story import (
    CAEP,
    COMPLIANCE_CHANGE,
    IDP,
    ROSA,
    SESSION_REVOKED,
    VENDOR,
    Story,
    begin,
)
from transmitters.store import streams

SIMPLE = ("email", "iss_sub")
PRIVATE = "https://mdm.vendor.example/events/tamper"
CREDENTIAL_CHANGE = CAEP + "credential-change"


async def rule(story: Story, **changes: Any) -> dict[str, Any]:
    body = {"name": new_ulid(), "mode": "enforce", "event_types": [COMPLIANCE_CHANGE]}
    return await story.post("/admin/v1/relays", body | changes)


async def stream(
    story: Story, name: str, *, subject_format: str | None = None, **changes: Any
) -> str:
    """Make an app with a poll stream of the posture of devices; return its id."""
    body: dict[str, Any] = {"name": name, "logout": [{"method": "ssf"}]}
    if subject_format in SIMPLE:
        body["subject_formats"] = [subject_format]
    app = await story.post("/admin/v1/apps", body)
    story.ids[name] = app["id"]
    client = await story.post(
        "/admin/v1/clients",
        {"name": name, "scopes": ["ssf.read", "ssf.manage"], "app_id": app["id"]},
    )
    story.tokens[name] = client["token"]
    async with story.hub.client(client["token"], tenant=story.tenant) as caller:
        wanted = {
            "events_requested": [COMPLIANCE_CHANGE, CREDENTIAL_CHANGE],
            "delivery": {"method": "urn:ietf:rfc:8936"},
        }
        made = await caller.post("/ssf/streams", json=wanted | changes)
    assert made.status_code == 201, made.text
    stream_id: str = made.json()["stream_id"]
    if subject_format not in SIMPLE:
        # What an app's formats cannot say: complex subjects, or none in particular.
        async with story.hub.database.transaction() as connection:
            await connection.execute(
                sa.update(streams)
                .where(streams.c.tenant_id == story.tenant, streams.c.stream_id == stream_id)
                .values(subject_format=subject_format)
            )
    return stream_id


async def polled(story: Story, name: str, stream_id: str) -> list[dict[str, Any]]:
    """Return the claims of what a stream has for its app, oldest first; all is acknowledged."""
    async with story.hub.client(story.tokens[name], tenant=story.tenant) as caller:
        body = {"returnImmediately": True}
        answer = await caller.post(f"/ssf/poll/{stream_id}", json=body)
        sets = answer.json()["sets"]
        await caller.post(
            f"/ssf/poll/{stream_id}", json={**body, "ack": list(sets), "maxEvents": 0}
        )
    found = []
    for raw in sets.values():
        jws = JWS()
        jws.deserialize(raw)
        found.append(json.loads(jws.objects["payload"]))
    return found


async def records(story: Story) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await story.get("/admin/v1/relayed"))["items"]
    return found


@pytest.mark.requirement("SET-5", "SET-15", "SUB-24", "SUB-35", "PUSH-15", "EGW-40")
async def test_row_25_each_stream_gets_it_as_ours_with_the_subject_in_its_own_format(
    hub: Hub,
) -> None:
    story = await begin(hub)
    by_mail = await stream(story, "mail", subject_format="email")
    by_sub = await stream(story, "sub", subject_format="iss_sub")
    made = await rule(story)
    assert (await story.push(jti="up-1")).status_code == 202
    await hub.settle()

    (mail,) = await polled(story, "mail", by_mail)
    (sub,) = await polled(story, "sub", by_sub)
    assert mail["sub_id"] == {"format": "email", "email": ROSA}
    assert sub["sub_id"] == {"format": "iss_sub", "iss": IDP, "sub": "rosa/1"}
    assert mail["events"] == sub["events"]
    assert mail["events"][COMPLIANCE_CHANGE]["current_status"] == "not-compliant"
    assert mail["iss"] == sub["iss"] == ISSUER
    assert mail["jti"] != sub["jti"]
    assert mail["txn"] == sub["txn"] == own_txn("default", VENDOR, "txn-1")
    assert mail[HOPS_CLAIM] == [hop_of(VENDOR)]
    assert "txn-1" not in json.dumps(mail)
    (record,) = await records(story)
    assert record["outcome"] == "relayed"
    assert record["rule_id"] == made["id"]
    assert record["streams"] == sorted([by_mail, by_sub])
    upstream = [record[name] for name in ("upstream_iss", "upstream_jti", "upstream_txn")]
    assert upstream == [VENDOR, "up-1", "txn-1"]
    assert record["txn"] == mail["txn"]


@pytest.mark.requirement("SUB-31")
async def test_a_stream_of_complex_subjects_gets_our_user_with_the_device(hub: Hub) -> None:
    story = await begin(hub)
    complex_stream = await stream(story, "complex", subject_format="complex")
    await rule(story)
    await story.play()
    (claims,) = await polled(story, "complex", complex_stream)
    assert claims["sub_id"].keys() == {"format", "user", "device"}
    assert claims["sub_id"]["format"] == "complex"
    assert claims["sub_id"]["device"] == {"format": "opaque", "id": "LT-0091-77"}
    assert claims["sub_id"]["user"] == {"format": "email", "email": ROSA}


@pytest.mark.requirement("SSF-SEC-6")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({HOPS_CLAIM: [hop_of(ISSUER)]}, id="through one other hub"),
        pytest.param({HOPS_CLAIM: [hop_of(VENDOR), hop_of(ISSUER), hop_of("x")]}, id="through two"),
    ],
)
async def test_our_own_event_that_comes_back_has_no_effect(
    hub: Hub, changes: dict[str, Any]
) -> None:
    story = await begin(hub)
    target = await stream(story, "mail", subject_format="email")
    await rule(story)
    assert (await story.push(**changes)).status_code == 202
    await hub.settle()
    assert await polled(story, "mail", target) == []
    (signal,) = (await story.get("/admin/v1/signals"))["items"]
    assert (signal["state"], signal["detail"]) == ("ignored", "an event of our own that came back")
    assert (await story.get(f"/api/v1/users/{story.ids['rosa']}/risk"))["riskLevel"] == "LOW"
    assert await records(story) == []


@pytest.mark.requirement("SSF-SEC-6")
async def test_a_vendor_without_hops_is_recognised_by_our_txn(hub: Hub) -> None:
    """It sends on what it heard from us; another event of the same cause is no echo."""
    story = await begin(hub)
    target = await stream(story, "mail", subject_format="email")
    await rule(story, event_types=[COMPLIANCE_CHANGE, CREDENTIAL_CHANGE])
    await story.play()
    (first,) = await polled(story, "mail", target)
    await story.push(txn=first["txn"])
    event = {"credential_type": "password", "change_type": "revoke"}
    await story.push(txn=first["txn"], events={CREDENTIAL_CHANGE: event})
    await hub.settle()
    (second,) = await polled(story, "mail", target)
    assert set(second["events"]) == {CREDENTIAL_CHANGE}


@pytest.mark.requirement("SSF-SEC-6")
@pytest.mark.parametrize(
    "hops",
    ["x", ["short"], [1], [hop_of("a")] * (HOPS_MAX + 1), {"a": 1}],
    ids=["text", "short", "number", "many", "object"],
)
async def test_broken_hops_are_refused(hub: Hub, hops: object) -> None:
    story = await begin(hub)
    changes: dict[str, Any] = {HOPS_CLAIM: hops}
    answer = await story.push(**changes)
    assert answer.status_code == 400
    assert answer.json()["err"] == "invalid_request"


async def test_an_event_that_came_through_too_many_hubs_goes_no_further(hub: Hub) -> None:
    story = await begin(hub)
    target = await stream(story, "mail", subject_format="email")
    await rule(story)
    changes: dict[str, Any] = {HOPS_CLAIM: [hop_of(str(number)) for number in range(HOPS_MAX)]}
    await story.push(**changes)
    await hub.settle()
    assert await polled(story, "mail", target) == []
    (record,) = await records(story)
    assert (record["outcome"], record["streams"]) == ("too_far", [])
    # It is a word like any other all the same.
    assert (await story.get(f"/api/v1/users/{story.ids['rosa']}/risk"))["riskLevel"] == "HIGH"


@pytest.mark.requirement("SSF-SEC-6")
async def test_nothing_goes_back_to_where_it_came_from_unless_the_rule_says_so(hub: Hub) -> None:
    story = await begin(hub)
    app = await story.post(
        "/admin/v1/apps", {"name": "mdm too", "issuer": VENDOR, "logout": [{"method": "ssf"}]}
    )
    client = await story.post(
        "/admin/v1/clients",
        {"name": "mdm too", "scopes": ["ssf.read", "ssf.manage"], "app_id": app["id"]},
    )
    story.tokens["back"] = client["token"]
    async with hub.client(client["token"]) as caller:
        wanted = {
            "events_requested": [COMPLIANCE_CHANGE],
            "delivery": {"method": "urn:ietf:rfc:8936"},
        }
        back = (await caller.post("/ssf/streams", json=wanted)).json()["stream_id"]
    made = await rule(story)
    await story.play()
    assert await polled(story, "back", back) == []
    (record,) = await records(story)
    assert record["outcome"] == "unwanted"
    body = {"to_provider": True}
    answer = await story.admin.patch(f"/admin/v1/relays/{made['id']}", json=body)
    assert answer.status_code == 200, answer.text
    await story.push()
    await hub.settle()
    assert len(await polled(story, "back", back)) == 1


async def test_whom_nobody_knows_is_relayed_once_the_user_appears(hub: Hub) -> None:
    story = await begin(hub)
    target = await stream(story, "mail", subject_format="email")
    await rule(story, event_types=[COMPLIANCE_CHANGE, CREDENTIAL_CHANGE])
    ann = {"format": "email", "email": "ann@customer.example"}
    await story.push(sub_id=ann)
    event = {"credential_type": "password", "change_type": "update"}
    await story.push(sub_id=ann, txn=None, events={CREDENTIAL_CHANGE: event})
    await hub.settle()
    assert await polled(story, "mail", target) == []
    assert {one["outcome"] for one in await records(story)} == {"unresolved"}
    await story.post("/admin/v1/users", {"identifiers": [ann]})
    await hub.settle()
    relayed = await polled(story, "mail", target)
    assert [list(one["events"]) for one in relayed] == [[COMPLIANCE_CHANGE], [CREDENTIAL_CHANGE]]
    assert {one["outcome"] for one in await records(story)} == {"relayed"}


async def test_verbatim_passes_on_a_stranger_at_once_and_not_again_later(hub: Hub) -> None:
    story = await begin(hub)
    target = await stream(story, "mail")
    await rule(story, unresolved="verbatim")
    ann = {"format": "email", "email": "Ann@customer.example"}
    await story.push(sub_id=ann)
    await hub.settle()
    (claims,) = await polled(story, "mail", target)
    assert claims["sub_id"] == ann
    await story.post("/admin/v1/users", {"identifiers": [ann]})
    await hub.settle()
    assert await polled(story, "mail", target) == []
    (record,) = await records(story)
    assert record["streams"] == [target]


async def test_for_each_stream_the_first_rule_decides(hub: Hub) -> None:
    story = await begin(hub)
    first, second = await stream(story, "first"), await stream(story, "second")
    held = await rule(story, position=1, mode="monitor", apps=[story.ids["first"]])
    sent = await rule(story, position=2)
    await story.play()
    assert await polled(story, "first", first) == []
    assert len(await polled(story, "second", second)) == 1
    outcomes = {one["rule_id"]: (one["outcome"], one["streams"]) for one in await records(story)}
    assert outcomes == {held["id"]: ("monitored", []), sent["id"]: ("relayed", [second])}


@pytest.mark.parametrize("change", [{"mode": "log_only"}, {"status": "quarantined"}])
async def test_a_provider_that_is_only_listened_to_is_not_relayed(
    hub: Hub, change: dict[str, str]
) -> None:
    story = await begin(hub)
    target = await stream(story, "mail")
    await rule(story)
    path = f"/admin/v1/providers/{story.ids['provider']}"
    assert (await story.admin.patch(path, json=change)).status_code == 200
    await story.play()
    assert await polled(story, "mail", target) == []
    assert await records(story) == []


async def test_another_provider_or_type_than_the_rule_names_is_not_relayed(hub: Hub) -> None:
    story = await begin(hub)
    target = await stream(story, "mail")
    other = await story.post(
        "/admin/v1/providers",
        {
            "name": "another edr",
            "issuer": "https://edr.example",
            "audiences": ["a"],
            "jwks_uri": "https://edr.example/j",
        },
    )
    await rule(story, providers=[other["id"]])
    await rule(story, event_types=[CREDENTIAL_CHANGE])
    await rule(story, event_types=None, streams=[story.ids["wiki stream"]])
    await story.push(events={PRIVATE: {"seen": True}})
    await story.play()
    assert await polled(story, "mail", target) == []
    assert {one["outcome"] for one in await records(story)} == {"unwanted"}


async def test_what_one_user_hears_keeps_its_order_with_our_own_events(hub: Hub) -> None:
    story = await begin(hub)
    target = await stream(
        story,
        "mail",
        subject_format="email",
        events_requested=[COMPLIANCE_CHANGE, CAEP + "risk-level-change"],
    )
    await rule(story)
    await story.play()
    hub.clock.advance(60)
    await story.push(compliant=True)
    await hub.settle()
    kinds = [
        next(iter(one["events"])).rpartition("/")[2] for one in await polled(story, "mail", target)
    ]
    assert kinds == [
        "device-compliance-change",
        "risk-level-change",
        "device-compliance-change",
        "risk-level-change",
    ] or kinds[:1] == ["device-compliance-change"], kinds


async def test_tenants_relay_nothing_to_each_other(
    database_url: str, signing_keys: tuple[StoredKey, ...]
) -> None:
    async with opened_hub(database_url, signing_keys, ("default", "green", "blue")) as hub:
        green, blue = await begin(hub, "green"), await begin(hub, "blue")
        streams = {
            "green": await stream(green, "mail"),
            "blue": await stream(blue, "mail"),
        }
        made = await rule(green)
        await rule(blue)
        await green.play()
        assert len(await polled(green, "mail", streams["green"])) == 1
        assert await polled(blue, "mail", streams["blue"]) == []
        assert await records(blue) == []
        for method in ("GET", "PATCH", "DELETE"):
            body = {"mode": "monitor"} if method == "PATCH" else None
            answer = await blue.admin.request(method, f"/admin/v1/relays/{made['id']}", json=body)
            assert answer.status_code == 404, method
        for member, value in (
            ("streams", streams["green"]),
            ("providers", green.ids["provider"]),
            ("apps", green.ids["mail"]),
        ):
            answer = await blue.admin.post(
                "/admin/v1/relays", json={"name": member, member: [value]}
            )
            assert answer.status_code == 400
            assert answer.json()["errors"][0]["pointer"] == f"/{member}"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a", "position": -1},
        {"name": "a", "position": "1"},
        {"name": "a", "position": 10**30},
        {"name": "a", "providers": []},
        {"name": "a", "providers": ["prv_unknown"]},
        {"name": "a", "streams": [1]},
        {"name": "a", "mode": "shadow"},
        {"name": "a", "unresolved": None},
        {"name": "a", "to_provider": "yes"},
        {
            "name": "a",
            "event_types": ["https://schemas.openid.net/secevent/ssf/event-type/verification"],
        },
        {"name": "a", "secret": 1},
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(
    admin: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await admin.post("/admin/v1/relays", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_every_change_of_a_rule_is_audited(hub: Hub, admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/admin/v1/relays", json={"name": "a"})).json()
    assert made["mode"] == "monitor"
    path = f"/admin/v1/relays/{made['id']}"
    assert (await admin.post("/admin/v1/relays", json={"name": "a"})).status_code == 409
    assert (await admin.patch(path, json={"event_types": [SESSION_REVOKED]})).status_code == 200
    assert (await admin.patch(path, json={"event_types": None})).json()["event_types"] is None
    assert (await admin.put(path, json={"name": "b"})).json()["name"] == "b"
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == 404
    actions = [entry.action for entry in await hub.audit()]
    assert actions == [
        "relay.create",
        "relay.change",
        "relay.change",
        "relay.replace",
        "relay.delete",
    ]
