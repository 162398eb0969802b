"""Two who write one session at the same time: over is over, and only what was judged ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.operations import LOG_OUT_SESSION, PUT_SESSION, SETTLE, SETTLE_STEP_UP
from risk.inline.model import Settled, Stand, StandState
from risk.inline.orders import SessionLogout
from risk.inline.step_ups import PASSED, StepUp
from risk.sessions.model import EndSession, PutSession
from risk.sessions.service import END_SESSION, end_all_of_users
from risk.sessions.store import find_sessions
from tests.hub.conftest import DEFAULT, Hub
from tests.hub.story import IDP, ROSA, begin
from tests.hub.test_inline import HOME, OFFICE, SID, Gateway, request_from
from tests.postgresql import until_it_waits

T = TypeVar("T")
#: SQLite has one writer, who waits before reading anything
MANY_WRITERS = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
LIMIT_S = 20.0


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


async def crossing(
    hub: Hub,
    first: Callable[[AsyncConnection], Awaitable[Any]],
    second: Callable[[AsyncConnection], Awaitable[T]],
) -> T:
    """Let two transactions be open at once, of which the first commits when the second waits.

    Returns what the second one made of it.
    """

    async def other() -> T:
        async with hub.database.transaction() as connection:
            return await second(connection)

    async with asyncio.timeout(LIMIT_S):
        async with hub.database.transaction() as connection:
            await first(connection)
            waiting = asyncio.create_task(other())
            await until_it_waits(hub.database, waiting)
        return await waiting


async def asked(gateway: Gateway, sid: str = SID) -> StepUp:
    """Have Rosa asked for a step-up; return the word that she passed it."""
    await gateway.ask(request_from(HOME), sid)
    await gateway.settle()
    decided = await gateway.ask(request_from(OFFICE), sid)
    assert decided["decision"] == "STEP_UP"
    await gateway.settle()
    now = gateway.story.hub.clock.now()
    return StepUp(
        tenant_id=DEFAULT,
        iss=IDP,
        sid=sid,
        step_up_id=decided["step_up"]["id"],
        outcome=PASSED,
        at=now,
        auth_time=now,
    )


async def is_live(gateway: Gateway, sid: str = SID) -> bool:
    return bool((await gateway.story.get(f"/v1/sessions/{sid}?iss={IDP}"))["live"])


def put_of(gateway: Gateway, sid: str) -> PutSession:
    now = gateway.story.hub.clock.now()
    user = gateway.story.ids["rosa"]
    return PutSession(
        tenant_id=DEFAULT, iss=IDP, sid=sid, user=user, device=None, started_at=now, now=now
    )


@MANY_WRITERS
async def test_a_step_up_does_not_open_a_session_that_a_containment_ends(gateway: Gateway) -> None:
    hub = gateway.story.hub
    word = await asked(gateway)
    rosa = {gateway.story.ids["rosa"]}

    async def contain(connection: AsyncConnection) -> None:
        assert await end_all_of_users(connection, DEFAULT, user_ids=rosa, now=word.at)

    async def step_up(connection: AsyncConnection) -> Sequence[str]:
        return await SETTLE_STEP_UP.handle(connection, [word])

    assert await crossing(hub, contain, step_up) == ["ended"]
    assert not await is_live(gateway)
    await hub.node.changes.refresh()
    assert await gateway.decision(request_from(HOME)) == "TERMINATE"


@MANY_WRITERS
async def test_a_containment_ends_a_session_that_is_stepped_up_meanwhile(gateway: Gateway) -> None:
    word = await asked(gateway)
    rosa = gateway.story.ids["rosa"]

    async def step_up(connection: AsyncConnection) -> None:
        assert await SETTLE_STEP_UP.handle(connection, [word]) == [""]

    async def contain(connection: AsyncConnection) -> int:
        ended = await end_all_of_users(connection, DEFAULT, user_ids={rosa}, now=word.at)
        return ended[rosa]

    assert await crossing(gateway.story.hub, step_up, contain)
    found = await gateway.story.get(f"/v1/sessions/{SID}?iss={IDP}")
    # What the step-up noted is not lost either.
    assert (found["live"], found["auth_time"]) == (False, word.at.isoformat())


@MANY_WRITERS
async def test_a_refresh_does_not_open_a_session_that_is_ended_meanwhile(gateway: Gateway) -> None:
    other = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await gateway.story.admin.put("/v1/sessions/phone", json=other)).is_success
    put = put_of(gateway, "phone")

    async def end(connection: AsyncConnection) -> None:
        gone = EndSession(tenant_id=DEFAULT, iss=IDP, sid="phone", at=put.now)
        assert await END_SESSION.handle(connection, [gone]) == [True]

    async def refresh(connection: AsyncConnection) -> list[str]:
        return [each.refusal for each in await PUT_SESSION.handle(connection, [put])]

    assert await crossing(gateway.story.hub, end, refresh) == ["ended"]
    assert not await is_live(gateway, "phone")


@MANY_WRITERS
async def test_who_ends_a_session_does_not_end_the_next_one_of_its_name(gateway: Gateway) -> None:
    """Nor does the new one become the old one again."""
    story = gateway.story
    path = f"/v1/sessions/{SID}?iss={IDP}"
    before = await story.get(path)
    now = story.hub.clock.now()
    gone = EndSession(tenant_id=DEFAULT, iss=IDP, sid=SID, at=now)
    story.hub.clock.advance(1)

    async def sign_in_anew(connection: AsyncConnection) -> None:
        await END_SESSION.handle(connection, [gone])
        (made,) = await PUT_SESSION.handle(connection, [put_of(gateway, SID)])
        assert made.created

    async def contain(connection: AsyncConnection) -> Sequence[Any]:
        stand = ends(before["session_id"], gateway)
        return await SETTLE.handle(connection, [stand])

    await crossing(story.hub, sign_in_anew, contain)
    after = await story.get(path)
    assert after["session_id"] != before["session_id"]
    assert after["live"]


def ends(session_id: str, gateway: Gateway, *, of_user: bool = False) -> Stand:
    """Return a stand with which a session, or all of its user, is over everywhere."""
    now = gateway.story.hub.clock.now()
    return Stand(
        tenant_id=DEFAULT,
        session_id=session_id,
        context_key="k",
        state=StandState.TERMINATED,
        level="HIGH",
        decision="TERMINATE",
        scope="user" if of_user else "session",
        at=now,
        since=now,
        ends=(IDP, SID),
        logout=SessionLogout(
            tenant_id=DEFAULT,
            user_id=gateway.story.ids["rosa"],
            session_id=session_id,
            iss=IDP,
            sid=SID,
            context_key="k",
            app_ids=None,
            at=now,
            of_user=of_user,
        ),
    )


@pytest.mark.parametrize("of_user", [False, True])
async def test_a_session_that_began_anew_does_not_end_for_what_was_judged_before(
    gateway: Gateway, *, of_user: bool
) -> None:
    """It was ended, and begun again under the same `sid`, while its context was settled."""
    story = gateway.story
    path = f"/v1/sessions/{SID}?iss={IDP}"
    judged = (await story.get(path))["session_id"]
    assert (await story.admin.delete(path)).is_success
    story.hub.clock.advance(1)
    anew = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put(f"/v1/sessions/{SID}", json=anew)).is_success
    story.hub.outside.requests.clear()

    await story.hub.node.writer.submit(SETTLE, ends(judged, gateway, of_user=of_user))
    await story.hub.settle()

    assert await is_live(gateway)
    assert story.hub.outside.requests == []
    # What is judged now does end it.
    present = (await story.get(path))["session_id"]
    await story.hub.node.writer.submit(SETTLE, ends(present, gateway, of_user=of_user))
    await story.hub.settle()
    assert not await is_live(gateway)
    assert story.hub.outside.requests


async def begin_phone(gateway: Gateway) -> tuple[str, str]:
    """Let Rosa sign in with her phone, too; return the ids of both her sessions."""
    body = {"iss": IDP, "user": f"email:{ROSA}"}
    made = (await gateway.story.admin.put("/v1/sessions/phone", json=body)).json()
    first = await gateway.story.get(f"/v1/sessions/{SID}?iss={IDP}")
    return first["session_id"], made["session_id"]


async def test_a_user_is_logged_out_though_the_judged_session_ended_meanwhile(
    gateway: Gateway,
) -> None:
    """The app logs that one out by itself; the user's others are over all the same, once."""
    story = gateway.story
    first, _ = await begin_phone(gateway)
    end = ends(first, gateway, of_user=True)
    assert (await story.admin.delete(f"/v1/sessions/{SID}?iss={IDP}")).is_success
    story.hub.clock.advance(1)

    await story.hub.node.writer.submit(SETTLE, end)
    await story.hub.settle()
    assert not await is_live(gateway, "phone")
    assert story.hub.outside.requests

    # Who signs in anew is judged anew.
    story.hub.outside.requests.clear()
    anew = {"iss": IDP, "user": f"email:{ROSA}"}
    assert (await story.admin.put("/v1/sessions/tablet", json=anew)).is_success
    assert end.logout is not None
    await story.hub.node.writer.submit(LOG_OUT_SESSION, end.logout)
    await story.hub.settle()
    assert await is_live(gateway, "tablet")
    assert story.hub.outside.requests == []


@MANY_WRITERS
async def test_who_ends_a_user_and_who_steps_up_do_not_wait_for_each_other(
    gateway: Gateway,
) -> None:
    """In one batch: all sessions of the user are over, and another one of them is denied.

    The other sessions were locked after the stands of the batch: a deadlock with whoever settles
    a step-up, who has locked the session and wants its stands.
    """
    story = gateway.story
    first, phone = await begin_phone(gateway)
    word = await asked(gateway, "phone")
    denied = Stand(
        tenant_id=DEFAULT,
        session_id=phone,
        context_key="other",
        state=StandState.DENIED,
        level="LOW",
        decision="DENY",
        scope="session",
        at=word.at,
        since=word.at,
    )

    async def settle() -> Sequence[Settled]:
        async with story.hub.database.transaction() as connection:
            return await SETTLE.handle(connection, [ends(first, gateway, of_user=True), denied])

    async with asyncio.timeout(LIMIT_S):
        async with story.hub.database.transaction() as connection:
            # What whoever settles a step-up locks first.
            await find_sessions(connection, DEFAULT, keys={(IDP, "phone")}, lock=True)
            waiting = asyncio.create_task(settle())
            await until_it_waits(story.hub.database, waiting)
            assert await SETTLE_STEP_UP.handle(connection, [word]) == [""]
        await waiting
    assert not await is_live(gateway, "phone")


@MANY_WRITERS
async def test_sessions_of_a_user_are_locked_in_one_order(gateway: Gateway) -> None:
    """The one with which all others end is the last by its name, and was locked the first."""
    story = gateway.story
    first, _ = await begin_phone(gateway)
    assert SID > "phone"
    end = ends(first, gateway, of_user=True)

    async def settle() -> Sequence[Settled]:
        async with story.hub.database.transaction() as connection:
            return await SETTLE.handle(connection, [end])

    async with asyncio.timeout(LIMIT_S):
        async with story.hub.database.transaction() as connection:
            await find_sessions(connection, DEFAULT, keys={(IDP, "phone")}, lock=True)
            waiting = asyncio.create_task(settle())
            await until_it_waits(story.hub.database, waiting)
            gone = EndSession(tenant_id=DEFAULT, iss=IDP, sid=SID, at=end.at)
            assert await END_SESSION.handle(connection, [gone]) == [True]
        await waiting
    assert not await is_live(gateway, "phone")


@MANY_WRITERS
async def test_row_39_processes_that_log_out_at_the_same_time_share_one_limit(
    gateway: Gateway,
) -> None:
    story = gateway.story
    items = []
    for number in range(6):
        user = {"format": "email", "email": f"user-{number}@customer.example"}
        put = await story.admin.put(f"/v1/sessions/s{number}", json={"iss": IDP, "user": user})
        made = put.json()
        items.append(
            SessionLogout(
                tenant_id=DEFAULT,
                user_id=made["user_id"],
                session_id=made["session_id"],
                iss=IDP,
                sid=f"s{number}",
                context_key="k",
                app_ids=None,
                at=story.hub.clock.now(),
            )
        )

    def half(mine: list[SessionLogout]) -> Callable[[AsyncConnection], Awaitable[Sequence[bool]]]:
        async def log_out(connection: AsyncConnection) -> Sequence[bool]:
            return await LOG_OUT_SESSION.handle(connection, mine)

        return log_out

    await crossing(story.hub, half(items[:3]), half(items[3:]))
    held = (await story.get("/admin/v1/session-logouts"))["items"]
    assert {each["sid"] for each in held} == {"s3", "s4", "s5"}
