"""TERMINATE of scope user: all sessions of the user are over; nobody talks the hub into it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from risk.model import Level
from runtime.clock import epoch_s
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, LAPTOP, ROSA, TIM, begin
from tests.hub.test_inline import (
    HOME,
    OFFICE,
    SID,
    STOLEN,
    Gateway,
    request_from,
    stands_of,
    state_of,
)

BY_DEVICE = {"format": "opaque", "id": LAPTOP}
HIGH_USER = {
    "name": "high-user",
    "priority": 1,
    "when": {"user_level": "HIGH"},
    "then": {"decision": "TERMINATE", "scope": "user"},
}
ANY_RISK = {
    "name": "any-risk",
    "priority": 1,
    "when": {"level": {"at_least": "MEDIUM"}},
    "then": {"decision": "TERMINATE", "scope": "user"},
}


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    """Rosa with a laptop and a phone, and no policy of users that quarantines her."""
    story = await begin(hub)
    lax = await story.admin.patch("/admin/v1/policies/entity-risk", json={"mode": "monitor"})
    assert lax.is_success, lax.text
    other = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put("/v1/sessions/phone", json=other)).is_success
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def govern(gateway: Gateway, *rules: dict[str, Any], mode: str = "enforce") -> None:
    story = gateway.story
    changed = await story.admin.put(
        "/admin/v1/policies/global-session",
        json={"name": "global-session", "mode": mode, "rules": list(rules)},
    )
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await rest(gateway)
    story.hub.outside.requests.clear()


async def rest(gateway: Gateway) -> None:
    """Let everything happen that was ordered."""
    await gateway.settle()
    await gateway.story.hub.settle()
    gateway.story.hub.clock.advance(1)
    await gateway.story.hub.settle()
    await gateway.settle()


async def suspect(gateway: Gateway, level: str = "HIGH", user: str = ROSA) -> None:
    answer = await gateway.story.admin.put(
        f"/api/v1/users/email:{user}/risk", json={"riskLevel": level}
    )
    assert answer.is_success, answer.text
    await gateway.story.hub.node.changes.refresh()


async def live(gateway: Gateway) -> set[str]:
    """Return which of the sessions are live."""
    found = set()
    for sid in (SID, "phone", "sid-tim"):
        session = await gateway.story.get(f"/v1/sessions/{sid}?iss={IDP}")
        if session["live"]:
            found.add(sid)
    return found


def told(gateway: Gateway) -> list[str]:
    """Return whom the identity provider was told to log out."""
    return [
        json.loads(request.body or b"")["sub_id"].get("email", "")
        for request in gateway.story.hub.outside.requests
        if request.url == f"{IDP}/gtr"
    ]


async def containments(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await gateway.story.get("/admin/v1/containments"))["items"]
    return found


async def audited(gateway: Gateway) -> list[Any]:
    return [each for each in await gateway.story.hub.audit() if each.action == "user.logout"]


async def test_row_34_an_entity_cause_ends_everything_until_the_user_signs_in_anew(
    gateway: Gateway,
) -> None:
    await govern(gateway, HIGH_USER)
    await suspect(gateway)
    # Whoever is first, this request or the review of the idle session.
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"
    await rest(gateway)

    (stand,) = [each for each in await stands_of(gateway) if each.state == "terminated"]
    assert stand.scope == "user"
    assert await live(gateway) == {"sid-tim"}
    assert told(gateway) == [ROSA]
    for sid in (SID, "phone"):
        again = await gateway.ask(request_from(HOME), sid)
        assert (again["decision"], again["reasons"]) == ("TERMINATE", ["session_ended"])
    # Not because of a quarantine: who signs in anew, once trusted again, is let in.
    (containment,) = await containments(gateway)
    assert containment["state"] == "closed"
    assert containment["actions"] == ["NOTIFY", "UNIVERSAL_LOGOUT"]
    assert containment["reasons"] == ["global-session/high-user"]
    assert containment["trace_id"] == stand.trace_id
    (entry,) = await audited(gateway)
    assert (entry.actor, entry.ref) == ("session-policy", gateway.story.ids["rosa"])
    assert entry.detail["session_id"].startswith("ses_")
    assert entry.detail["reasons"] == ["global-session/high-user"]
    assert entry.detail["sessions_ended"] == 1
    assert entry.detail["trace_id"] == stand.trace_id

    await suspect(gateway, "LOW")
    anew = {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "started_at": epoch_s(gateway.story.hub.clock.now()),
    }
    assert (await gateway.story.admin.put("/v1/sessions/anew", json=anew)).is_success
    assert await gateway.decision(request_from(HOME), "anew") == "ALLOW"
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"


async def test_of_many_who_find_out_at_once_one_logs_the_user_out(gateway: Gateway) -> None:
    await govern(gateway, HIGH_USER)
    await suspect(gateway)
    await state_of(gateway.story.hub).reviews.work_off()
    for sid in (SID, "phone", SID):
        assert await gateway.decision(request_from(HOME), sid) == "TERMINATE"
    await rest(gateway)
    assert told(gateway) == [ROSA]
    assert len(await audited(gateway)) == 1


async def test_attack_who_asks_cannot_say_what_ends_all_sessions_of_a_user(
    gateway: Gateway,
) -> None:
    """The rule names the whole user; all that speaks for it is what requests say, again and again.

    What they say makes the user MEDIUM at most: only another source would make that HIGH.
    """
    await govern(gateway, ANY_RISK)
    claims: dict[str, Any] = {
        "scope": "user",
        "user_level": "HIGH",
        "risk": {"level": "HIGH"},
        "device": {"token_hash": "b" * 64, "signals": {"user_level": "HIGH", "scope": "user"}},
    }
    for forged in (STOLEN, request_from(OFFICE, **claims), request_from(OFFICE)):
        decided = await gateway.ask(forged)
        assert (decided["decision"], decided["scope"]) == ("TERMINATE", "session")
        assert "kept_to_session" in decided["reasons"]
        await rest(gateway)
    risk = await gateway.story.get(f"/v1/risk/users/email:{ROSA}")
    assert risk["level"] == "MEDIUM"
    assert "phone" in await live(gateway)
    assert told(gateway) == []
    assert await containments(gateway) == []
    assert await audited(gateway) == []


async def test_a_thief_who_asks_about_a_distrusted_user_ends_their_sessions_too(
    gateway: Gateway,
) -> None:
    """It is the user who is not trusted, whoever asks; the level is the hub's own."""
    await govern(gateway, HIGH_USER)
    await suspect(gateway)
    assert await gateway.decision(STOLEN) == "TERMINATE"
    await rest(gateway)
    assert await live(gateway) == {"sid-tim"}


async def test_a_session_that_was_stopped_before_ends_with_its_user(gateway: Gateway) -> None:
    await govern(
        gateway, {**ANY_RISK, "then": {"decision": "TERMINATE"}}, {**HIGH_USER, "priority": 2}
    )
    assert await gateway.decision(STOLEN) == "TERMINATE"
    await rest(gateway)
    assert await live(gateway) == {SID, "phone", "sid-tim"}
    await govern(gateway, HIGH_USER)
    await suspect(gateway)
    assert await gateway.decision(STOLEN) == "TERMINATE"
    await rest(gateway)
    assert await live(gateway) == {"sid-tim"}


async def test_row_17_monitor_ends_nothing(gateway: Gateway) -> None:
    await govern(gateway, HIGH_USER, mode="monitor")
    await suspect(gateway)
    decided = await gateway.ask(request_from(HOME))
    assert (decided["decision"], decided["would_have"]) == ("ALLOW", "TERMINATE")
    await rest(gateway)
    assert await live(gateway) == {SID, "phone", "sid-tim"}
    assert told(gateway) == []


async def test_row_39_break_glass_users_keep_their_other_sessions(gateway: Gateway) -> None:
    entry = {"user": f"email:{ROSA}", "reason": "the last one who can mend it"}
    await gateway.story.post("/admin/v1/break-glass", entry)
    await govern(gateway, HIGH_USER)
    await suspect(gateway)
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"
    await rest(gateway)
    assert "phone" in await live(gateway)
    assert told(gateway) == []


async def test_row_39_beyond_the_guards_limit_a_person_decides(gateway: Gateway) -> None:
    """The fourth user within ten minutes is stopped in the session; the rest waits."""
    story = gateway.story
    people = [f"user-{number}@customer.example" for number in range(3)]
    for number, mail in enumerate(people):
        put = {"iss": IDP, "user": {"format": "email", "email": mail}}
        assert (await story.admin.put(f"/v1/sessions/crowd-{number}", json=put)).is_success
    await govern(gateway, HIGH_USER)
    for number, mail in enumerate(people):
        await suspect(gateway, user=mail)
        assert await gateway.decision(request_from(HOME), f"crowd-{number}") == "TERMINATE"
        await gateway.settle()
    await suspect(gateway)
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"
    await rest(gateway)
    assert await live(gateway) == {"phone", "sid-tim"}
    assert ROSA not in told(gateway)

    (held,) = [each for each in await containments(gateway) if each["state"] == "held"]
    await story.post(f"/admin/v1/containments/{held['id']}/approve", {})
    await rest(gateway)
    assert await live(gateway) == {"sid-tim"}
    assert ROSA in told(gateway)
    assert await gateway.decision(request_from(HOME), "phone") == "TERMINATE"


@ONE_ENGINE
async def test_another_users_level_is_no_reason(gateway: Gateway) -> None:
    await govern(gateway, HIGH_USER)
    await suspect(gateway, Level.HIGH.name, TIM)
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await rest(gateway)
    assert await live(gateway) >= {SID, "phone"}


# --- ordered by the entity risk policy ----------------------------------------------------------


async def respond_with(gateway: Gateway, *actions: str) -> None:
    """Let the entity risk policy order these for HIGH; no session policy ends anything."""
    await govern(gateway)
    rule = {"name": "high", "priority": 1, "level": "HIGH", "actions": list(actions)}
    changed = await gateway.story.admin.patch(
        "/admin/v1/policies/entity-risk", json={"mode": "enforce", "rules": [rule]}
    )
    assert changed.is_success, changed.text


async def register(gateway: Gateway, sid: str, user: str = ROSA, **members: Any) -> None:
    started_at = epoch_s(gateway.story.hub.clock.now())
    put = {"iss": IDP, "user": f"email:{user}", "started_at": started_at, **members}
    answer = await gateway.story.admin.put(f"/v1/sessions/{sid}", json=put)
    assert answer.is_success, answer.text


async def test_row_34_the_entity_policys_universal_logout_ends_sessions_for_good(
    gateway: Gateway,
) -> None:
    """Only the session policy's did: an app that asks went on after Global Token Revocation."""
    await respond_with(gateway, "UNIVERSAL_LOGOUT")
    await suspect(gateway)
    await rest(gateway)
    assert await live(gateway) == {"sid-tim"}
    for sid in (SID, "phone"):
        decided = await gateway.ask(request_from(HOME), sid)
        assert (decided["decision"], decided["reasons"]) == ("TERMINATE", ["session_ended"])
    assert await gateway.decision(request_from(HOME), "sid-tim") == "ALLOW"

    # Signed in anew, still at HIGH: what was answered is not answered again.
    await register(gateway, "anew")
    await rest(gateway)
    assert await gateway.decision(request_from(HOME), "anew") == "ALLOW"

    await suspect(gateway, "LOW")
    await rest(gateway)
    (containment,) = await containments(gateway)
    assert containment["state"] == "closed"
    assert await live(gateway) == {"sid-tim"}
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"
    assert await gateway.decision(request_from(HOME), "anew") == "ALLOW"


async def test_in_quarantine_the_old_session_is_terminated_and_a_new_one_denied(
    gateway: Gateway,
) -> None:
    await respond_with(gateway, "QUARANTINE", "UNIVERSAL_LOGOUT")
    await suspect(gateway)
    await rest(gateway)
    await register(gateway, "anew")
    old = await gateway.ask(request_from(HOME), SID)
    anew = await gateway.ask(request_from(HOME), "anew")
    assert (old["decision"], old["reasons"]) == ("TERMINATE", ["session_ended", "quarantined"])
    assert (anew["decision"], anew["reasons"]) == ("DENY", ["quarantined"])
    await suspect(gateway, "LOW")
    await rest(gateway)
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"
    assert await gateway.decision(request_from(HOME), "anew") == "ALLOW"


@ONE_ENGINE
async def test_quarantine_alone_ends_no_session(gateway: Gateway) -> None:
    await respond_with(gateway, "QUARANTINE")
    await suspect(gateway)
    await rest(gateway)
    assert await live(gateway) == {SID, "phone", "sid-tim"}
    assert await gateway.decision(request_from(HOME)) == "DENY"


@ONE_ENGINE
async def test_another_cause_ends_what_was_begun_since(gateway: Gateway) -> None:
    await respond_with(gateway, "UNIVERSAL_LOGOUT")
    await suspect(gateway)
    await rest(gateway)
    await register(gateway, "anew")
    await gateway.story.push()
    await rest(gateway)
    assert await gateway.decision(request_from(HOME), "anew") == "TERMINATE"


async def test_who_borrowed_the_device_stays_logged_out_though_their_session_is_over(
    gateway: Gateway,
) -> None:
    """The session was what tied Tim to the laptop: its end clears nothing."""
    await respond_with(gateway, "QUARANTINE", "UNIVERSAL_LOGOUT")
    await register(gateway, "borrowed", TIM, device=LAPTOP)
    gateway.story.hub.clock.advance(5)
    await gateway.story.push(sub_id={"format": "complex", "device": BY_DEVICE})
    await rest(gateway)
    assert await gateway.decision(request_from(HOME), "borrowed") == "TERMINATE"
    risk = await gateway.story.get(f"/v1/risk/users/email:{TIM}")
    assert risk["level"] == "HIGH"
    states = {each["user_id"]: each["state"] for each in await containments(gateway)}
    assert states[gateway.story.ids["tim"]] == "open"


@ONE_ENGINE
async def test_row_39_break_glass_users_keep_their_sessions_whatever_policy_orders(
    gateway: Gateway,
) -> None:
    entry = {"user": f"email:{ROSA}", "reason": "the last one who can mend it"}
    await gateway.story.post("/admin/v1/break-glass", entry)
    await respond_with(gateway, "QUARANTINE", "UNIVERSAL_LOGOUT")
    await suspect(gateway)
    await rest(gateway)
    assert await live(gateway) == {SID, "phone", "sid-tim"}
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


@ONE_ENGINE
async def test_row_39_what_the_guard_holds_ends_no_session_until_a_person_says_so(
    gateway: Gateway,
) -> None:
    await respond_with(gateway, "UNIVERSAL_LOGOUT")
    for number in range(3):
        mail = f"user-{number}@customer.example"
        put = {"iss": IDP, "user": {"format": "email", "email": mail}}
        assert (await gateway.story.admin.put(f"/v1/sessions/c-{number}", json=put)).is_success
        await suspect(gateway, user=mail)
    await suspect(gateway)
    await rest(gateway)
    assert await live(gateway) == {SID, "phone", "sid-tim"}
    (held,) = [each for each in await containments(gateway) if each["state"] == "held"]
    await gateway.story.post(f"/admin/v1/containments/{held['id']}/approve", {})
    await rest(gateway)
    assert await live(gateway) == {"sid-tim"}
