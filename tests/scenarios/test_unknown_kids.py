"""A flood of SETs with made-up `kid`s: the provider's JWKS is left in peace, good SETs go on."""

from __future__ import annotations

import asyncio
import time
from typing import Final, cast

import pytest

from hub.demo.processes import HubProcess, PeerProcess
from hub.demo.world import World
from receivers.keys import REFETCH_COOLDOWN
from runtime.clock import SystemClock, epoch_s
from runtime.egress import EgressRules
from runtime.outbound import OutboundRequest
from runtime.streaming import StreamingOutbound
from tests.receivers import vendor as made
from tests.scenarios.kit import enrolled, until_stored_as

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

FLOOD: Final = 1_000
AT_ONCE: Final = 32
#: refused for good, or put off until the keys may be fetched again
ANSWERS: Final = {400, 503}


@pytest.mark.requirement("SET-54", "PUSH-18")
async def test_a_flood_of_unknown_kids_does_not_hammer_the_jwks(world: World) -> None:
    incident = await enrolled(world, "flooded")
    vendor = await world.start_peer("vendor", "flooded-vendor")
    try:
        await world.introduce_vendor(vendor, "Vendor whose name is misused")
        before = await incident.report_clean(by=vendor, jti="flood-before", wait=False)
        fetched = await _fetches(world, vendor)
        began = time.monotonic()
        statuses = await _flood(world, vendor)
        after = await incident.report_clean(by=vendor, jti="flood-after", wait=False)
        took_s = time.monotonic() - began

        assert set(statuses) <= ANSWERS
        assert len(statuses) == FLOOD
        for sent in (before, after):
            await until_stored_as(world, sent["jti"], "assessed")
        # One fetch per cool-down and api process, and one that began before the flood did.
        apis = [
            role for role in cast("HubProcess", world.hub).processes().values() if role == "api"
        ]
        allowed = len(apis) * (2 + int(took_s / REFETCH_COOLDOWN.total_seconds()))
        assert await _fetches(world, vendor) - fetched <= allowed
    finally:
        await vendor.stop()


async def _fetches(world: World, vendor: PeerProcess) -> int:
    url = f"{vendor.url}/ledger?what=jwks.fetched"
    return len(await world.http.ask("GET", url))


async def _flood(world: World, vendor: PeerProcess) -> list[int]:
    """Push SETs that say they are the vendor's, each signed with a key of another made-up name."""
    url, authorization = world.push_settings[vendor.url]
    now_s = epoch_s(SystemClock().now())
    key = made.ec_key("nobody")
    bodies = [
        made.sign(
            made.claims(
                iss=vendor.urls["issuer"], aud=world.hub.issuer, iat=now_s, jti=f"flood-{number}"
            ),
            key,
            header={"kid": f"made-up-{number}"},
        )
        for number in range(FLOOD)
    ]
    outbound = StreamingOutbound(EgressRules(dev_insecure=True))
    turn = asyncio.Semaphore(AT_ONCE)
    headers = {"content-type": "application/secevent+jwt", "authorization": authorization}

    async def send(body: bytes) -> int:
        async with turn:
            request = OutboundRequest(method="POST", url=url, headers=headers, body=body)
            return (await outbound.send(request)).status

    try:
        return await asyncio.gather(*(send(body) for body in bodies))
    finally:
        await outbound.close()
