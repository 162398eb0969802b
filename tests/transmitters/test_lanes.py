"""What waits behind one SET costs the searches nothing, however much it is.

Counted is what the databases do: steps of SQLite's program, rows that PostgreSQL touches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from runtime import ids
from runtime.queue import BUCKETS
from tests.transmitters.conftest import NOW_S, TENANT, World, event
from tests.transmitters.test_plans import Statements
from transmitters import store
from transmitters.delivery.model import POLL_SETS_MAX, PushWork
from transmitters.delivery.store import system_targets_among
from transmitters.polling.store import OLDEST_MAX, has_visible, visible_sets
from transmitters.published.store import add_deliveries
from transmitters.pushes.store import due_pushes

pytestmark = pytest.mark.anyio

#: SETs of one subject: more than searches look at in the order of age, and very many more
SHORT, LONG = 1_000, 5_000
REST_S = 600


async def queue(
    world: World, stream_id: str, key: str, count: int, *, resting: Sequence[int] = ()
) -> list[str]:
    """Queue SETs of one subject, those at the places in `resting` for later; return their jtis."""
    (one,) = await world.publish(event(key, only_stream_id=stream_id))
    now = world.clock.now()
    rows: list[dict[str, Any]] = [
        {
            "tenant_id": TENANT,
            "stream_id": stream_id,
            "jti": ids.new_ulid(),
            "event_id": one.event_id,
            "iat": NOW_S,
            "ordering_key": key,
            "queued_at": now,
        }
        for _ in range(count - 1)
    ]
    jtis = [one.jti, *(row["jti"] for row in rows)]
    table = store.deliveries
    async with world.db.transaction() as connection:
        if rows:
            await add_deliveries(connection, rows)
        later = [jtis[place] for place in resting]
        await connection.execute(
            table.update()
            .where(table.c.jti.in_(later))
            .values(due_at=now + timedelta(seconds=REST_S))
        )
    return jtis


async def cost_of(world: World, look: Callable[[], Awaitable[Any]]) -> int:
    """Return what the statements about deliveries take that `look` runs."""
    async with world.db.transaction() as connection:
        await connection.exec_driver_sql("ANALYZE")
    statements = Statements(world.db)
    await look()
    assert statements.seen
    if world.db.dialect == "sqlite":
        return sum(steps(world, sql, values) for sql, values in statements.seen.items())
    return sum([await rows_touched(world, *each) for each in statements.seen.items()])


def steps(world: World, sql: str, values: Any) -> int:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    connection = sqlite3.connect(str(world.db.engine.url.database))
    connection.set_progress_handler(count, 1)
    connection.execute(sql, values).fetchall()
    connection.close()
    return counted


async def rows_touched(world: World, sql: str, values: Any) -> int:
    async with world.db.snapshot() as connection:
        # Of so few rows PostgreSQL rightly reads all; what counts is that an index would serve.
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explained = await connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values
        )
        (plans,) = explained.one()
    (explanation,) = plans if isinstance(plans, list) else msgspec.json.decode(plans)
    return touched_by(explanation["Plan"])


def touched_by(plan: dict[str, Any]) -> int:
    removed = ("Rows Removed by Filter", "Rows Removed by Join Filter")
    rows: float = plan["Actual Rows"] + sum(plan.get(name, 0) for name in removed)
    below = sum(touched_by(each) for each in plan.get("Plans", ()))
    return round(rows * int(plan["Actual Loops"])) + below


@pytest.mark.parametrize("resting", [(), (0,)], ids=["all_due", "first_held"])
async def test_a_poll_costs_the_same_however_much_waits(
    world: World, resting: tuple[int, ...]
) -> None:
    costs = []
    for count in (SHORT, LONG):
        stream = await world.stream()
        await queue(world, stream.stream_id, "rosa", count, resting=resting)
        stored = await world.stored_stream(stream.stream_id)

        async def look(stored: Any = stored) -> None:
            async with world.db.snapshot() as connection:
                now = world.clock.now()
                assert await has_visible(connection, stored, now=now) is not bool(resting)
                found = await visible_sets(connection, stored, now=now, limit=POLL_SETS_MAX)
                assert len(found) == (0 if resting else POLL_SETS_MAX)

        costs.append(await cost_of(world, look))
    assert costs[1] - costs[0] < (LONG - SHORT) / 4


@pytest.mark.requirement("POLL-23")
async def test_many_sets_behind_one_that_a_poller_holds_hide_no_other_subject(
    world: World,
) -> None:
    stream = await world.stream()
    await queue(world, stream.stream_id, "rosa", OLDEST_MAX + 9, resting=[0])
    noah = await queue(world, stream.stream_id, "noah", 3)
    # The third is held, as after it was sent again from the dead letters.
    zoe = await queue(world, stream.stream_id, "zoe", 5, resting=[2])
    await queue(world, stream.stream_id, "adam", 2, resting=[0])
    # Some sign-ins have no subject that orders them.
    nobody = await queue(world, stream.stream_id, "", 2)
    polled = await world.poll(stream.stream_id)
    assert (list(polled.sets), polled.more_available) == ([*noah, *zoe[:2], *nobody], False)
    polled = await world.poll(stream.stream_id, ack=tuple(noah))
    assert not polled.sets
    await queue(world, stream.stream_id, "max", 4)
    two = await world.poll(stream.stream_id, max_events=2)
    assert two.more_available
    rest = await world.poll(stream.stream_id, ack=tuple(two.sets))
    assert [len(two.sets), len(rest.sets), rest.more_available] == [2, 2, False]


async def test_a_poll_looks_over_the_oldest_and_the_newest_sets_of_a_subject_in_order(
    world: World,
) -> None:
    stream = await world.stream()
    rosa = await queue(world, stream.stream_id, "rosa", OLDEST_MAX + 9, resting=[5])
    noah = await queue(world, stream.stream_id, "noah", 2)
    assert list((await world.poll(stream.stream_id)).sets) == rosa[:5] + noah


@pytest.mark.parametrize("resting", [(), (0,)], ids=["all_due", "first_rests"])
async def test_a_search_costs_the_same_however_much_waits(
    world: World, resting: tuple[int, ...]
) -> None:
    costs = []
    for count in (SHORT, LONG):
        stream = await world.push_stream("https://payroll.example/ssf")
        await queue(world, stream.stream_id, "rosa", count, resting=resting)

        async def look(stream_id: str = stream.stream_id) -> None:
            works = await due_of(world, stream_id)
            assert len(works) == (0 if resting else 1)

        costs.append(await cost_of(world, look))
    assert costs[1] - costs[0] < (LONG - SHORT) / 4


@pytest.mark.requirement("PUSH-44")
async def test_many_sets_behind_one_that_rests_hide_no_other_subject(world: World) -> None:
    stream = await world.push_stream("https://payroll.example/ssf")
    await queue(world, stream.stream_id, "rosa", OLDEST_MAX + 9, resting=[0])
    noah = await queue(world, stream.stream_id, "noah", 3)
    await queue(world, stream.stream_id, "adam", 2, resting=[0])
    zoe = await queue(world, stream.stream_id, "zoe", 5, resting=[2])
    assert [work.pending.jti for work in await due_of(world, stream.stream_id)] == [noah[0], zoe[0]]


async def test_a_paused_stream_sends_only_that_it_is_however_much_is_queued(world: World) -> None:
    stream = await world.push_stream("https://payroll.example/ssf")
    await queue(world, stream.stream_id, "rosa", OLDEST_MAX + 9)
    (told,) = await queue(world, stream.stream_id, "stream", 1)
    await world.set_stream(stream.stream_id, status="paused", announcement_jti=told)
    assert [work.pending.jti for work in await due_of(world, stream.stream_id)] == [told]
    await world.set_stream(stream.stream_id, announcement_jti=None)
    assert await due_of(world, stream.stream_id) == []


async def due_of(world: World, stream_id: str) -> list[PushWork]:
    """Look for what is due on a stream, as the push worker does."""
    now = world.clock.now()
    async with world.db.snapshot() as connection:
        targets = await system_targets_among(
            connection, among=[(TENANT, stream_id)], buckets=range(BUCKETS), now=now
        )
        return await due_pushes(connection, TENANT, targets=targets, now=now, each=64)
