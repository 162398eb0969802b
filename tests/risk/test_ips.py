"""Memory of what is said about addresses, however things interleave."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from risk.ips import service, store
from risk.ips.memory import IPClaims
from risk.ips.model import IPClaim, IPReport
from risk.ips.service import REFS_PER_REPORT_MAX, counted
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.notify import Notifier
from tests.risk.kit import NOW, TENANT

LIMIT_S = 20.0


def claim(ip: str, level: int, at_s: int) -> IPClaim:
    at = NOW + timedelta(seconds=at_s)
    return IPClaim(
        ip=ip,
        source="cli_1",
        level=level,
        message="",
        mode="enforce",
        reported_at=at,
        expires_at=at + timedelta(days=1),
    )


async def say(database: Database, *claims: IPClaim) -> None:
    report = IPReport(tenant_id=TENANT, client_id="cli_1", claims=claims, received_at=NOW)
    async with database.transaction() as connection:
        await service.report(connection, [report])


@pytest.mark.parametrize("seed", range(5))
async def test_memory_says_what_the_database_says_however_things_interleave(
    database: Database, seed: int
) -> None:
    choices = random.Random(seed)  # noqa: S311 - repeatable, not secret
    feed = ChangeFeed(database, Notifier())
    held = IPClaims(database, feed, held_max=3)
    ips = [f"198.51.100.{number}" for number in range(4)]
    for step in range(12):
        ip = choices.choice(ips)
        steps = [
            say(database, claim(ip, choices.randint(1, 3), step)),
            held.of(TENANT, ip),
            held.of(TENANT, choices.choice(ips)),
            feed.refresh(),
        ]
        choices.shuffle(steps)
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*steps)
        await feed.refresh()
        for each in ips:
            async with database.snapshot() as connection:
                stored = await store.claims_of(connection, TENANT, each)
            assert await held.of(TENANT, each) == stored


async def test_a_report_about_very_many_addresses_is_heard_of_as_well(database: Database) -> None:
    feed = ChangeFeed(database, Notifier())
    held = IPClaims(database, feed)
    await feed.refresh()
    ips = [f"198.51.{number // 250}.{number % 250}" for number in range(REFS_PER_REPORT_MAX + 1)]
    assert await held.of(TENANT, ips[0]) == ()
    await say(database, *(claim(ip, 3, 0) for ip in ips))
    await feed.refresh()
    assert len(await held.of(TENANT, ips[0])) == 1


def test_a_window_begins_with_its_first_call_and_a_clock_set_back_ends_it() -> None:
    minute = timedelta(minutes=1)
    assert counted((NOW, 29), NOW) == ((NOW, 30), 0.0)
    assert counted((NOW, 30), NOW + minute / 2) == ((NOW, 30), 30.0)
    assert counted((NOW, 30), NOW + minute) == ((NOW + minute, 1), 0.0)
    assert counted((NOW, 30), NOW - 2 * minute) == ((NOW - 2 * minute, 1), 0.0)
