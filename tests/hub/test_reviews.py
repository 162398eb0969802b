"""Sessions nobody uses at the moment, judged because of what providers say."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from hub.app import make_app
from hub.inline.reviews import BATCH_MAX, Reviews
from hub.node import open_node
from risk.reviews import store
from risk.reviews.model import ReviewCause
from risk.sessions.model import PutSession
from risk.sessions.service import PUT_SESSION
from tests.hub.conftest import DEFAULT, ONE_ENGINE, Hub, config_for
from tests.hub.story import CAEP, IDP, LAPTOP, ROSA, TIM, Story, begin, sign
from tests.hub.test_inline import (
    DEVICE_KEY,
    HOME,
    OFFICE,
    SID,
    Gateway,
    request_from,
    stands_of,
    state_of,
)
from tests.risk.test_contexts import CHROME, FIREFOX

FIREWALL = {"signals": {"firewall": "off"}, "old": {"firewall": "on"}}
BY_DEVICE: dict[str, object] = {"format": "opaque", "id": LAPTOP}


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def no_way_without_a_firewall(
    story: Story, decision: str = "STEP_UP", signal: str = "firewall", value: str = "off"
) -> None:
    """Let the global session policy ask for a firewall, as a provider reports it, or the like."""
    rules = [
        {
            "name": "firewall",
            "priority": 1,
            "when": {"posture": {"include": {signal: [value]}}},
            "then": {"decision": decision},
        }
    ]
    changed = await story.admin.put(
        "/admin/v1/policies/global-session",
        json={"name": "global-session", "mode": "enforce", "rules": rules},
    )
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()


async def say(story: Story, **what: Any) -> None:
    """Let the provider's agent tell the posture of Rosa's laptop, and let the core read it."""
    if "agent" not in story.tokens:
        made = await story.post("/admin/v1/clients", {"name": "agent", "scopes": ["signals.write"]})
        story.tokens["agent"] = made["token"]
        bound = await story.admin.patch(
            f"/admin/v1/providers/{story.ids['provider']}", json={"client_id": made["id"]}
        )
        assert bound.is_success, bound.text
        await story.hub.node.feed.refresh()
    async with story.hub.client(story.tokens["agent"]) as agent:
        told = await agent.post("/v1/signals/posture", json={"sub_id": BY_DEVICE, **what})
    assert told.status_code == 202, told.text
    await story.hub.settle()


async def reviewed(gateway: Gateway) -> int:
    """Work off what is to be reviewed; return how many sessions that were."""
    reviews: Reviews = state_of(gateway.story.hub).reviews
    done = await reviews.work_off()
    await gateway.settle()
    return done


@pytest.mark.parametrize(
    ("signal", "old", "new"), [("firewall", "on", "off"), ("managed", "true", "false")]
)
async def test_row_13_a_posture_change_of_an_idle_session_is_judged_at_once(
    gateway: Gateway, signal: str, old: str, new: str
) -> None:
    await no_way_without_a_firewall(gateway.story, signal=signal, value=new)
    await gateway.ask(request_from(HOME))
    await gateway.settle()

    await say(gateway.story, signals={signal: new}, old={signal: old})
    assert await reviewed(gateway) == 1

    # Nobody asked, and what is to be answered stands already.
    (asked,) = [stand for stand in await stands_of(gateway) if stand.state == "asked"]
    decided = await gateway.ask(request_from(HOME))
    assert decided["decision"] == "STEP_UP"
    assert decided["step_up"] == {"id": asked.step_up_id, "new": False}
    assert decided["trace_id"] == asked.trace_id
    assert decided["changed"] == {
        "causes": ["deviceContext.change"],
        "classes": ["posture"],
        "old": {f"signals.reported.{signal}": old},
        "new": {f"signals.reported.{signal}": new},
    }


async def test_row_13_restored_posture_clears(gateway: Gateway) -> None:
    await no_way_without_a_firewall(gateway.story)
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    await say(gateway.story, **FIREWALL)
    await reviewed(gateway)
    assert await gateway.decision(request_from(HOME)) == "STEP_UP"

    await say(gateway.story, signals={"firewall": "on"})
    assert await reviewed(gateway) == 1
    decided = await gateway.ask(request_from(HOME))
    assert decided["decision"] == "ALLOW"
    assert "changed" not in decided


async def test_row_13_sessions_no_process_holds_are_found_and_ended(gateway: Gateway) -> None:
    """A process that never heard of the session reviews it; two reviews end it once."""
    hub = gateway.story.hub
    await no_way_without_a_firewall(gateway.story, "TERMINATE")
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    await say(gateway.story, **FIREWALL)

    config = config_for(hub.node.config.database_url, index=1)
    async with open_node(config) as opened:
        node = dataclasses.replace(opened, clock=hub.clock)
        other: Any = make_app(node, hub.outside)
        while not hasattr(other, "state"):
            other = getattr(other, "_app", None) or other._inner
        assert len(other.state.inline.live) == 0
        assert await other.state.reviews.work_off() == 1
    assert await reviewed(gateway) == 0

    session = await gateway.story.get(f"/v1/sessions/{SID}?iss={IDP}")
    assert session["live"] is False
    await gateway.settle()
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"


async def test_row_13_a_compliance_change_is_noted_with_old_and_new(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    # By its device alone, so that nothing but the device is meant.
    changes: dict[str, Any] = {"sub_id": {"format": "complex", "device": BY_DEVICE}}
    await gateway.story.push_raw(sign(gateway.story.claims(**changes)))
    await gateway.story.hub.settle()
    async with gateway.story.hub.database.snapshot() as connection:
        due = await store.system_due_reviews(
            connection, now=gateway.story.hub.clock.now(), limit=10
        )
    (review,) = [each for each in due if each.cause == "deviceContext.change"]
    assert (review.sid, review.old, review.new) == (
        SID,
        {"compliance": "compliant"},
        {"compliance": "not-compliant"},
    )
    assert await reviewed(gateway) == len(due)


async def present(gateway: Gateway, **seen: Any) -> None:
    """Let an app that never asks say with what and from where Rosa's session is used."""
    now_s = gateway.story.hub.clock.now().timestamp()
    event = {"event_timestamp": now_s, **seen}
    session = {"format": "iss_sub", "iss": IDP, "sub": SID}
    user = {"format": "email", "email": ROSA}
    changes: dict[str, Any] = {
        "sub_id": {"format": "complex", "user": user, "session": session},
        "events": {CAEP + "session-presented": event},
    }
    answer = await gateway.story.push_raw(sign(gateway.story.claims(**changes)))
    assert answer.status_code == 202, answer.text
    await gateway.story.hub.settle()


@pytest.mark.requirement("CAEP-27")
@pytest.mark.parametrize(("own", "foreign"), [(CHROME, FIREFOX), ("f1f1", "e2e2")])
async def test_an_app_that_never_asks_feeds_presence(
    gateway: Gateway, own: str, foreign: str
) -> None:
    await present(gateway, fp_ua=own, ips=[HOME])
    assert await reviewed(gateway) == 1
    await present(gateway, fp_ua=own, ips=[HOME])
    assert await reviewed(gateway) == 1
    (anchor,) = await stands_of(gateway)
    assert anchor.state == "anchor"

    await present(gateway, fp_ua=foreign, ips=[OFFICE])
    assert await reviewed(gateway) == 1
    (_, other) = sorted(await stands_of(gateway), key=lambda stand: stand.state)
    assert other.state in {"asked", "terminated"}
    assert "user_agent_changed" in other.reasons


async def test_presence_of_an_unknown_or_foreign_session_is_nobodys(gateway: Gateway) -> None:
    tim = {"format": "email", "email": TIM}
    session = {"format": "iss_sub", "iss": IDP, "sub": SID}
    changes: dict[str, Any] = {
        "sub_id": {"format": "complex", "user": tim, "session": session},
        "events": {CAEP + "session-presented": {"ips": [OFFICE], "fp_ua": FIREFOX}},
    }
    assert (await gateway.story.push_raw(sign(gateway.story.claims(**changes)))).status_code == 202
    await gateway.story.hub.settle()
    assert await reviewed(gateway) == 0


async def test_monitor_reviews_and_changes_nothing(gateway: Gateway) -> None:
    await no_way_without_a_firewall(gateway.story)
    await gateway.story.post("/admin/v1/policies:preset", {"name": "standard", "mode": "monitor"})
    await gateway.story.hub.node.feed.refresh()
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    await say(gateway.story, **FIREWALL)
    assert await reviewed(gateway) == 1
    assert {stand.state for stand in await stands_of(gateway)} <= {"anchor", "accepted"}
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


async def test_a_repeat_or_an_older_word_reviews_nothing(gateway: Gateway) -> None:
    hub = gateway.story.hub
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    before = hub.clock.now().timestamp()
    hub.clock.advance(60)
    await say(gateway.story, **FIREWALL)
    assert await reviewed(gateway) == 1
    await say(gateway.story, **FIREWALL, id="again")
    await say(gateway.story, signals={"firewall": "on"}, occurred_at=before)
    assert await reviewed(gateway) == 0


async def test_what_a_caller_says_hides_no_report(gateway: Gateway) -> None:
    """Neither under the same name, nor under the names of reports."""
    await no_way_without_a_firewall(gateway.story, signal="reported.firewall")
    await gateway.ask(request_from(HOME))
    await say(gateway.story, **FIREWALL)
    await reviewed(gateway)
    lies = {"token_hash": "a" * 64, "signals": {"reported.firewall": "on", "firewall": "on"}}
    decided = await gateway.ask(request_from(HOME, device=lies))
    assert decided["decision"] == "STEP_UP"
    assert decided["changed"]["new"]["signals.reported.firewall"] == "off"


@ONE_ENGINE
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/signals"),
        ({"signals": {}}, "/signals"),
        ({"signals": "off"}, "/signals"),
        ({"signals": {"firewall": {}}}, "/signals/firewall"),
        ({"signals": {"": "off"}}, "/signals"),
        ({"signals": {"firewall": "o\nff"}}, "/signals/firewall"),
        ({"signals": {"firewall": "x" * 201}}, "/signals/firewall"),
        ({"signals": {str(number): 1 for number in range(33)}}, "/signals"),
        ({"signals": {"firewall": "off"}, "old": []}, "/old"),
        ({"signals": {"firewall": "off"}, "user": ROSA}, "/user"),
    ],
)
async def test_a_posture_that_cannot_be_read_is_refused(
    gateway: Gateway, body: dict[str, Any], pointer: str
) -> None:
    await say(gateway.story, **FIREWALL)
    async with gateway.story.hub.client(gateway.story.tokens["agent"]) as agent:
        refused = await agent.post("/v1/signals/posture", json={"sub_id": BY_DEVICE, **body})
    assert refused.status_code == 400, refused.text
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]


@ONE_ENGINE
async def test_posture_needs_the_scope_and_a_provider(gateway: Gateway) -> None:
    hub = gateway.story.hub
    body = {"sub_id": BY_DEVICE, **FIREWALL}
    assert (await gateway.http.post("/v1/signals/posture", json=body)).status_code == 403
    async with hub.client(await hub.token("signals.write")) as nobody:
        assert (await nobody.post("/v1/signals/posture", json=body)).status_code == 403


# --- levels -------------------------------------------------------------------------------------


def ends(which: str, scope: str = "session") -> dict[str, Any]:
    """Return a rule that ends sessions whose user or device is at HIGH."""
    return {
        "name": which,
        "priority": 1,
        "when": {which: "HIGH"},
        "then": {"decision": "TERMINATE", "scope": scope},
    }


async def govern(story: Story, *rules: dict[str, Any], mode: str = "enforce") -> None:
    """Let sessions be ended by these rules alone; nobody is put into quarantine."""
    lax = await story.admin.patch("/admin/v1/policies/entity-risk", json={"mode": "monitor"})
    assert lax.is_success, lax.text
    body = {"name": "global-session", "mode": mode, "rules": list(rules)}
    changed = await story.admin.put("/admin/v1/policies/global-session", json=body)
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()


@asynccontextmanager
async def process_that_holds_nothing(hub: Hub) -> AsyncIterator[Any]:
    """Yield the state of another process of the hub."""
    async with open_node(config_for(hub.node.config.database_url, index=1)) as opened:
        node = dataclasses.replace(opened, clock=hub.clock)
        other: Any = make_app(node, hub.outside)
        while not hasattr(other, "state"):
            other = getattr(other, "_app", None) or other._inner
        yield other.state


async def ended(story: Story, sid: str = SID) -> bool:
    return not (await story.get(f"/v1/sessions/{sid}?iss={IDP}"))["live"]


async def test_a_forged_proof_does_not_keep_a_session_alive(gateway: Gateway) -> None:
    """Nothing is known of where it is used, and somebody was stopped with a key that is not its.

    Regression: what stopped him was taken for the end of the session, when its user was at HIGH.
    """
    story = gateway.story
    out = {"when": {"level": "HIGH"}, "then": {"decision": "TERMINATE", "scope": "session"}}
    await govern(story, ends("user_level"), {"name": "out", "priority": 2, **out})
    body = {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "binding": {"jwk": DEVICE_KEY.export_public(as_dict=True)},
    }
    assert (await story.admin.put("/v1/sessions/bound", json=body)).is_success
    forged = {"iss": IDP, "dbsc": {"proof": "a.b.c"}}
    assert await gateway.decision(forged, "bound") == "TERMINATE"
    await gateway.settle()
    assert not await ended(story, "bound")
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success
    await gateway.settle()
    await reviewed(gateway)
    assert await ended(story)
    assert await ended(story, "bound")


async def test_a_level_ends_sessions_that_no_process_holds(gateway: Gateway) -> None:
    """One was used before a restart, one never; nobody asks about either."""
    story = gateway.story
    await govern(story, ends("user_level"))
    phone = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put("/v1/sessions/phone", json=phone)).is_success
    async with process_that_holds_nothing(story.hub) as other:
        assert len(other.inline.live) == 0
        said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
        assert said.is_success
        await other.reviews.work_off()
    await reviewed(gateway)
    assert await ended(story)
    assert await ended(story, "phone")
    assert not await ended(story, "sid-tim")


async def test_a_devices_level_ends_the_sessions_on_it(gateway: Gateway) -> None:
    """Tim's session on Rosa's laptop, too; not his own on the phone."""
    story = gateway.story
    await govern(story, ends("device_level"))
    put = {"iss": IDP, "user": f"email:{TIM}", "device": LAPTOP}
    assert (await story.admin.put("/v1/sessions/borrowed", json=put)).is_success
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await gateway.settle()

    compromised: dict[str, Any] = {"sub_id": {"format": "complex", "device": BY_DEVICE}}
    await story.push_raw(sign(story.claims(**compromised)))
    await story.hub.settle()
    await story.hub.node.changes.refresh()
    # No request is let pass any more, whether the review was made already or not.
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"
    await reviewed(gateway)
    assert await ended(story)
    assert await ended(story, "borrowed")
    assert not await ended(story, "sid-tim")


async def test_moves_of_one_session_are_judged_once_and_boundedly(gateway: Gateway) -> None:
    story = gateway.story
    await govern(story, ends("user_level"), mode="monitor")
    for level in ("HIGH", "LOW", "MEDIUM", "HIGH"):
        said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": level})
        assert said.is_success
    await reviewed(gateway)
    async with story.hub.database.snapshot() as connection:
        assert (
            await store.system_due_reviews(connection, now=gateway.story.hub.clock.now(), limit=10)
            == []
        )
    assert not await ended(story)


def judgements() -> float:
    """Return how many sessions were judged without a request so far, in whatever way."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        if metric.name.startswith("hub_inline") and metric.name.endswith("reviews")
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


async def sessions_on_the_laptop(gateway: Gateway, count: int) -> list[str]:
    """Register sessions of Rosa on her laptop; return their sids."""
    now = gateway.story.hub.clock.now()
    sids = [f"many-{number}" for number in range(count)]
    puts = [
        PutSession(
            tenant_id=DEFAULT,
            iss=IDP,
            sid=sid,
            user=gateway.story.ids["rosa"],
            device=[BY_DEVICE],
            started_at=now,
            now=now,
        )
        for sid in sids
    ]
    writer = gateway.story.hub.node.writer
    await asyncio.gather(*(writer.submit(PUT_SESSION, put) for put in puts))
    return sids


async def test_a_held_session_is_judged_once_when_a_level_moves(gateway: Gateway) -> None:
    """It was judged by the process that held it and from the table of reviews as well."""
    story = gateway.story
    await govern(story, ends("user_level"), mode="monitor")
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await gateway.settle()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    before = judgements()
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success
    # The feed is read and whoever listens to it had a turn of the loop.
    await story.hub.node.changes.refresh()
    await gateway.settle()
    await reviewed(gateway)
    assert judgements() - before == 1


@ONE_ENGINE
async def test_hundreds_of_sessions_are_all_judged_in_a_stated_number_of_turns(
    gateway: Gateway,
) -> None:
    """All are the user's and on one device, some are held and most are not."""
    story = gateway.story
    await govern(story, ends("user_level"), mode="monitor")
    sids = [SID, *await sessions_on_the_laptop(gateway, 299)]
    for sid in sids[:20]:
        assert await gateway.decision(request_from(HOME), sid) == "ALLOW"
    await gateway.settle()
    before = judgements()
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success

    reviews: Reviews = state_of(story.hub).reviews
    turns = []
    while count := await reviews.turn():
        turns.append(count)
    assert turns == [BATCH_MAX] * (len(sids) // BATCH_MAX) + [len(sids) % BATCH_MAX]
    assert judgements() - before == len(sids)


@ONE_ENGINE
async def test_a_moved_level_does_not_wait_for_reviews_after_an_edit(gateway: Gateway) -> None:
    story = gateway.story
    await sessions_on_the_laptop(gateway, 2 * BATCH_MAX)
    await govern(story, ends("user_level"))
    await story.hub.sweep()
    put = {"iss": IDP, "user": f"email:{TIM}"}
    assert (await story.admin.put("/v1/sessions/urgent", json=put)).is_success
    said = await story.admin.put(f"/api/v1/users/email:{TIM}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success

    reviews: Reviews = state_of(story.hub).reviews
    assert await reviews.turn() == BATCH_MAX
    assert await ended(story, "urgent")
    async with story.hub.database.snapshot() as connection:
        due = await store.system_due_reviews(
            connection, now=gateway.story.hub.clock.now(), limit=1_000
        )
    assert {each.cause for each in due} == {ReviewCause.POLICY}


@ONE_ENGINE
async def test_what_a_person_says_of_a_device_has_the_sessions_on_it_judged(
    gateway: Gateway,
) -> None:
    """Tim works on Rosa's laptop: his own level never moves."""
    story = gateway.story
    await govern(story, ends("device_level"), mode="monitor")
    put = {"iss": IDP, "user": f"email:{TIM}", "device": LAPTOP}
    assert (await story.admin.put("/v1/sessions/borrowed", json=put)).is_success
    compromised: dict[str, Any] = {"sub_id": {"format": "complex", "device": BY_DEVICE}}
    await story.push_raw(sign(story.claims(**compromised)))
    await story.hub.settle()
    await reviewed(gateway)
    device_id = (await story.get(f"/v1/sessions/borrowed?iss={IDP}"))["device_id"]
    for word in ("confirm-safe", "undo"):
        said = await story.admin.post(f"/v1/risk/devices/{device_id}/{word}", json={})
        assert said.is_success, said.text
        async with story.hub.database.snapshot() as connection:
            due = await store.system_due_reviews(
                connection, now=gateway.story.hub.clock.now(), limit=10
            )
        assert "borrowed" in {each.sid for each in due if each.cause is ReviewCause.LEVEL}, word
        await reviewed(gateway)


async def test_a_review_acts_at_the_apps_whose_policies_fail(gateway: Gateway) -> None:
    """Nobody asks for the strict app: the user's level alone is against its policy."""
    story = gateway.story
    await govern(story)
    strict = {"name": "strict", "apps": [story.ids["crm"]], "mode": "enforce"}
    rule = {**ends("user_level"), "then": {"decision": "TERMINATE"}}
    await story.post("/admin/v1/policies", {**strict, "rules": [rule]})
    bcl = {"logout": [{"method": "bcl", "endpoint_url": "https://crm.example/bcl"}]}
    assert (await story.admin.patch(f"/admin/v1/apps/{story.ids['crm']}", json=bcl)).is_success
    await story.hub.node.feed.refresh()
    for app in ("crm", "wiki"):
        assert await gateway.decision(request_from(HOME, app_id=story.ids[app])) == "ALLOW"
    await gateway.settle()
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success
    await reviewed(gateway)
    await story.hub.settle()
    assert not await ended(story)
    assert [each.url for each in story.hub.outside.requests if each.url.endswith("/bcl")] == [
        "https://crm.example/bcl"
    ]
    assert await gateway.decision(request_from(HOME, app_id=story.ids["wiki"])) == "ALLOW"
    assert await gateway.decision(request_from(HOME, app_id=story.ids["crm"])) == "TERMINATE"
