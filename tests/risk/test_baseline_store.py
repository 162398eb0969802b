"""Baselines on both databases: recorded in batches, remembered, told of, withdrawn, forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from risk.baselines import service, store
from risk.baselines.memory import Baselines, Recorder
from risk.baselines.model import (
    NOTHING,
    Baseline,
    Occurrence,
    record,
    session_mark,
    short,
    values_of,
)
from risk.baselines.service import RecordGood, WithdrawSession
from risk.entities import store as entities_store
from risk.entities.model import Entity
from risk.model import EntityKind
from runtime.behind import WAITING_MAX
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.notify import Notifier
from runtime.writer import LocalWriter
from tests.risk.kit import NOW, TENANT
from tests.risk.test_baselines import AWAY, HOME, seen

LIMIT_S = 20.0


@dataclass
class Place:
    """Two processes on one database."""

    database: Database
    feed: ChangeFeed
    here: Baselines
    other: Baselines
    recorder: Recorder

    async def record(self, *items: tuple[str, Occurrence], tenant: str = TENANT) -> list[bool]:
        wanted = [RecordGood(tenant_id=tenant, user_id=user, seen=what) for user, what in items]
        async with self.database.transaction() as connection:
            return await service.record_good(connection, wanted)


@pytest.fixture
async def place(database: Database) -> AsyncIterator[Place]:
    notifier = Notifier()
    feed = ChangeFeed(database, notifier)
    writer = LocalWriter(database, notifier)
    here, other = Baselines(database, feed), Baselines(database, feed)
    await feed.refresh()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        yield Place(database, feed, here, other, Recorder(writer, here))
        running.cancel()


def at(hours: float) -> Any:
    return NOW + timedelta(hours=hours)


async def test_a_batch_of_several_users_is_recorded_in_order_of_time(place: Place) -> None:
    first, second, third = seen(HOME, at(0)), seen(HOME, at(1)), seen(AWAY, at(2))
    news = await place.record(
        ("usr_1", third), ("usr_2", first), ("usr_1", first), ("usr_1", second)
    )

    assert (await place.here.of(TENANT, "usr_1")).recent == (first, second, third)
    assert (await place.here.of(TENANT, "usr_2")).events == 1
    assert news == [True, True, True, True]  # the second one came at another hour of the week
    assert await place.record(("usr_2", first)) == [False]


async def test_a_user_without_a_baseline_has_an_empty_one_and_none_is_made(place: Place) -> None:
    assert await place.here.of(TENANT, "usr_nobody") == NOTHING
    async with place.database.snapshot() as connection:
        assert await store.read_baselines(connection, TENANT, ["usr_nobody"]) == {}


async def test_the_same_user_of_another_tenant_is_another_one(place: Place) -> None:
    await place.record(("usr_1", seen(HOME, at(0))))
    assert await place.here.of("acme", "usr_1") == NOTHING
    assert (
        await place.here.org("acme", values_of(seen(HOME, at(0)), None))
    ).familiar == frozenset()


async def test_what_is_new_reaches_the_other_process(place: Place) -> None:
    assert await place.other.of(TENANT, "usr_1") == NOTHING
    place.recorder.note(TENANT, "usr_1", seen(HOME, at(0)))
    await place.recorder.flush()
    await place.feed.refresh()

    assert (await place.other.of(TENANT, "usr_1")).events == 1


async def test_the_process_that_saw_it_knows_at_once(place: Place) -> None:
    await place.here.of(TENANT, "usr_1")
    place.recorder.note(TENANT, "usr_1", seen(HOME, at(0)))
    assert (await place.here.of(TENANT, "usr_1")).events == 1
    await place.recorder.flush()
    await place.feed.refresh()
    assert (await place.here.of(TENANT, "usr_1")).events == 1


async def test_row_16_a_a_compromised_session_is_withdrawn_everywhere(place: Place) -> None:
    good = seen(HOME, at(0), session=session_mark("https://idp", "s-1"))
    bad = seen(AWAY, at(1), session=session_mark("https://idp", "s-2"))
    await place.record(("usr_1", good), ("usr_1", bad))
    assert len((await place.other.of(TENANT, "usr_1")).recent) == 2
    await place.feed.refresh()

    items = [
        WithdrawSession(tenant_id=TENANT, user_id=user, session=str(bad.session), at=at(2))
        for user in ("usr_1", "usr_1", "usr_2")
    ]
    async with place.database.transaction() as connection:
        assert await service.withdraw_sessions(connection, items) == [True, False, True]
    await place.feed.refresh()

    assert (await place.other.of(TENANT, "usr_1")).recent == (good,)
    # Nor does it enter when what was let pass is written only now, unless a person vouches for it.
    await place.record(("usr_1", bad), ("usr_2", bad))
    await place.feed.refresh()
    assert (await place.other.of(TENANT, "usr_1")).recent == (good,)
    assert (await place.other.of(TENANT, "usr_2")).recent == ()
    async with place.database.transaction() as connection:
        vouched = RecordGood(tenant_id=TENANT, user_id="usr_1", seen=bad, is_vouched=True)
        assert await service.record_good(connection, [vouched]) == [True]
    await place.feed.refresh()
    assert (await place.other.of(TENANT, "usr_1")).recent == (good, bad)


async def test_a_user_can_be_learned_anew(place: Place) -> None:
    await place.record(("usr_1", seen(HOME, at(0))))
    await place.other.of(TENANT, "usr_1")
    async with place.database.transaction() as connection:
        assert await service.forget(connection, TENANT, "usr_1")
        assert not await service.forget(connection, TENANT, "usr_2")
    await place.feed.refresh()
    assert await place.other.of(TENANT, "usr_1") == NOTHING


async def test_a_place_of_three_colleagues_is_well_known_of_the_tenant(place: Place) -> None:
    here = values_of(seen(HOME, at(0)), None)
    for count in range(1, 6):
        await place.record((f"usr_{count}", seen(HOME, at(0))), (f"usr_{count}", seen(HOME, at(1))))
        fresh = Baselines(place.database, place.feed)
        view = await fresh.org(TENANT, here)
        assert view.is_learning == (count < 5)
        assert view.familiar == (
            {"country", "region", "city", "asn", "prefix"} if count >= 3 else frozenset()
        )


async def in_groups(place: Place, **members: tuple[str, ...]) -> None:
    """Let users be in groups; adds those who are new."""
    async with place.database.transaction() as connection:
        known = await entities_store.read_entities(connection, TENANT, entity_ids=members)
        for user_id, groups in members.items():
            row = Entity(
                tenant_id=TENANT,
                entity_id=user_id,
                kind=EntityKind.USER,
                label=user_id,
                external_id=None,
                groups=groups,
                created_at=NOW,
            )
            if user_id in known:
                await entities_store.update_entity(connection, row)
            else:
                await entities_store.add_entities(connection, [row])


async def test_what_three_of_a_group_are_known_for_is_well_known_of_its_members(
    place: Place,
) -> None:
    """Who joins a group later is counted with all they are known for; who leaves, no more."""
    here = values_of(seen(HOME, at(0)), None)
    await in_groups(place, usr_1=("sales",), usr_2=("sales", "golf"), usr_3=("ops",))

    async def familiar(*groups: str) -> frozenset[str]:
        fresh = Baselines(place.database, place.feed)
        return (await fresh.org(TENANT, here, groups=groups)).peer_familiar

    for user in ("usr_1", "usr_2", "usr_3"):
        await place.record((user, seen(HOME, at(0))))
    assert await familiar("sales", "golf", "ops") == frozenset()

    await in_groups(place, usr_3=("sales",))
    await place.record(("usr_3", seen(HOME, at(30))))
    assert await familiar("sales") == {"country", "region", "city", "asn", "prefix"}
    assert await familiar("golf") == await familiar() == frozenset()

    await in_groups(place, usr_1=())
    await place.record(("usr_1", seen(HOME, at(60))))
    assert await familiar("sales") == frozenset()


async def test_places_where_nobody_new_comes_are_forgotten(place: Place) -> None:
    await place.record(("usr_1", seen(HOME, at(0))))
    async with place.database.transaction() as connection:
        assert await service.purge(connection, now=at(0)) == 0
        assert await service.purge(connection, now=at(0) + timedelta(days=366)) == 6


@pytest.mark.parametrize("seed", range(3))
async def test_memory_says_what_the_database_says_however_things_interleave(
    place: Place, seed: int
) -> None:
    choices = random.Random(seed)  # noqa: S311 - repeatable, not secret
    held = Baselines(place.database, place.feed, held_max=2)
    users = ["usr_1", "usr_2", "usr_3"]
    expected: dict[str, Baseline] = dict.fromkeys(users, NOTHING)
    for step in range(8):
        user = choices.choice(users)
        what = seen(HOME, at(step), device=short(f"device {step}"))
        expected[user], _ = record(expected[user], what)
        steps = [
            place.record((user, what)),
            held.of(TENANT, user),
            held.of(TENANT, choices.choice(users)),
            place.feed.refresh(),
        ]
        choices.shuffle(steps)
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*steps)
            await place.feed.refresh()
        assert (await held.of(TENANT, user)).recent == expected[user].recent


async def test_what_waits_to_be_written_is_bounded(
    place: Place,
) -> None:
    for each in range(WAITING_MAX + 5):
        place.recorder.note(TENANT, "usr_1", seen(HOME, at(0), device=short(str(each % 7))))
    assert len(place.recorder._behind._waiting) == WAITING_MAX
