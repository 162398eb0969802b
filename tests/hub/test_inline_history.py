"""Sessions and what is known of their users: what is well enters the baseline, once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from risk.baselines.service import session_mark
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, begin
from tests.hub.test_inline import HOME, OFFICE, SID, STOLEN, Gateway, request_from, state_of


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def recorded(gateway: Gateway) -> list[tuple[str, str | None]]:
    """Return (address, session) of what is known of the session's user."""
    hub: Hub = gateway.story.hub
    state = state_of(hub)
    await state.sign_ins.recorder.flush()
    await hub.node.changes.refresh()
    known = await state.history.baselines.of("default", gateway.story.ids["rosa"])
    return [(each.ip, each.session) for each in known.recent]


@ONE_ENGINE
async def test_row_16_a_contexts_that_are_well_enter_once_and_stopped_ones_never(
    gateway: Gateway,
) -> None:
    for body in (request_from(HOME), request_from(HOME), request_from(OFFICE), STOLEN):
        await gateway.ask(body)
    found = await recorded(gateway)
    assert [ip for ip, _ in found] == [HOME]
    assert found[0][1] == session_mark(IDP, SID)


@ONE_ENGINE
@pytest.mark.parametrize("times", [3])
async def test_asking_again_records_nothing_twice(gateway: Gateway, times: int) -> None:
    for _ in range(times):
        gateway.inline.live.start_over()
        await gateway.ask(request_from(HOME))
        await recorded(gateway)
    assert len(await recorded(gateway)) == 1
