"""Floods at the doors for SETs and webhooks: whoever sends too much waits, and nobody else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import httpx2
import pytest
from jwcrypto.jwk import JWK
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

import receivers.routes
import receivers.webhooks.routes
from hub.errors import render_exception
from receivers.limits import IntakeLimits
from receivers.model import Provider
from receivers.registry.service import add_provider
from receivers.webhooks.model import WebhookSettings
from receivers.webhooks.signatures import WebhookStyle
from runtime.errors import Invalid, Refused, Unavailable
from tests.receivers.conftest import TENANT, Intake, on_one_engine
from tests.receivers.vendor import JWKSHost, claims, sign

SECEVENT = {"content-type": "application/secevent+jwt"}
UNPROVEN_AT_ONCE = 3
VENDOR, STRANGER = "192.0.2.1", "198.51.100.7"

pytestmark = [pytest.mark.requirement("PUSH-18"), on_one_engine]

Open = Callable[[str], httpx2.AsyncClient]


class _DefaultTenant:
    """Stands where hub's tenant front stands."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "tenant": TENANT}, receive, send)


@pytest.fixture
def clients(intake: Intake) -> Open:
    """Return what opens a client at an address; an unproven message per second is too many."""
    app = Starlette(
        routes=[*receivers.routes.ROUTES, *receivers.webhooks.routes.ROUTES],
        exception_handlers=dict.fromkeys((HTTPException, Refused, Unavailable), render_exception),
    )
    limits = IntakeLimits(unproven_per_s=1.0, unproven_at_once=UNPROVEN_AT_ONCE)
    app.state.receivers = replace(intake.deps, limits=limits)

    def opened(address: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(_DefaultTenant(app), client=(address, 12345))
        return httpx2.AsyncClient(transport=transport, base_url="https://hub.example")

    return opened


async def _push(
    client: httpx2.AsyncClient, provider: Provider, content: bytes, **headers: str
) -> httpx2.Response:
    path = f"/receivers/{provider.provider_id}/events"
    return await client.post(path, content=content, headers=SECEVENT | headers)


def _assert_told_to_wait(answer: httpx2.Response, wait_s: str) -> None:
    assert (answer.status_code, answer.headers["retry-after"]) == (429, wait_s)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_flood_of_forgeries_is_not_even_verified(
    clients: Open, intake: Intake, jwks_host: JWKSHost, rsa: JWK
) -> None:
    provider = await intake.register()
    forger = JWK.generate(kty="RSA", size=2048, kid=rsa["kid"], alg="RS256", use="sig")
    async with clients(STRANGER) as stranger, clients(VENDOR) as vendor:
        for number in range(UNPROVEN_AT_ONCE):
            answer = await _push(stranger, provider, sign(claims(jti=f"f-{number}"), forger))
            assert answer.status_code == 400
        asked = len(jwks_host.requests)
        for _ in range(20):
            _assert_told_to_wait(await _push(stranger, provider, sign(claims(), forger)), "1")
        # Whatever it is: nothing of it is looked at.
        _assert_told_to_wait(await _push(stranger, provider, b"no SET at all"), "1")
        _assert_told_to_wait(await _push(stranger, provider, sign(claims(), rsa)), "1")
        assert len(jwks_host.requests) == asked
        # The provider itself is not silenced by what others send in its name.
        assert (await _push(vendor, provider, sign(claims(), rsa))).status_code == 202
        intake.clock.advance(1)
        late = sign(claims(jti="later"), rsa)
        assert (await _push(stranger, provider, late)).status_code == 202
    assert {one.jti for one in await intake.stored()} == {"jti-1", "later"}


async def test_who_has_not_the_secret_costs_the_provider_nothing(
    clients: Open, intake: Intake, rsa: JWK
) -> None:
    """Behind a proxy that hides addresses, a stranger and the provider look alike."""
    provider = await intake.register(authorization_header="Bearer abc")
    async with clients(VENDOR) as anybody:
        for _ in range(5 * UNPROVEN_AT_ONCE):
            answer = await _push(anybody, provider, b"rubbish", authorization="Bearer guess")
            assert answer.status_code == 401
        answer = await _push(anybody, provider, sign(claims(), rsa), authorization="Bearer abc")
    assert answer.status_code == 202


async def test_what_is_proven_and_refused_is_no_flood(
    clients: Open, intake: Intake, rsa: JWK
) -> None:
    provider = await intake.register()
    async with clients(VENDOR) as vendor:
        for number in range(5 * UNPROVEN_AT_ONCE):
            wrong = claims(jti=f"w-{number}", aud="somebody else")
            assert (await _push(vendor, provider, sign(wrong, rsa))).status_code == 400
        assert (await _push(vendor, provider, sign(claims(), rsa))).status_code == 202


async def test_a_provider_has_the_rate_that_an_admin_gave_it(
    clients: Open, intake: Intake, rsa: JWK
) -> None:
    limited = await intake.register(sets_per_s_max=2)
    free = await intake.register(name="free", issuer="https://free.example")
    async with clients(VENDOR) as vendor:

        async def send(number: int) -> httpx2.Response:
            return await _push(vendor, limited, sign(claims(jti=f"s-{number}"), rsa))

        # Two seconds' worth at once; then one every half second.
        assert [(await send(number)).status_code for number in range(4)] == [202] * 4
        _assert_told_to_wait(await send(4), "1")
        intake.clock.advance(0.5)
        assert (await send(4)).status_code == 202
        _assert_told_to_wait(await send(5), "1")
        for number in range(20):
            other = claims(jti=f"o-{number}", iss="https://free.example")
            assert (await _push(vendor, free, sign(other, rsa))).status_code == 202
    assert len(await intake.stored()) == 25


async def test_a_flood_of_webhooks_with_a_wrong_secret_waits(clients: Open, intake: Intake) -> None:
    settings = replace(
        intake.settings,
        jwks_uri=None,
        audiences=(),
        webhook=WebhookSettings(style=WebhookStyle.BEARER, profile="crowdstrike"),
    )
    provider = await add_provider(
        intake.admin, settings, tenant_id=TENANT, webhook_secrets=["a-secret-of-both-sides"]
    )
    path = f"/v1/signals/webhook/{provider.provider_id}"

    async def send(client: httpx2.AsyncClient, secret: str) -> httpx2.Response:
        return await client.post(path, json={}, headers={"authorization": f"Bearer {secret}"})

    async with clients(STRANGER) as stranger, clients(VENDOR) as vendor:
        for _ in range(UNPROVEN_AT_ONCE):
            assert (await send(stranger, "a-guess-and-no-more")).status_code == 401
        _assert_told_to_wait(await send(stranger, "a-guess-and-no-more"), "1")
        # A right guess is not told apart from a wrong one.
        _assert_told_to_wait(await send(stranger, "a-secret-of-both-sides"), "1")
        # What is proven is read, and found to say nothing that we know.
        assert (await send(vendor, "a-secret-of-both-sides")).status_code in {202, 400}


@pytest.mark.parametrize("limit", [0, -1, 1_000_001])
async def test_a_rate_that_makes_no_sense_is_refused(intake: Intake, limit: int) -> None:
    with pytest.raises(Invalid) as caught:
        await intake.register(sets_per_s_max=limit)
    assert [pointer for pointer, _ in caught.value.pointers] == ["/sets_per_s_max"]
