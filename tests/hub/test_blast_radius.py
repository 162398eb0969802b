"""The blast-radius guard: one limit for all that is taken away from users, in whatever order."""

from __future__ import annotations

import asyncio

import pytest

from actions.model import containments_max
from hub.operations import LOG_OUT_SESSION
from risk.inline.orders import SessionLogout
from tests.hub.conftest import Hub
from tests.hub.story import IDP, Story, begin

USERS = 8


async def logouts(story: Story, *, of_user: bool, users: range) -> list[SessionLogout]:
    """Return logouts of these users' sessions: of all of them, or of the one that was judged."""
    made = []
    for number in users:
        user = {"format": "email", "email": f"user-{number}@customer.example"}
        put = await story.admin.put(f"/v1/sessions/s{number}", json={"iss": IDP, "user": user})
        session = put.json()
        made.append(
            SessionLogout(
                tenant_id=story.tenant,
                user_id=session["user_id"],
                session_id=session["session_id"],
                iss=IDP,
                sid=f"s{number}",
                context_key="k",
                app_ids=None,
                at=story.hub.clock.now(),
                of_user=of_user,
            )
        )
    return made


async def carry_out(story: Story, some: list[SessionLogout]) -> None:
    writer = story.hub.node.writer
    await asyncio.gather(*(writer.submit(LOG_OUT_SESSION, one) for one in some))


@pytest.mark.requirement("SSF-SEC-5")
@pytest.mark.parametrize("users_first", [True, False])
async def test_row_39_sessions_and_users_share_one_limit_in_either_order(
    hub: Hub, *, users_first: bool
) -> None:
    """Where the sessions came first, as many users again were contained."""
    story = await begin(hub)
    of_sessions = await logouts(story, of_user=False, users=range(4))
    of_users = await logouts(story, of_user=True, users=range(4, USERS))
    for some in (of_users, of_sessions) if users_first else (of_sessions, of_users):
        await carry_out(story, some)
    sessions = (await story.get("/admin/v1/session-logouts"))["items"]
    containments = (await story.get("/admin/v1/containments"))["items"]
    held = len(sessions) + sum(one["state"] == "held" for one in containments)
    assert USERS - held == containments_max(USERS + 2)


async def test_whose_session_was_logged_out_counts_once_when_the_user_follows(hub: Hub) -> None:
    story = await begin(hub)
    three = range(3)
    await carry_out(story, await logouts(story, of_user=False, users=three))
    await carry_out(story, await logouts(story, of_user=True, users=three))
    containments = (await story.get("/admin/v1/containments"))["items"]
    assert [one["state"] for one in containments] == ["open"] * 3
    await carry_out(story, await logouts(story, of_user=True, users=range(3, 4)))
    containments = (await story.get("/admin/v1/containments"))["items"]
    assert [one["state"] for one in containments] == ["held", "open", "open", "open"]
