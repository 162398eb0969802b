"""An upstream that falls silent is told to people: once, and anew only after it was heard."""

from __future__ import annotations

import asyncio

import pytest

from hub.delivery import _upstreams
from hub.operations import SETTLE_UPSTREAM
from receivers.upstreams.model import VERIFY_PATIENCE, Begin, Change, Settlement
from receivers.upstreams.operations import BEGIN
from receivers.upstreams.store import (
    add_state,
    change_upstream,
    get_upstream,
    note_heard,
    note_verified,
)
from receivers.upstreams.worker import Job
from runtime.queue import BUCKETS, LeaseKeeper
from tests.hub.conftest import DEFAULT, Hub
from tests.hub.story import HUB_AUDIENCE, Story, begin
from tests.hub.test_guard import told
from tests.postgresql import until_it_waits


async def fall_silent(story: Story, *, is_owner: bool = True) -> None:
    """Let delivery find that a verification did not come."""
    hub = story.hub
    leases = LeaseKeeper("upstreams", "test", writer=hub.node.writer, clock=hub.clock)
    await leases.renew()
    async with hub.database.snapshot() as connection:
        upstream = await get_upstream(connection, DEFAULT, story.ids["upstream"])
    assert upstream is not None
    fence = leases.fence(upstream.bucket)
    if not is_owner:
        await LeaseKeeper("upstreams", "test", writer=hub.node.writer, clock=hub.clock).renew()
    settlement = Settlement(
        fence=fence,
        tenant_id=DEFAULT,
        upstream_id=upstream.upstream_id,
        change=Change(is_silent=True, awaiting_since=None, failing_since=hub.clock.now()),
    )
    assert await hub.node.writer.submit(SETTLE_UPSTREAM, settlement) is is_owner
    await hub.settle()


async def be_heard(story: Story) -> None:
    hub = story.hub
    async with hub.database.transaction() as connection:
        upstream = await get_upstream(connection, DEFAULT, story.ids["upstream"], lock=True)
        assert upstream is not None
        await note_verified(connection, upstream, hub.clock.now())


@pytest.mark.requirement("WH-9")
async def test_a_silence_is_told_once_until_the_upstream_is_heard_again(hub: Hub) -> None:
    story = await begin(hub)
    await fall_silent(story)
    await fall_silent(story)
    (notice,) = told(hub, "upstream.silent")
    assert notice["data"]["upstream_id"] == story.ids["upstream"]
    assert notice["data"]["message"].startswith("edr is silent")
    assert "upstream-secret" not in str(notice)

    await be_heard(story)
    await fall_silent(story)
    assert len(told(hub, "upstream.silent")) == 2


async def test_who_lost_the_lease_tells_nothing(hub: Hub) -> None:
    story = await begin(hub)
    await fall_silent(story, is_owner=False)
    assert told(hub, "upstream.silent") == []


async def asked(story: Story) -> LeaseKeeper:
    """Let a verification be asked for that does not come; return the leases of delivery."""
    hub = story.hub
    leases = LeaseKeeper("upstreams", "test", writer=hub.node.writer, clock=hub.clock)
    await leases.renew()
    async with hub.database.transaction() as connection:
        upstream_id, now = story.ids["upstream"], hub.clock.now()
        await add_state(connection, DEFAULT, upstream_id, state="s", at=now)
        made = Change(order_state="done", stream_id="str")
        await change_upstream(connection, DEFAULT, upstream_id, made)
    hub.clock.advance(VERIFY_PATIENCE.total_seconds() + 1)
    await leases.renew()
    return leases


@pytest.mark.requirement("SSF-VER-10")
@pytest.mark.parametrize("answers", [True, False])
async def test_who_answers_while_a_silence_is_settled_is_not_silent(
    hub: Hub, *, answers: bool
) -> None:
    story = await begin(hub)
    leases = await asked(story)
    source = _upstreams(hub.node, hub.outside, hub.outside, leases)
    due = await source.due(range(BUCKETS), hub.clock.now(), 64, {})
    (work,) = [one for one in due if one.job is Job.SILENCE]
    settlement = await source.perform(work, leases.fence(source.bucket(work)))
    if answers:
        await be_heard(story)
    assert await hub.node.writer.submit(source.settle, settlement) is not answers
    await hub.settle()
    async with hub.database.snapshot() as connection:
        upstream = await get_upstream(connection, DEFAULT, story.ids["upstream"])
    assert upstream is not None
    assert upstream.is_silent is not answers
    assert len(told(hub, "upstream.silent")) == (0 if answers else 1)


async def two_upstreams(story: Story) -> list[str]:
    """Return the ids of two upstreams, in the order in which everybody locks them."""
    second = {
        "name": "second",
        "issuer": "https://second.example",
        "audiences": [HUB_AUDIENCE],
        "jwks_uri": "https://second.example/jwks.json",
        "auth": "header",
        "secret": "Bearer x",
    }
    made = await story.post("/admin/v1/upstreams", second)
    return sorted((story.ids["upstream"], made["id"]))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("operation", ["begin", "settle"])
async def test_upstreams_are_locked_in_the_order_of_arrivals(hub: Hub, operation: str) -> None:
    """Two transactions that lock the same rows in another order end in a deadlock."""
    story = await begin(hub)
    one, two = await two_upstreams(story)
    leases = LeaseKeeper("upstreams", "test", writer=hub.node.writer, clock=hub.clock)
    await leases.renew()
    now = hub.clock.now()
    begins, settlements = [], []
    for upstream_id, change in ((two, Change(is_silent=True)), (one, Change(poll_due_at=now))):
        async with hub.database.snapshot() as connection:
            known = await get_upstream(connection, DEFAULT, upstream_id)
        assert known is not None
        fence = leases.fence(known.bucket)
        begins.append(
            Begin(fence=fence, tenant_id=DEFAULT, upstream_id=upstream_id, at=now, state="s")
        )
        settlements.append(
            Settlement(fence=fence, tenant_id=DEFAULT, upstream_id=upstream_id, change=change)
        )

    async def write() -> object:
        async with hub.database.transaction() as connection:
            if operation == "begin":
                return await BEGIN.handle(connection, begins)
            return await SETTLE_UPSTREAM.handle(connection, settlements)

    async with asyncio.timeout(20):
        async with hub.database.transaction() as connection:
            # As a batch of arrivals of both: one after the other, in order.
            await note_heard(connection, DEFAULT, one, at=now)
            task = asyncio.create_task(write())
            await until_it_waits(hub.database, task)
            await note_heard(connection, DEFAULT, two, at=now)
        assert await task == [True, True]
