"""What a session begins with: all others are compared with it, whichever process is asked."""

from __future__ import annotations

from tests.hub.story import IDP
from tests.hub.test_inline import (
    HOME,
    OFFICE,
    STOLEN,
    Gateway,
    another_process,
    gateway,
    request_from,
)

__all__ = ["gateway"]


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
