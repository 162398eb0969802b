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


async def confirm_safe(gateway: Gateway, path: str) -> None:
    said = await gateway.story.admin.post(f"/v1/risk/{path}/confirm-safe")
    assert said.status_code == 200, said.text
    assert said.json()["changed"] is True
    await gateway.settle()


@pytest.mark.parametrize("kind", ["sessions", "users"])
async def test_confirm_safe_makes_what_was_seen_known(gateway: Gateway, kind: str) -> None:
    """A person who says that it was Rosa says so of the addresses and devices too."""
    for body in (request_from(HOME), request_from(OFFICE), STOLEN):
        await gateway.ask(body)
    await gateway.settle()
    await gateway.story.hub.settle()
    assert [ip for ip, _ in await recorded(gateway)] == [HOME]
    named = {"sessions": SID, "users": gateway.story.ids["rosa"]}
    await confirm_safe(gateway, f"{kind}/{named[kind]}")
    state = state_of(gateway.story.hub)
    known = await state.history.baselines.of("default", gateway.story.ids["rosa"])
    # Of the user: what was asked for, not what was stopped. Of this session: that as well.
    devices = len({each.device for each in known.recent})
    assert ({each.ip for each in known.recent}, devices) == (
        {HOME, OFFICE},
        2 if kind == "sessions" else 1,
    )
    assert {each.session for each in known.recent} == {session_mark(IDP, SID)}
