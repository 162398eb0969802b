"""What did not come in: shown with its reason, without secrets, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from jwcrypto.jwk import JWK

from hub.core import LEADER_BUCKET, LEASE_KIND
from receivers.refusals.model import KEPT_PER_CODE, LIFE, decode, masked
from runtime.changes import KEPT, Change
from runtime.clock import SystemClock
from runtime.database import DELETED_AT_ONCE_MAX
from runtime.ids import new_id
from runtime.store import add_changes, changes
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import COMPLIANCE_CHANGE, LAPTOP, ROSA, VENDOR, Story, begin, sign
from tests.hub.test_mappings import THREAT, say, threat

PATH = "/admin/v1/ingest-errors"
LOOKS_MAX = 400
LOOK_S = 0.05


async def listed(
    story: Story, until: Callable[[list[dict[str, Any]]], bool] = bool, query: str = ""
) -> list[dict[str, Any]]:
    """Return the list once it is as wanted: it is written a moment after the answer."""
    found: list[dict[str, Any]] = []
    for _ in range(LOOKS_MAX):
        found = (await story.get(f"{PATH}?limit=100{query}"))["items"]
        if until(found):
            return found
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"not as wanted: {found}")


async def level(story: Story) -> str:
    shown: str = (await story.get(f"/api/v1/users/{story.ids['rosa']}/risk"))["riskLevel"]
    return shown


async def test_a_refused_set_is_shown_and_taken_in_once_its_cause_is_mended(hub: Hub) -> None:
    story = await begin(hub)
    answer = await story.push(aud="https://other.example")
    assert answer.status_code == 400
    (error,) = await listed(story)
    assert (error["kind"], error["code"]) == ("refused", "invalid_audience")
    assert (error["provider_id"], error["event_type"]) == (story.ids["provider"], COMPLIANCE_CHANGE)
    assert error["replayable"]

    still = await story.post(f"{PATH}/{error['id']}/replay", {})
    assert (still["state"], still["attempts"], await level(story)) == ("open", 1, "LOW")

    await story.admin.patch(
        f"/admin/v1/providers/{story.ids['provider']}",
        json={"audiences": ["https://hub.customer.example", "https://other.example"]},
    )
    taken = await story.post(f"{PATH}:replay-all", {"code": "invalid_audience"})
    assert (taken["tried"], taken["taken"]) == (1, 1)
    await hub.settle()
    assert await level(story) == "HIGH"
    shown = await story.get(f"{PATH}/{error['id']}")
    assert (shown["state"], shown["attempts"]) == ("replayed", 2)
    # It is not tried a third time, and would be a repeat if it were.
    assert (await story.post(f"{PATH}:replay-all", {}))["tried"] == 0
    again = await story.post(f"{PATH}/{error['id']}/replay", {})
    assert again["reason"] == "taken in: duplicate"
    actions = {entry.action for entry in await hub.audit()}
    assert {"ingest_error.replay", "ingest_error.replay-all"} <= actions


async def test_what_was_kept_is_never_trusted_unverified(hub: Hub) -> None:
    story = await begin(hub)
    forged = JWK.generate(kty="EC", crv="P-256", kid="mdm-1", alg="ES256", use="sig")
    assert (await story.push_raw(sign(story.claims(), forged))).status_code == 400
    await listed(story)
    tried = await story.post(f"{PATH}:replay-all", {})
    await hub.settle()
    assert (tried["tried"], tried["taken"], await level(story)) == (1, 0, "LOW")


@ONE_ENGINE
async def test_garbage_is_kept_and_shown_as_far_as_it_can_be_read(hub: Hub) -> None:
    story = await begin(hub)
    for raw in (b"", b"\x00\xff.\x00", b"a.b.c", b"e30.WzFd.x", b"." * 40_000, b"\xe2\x82\xac"):
        assert (await story.push_raw(raw)).status_code == 400
        hub.clock.advance(1)
    errors = await listed(story, lambda found: len(found) >= 3)
    for error in errors:
        shown = await story.get(f"{PATH}/{error['id']}")
        assert {"header", "claims"} <= shown.keys()
    assert (await story.post(f"{PATH}:replay-all", {}))["taken"] == 0


@ONE_ENGINE
async def test_a_stranger_is_counted_and_nothing_of_theirs_is_kept(hub: Hub) -> None:
    story = await begin(hub)
    async with hub.client() as stranger:
        answer = await stranger.post(
            story.events_url,
            content=sign(story.claims()),
            headers={"content-type": "application/secevent+jwt", "authorization": "Bearer guess"},
        )
    assert answer.status_code == 401
    (error,) = await listed(story)
    assert (error["code"], error["replayable"]) == ("authentication_failed", False)
    assert (await story.admin.post(f"{PATH}/{error['id']}/replay")).status_code == 409
    assert "guess" not in str(await story.get(f"{PATH}/{error['id']}"))


@ONE_ENGINE
async def test_a_flood_is_counted_whole_and_kept_in_part(hub: Hub) -> None:
    story = await begin(hub)
    count = 2 * KEPT_PER_CODE
    for _ in range(count):
        assert (await story.push(iss="https://evil.example")).status_code == 400
    summary: list[dict[str, Any]] = []
    for _ in range(LOOKS_MAX):
        summary = (await story.post(f"{PATH}:summary", {}))["items"]
        if summary and summary[0]["count"] == count:
            break
        await asyncio.sleep(LOOK_S)
    assert [(each["code"], each["count"]) for each in summary] == [("invalid_issuer", count)]
    assert 0 < len(await listed(story)) <= KEPT_PER_CODE


@ONE_ENGINE
async def test_secrets_are_masked_and_subjects_are_for_those_who_may_see_them(hub: Hub) -> None:
    story = await begin(hub)
    secret = {"access_token": "abc", "note": "Bearer xyz", "inner": [{"Password": "p", "ok": 1}]}
    await story.push(aud="x", authorization="Basic YTpi", extra=secret)
    (error,) = await listed(story)
    shown = await story.get(f"{PATH}/{error['id']}")
    claims = shown["claims"]
    assert claims["authorization"] == "***"
    assert claims["extra"] == {
        "access_token": "***",
        "note": "***",
        "inner": [{"Password": "***", "ok": 1}],
    }
    assert claims["sub_id"]["user"]["email"] == ROSA
    async with hub.client(await hub.token("admin.read")) as reader:
        masked_ = (await reader.get(f"{PATH}/{error['id']}")).json()
        assert masked_["claims"]["sub_id"] == "***"
        assert ROSA not in str(masked_)
        assert LAPTOP not in str(masked_)
        assert (await reader.post(f"{PATH}/{error['id']}/replay")).status_code == 403
        assert (await reader.post(f"{PATH}:replay-all", json={})).status_code == 403


async def test_signals_that_led_to_nothing_stand_in_the_list_and_are_assessed_anew(
    hub: Hub,
) -> None:
    story = await begin(hub)
    nobody = {"format": "email", "email": "nobody@customer.example"}
    assert (await story.push(sub_id=nobody)).status_code == 202
    await say(story, 1)
    (error,) = await listed(story)
    assert (error["kind"], error["id"][:4]) == ("unmatched", "sig_")
    assert (await story.get(f"{PATH}/{error['id']}"))["claims"]["iss"] == VENDOR
    assert (await listed(story, lambda _: True, "&kind=failed")) == []

    await story.post("/admin/v1/mappings", threat())
    body = {"state": "ignored", "event_type": THREAT}
    assert await story.post("/admin/v1/signals:requeue", body) == {"requeued": 1}
    await story.post(f"{PATH}/{error['id']}/replay", {})
    await hub.settle()
    states = {each["id"]: each["state"] for each in (await story.get("/admin/v1/signals"))["items"]}
    assert states[error["id"]] == "unmatched"
    assert sorted(states.values()) == ["assessed", "unmatched"]
    assert await level(story) == "HIGH"
    # What was assessed is not assessed twice.
    assert (await story.admin.post(f"{PATH}/sig_none/replay")).status_code == 404
    assert await story.post("/admin/v1/signals:requeue", body) == {"requeued": 0}


@ONE_ENGINE
async def test_events_about_the_stream_are_never_assessed(hub: Hub) -> None:
    story = await begin(hub)
    event = "https://schemas.openid.net/secevent/ssf/event-type/verification"
    sub_id = {"format": "opaque", "id": "str"}
    assert (await story.push(sub_id=sub_id, events={event: {}})).status_code == 202
    assert await story.post("/admin/v1/signals:requeue", {"state": "ignored"}) == {"requeued": 0}


async def test_old_refusals_are_forgotten(hub: Hub) -> None:
    story = await begin(hub)
    await story.push(aud="x")
    await listed(story)
    hub.clock.advance((LIFE + timedelta(days=1)).total_seconds())
    keeper = await hub._keeper(LEASE_KIND)
    await hub.core.purge(keeper.fence(LEADER_BUCKET))
    assert await listed(story, lambda _: True) == []
    assert (await story.post(f"{PATH}:summary", {}))["items"] == []


@ONE_ENGINE
async def test_what_is_old_is_deleted_in_batches_until_nothing_is_left(hub: Hub) -> None:
    begun = SystemClock().now() - KEPT - timedelta(minutes=1)
    entry = Change(tenant_id="default", change_id="", kind="sessions", ref="ses_1", at=begun)
    async with hub.database.transaction() as connection:
        await add_changes(
            connection,
            [replace(entry, change_id=new_id("chg")) for _ in range(DELETED_AT_ONCE_MAX + 1)],
        )
        # On SQLite the last ones stay, as the place of the next one follows theirs.
        await add_changes(connection, [replace(entry, change_id=new_id("chg"), at=begun + KEPT)])
    keeper = await hub._keeper(LEASE_KIND)
    assert await hub.core.purge(keeper.fence(LEADER_BUCKET))
    assert not await hub.core.purge(keeper.fence(LEADER_BUCKET))
    async with hub.database.snapshot() as connection:
        count = sa.select(sa.func.count()).where(
            changes.c.tenant_id == "default", changes.c.at <= begun
        )
        assert await connection.scalar(count) == 0


def test_decoding_and_masking_take_anything() -> None:
    for raw in (b"", b"....", b"\xff.\xff", b"e30.e30.", b"W10.W10.x"):
        masked(decode(raw), with_subjects=False)
    deep: Any = "x"
    for _ in range(100):
        deep = {"a": [deep]}
    assert "***" in str(masked(deep, with_subjects=True))
