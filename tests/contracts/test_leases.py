"""Leases of buckets on both engines: one owner each, a fair share, and epochs that fence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from runtime.clock import FixedClock, from_epoch_s
from runtime.database import Database
from runtime.notify import Notifier
from runtime.queue import (
    BUCKETS,
    LEASE,
    LEASE_MARGIN_S,
    LEASE_S,
    Fence,
    LeaseKeeper,
    LeaseRequest,
    bucket_of,
    fences_valid,
)
from runtime.writer import LocalWriter, Writer
from tests.postgresql import until_it_waits
from tests.runtime.background import LIMIT_S, running

NODES = 4
KIND = "deliveries"


class Cluster:
    """Owners on nodes: on PostgreSQL each node writes by itself, on SQLite all through core."""

    def __init__(self, database: Database, writers: list[Writer]) -> None:
        self.database = database
        self.clock = FixedClock(from_epoch_s(1_767_225_600))
        self._writers = writers

    def keeper(self, owner: str, *, node: int = 0, kind: str = KIND) -> LeaseKeeper:
        """Return the keeper of an owner that just started on a node."""
        writer = self._writers[node % len(self._writers)]
        return LeaseKeeper(kind, owner, writer=writer, clock=self.clock)

    async def valid(self, keeper: LeaseKeeper, buckets: set[int] | None = None) -> set[int]:
        """Return those buckets that the keeper may settle for."""
        wanted = set(keeper.buckets()) if buckets is None else buckets
        async with self.database.transaction() as connection:
            found = await fences_valid(connection, [keeper.fence(bucket) for bucket in wanted])
        return {fence.bucket for fence in found}


@pytest.fixture
async def cluster(database: Database, database_url: str) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        databases = [database]
        if database.dialect == "postgresql":
            databases += [Database.connect(database_url, pool_size=1) for _ in range(NODES - 1)]
        for node in databases[1:]:
            stack.push_async_callback(node.close)
        writers = [LocalWriter(node, Notifier()) for node in databases]
        await stack.enter_async_context(running(*(writer.run() for writer in writers)))
        yield Cluster(database, list(writers))


async def test_the_first_owner_gets_every_bucket(cluster: Cluster) -> None:
    keeper = cluster.keeper("a")
    await keeper.renew()
    assert set(keeper.buckets()) == set(range(BUCKETS))
    assert await cluster.valid(keeper) == set(range(BUCKETS))


async def test_owners_that_start_together_on_an_empty_table_share_no_bucket(
    cluster: Cluster,
) -> None:
    """Regression: on PostgreSQL all saw no rows, and the later ones took what was just granted."""
    keepers = [cluster.keeper(f"owner-{node}", node=node) for node in range(NODES)]
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(keeper.renew() for keeper in keepers))
    held = [bucket for keeper in keepers for bucket in keeper.buckets()]
    assert len(held) == len(set(held))
    for keeper in keepers:
        assert await cluster.valid(keeper) == set(keeper.buckets())


async def test_after_a_few_renewals_each_owner_has_its_fair_share(cluster: Cluster) -> None:
    keepers = [cluster.keeper(f"owner-{node}", node=node) for node in range(3)]
    async with asyncio.timeout(LIMIT_S):
        for _ in range(4):
            await asyncio.gather(*(keeper.renew() for keeper in keepers))
            cluster.clock.advance(0.5)
    shares = [set(keeper.buckets()) for keeper in keepers]
    assert all(0 < len(share) <= math.ceil(BUCKETS / 3) for share in shares)
    assert set.union(*shares) == set(range(BUCKETS))
    assert sum(map(len, shares)) == BUCKETS


async def test_an_owner_that_gives_buckets_back_does_not_start_work_of_them(
    cluster: Cluster,
) -> None:
    first, second = cluster.keeper("first"), cluster.keeper("second", node=1)
    await first.renew()
    await second.renew()
    assert not second.buckets()
    await first.renew()
    await second.renew()
    assert set(first.buckets()).isdisjoint(second.buckets())
    assert len(second.buckets()) == BUCKETS // 2


async def test_a_renewal_keeps_the_epoch(cluster: Cluster) -> None:
    keeper = cluster.keeper("a")
    await keeper.renew()
    before = keeper.fence(7)
    for _ in range(5):
        cluster.clock.advance(LEASE_S / 3)
        await keeper.renew()
    assert keeper.fence(7) == before


async def test_a_living_owner_keeps_its_buckets(cluster: Cluster) -> None:
    owner, other = cluster.keeper("a"), cluster.keeper("b", node=1)
    await owner.renew()
    cluster.clock.advance(LEASE_S - 0.01)
    await other.renew()
    assert not other.buckets()
    assert await cluster.valid(owner, set(range(BUCKETS))) == set(range(BUCKETS))


async def test_an_expired_lease_is_taken_over_and_the_old_epoch_is_refused(
    cluster: Cluster,
) -> None:
    gone, heir = cluster.keeper("gone"), cluster.keeper("heir", node=1)
    await gone.renew()
    stale = gone.fence(7)
    cluster.clock.advance(LEASE_S + 0.01)
    assert not gone.buckets()
    await heir.renew()
    assert set(heir.buckets()) == set(range(BUCKETS))
    assert heir.fence(7).epoch > stale.epoch
    async with cluster.database.transaction() as connection:
        valid = await fences_valid(connection, [stale, heir.fence(7)])
    assert valid == {heir.fence(7)}


async def test_a_restarted_owner_of_the_same_name_has_everything_at_once_under_new_epochs(
    cluster: Cluster,
) -> None:
    before, after = cluster.keeper("a"), cluster.keeper("a", node=1)
    await before.renew()
    await after.renew()
    assert set(after.buckets()) == set(range(BUCKETS))
    assert all(after.fence(b).epoch > before.fence(b).epoch for b in range(BUCKETS))
    assert await cluster.valid(before, set(range(BUCKETS))) == set()
    assert await cluster.valid(after) == set(range(BUCKETS))


async def test_an_owner_that_was_late_keeps_its_epochs_if_nobody_came(cluster: Cluster) -> None:
    """A process without processor time for five seconds did everything once more.

    It got new epochs, so what it had done and not settled yet was refused. That its name still
    stands there says that nobody came.
    """
    keeper = cluster.keeper("a")
    await keeper.renew()
    before = keeper.fence(7)
    cluster.clock.advance(LEASE_S * 3)
    await keeper.renew()
    assert keeper.fence(7) == before
    assert set(keeper.buckets()) == set(range(BUCKETS))
    assert await cluster.valid(keeper) == set(range(BUCKETS))


async def test_an_owner_that_was_late_gets_new_epochs_where_somebody_came_and_went(
    cluster: Cluster,
) -> None:
    late, guest = cluster.keeper("late"), cluster.keeper("guest", node=1)
    await late.renew()
    before = late.fence(7)
    cluster.clock.advance(LEASE_S * 3)
    await guest.renew()
    assert guest.fence(7).epoch > before.epoch
    cluster.clock.advance(LEASE_S * 3)
    await late.renew()
    assert late.fence(7).epoch > guest.fence(7).epoch
    async with cluster.database.transaction() as connection:
        assert await fences_valid(connection, [before, guest.fence(7)]) == set()


async def test_until_somebody_takes_over_a_late_settlement_still_counts(cluster: Cluster) -> None:
    keeper = cluster.keeper("a")
    await keeper.renew()
    cluster.clock.advance(LEASE_S * 3)
    assert not keeper.buckets()
    assert await cluster.valid(keeper, {7}) == {7}


async def test_work_is_not_started_when_the_lease_is_about_to_end(cluster: Cluster) -> None:
    keeper = cluster.keeper("a")
    assert not keeper.buckets()
    await keeper.renew()
    cluster.clock.advance(LEASE_S - LEASE_MARGIN_S + 0.01)
    assert not keeper.buckets()


async def test_kinds_are_leased_apart(cluster: Cluster) -> None:
    pushes, tasks = cluster.keeper("a"), cluster.keeper("b", kind="tasks")
    await pushes.renew()
    await tasks.renew()
    assert set(pushes.buckets()) == set(tasks.buckets()) == set(range(BUCKETS))
    fences = [pushes.fence(3), tasks.fence(3)]
    async with cluster.database.transaction() as connection:
        assert await fences_valid(connection, fences) == set(fences)


@pytest.mark.parametrize(
    "fence",
    [
        Fence(kind=KIND, bucket=BUCKETS, epoch=1),
        Fence(kind=KIND, bucket=-1, epoch=1),
        Fence(kind="unheard-of", bucket=0, epoch=1),
        Fence(kind=KIND, bucket=0, epoch=0),
        Fence(kind=KIND, bucket=0, epoch=99),
    ],
)
async def test_a_fence_nobody_was_given_is_not_valid(cluster: Cluster, fence: Fence) -> None:
    await cluster.keeper("a").renew()
    async with cluster.database.transaction() as connection:
        assert await fences_valid(connection, [fence]) == set()
        assert await fences_valid(connection, []) == set()


async def test_a_bucket_that_is_not_owned_has_no_fence(cluster: Cluster) -> None:
    with pytest.raises(KeyError):
        cluster.keeper("a").fence(0)


async def test_many_owners_that_come_and_go_never_hold_a_bucket_together(
    cluster: Cluster,
) -> None:
    """Whatever an owner believes: of two with the same bucket one has an epoch that is refused."""
    keepers = [cluster.keeper(f"owner-{node}", node=node) for node in range(NODES)]
    async with asyncio.timeout(LIMIT_S):
        for round_number in range(8):
            awake = [keeper for place, keeper in enumerate(keepers) if (round_number >> place) & 1]
            await asyncio.gather(*(keeper.renew() for keeper in awake))
            cluster.clock.advance(LEASE_S * 0.6)
            valid = [await cluster.valid(keeper, set(keeper._epochs)) for keeper in keepers]
            held = [bucket for buckets in valid for bucket in buckets]
            assert len(held) == len(set(held))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_commits_that_settle_and_renew_do_not_deadlock(cluster: Cluster) -> None:
    """Regression: each held its own leases for a settlement and asked for all of them."""
    keepers = [cluster.keeper(f"owner-{node}", node=node) for node in range(2)]
    for _ in range(2):
        for keeper in keepers:
            await keeper.renew()
    settled = asyncio.Barrier(2)

    async def settle_and_renew(keeper: LeaseKeeper, owner: str) -> None:
        request = LeaseRequest(
            kind=KIND, owner=owner, now_s=cluster.clock.now().timestamp(), fresh=False
        )
        async with cluster.database.transaction() as connection:
            fences = {keeper.fence(bucket) for bucket in keeper.buckets()}
            assert await fences_valid(connection, fences) == fences
            await settled.wait()
            await LEASE.handle(connection, [request])

    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(
            *(settle_and_renew(keeper, f"owner-{node}") for node, keeper in enumerate(keepers))
        )


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_nobody_takes_a_bucket_over_while_its_settlement_commits(cluster: Cluster) -> None:
    owner, heir = cluster.keeper("a"), cluster.keeper("b", node=1)
    await owner.renew()
    fence = owner.fence(7)
    cluster.clock.advance(LEASE_S * 2)
    async with cluster.database.transaction() as connection, asyncio.timeout(LIMIT_S):
        assert await fences_valid(connection, [fence]) == {fence}
        taking_over = asyncio.create_task(heir.renew())
        await until_it_waits(cluster.database, taking_over)
        assert not taking_over.done()
        assert await fences_valid(connection, [fence]) == {fence}
    async with asyncio.timeout(LIMIT_S):
        await taking_over
    assert heir.fence(7).epoch > fence.epoch


@pytest.mark.parametrize(
    "parts", [("default", "str_1"), ("a", "bc"), ("ab", "c"), ("",), ("ä", "☃")]
)
def test_a_lane_always_falls_into_the_same_bucket(parts: tuple[str, ...]) -> None:
    assert 0 <= bucket_of(*parts) < BUCKETS
    assert bucket_of(*parts) == bucket_of(*parts)


def test_buckets_are_those_of_earlier_releases() -> None:
    """A change would move work between owners while both releases run."""
    assert [bucket_of("default", f"str_{number}") for number in range(4)] == [
        193,
        93,
        192,
        90,
    ]


def test_parts_are_told_apart() -> None:
    """Otherwise tenants could choose names that crowd another's buckets."""
    assert any(bucket_of(f"{n}", "x") != bucket_of(f"{n}x", "") for n in range(50))


def test_lanes_spread_over_all_buckets() -> None:
    assert len({bucket_of("default", str(number)) for number in range(5_000)}) == BUCKETS
