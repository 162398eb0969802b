"""Identity providers refresh sessions: what that proves, of which context, and what it does not."""

from __future__ import annotations

from typing import Any

from runtime.clock import epoch_s
from tests.hub.story import IDP, ROSA
from tests.hub.test_inline import (
    HOME,
    LAPTOP,
    OFFICE,
    STOLEN,
    THIEF,
    Gateway,
    gateway,
    request_from,
)
from tests.risk.test_contexts import CHROME, FIREFOX

__all__ = ["gateway"]

HERE: dict[str, Any] = {"ip": HOME, "ua": CHROME, "device": {"token_hash": LAPTOP}}
THERE: dict[str, Any] = {"ip": OFFICE, "ua": FIREFOX, "device": {"token_hash": THIEF}}


async def test_a_refresh_with_the_sign_in_of_before_proves_nothing(gateway: Gateway) -> None:
    """Whoever holds the cookie causes one, with the `auth_time` that every refresh has."""
    story = gateway.story
    put = {"iss": IDP, "user": f"email:{ROSA}", "auth_time": epoch_s(story.hub.clock.now())}
    made = await story.admin.put("/v1/sessions/fresh", json={**put, "context": HERE})
    assert made.status_code == 201
    await gateway.settle()
    assert await gateway.decision(request_from(HOME), "fresh") == "ALLOW"
    story.hub.clock.advance(60)
    again = await story.admin.put("/v1/sessions/fresh", json={**put, "context": THERE})
    assert again.is_success
    await gateway.settle()
    assert await gateway.decision(STOLEN, "fresh") == "TERMINATE"
