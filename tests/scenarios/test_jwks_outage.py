"""While a vendor's keys cannot be fetched its SETs are put off: never accepted, never lost."""

from __future__ import annotations

import pytest

from hub.demo.world import World
from tests.scenarios.kit import assert_flawless, enrolled, push, signals

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

UNAVAILABLE = 503


@pytest.mark.requirement("SET-54", "EGW-82", "PUSH-44")
async def test_sets_wait_at_the_vendor_until_its_keys_are_back(world: World) -> None:
    incident = await enrolled(world, "keys-away")
    vendor = await world.start_peer("vendor", "keys-away-vendor")
    try:
        await world.introduce_vendor(vendor, "Vendor whose keys are away")
        await world.http.ask("POST", f"{vendor.url}/control/jwks", {"mode": "error"})
        await incident.sign_in()
        made = await incident.report_compromised(by=vendor, deliver=False, wait=False)
        answer = await push(world, vendor, made["set"])
        assert answer.status == UNAVAILABLE
        assert int(answer.headers["retry-after"]) >= 1
        assert not await signals(world, made["jti"]), "nothing is stored unverified"
        assert await incident.is_at("LOW")()

        sent = await incident.report_compromised(by=vendor, jti="keys-away-1", wait=False)
        await world.http.ask("POST", f"{vendor.url}/control/jwks", {"mode": "ok"})
        await incident.contained()
        assert [each["state"] for each in await signals(world, sent["jti"])] == ["assessed"]
        await incident.report_clean(by=vendor)
        await incident.restored()
        await assert_flawless(world, incident)
    finally:
        await vendor.stop()
