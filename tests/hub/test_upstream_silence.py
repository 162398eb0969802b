"""An upstream that falls silent is told to people: once, and anew only after it was heard."""

from __future__ import annotations

import pytest

from hub.operations import SETTLE_UPSTREAM
from receivers.upstreams.model import Change, Settlement
from receivers.upstreams.store import get_upstream, note_verified
from runtime.queue import LeaseKeeper
from tests.hub.conftest import DEFAULT, Hub
from tests.hub.story import Story, begin
from tests.hub.test_guard import told


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
