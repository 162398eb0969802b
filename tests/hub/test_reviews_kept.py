"""Reviews outlive trouble: of the database, of the writer, of one that cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from hub.app import make_app
from hub.inline.reviews import BATCH_MAX
from hub.node import open_node
from risk.reviews import store
from risk.reviews.model import ATTEMPTS_MAX, Review, ReviewCause, new_review, put_off
from risk.sessions import store as sessions_store
from runtime.errors import Unavailable
from runtime.writer import Operation, Writer
from tests.hub.conftest import DEFAULT, ONE_ENGINE, Hub, config_for
from tests.hub.story import IDP, ROSA, begin
from tests.hub.test_inline import HOME, Gateway, request_from, state_of
from tests.hub.test_inline_policies import told
from tests.hub.test_reviews import ended, ends, govern, reviewed


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    """Rosa's sessions end when she is at HIGH."""
    story = await begin(hub)
    await govern(story, ends("user_level"))
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


class LosesCore:
    """The writer of an api process that cannot reach core for the first writes of some kinds."""

    def __init__(self, inner: Writer, **lost: int) -> None:
        """lost: how many writes fail, by the last part of the operation's name."""
        self._inner = inner
        self.lost = lost

    async def submit(self, operation: Operation[Any, Any], item: Any) -> Any:
        kind = operation.name.partition(".")[2]
        if self.lost.get(kind, 0):
            self.lost[kind] -= 1
            raise Unavailable("core went away.", retry_after_s=1.0)
        return await self._inner.submit(operation, item)


@asynccontextmanager
async def process_that_loses_core(hub: Hub, **lost: int) -> AsyncIterator[Any]:
    """Yield the state of another process of the hub."""
    async with open_node(config_for(hub.node.config.database_url, index=1)) as opened:
        writer = LosesCore(opened.writer, **lost)
        node = dataclasses.replace(opened, clock=hub.clock, writer=writer)
        other: Any = make_app(node, hub.outside)
        while not hasattr(other, "state"):
            other = getattr(other, "_app", None) or other._inner
        yield other.state
        assert not any(writer.lost.values())


@pytest.mark.parametrize(
    ("cause", "context"), [(ReviewCause.PRESENTED, {"chain": [HOME]}), (ReviewCause.DEVICE, {})]
)
async def test_no_level_waits_behind_what_a_provider_tells_again_and_again(
    gateway: Gateway, cause: ReviewCause, context: dict[str, Any]
) -> None:
    story = gateway.story
    async with story.hub.database.transaction() as connection:
        key = (IDP, "sid-tim")
        tims = await sessions_store.find_sessions(connection, DEFAULT, keys={key})
        told = [
            new_review(
                tims[key],
                cause,
                at=story.hub.clock.now(),
                trace_id="told",
                context=context,
            )
            for _ in range(2 * BATCH_MAX)
        ]
        await store.add_reviews(connection, told)
    story.hub.clock.advance(1)
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"})
    assert said.is_success
    await state_of(story.hub).reviews.turn()
    assert await ended(story)
    await reviewed(gateway)
    assert not await waiting(gateway)


async def rise(gateway: Gateway) -> None:
    """Let Rosa be at HIGH, and every session of hers be due."""
    said = await gateway.story.admin.put(
        f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"}
    )
    assert said.is_success
    await gateway.story.hub.node.changes.refresh()
    assert len(await waiting(gateway)) == 1


async def waiting(gateway: Gateway, *, now: datetime | None = None) -> list[Review]:
    """Return what is due, now or by then."""
    now = now or gateway.story.hub.clock.now() + timedelta(days=1)
    async with gateway.story.hub.database.snapshot() as connection:
        return await store.system_due_reviews(connection, now=now, limit=100)


async def note(gateway: Gateway, count: int = 1, cause: ReviewCause = ReviewCause.DEVICE) -> None:
    """Note reviews of Tim's session."""
    async with gateway.story.hub.database.transaction() as connection:
        key = (IDP, "sid-tim")
        found = await sessions_store.find_sessions(connection, DEFAULT, keys={key})
        now = gateway.story.hub.clock.now()
        made = [new_review(found[key], cause, at=now, trace_id="t") for _ in range(count)]
        await store.add_reviews(connection, made)


async def test_core_restarts_while_a_review_ends_a_session(gateway: Gateway) -> None:
    """Regression: the review was counted as made, and the session lived on."""
    await rise(gateway)
    async with process_that_loses_core(gateway.story.hub, settle_stand=1) as other:
        await other.reviews.work_off()
    assert await ended(gateway.story)
    assert await waiting(gateway) == []


async def test_a_review_is_tried_again_until_core_is_back(gateway: Gateway) -> None:
    await rise(gateway)
    hub = gateway.story.hub
    async with process_that_loses_core(hub, settle_stand=4) as other:
        for wait_s in (0, 1, 2):
            hub.clock.advance(wait_s)
            await other.reviews.work_off()
            assert not await ended(gateway.story)
            assert await waiting(gateway, now=hub.clock.now()) == []
        hub.clock.advance(4)
        await other.reviews.work_off()
    assert await ended(gateway.story)
    assert await waiting(gateway) == []


async def test_nobody_who_can_write_leaves_a_review_as_it_is(gateway: Gateway) -> None:
    await rise(gateway)
    async with process_that_loses_core(
        gateway.story.hub, settle_stand=1, put_off_review=1
    ) as other:
        with pytest.raises(Unavailable):
            await other.reviews.work_off()
    (left,) = await waiting(gateway)
    assert left.attempts == 0
    await reviewed(gateway)
    assert await ended(gateway.story)


async def test_a_review_waits_for_what_it_wants_written(gateway: Gateway) -> None:
    """What is no decision is written behind answers, but before a review is forgotten."""
    hub = gateway.story.hub
    await govern(gateway.story)
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    await rise(gateway)
    async with process_that_loses_core(hub, record_context=1) as other:
        assert await other.reviews.turn() == 1
        (left,) = await waiting(gateway)
        assert left.attempts == 1


@pytest.mark.parametrize("times", [0, 1])
async def test_an_alert_of_a_review_outlives_that_core_restarts(
    gateway: Gateway, times: int
) -> None:
    """Regression: it was marked as told when the decision beside it could not be written."""
    story = gateway.story
    denies = {"when": {"user_level": "HIGH"}, "then": {"decision": "DENY", "alert": True}}
    await govern(story, {"name": "denies", "priority": 1, **denies})
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    await rise(gateway)
    async with process_that_loses_core(story.hub, settle_stand=times) as other:
        await other.reviews.work_off()
    assert await waiting(gateway) == []
    await story.hub.settle()
    assert [each["decision"] for each in await told(gateway)] == ["DENY"]


async def test_the_database_fails_a_read_of_a_review(gateway: Gateway) -> None:
    """Regression: whatever was raised while judging counted as a judgement."""
    await rise(gateway)
    hub = gateway.story.hub
    async with hub.database.transaction() as connection:
        await connection.execute(sa.text("ALTER TABLE session_stands RENAME TO away"))
    state_of(hub).inline.live.start_over()
    await reviewed(gateway)
    async with hub.database.transaction() as connection:
        await connection.execute(sa.text("ALTER TABLE away RENAME TO session_stands"))
    assert not await ended(gateway.story)
    (left,) = await waiting(gateway)
    assert left.attempts == 2
    hub.clock.advance(1)
    await reviewed(gateway)
    assert await ended(gateway.story)


async def test_a_cause_of_a_newer_release_stops_nobody(gateway: Gateway) -> None:
    """Regression: one review that could not be read stopped all of them."""
    await note(gateway)
    async with gateway.story.hub.database.transaction() as connection:
        await connection.execute(sa.update(store.session_reviews).values(cause="newer.change"))
    said = await gateway.story.admin.put(
        f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"}
    )
    assert said.is_success
    await reviewed(gateway)
    assert await ended(gateway.story)
    (left,) = await waiting(gateway)
    assert left.cause is ReviewCause.UNKNOWN


@ONE_ENGINE
async def test_what_always_fails_is_given_up_and_counted(gateway: Gateway) -> None:
    hub = gateway.story.hub
    await note(gateway, cause=ReviewCause.UNKNOWN)
    name, labels = "hub_inline_reviews_given_up_total", {"cause": "unknown"}
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    for attempts in range(ATTEMPTS_MAX):
        (left,) = await waiting(gateway)
        assert left.attempts == attempts
        if left.due_at is not None:
            hub.clock.advance((left.due_at - hub.clock.now()).total_seconds())
        assert await state_of(hub).reviews.turn() == 1
    assert await waiting(gateway) == []
    assert REGISTRY.get_sample_value(name, labels) == before + 1


@ONE_ENGINE
async def test_many_that_fail_keep_nobody_waiting(gateway: Gateway) -> None:
    """They are put off, so that those behind them come to their turn."""
    await note(gateway, 200, cause=ReviewCause.UNKNOWN)
    gateway.story.hub.clock.advance(1)
    said = await gateway.story.admin.put(
        f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "HIGH"}
    )
    assert said.is_success
    await reviewed(gateway)
    assert await ended(gateway.story)
    assert len(await waiting(gateway)) == 100


@ONE_ENGINE
async def test_the_waits_grow_and_have_a_limit(gateway: Gateway) -> None:
    await note(gateway)
    (review,) = await waiting(gateway)
    now = gateway.story.hub.clock.now()
    waits = []
    for attempts in range(ATTEMPTS_MAX):
        again = put_off(dataclasses.replace(review, attempts=attempts), now)
        waits.append(None if again is None else (again.due_at - now).total_seconds())
    assert waits == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, None]
