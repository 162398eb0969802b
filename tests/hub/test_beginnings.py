"""What a session begins with: all others are compared with it, whichever process is asked."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa

from risk.inline.store import STANDS_MAX
from tests.hub.story import IDP, ROSA
from tests.hub.test_findings_kept import process_that_is_killed
from tests.hub.test_inline import (
    DEVICE_KEY,
    HOME,
    OFFICE,
    STOLEN,
    THIEF,
    Gateway,
    another_process,
    gateway,
    request_from,
)
from tests.hub.test_inline_history import recorded
from tests.hub.test_session_races import MANY_WRITERS
from tests.postgresql import until_it_waits
from tests.risk.test_contexts import FIREFOX

__all__ = ["gateway"]

NEXT_DOOR = request_from("203.0.113.10", ua=FIREFOX, device={"token_hash": THIEF})


async def test_row_15_a_thief_who_comes_at_once_is_not_who_the_owner_is_compared_with(
    gateway: Gateway,
) -> None:
    async with another_process(gateway) as other:
        assert await gateway.decision(request_from(HOME)) == "ALLOW"
        # Nothing of what is written behind that answer is waited for.
        assert await other.decision(STOLEN) == "TERMINATE"
        assert await other.decision(request_from(HOME)) == "ALLOW"
        assert await gateway.decision(request_from(HOME)) == "ALLOW"


async def test_who_is_judged_as_the_first_although_another_was_is_judged_anew(
    gateway: Gateway,
) -> None:
    async with another_process(gateway) as other:
        # Both processes hold the session before anybody was seen in it.
        for each in (gateway, other):
            assert await each.decision({"iss": IDP}) == "ALLOW"
        assert await gateway.decision(request_from(HOME)) == "ALLOW"
        assert await other.decision(STOLEN) == "TERMINATE"
        assert await other.decision(request_from(OFFICE)) == "STEP_UP"
        assert await other.decision(request_from(HOME)) == "ALLOW"


async def test_what_joined_an_anchor_that_was_refused_is_refused_too(gateway: Gateway) -> None:
    """Regression: nobody looked at it again, and the thief was let pass beside it for good."""
    async with process_that_is_killed(gateway, settle_stand=1) as other:
        # What it begins with could not be written in time, so that is tried behind the answer.
        assert await other.decision(STOLEN) == "ALLOW"
        assert await other.decision(NEXT_DOOR) == "ALLOW"
        assert await gateway.decision(request_from(HOME)) == "ALLOW"
        for each in (other, gateway):
            await each.settle()
        for each in (other, gateway):
            await each.story.hub.node.changes.refresh()
            assert await each.decision(NEXT_DOOR) == "TERMINATE"
            assert await each.decision(STOLEN) == "TERMINATE"
        # Nor is anything of it known of the user.
        assert {ip for ip, _ in [*await recorded(other), *await recorded(gateway)]} == {HOME}


async def bind(gateway: Gateway, sid: str) -> None:
    """Begin a session of Rosa's that is bound to a key: its proofs are read last."""
    key = DEVICE_KEY.export_public(as_dict=True)
    put = {"iss": IDP, "user": f"email:{ROSA}", "binding": {"jwk": key}}
    assert (await gateway.story.admin.put(f"/v1/sessions/{sid}", json=put)).is_success


@MANY_WRITERS
async def test_an_anchor_that_was_refused_is_forgotten_also_while_its_session_is_read(
    gateway: Gateway,
) -> None:
    """Regression: what was read took it over as one that is still to be written."""
    story, bound = gateway.story, "sid-bound"
    await bind(gateway, bound)
    async with process_that_is_killed(gateway, settle_stand=1) as other:
        named = ("default", IDP, bound, None)
        assert await other.decision(STOLEN, bound) == "ALLOW"
        assert await gateway.decision(request_from(HOME), bound) == "ALLOW"
        other.inline.live.start_over()
        async with story.hub.database.transaction() as connection:
            await connection.execute(sa.text("LOCK TABLE session_proofs IN ACCESS EXCLUSIVE MODE"))
            reading = asyncio.create_task(other.inline.live.find(*named))
            await until_it_waits(story.hub.database, reading)
            # The writer refuses it while the session is being read.
            await other.inline.behind.flush()
        live = await reading
        assert live is not None
        assert [each.ip for each in live.contexts] == [HOME]
        await other.settle()
        assert await other.decision(STOLEN, bound) == "TERMINATE"


@MANY_WRITERS
async def test_what_is_seen_of_a_session_that_changes_while_it_is_read_is_remembered(
    gateway: Gateway,
) -> None:
    """Regression: its contexts were recorded, and its apps noted, once more by the next request."""
    live, named = gateway.inline.live, ("default", IDP, "sid-bound", None)
    await bind(gateway, "sid-bound")
    database = gateway.story.hub.database
    async with database.transaction() as connection:
        await connection.execute(sa.text("LOCK TABLE session_proofs IN ACCESS EXCLUSIVE MODE"))
        reading = asyncio.create_task(live.find(*named))
        await until_it_waits(database, reading)
        live.start_over()
    read = await reading
    assert read is not None
    read.note("some-context", None)
    assert live.peek(*named) is None
    again = await live.find(*named)
    assert again is not None
    assert again.noted == (("some-context", None),)


async def test_contexts_that_are_forgotten_before_they_are_written_are_no_error(
    gateway: Gateway,
) -> None:
    """Regression: a session with more of them than there is room for could not be read anew."""
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    for number in range(STANDS_MAX + 2):
        gateway.story.hub.clock.advance(0.001)
        assert await gateway.decision(request_from(f"198.51.100.{number + 20}")) == "ALLOW"
    gateway.inline.live.start_over()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
