"""Strangers who use a session again and again, or before its owner does: they stay strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from risk.inline.store import STANDS_MAX
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import begin
from tests.hub.test_inline import HOME, OFFICE, THIEF, Gateway, request_from
from tests.risk.test_contexts import FIREFOX


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


def stolen(number: int) -> dict[str, Any]:
    """Return the question of a thief whose TLS client is another one each time."""
    return request_from(
        OFFICE, ua=FIREFOX, device={"token_hash": THIEF}, ja4=f"t13d_{number:012d}_x"
    )


async def test_a_stranger_who_asks_often_is_still_a_stranger(gateway: Gateway) -> None:
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await gateway.settle()
    for number in range(STANDS_MAX + 6):
        gateway.story.hub.clock.advance(1)
        assert await gateway.decision(stolen(number)) == "TERMINATE", number
        if number % 8 == 0:
            await gateway.settle()
    await gateway.settle()
    for _ in range(2):
        assert await gateway.decision(request_from(HOME)) == "ALLOW"
        for number in (0, STANDS_MAX + 5, STANDS_MAX + 6):
            assert await gateway.decision(stolen(number)) == "TERMINATE"
        gateway.inline.live.start_over()


async def test_what_is_looked_at_of_a_session_is_the_same_when_it_is_read_anew(
    gateway: Gateway,
) -> None:
    """A session in memory and one from the database have the same stands: none is read for ever."""
    live_sessions = gateway.inline.live
    await gateway.ask(request_from(HOME))
    for number in range(STANDS_MAX + 6):
        gateway.story.hub.clock.advance(1)
        await gateway.ask(stolen(number))
    await gateway.settle()
    body = request_from(HOME)
    for _ in range(2):
        await gateway.ask(body)
        (held,) = [each for each in live_sessions._held.values() if each.met]
        said = await live_sessions._said("default", [held])
        assert said[held.session.session_id] == held.says()
        assert len(held.met) == STANDS_MAX + 2
        live_sessions.start_over()


@ONE_ENGINE
async def test_nobody_begins_a_session_because_another_was_kept_out(gateway: Gateway) -> None:
    """A session without an accepted context compares with who came first, in whatever process."""
    admin, feed = gateway.story.admin, gateway.story.hub.node.feed
    blocked = {"gateways": [{"value": HOME}]}
    assert (await admin.patch("/admin/v1/zones/zon_blocked_ip", json=blocked)).is_success
    await feed.refresh()
    assert await gateway.decision(request_from(HOME)) == "DENY"
    gateway.story.hub.clock.advance(1)
    for number in range(3):
        assert await gateway.decision(stolen(number)) == "TERMINATE", number
        await gateway.settle()
        gateway.inline.live.start_over()
    cleared: dict[str, Any] = {"gateways": []}
    assert (await admin.patch("/admin/v1/zones/zon_blocked_ip", json=cleared)).is_success
    await feed.refresh()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    assert await gateway.decision(stolen(9)) == "TERMINATE"
