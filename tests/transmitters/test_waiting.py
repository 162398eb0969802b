"""Which streams SETs are pending for: found without reading those that nothing is pending for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.transmitters.conftest import NOW_S, World
from transmitters import store
from transmitters.delivery.store import system_waiting_streams

pytestmark = pytest.mark.anyio

#: the second has nothing pending, and so have other streams of the first
TENANTS = ("acme", "idle", "umbrella")


def delivery(world: World, tenant_id: str, stream_id: str, number: int, state: str) -> Any:
    now = world.clock.now()
    return {
        "tenant_id": tenant_id,
        "stream_id": stream_id,
        "jti": f"jti_{number:04}",
        "event_id": "evt_1",
        "iat": NOW_S,
        "ordering_key": f"usr_{number % 3}",
        "state": state,
        "attempts": 0,
        "due_at": now,
        "queued_at": now,
        "settled_at": None if state == "pending" else now,
    }


async def queued(world: World) -> list[tuple[str, str]]:
    """Queue SETs for streams of several tenants; return those that something is pending for."""
    rows = [
        delivery(world, tenant_id, f"str_{place:02}", number, state)
        for tenant_id in TENANTS
        for place in range(9)
        for number, state in enumerate(("pending", "pending", "delivered", "dead"))
        if state != "pending" or (tenant_id != "idle" and place % 2 == 0)
    ]
    async with world.db.transaction() as connection:
        await connection.execute(store.deliveries.insert(), rows)
    return sorted({(row["tenant_id"], row["stream_id"]) for row in rows if not row["settled_at"]})


async def test_streams_are_found_in_order_over_all_tenants(world: World) -> None:
    async with world.db.snapshot() as connection:
        assert await system_waiting_streams(connection, after=None, limit=16) == ([], True)
    wanted = await queued(world)
    async with world.db.snapshot() as connection:
        assert await system_waiting_streams(connection, after=None, limit=64) == (wanted, True)


@pytest.mark.parametrize("limit", [2, 3, 5, 16])
async def test_page_by_page_none_is_left_out_or_found_twice(world: World, limit: int) -> None:
    wanted = await queued(world)
    found: list[tuple[str, str]] = []
    is_last = False
    async with world.db.snapshot() as connection:
        while not is_last:
            after = found[-1] if found else None
            page, is_last = await system_waiting_streams(connection, after=after, limit=limit)
            assert page or is_last
            found += page
    assert found == wanted


async def test_behind_the_last_one_there_is_none(world: World) -> None:
    await queued(world)
    async with world.db.snapshot() as connection:
        for after in (("umbrella", "str_99"), ("zeta", "")):
            assert await system_waiting_streams(connection, after=after, limit=16) == ([], True)
