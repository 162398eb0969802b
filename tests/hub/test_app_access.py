"""Apps that a user never used, many at once: a finding about the user, and what is none."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import sqlalchemy as sa

from risk.app_use.model import APPS_MAX, LIFE, LIMITS, OpenedApp
from risk.app_use.service import note_opened, purge
from risk.app_use.store import user_apps
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import ROSA, TIM, Story
from tests.hub.test_forged_findings import (
    assert_untouched,
    claim,
    forge_session,
    forger,
    standing,
)
from tests.hub.test_inline import HOME, OFFICE, Gateway, gateway, request_from
from tests.hub.test_shared_counts import Two, two
from tests.hub.test_sign_ins import Gate, gate

__all__ = ["forger", "gate", "gateway", "two"]

DAY_S = 24 * 3600


async def suspicions(story: Story, user: str = ROSA) -> list[dict[str, Any]]:
    await story.hub.settle()
    path = f"/v1/detections?user=email:{user}&name=suspicious_app_access"
    found: list[dict[str, Any]] = (await story.get(path))["items"]
    return found


async def open_apps(
    gate: Gate, count: int, user: str = ROSA, *, of: str = "app", within_s: float = 240
) -> None:
    """Let a user sign in to apps, one after the other."""
    for number in range(count):
        await gate.succeed(f"email:{user}", app=f"{of} {number}")
        gate.story.hub.clock.advance(within_s / count)


async def know_apps(gate: Gate) -> None:
    """Let Rosa use three apps day by day."""
    for day in range(8):
        await gate.succeed(app=f"daily {day % 3}")
        gate.story.hub.clock.advance(DAY_S)


# --- row 8(a) -----------------------------------------------------------------------------------


async def test_row_8_a_many_new_apps_at_once_are_suspicious_and_ten_of_a_newcomer_are_none(
    gate: Gate,
) -> None:
    await know_apps(gate)
    await open_apps(gate, 25)
    (found,) = await suspicions(gate.story)
    assert (found["level"], found["state"], len(found["evidence"])) == ("MEDIUM", "active", 1)
    assert found["mitre"]
    assert found["reasons"] == ["15 apps never used before were opened within 5 minutes."]
    assert (await gate.story.get(f"/v1/risk/users/email:{ROSA}"))["level"] == "MEDIUM"

    newcomer = await gate.ask(f"email:{TIM}")
    assert newcomer["login_risk"]["learning"] is True
    await open_apps(gate, 10, TIM)
    assert await suspicions(gate.story, TIM) == []


async def test_row_8_a_a_newcomers_account_that_opens_25_is_suspicious_too(gate: Gate) -> None:
    await open_apps(gate, 24)
    assert await suspicions(gate.story) == []
    await gate.succeed(app="one more")
    (found,) = await suspicions(gate.story)
    assert (found["name"], found["level"]) == ("suspicious_app_access", "MEDIUM")


@ONE_ENGINE
async def test_a_hundred_new_apps_in_half_an_hour_are_suspicious(gate: Gate) -> None:
    """Whoever opened 14 in every five minutes was never seen."""
    await know_apps(gate)
    for turn in range(2):
        await open_apps(gate, 14, of=f"turn {turn}", within_s=10)
        gate.story.hub.clock.advance(300)
    assert await suspicions(gate.story) == []
    for turn in range(2, 4):
        await open_apps(gate, 14, of=f"turn {turn}", within_s=10)
        gate.story.hub.clock.advance(300)
    (found,) = await suspicions(gate.story)
    assert found["reasons"] == ["40 apps never used before were opened within 60 minutes."]


@ONE_ENGINE
async def test_a_newcomer_may_open_50_within_an_hour(gate: Gate) -> None:
    for turn in range(5):
        await open_apps(gate, 10, TIM, of=f"turn {turn}", within_s=600)
    assert await suspicions(gate.story, TIM) == []


async def test_row_8_a_apps_in_a_session_count_when_they_are_registered(gateway: Gateway) -> None:
    story = gateway.story
    for number in range(30):
        await gateway.ask(request_from(HOME, app_id=f"made up {number}"))
    await gateway.settle()
    assert await suspicions(story) == []
    made = [
        await story.post("/admin/v1/apps", {"name": f"app {number}", "kind": "gateway"})
        for number in range(25)
    ]
    await story.hub.node.feed.refresh()
    for app in made:
        await gateway.ask(request_from(HOME, app_id=app["id"]))
        await gateway.ask(request_from(HOME, app_id=app["id"]))
    await gateway.settle()
    (found,) = await suspicions(story)
    assert (found["level"], len(found["evidence"])) == ("MEDIUM", 1)


async def test_a_burst_wakes_the_pipeline(gate: Gate) -> None:
    """Regression: nobody took it up before looking again by themselves."""
    hub = gate.story.hub
    await open_apps(gate, 24)
    await gate.settle()
    seen = hub.node.notifier.count("signals")
    await gate.succeed(app="one more")
    await gate.settle()
    assert hub.node.notifier.count("signals") != seen


async def test_a_burst_in_a_session_wakes_the_pipeline(gateway: Gateway) -> None:
    story = gateway.story
    made = [
        await story.post("/admin/v1/apps", {"name": f"app {number}", "kind": "gateway"})
        for number in range(25)
    ]
    await story.hub.node.feed.refresh()
    for app in made[1:]:
        await gateway.ask(request_from(HOME, app_id=app["id"]))
    await gateway.settle()
    seen = story.hub.node.notifier.count("signals")
    await gateway.ask(request_from(HOME, app_id=made[0]["id"]))
    await gateway.settle()
    assert story.hub.node.notifier.count("signals") != seen


# --- what is none -------------------------------------------------------------------------------


@ONE_ENGINE
async def test_apps_that_are_known_and_those_opened_over_a_day_are_not_suspicious(
    gate: Gate,
) -> None:
    await know_apps(gate)
    await open_apps(gate, 40, within_s=DAY_S)
    assert await suspicions(gate.story) == []
    # All of them once more, in a minute.
    await open_apps(gate, 40, within_s=60)
    assert await suspicions(gate.story) == []


async def test_apps_that_were_refused_at_a_door_were_not_opened(gateway: Gateway) -> None:
    """A strange network, and a dashboard with 25 tiles: that is one step-up and no finding."""
    story = gateway.story
    made = [
        await story.post("/admin/v1/apps", {"name": f"app {number}", "kind": "gateway"})
        for number in range(26)
    ]
    await story.hub.node.feed.refresh()
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    for app in made[:25]:
        told = await gateway.ask(request_from(OFFICE, app_id=app["id"]))
        assert told["decision"] == "STEP_UP"
    await gateway.settle()
    assert await suspicions(story) == []
    # What was refused was not learned either: at home they are as new as before.
    for app in made[:24]:
        assert (await gateway.ask(request_from(HOME, app_id=app["id"])))["decision"] == "ALLOW"
    await gateway.settle()
    assert await suspicions(story) == []
    for app in made[24:]:
        assert (await gateway.ask(request_from(HOME, app_id=app["id"])))["decision"] == "ALLOW"
    await gateway.settle()
    assert len(await suspicions(story)) == 1


@ONE_ENGINE
async def test_what_is_refused_or_only_asked_about_opens_no_app(gate: Gate) -> None:
    await know_apps(gate)
    for number in range(30):
        app = f"app {number}"
        await gate.ask(app=app)
        await gate.ask(app=app, phase="after", outcome="failure")
        await gate.succeed(app=app, action="enroll_factor")
        await gate.succeed("email:first.day@customer.example", app=app)
    assert await suspicions(gate.story) == []


@ONE_ENGINE
async def test_while_policies_monitor_it_is_recorded_and_counts_nothing(gate: Gate) -> None:
    await gate.story.admin.post(
        "/admin/v1/policies:preset", json={"name": "standard", "mode": "monitor"}
    )
    await gate.story.hub.node.feed.refresh()
    await open_apps(gate, 25)
    (found,) = await suspicions(gate.story)
    assert found["mode"] == "log_only"
    assert (await gate.story.get(f"/api/v1/users/email:{ROSA}/risk"))["riskLevel"] == "LOW"


@ONE_ENGINE
async def test_nothing_but_time_or_a_person_ends_it(gate: Gate) -> None:
    await open_apps(gate, 25)
    (found,) = await suspicions(gate.story)
    assert found["clears_on"] == ["confirmed_safe"]
    gate.story.hub.clock.advance(15 * DAY_S)
    await gate.story.hub.settle()
    assert (await gate.story.get(f"/v1/risk/users/email:{ROSA}"))["level"] == "LOW"


@ONE_ENGINE
async def test_a_user_who_is_learned_anew_has_opened_no_app(gate: Gate) -> None:
    await know_apps(gate)
    body = {"user": f"email:{ROSA}"}
    reset = await gate.story.admin.post("/admin/v1/behaviours:reset-user", json=body)
    assert reset.status_code == 200, reset.text
    await gate.story.hub.node.changes.refresh()
    await open_apps(gate, 24)
    assert await suspicions(gate.story) == []


# --- all processes ------------------------------------------------------------------------------


async def test_two_processes_find_it_together_and_once(two: Two) -> None:
    """Neither of them sees enough, and both write at the same time."""
    proved = {"phase": "after", "outcome": "success"}
    for number in range(13):
        await two.first.sign_in(app=f"one {number}", **proved)
        await two.second.sign_in(app=f"other {number}", **proved)
    await asyncio.gather(*(each.sign_ins.log.flush() for each in (two.first, two.second)))
    async with two.first.node.database.snapshot() as connection:
        rows = await connection.execute(sa.text("SELECT jti FROM signals"))
    told = [jti for (jti,) in rows if jti.startswith("suspicious_app_access:")]
    assert len(told) == 1


# --- strangers ----------------------------------------------------------------------------------


@ONE_ENGINE
async def test_forged_apps_make_no_user_high(gate: Gate, forger: httpx2.AsyncClient) -> None:
    """With a forged session and forged guesses beside them they are still one source (ADR 0036)."""
    await gate.know_rosa(6)
    for number in range(30):
        await claim(
            forger, ip=HOME, device={"token_hash": "a" * 64}, app=f"app {number}",
            phase="after", outcome="success",
        )  # fmt: skip
    await forge_session(gate, forger)
    level, found = await standing(gate)
    assert {"suspicious_app_access", "session_influenced_user_risk"} <= found
    assert level == "MEDIUM"
    await assert_untouched(gate)


@ONE_ENGINE
async def test_apps_of_a_user_in_another_tenant_are_somebody_elses(gate: Gate) -> None:
    hub = gate.story.hub
    await open_apps(gate, 24)
    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as green:
        user = {"identifiers": [{"format": "email", "email": ROSA}]}
        assert (await green.post("/admin/v1/users", json=user)).status_code == 201
        body = {"user": f"email:{ROSA}", "ip": HOME, "phase": "after", "outcome": "success"}
        answer = await green.post("/v1/sign-ins/evaluate", json=body | {"app": "one more"})
        assert answer.json()["decision"] == "ALLOW"
        await gate.settle()
        await hub.settle()
        assert (await green.get("/v1/detections")).json()["items"] == []
    assert await suspicions(gate.story) == []


# --- bounds -------------------------------------------------------------------------------------


async def test_of_a_user_a_bounded_number_of_apps_is_kept_for_a_bounded_time(hub: Hub) -> None:
    now = hub.clock.now()

    def opened(number: int) -> OpenedApp:
        at = now + timedelta(seconds=number)
        return OpenedApp(tenant_id="default", user_id="usr_1", app=f"app {number}", at=at)

    async with hub.database.transaction() as connection:
        bursts = await note_opened(connection, [opened(number) for number in range(APPS_MAX + 20)])
        assert [burst.apps >= LIMITS[0].apps_min for burst in bursts] == [True]
        kept = (await connection.execute(sa.select(user_apps.c.app))).scalars().all()
        assert len(kept) == APPS_MAX
        assert "app 0" not in kept
    async with hub.database.transaction() as connection:
        assert await purge(connection, now=now + LIFE) == 0
        assert await purge(connection, now=now + LIFE + timedelta(hours=1)) == APPS_MAX
