"""What is found at HIGH and logged out is not lost: by a crash, by a writer that is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from hub.app import make_app
from hub.node import open_node
from risk.contexts.store import read_recorded
from risk.policies.recorded import RecordedContext
from runtime.errors import Unavailable
from tests.hub.conftest import Hub, config_for
from tests.hub.story import ROSA, Story
from tests.hub.test_inline import (
    HOME,
    OFFICE,
    STOLEN,
    THIEF,
    Gateway,
    request_from,
    stands_of,
    state_of,
)
from tests.hub.test_inline_policies import told
from tests.hub.test_reviews import ended, present, reviewed
from tests.hub.test_reviews_kept import LosesCore
from tests.hub.test_session_apps import ENDS, at, gateway, govern, logouts, rest
from tests.risk.test_contexts import CHROME, FIREFOX

__all__ = ["gateway"]

OUT = {
    "name": "out",
    "priority": 1,
    "when": {"level": "HIGH"},
    "then": {"decision": "TERMINATE", "scope": "session"},
}
STRICT_LOGOUTS = ["https://bank.example/bcl", "https://books.example/bcl"]


@asynccontextmanager
async def process_that_is_killed(gateway: Gateway, **lost: int) -> AsyncIterator[Gateway]:
    """Yield another process of the hub, asked in the same way.

    When it is left, what it has not written is gone. lost: writes that fail, by kind.
    """
    hub = gateway.story.hub
    async with open_node(config_for(hub.node.config.database_url, index=1)) as opened:
        writer = LosesCore(opened.writer, **lost)
        node = dataclasses.replace(opened, clock=hub.clock, writer=writer)
        other: Hub = dataclasses.replace(hub, node=node, app=make_app(node, hub.outside))
        await node.feed.refresh()
        async with other.client(await other.token("sessions.evaluate")) as http:
            await node.feed.refresh()
            # Before that it keeps no session in memory.
            await node.changes.refresh()
            yield Gateway(dataclasses.replace(gateway.story, hub=other), http)
        assert not any(writer.lost.values())


async def recorded(gateway: Gateway) -> list[RecordedContext]:
    now = gateway.story.hub.clock.now()
    async with gateway.story.hub.database.snapshot() as connection:
        return await read_recorded(
            connection,
            "default",
            since=now - timedelta(days=1),
            until=now + timedelta(days=1),
            after=None,
            limit=100,
        )


async def level(story: Story) -> str:
    await story.hub.settle()
    return str((await story.get(f"/v1/risk/users/email:{ROSA}"))["level"])


@pytest.mark.parametrize("rules", [[], [OUT]])
async def test_a_finding_that_could_not_be_written_is_told_when_it_is_found_again(
    gateway: Gateway, rules: Sequence[dict[str, Any]]
) -> None:
    """Regression: it was marked as told before that was so, for as long as the process lived."""
    await govern(gateway, session=rules)
    lost = {"settle_stand": 1} if rules else {"tell_finding": 1}
    async with process_that_is_killed(gateway, **lost) as other:
        for _ in range(2):
            await other.ask(STOLEN)
            await other.settle()
            gateway.story.hub.clock.advance(30)
    assert await level(gateway.story) == "MEDIUM"


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("rules", [[], [OUT]])
async def test_what_was_only_watched_counts_when_it_is_enforced(
    gateway: Gateway, rules: Sequence[dict[str, Any]], where: str
) -> None:
    """Regression: a context was told once, also where that counted nothing.

    To the same process, or to one that never saw him before.
    """
    story = gateway.story
    await govern(gateway, session=rules, mode="monitor")
    await gateway.ask(STOLEN)
    await gateway.settle()
    assert await level(story) == "LOW"
    body = {"name": "global-session", "mode": "enforce", "rules": rules}
    assert (await story.admin.put("/admin/v1/policies/global-session", json=body)).is_success
    await story.hub.node.feed.refresh()
    async with process_that_is_killed(gateway) as other:
        asked_there = other if where == "elsewhere" else gateway
        await asked_there.ask(STOLEN)
        await asked_there.settle()
    assert await level(story) == "MEDIUM"


async def test_a_logout_that_could_not_be_written_is_ordered_again(gateway: Gateway) -> None:
    await govern(gateway, apps=[ENDS])
    async with process_that_is_killed(gateway, log_out_session=1) as other:
        for expected in ([], STRICT_LOGOUTS):
            await other.ask(at(gateway, OFFICE, "mail"))
            await other.settle()
            await rest(gateway)
            assert sorted(logouts(gateway)) == expected
            gateway.story.hub.clock.advance(60)


async def test_a_context_that_could_not_be_recorded_is_recorded_with_the_next_request(
    gateway: Gateway,
) -> None:
    """Regression: policies were never tried on it, as long as the process lived."""
    await govern(gateway)
    before = len(await recorded(gateway))
    async with process_that_is_killed(gateway, record_context=1) as other:
        for expected in (0, 1, 1):
            await other.ask(at(gateway, "198.51.100.99", "mail"))
            await other.settle()
            assert len(await recorded(gateway)) == before + expected


@pytest.mark.parametrize("decision", ["ALLOW", "DENY"])
async def test_an_alert_that_could_not_be_written_is_told_with_the_next_request(
    gateway: Gateway, decision: str
) -> None:
    alerts = {**ENDS, "name": "alerts", "then": {"decision": "DENY", "alert": True}}
    if decision == "ALLOW":
        await govern(gateway, apps=[alerts])
    else:
        await govern(gateway, session=[alerts])
    app = "mail" if decision == "DENY" else "bank"
    async with process_that_is_killed(gateway, tell_policy_alert=1) as other:
        for expected in (0, 1, 1):
            await other.ask(at(gateway, OFFICE, app))
            await other.settle()
            assert len(await told(gateway)) == expected


async def test_an_alert_of_a_sign_in_that_could_not_be_written_is_told_with_the_next_one(
    gateway: Gateway,
) -> None:
    nobody = {"name": "nobody", "priority": 1, "when": {"action": ["sign_in"]}}
    await govern(gateway, session=[{**nobody, "then": {"decision": "DENY", "alert": True}}])
    async with process_that_is_killed(gateway, tell_policy_alert=1) as other:
        body = {"user": f"email:{ROSA}", "ip": HOME, "phase": "before"}
        for status, expected in ((503, 0), (200, 1), (200, 1)):
            answer = await other.http.post("/v1/sign-ins/evaluate", json=body)
            assert answer.status_code == status
            assert len(await told(gateway)) == expected


async def test_a_switch_that_could_not_be_shared_is_shared_with_the_next_request(
    gateway: Gateway,
) -> None:
    """Regression: of a clone and its owner, each at a process of its own, neither was a fork."""
    await govern(gateway)
    clone = request_from(HOME, device={"token_hash": THIEF})
    async with process_that_is_killed(gateway, share_trail=1) as other:
        for _ in range(2):
            assert await other.decision(clone) == "ALLOW"
            await other.settle()
            gateway.story.hub.clock.advance(1)
        await gateway.settle()
        await gateway.ask(request_from(HOME))
        await gateway.settle()
        await other.settle()
        assert "fork" in (await other.ask(clone))["changed"]["classes"]


async def test_a_finding_survives_that_its_session_ended_and_its_process_died(
    gateway: Gateway,
) -> None:
    """Regression: nobody finds it again, because the session is over."""
    await govern(gateway, session=[OUT])
    async with process_that_is_killed(gateway) as other:
        assert await other.decision(STOLEN) == "TERMINATE"
    assert await level(gateway.story) == "MEDIUM"


@pytest.mark.parametrize("rules", [[], [OUT]])
async def test_a_finding_wakes_the_pipeline(
    gateway: Gateway, rules: Sequence[dict[str, Any]]
) -> None:
    await govern(gateway, session=rules)
    notifier = gateway.story.hub.node.notifier
    seen = notifier.count("signals")
    await gateway.ask(STOLEN)
    await gateway.settle()
    assert notifier.count("signals") != seen


async def test_logouts_elsewhere_are_durable_before_a_step_up_is_asked(gateway: Gateway) -> None:
    ask = {**ENDS, "name": "ask", "then": {"decision": "STEP_UP"}}
    await govern(gateway, session=[ask], apps=[ENDS])
    async with process_that_is_killed(gateway) as other:
        assert await other.decision(at(gateway, OFFICE, "mail")) == "STEP_UP"
    await rest(gateway)
    assert sorted(logouts(gateway)) == STRICT_LOGOUTS


async def test_a_finding_of_a_review_survives_a_kill(gateway: Gateway) -> None:
    """Killed when the session was ended and the review not yet forgotten."""
    story = gateway.story
    await govern(gateway, session=[OUT])
    await present(gateway, fp_ua=CHROME, ips=[HOME])
    await reviewed(gateway)
    await present(gateway, fp_ua=FIREFOX, ips=[OFFICE])
    async with process_that_is_killed(gateway, finish_review=1, put_off_review=1) as other:
        with pytest.raises(Unavailable):
            await state_of(other.story.hub).reviews.work_off()
    assert await ended(story)
    await reviewed(gateway)
    assert [each.level for each in await stands_of(gateway) if each.state == "terminated"] == [
        "HIGH"
    ]
    assert await level(story) == "MEDIUM"


async def test_what_was_found_at_less_before_is_told_before_the_answer(gateway: Gateway) -> None:
    """The question is open already, so that no stand is written: the finding is all the same."""
    ask = {**ENDS, "name": "ask", "then": {"decision": "STEP_UP"}}
    await govern(gateway, session=[ask])
    async with process_that_is_killed(gateway) as first:
        assert await first.decision(STOLEN) == "STEP_UP"
    async with process_that_is_killed(gateway, tell_finding=1) as other:
        assert await other.decision(STOLEN) == "STEP_UP"
        assert await other.decision(request_from(HOME)) == "ALLOW"
        await other.settle()
    assert await level(gateway.story) == "MEDIUM"
