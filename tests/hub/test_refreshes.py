"""Identity providers refresh sessions: what that proves, of which context, and what it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from hub.app import make_app
from risk.inline.store import STANDS_MAX
from risk.networks.model import IPRecord
from risk.networks.service import Networks
from runtime.clock import epoch_s
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA, begin
from tests.hub.test_inline import (
    HOME,
    LAPTOP,
    OFFICE,
    SID,
    STOLEN,
    THIEF,
    Gateway,
    gateway,
    request_from,
    with_policy,
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


class Known(Networks):
    """Of every address somebody says whose it is, as with any table of networks."""

    @override
    def lookup(self, ip: str) -> IPRecord:
        return IPRecord(ip=ip, known=True, asn=64501 if ip == OFFICE else 64500, country="SE")


@pytest.fixture(params=["no table of networks", "a table of networks"])
async def looking_up(hub: Hub, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    """A gateway whose hub knows nothing of addresses, or something of each."""
    if request.param == "a table of networks":
        node = replace(hub.node, networks=Known(None, hub.clock))
        hub.app = make_app(node, hub.outside)
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


#: what the gateway sees besides what the identity provider sees
SEEN = pytest.mark.parametrize("seen", [{}, {"ja4": "t13d1516h2_8daaf6152771_b186095e22b6"}])
AT_THE_OFFICE: dict[str, Any] = {"ip": OFFICE, "ua": CHROME, "device": {"token_hash": LAPTOP}}


async def refresh(gateway: Gateway, context: dict[str, Any] = AT_THE_OFFICE, **said: Any) -> None:
    """Let the identity provider say, ten seconds later, that Rosa just proved herself."""
    clock = gateway.story.hub.clock
    clock.advance(10)
    body = {"iss": IDP, "user": f"email:{ROSA}", "context": context} | said
    body["auth_time"] = clock.now().isoformat()
    assert (await gateway.story.admin.put(f"/v1/sessions/{SID}", json=body)).is_success
    await gateway.settle()


@SEEN
async def test_a_refresh_with_a_weaker_proof_than_was_asked_for_is_none(
    looking_up: Gateway, seen: dict[str, Any]
) -> None:
    """Regression: it was looked for under another key than where more is known of the context."""
    gateway = looking_up
    await with_policy(gateway, acr="phr phrh", max_age=0)
    await gateway.ask(request_from(HOME, **seen))
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE, **seen)) == "STEP_UP"
    await refresh(gateway, acr="mfa")
    assert await gateway.decision(request_from(OFFICE, **seen)) == "STEP_UP"
    await refresh(gateway, acr="phr")
    assert await gateway.decision(request_from(OFFICE, **seen)) == "ALLOW"


@ONE_ENGINE
@SEEN
async def test_a_refresh_with_a_proof_answers_the_step_up(
    looking_up: Gateway, seen: dict[str, Any]
) -> None:
    """A rule that asks once in every context."""
    gateway, story = looking_up, looking_up.story
    rule = {"name": "r", "priority": 1, "when": {}, "then": {"decision": "STEP_UP", "max_age": 0}}
    body = {"name": "global-session", "mode": "enforce", "rules": [rule]}
    assert (await story.admin.put("/admin/v1/policies/global-session", json=body)).is_success
    await story.hub.node.feed.refresh()
    decided = await gateway.ask(request_from(OFFICE, **seen))
    assert decided["decision"] == "STEP_UP"
    await refresh(gateway)
    assert await gateway.decision(request_from(OFFICE, **seen)) == "ALLOW"
    # The word on it comes too: it is heard.
    word = {"iss": IDP, "outcome": "passed"}
    path = f"/v1/sessions/{SID}/step-ups/{decided['step_up']['id']}"
    assert (await story.admin.post(path, json=word)).status_code == 204
    await refresh(gateway)
    assert await gateway.decision(request_from(OFFICE, **seen)) == "ALLOW"


@ONE_ENGINE
@pytest.mark.parametrize("ip", ["203.0.113.10", "203.0.114.9"])
async def test_a_weaker_proof_next_to_where_more_was_asked_for_is_none(
    gateway: Gateway, ip: str
) -> None:
    """The identity provider sees another address of the same network."""
    await with_policy(gateway, acr="phr", max_age=0)
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE)) == "STEP_UP"
    await refresh(gateway, AT_THE_OFFICE | {"ip": ip}, acr="mfa")
    assert await gateway.decision(request_from(OFFICE)) == "STEP_UP"


@ONE_ENGINE
async def test_an_address_is_the_same_however_it_is_written(gateway: Gateway) -> None:
    await with_policy(gateway, max_age=0)
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    office = request_from("2001:db8::9")
    assert await gateway.decision(office) == "STEP_UP"
    await refresh(gateway, AT_THE_OFFICE | {"ip": "2001:0DB8:0::9"})
    decided = await gateway.ask(office)
    assert (decided["decision"], decided.get("changed")) == ("ALLOW", None)


@ONE_ENGINE
async def test_who_is_asked_in_many_contexts_opens_none_by_a_weaker_proof(
    gateway: Gateway,
) -> None:
    """More questions than are looked at: what was asked at the office is not known any more."""
    await with_policy(gateway, acr="phr", max_age=0)
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE)) == "STEP_UP"
    for number in range(STANDS_MAX):
        gateway.story.hub.clock.advance(1)
        assert await gateway.decision(request_from(f"192.0.2.{number + 1}")) == "STEP_UP"
    await refresh(gateway, acr="mfa")
    assert await gateway.decision(request_from(OFFICE)) == "STEP_UP"
