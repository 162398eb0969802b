"""A stream with very many SETs is as fast as an empty one: every statement uses an index.

The plans are the databases' own, for what really runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from runtime import ids
from runtime.database import Database, chunks
from runtime.queue import BUCKETS
from ssf.subject import parse_subject
from tests.transmitters.conftest import NOW_S, ROSA, SESSION_REVOKED, TENANT, World, event
from transmitters import store
from transmitters.delivery.store import (
    system_push_targets,
    system_targets_among,
    system_waiting_streams,
)
from transmitters.model import DeliveryState
from transmitters.pushes.store import due_pushes
from transmitters.receipts.model import Period, ReceiptFilter, Wanted
from transmitters.receipts.service import send_again
from transmitters.receipts.store import dead_letters, list_receipts
from transmitters.store import Connection
from transmitters.upkeep.model import Limits
from transmitters.upkeep.service import Upkeep

pytestmark = pytest.mark.anyio

#: SETs of each of two streams
SETS = 4_000
STATES = ("pending", "pending", "delivered", "dead")


class Statements:
    """Keeps the text and one set of values of each statement about deliveries."""

    def __init__(self, database: Database) -> None:
        self.seen: dict[str, Any] = {}
        for engine in {database.engine, database.reader}:
            sa.event.listen(engine.sync_engine, "before_cursor_execute", self._see)

    def _see(self, _c: Any, _cursor: Any, sql: str, values: Any, _x: Any, many: Any) -> None:
        if "deliveries" in sql and not sql.startswith(("INSERT", "EXPLAIN")):
            self.seen[sql] = values[0] if many else values


async def filled(world: World) -> tuple[str, str]:
    """Give a push and a poll stream SETS deliveries each, in all states; return the streams."""
    push = await world.push_stream("https://payroll.example/ssf")
    poll = await world.stream()
    streams = (push.stream_id, poll.stream_id)
    (one, _) = await world.publish(event())
    now = world.clock.now()
    rows = [
        {
            "tenant_id": TENANT,
            "stream_id": stream_id,
            "jti": ids.new_ulid(),
            "event_id": one.event_id,
            "iat": NOW_S - SETS + number,
            "ordering_key": f"usr_{number % 50}",
            "state": STATES[number % 4],
            "attempts": 1,
            "due_at": now,
            "queued_at": now,
            "settled_at": None if STATES[number % 4] == "pending" else now,
        }
        for number in range(SETS)
        for stream_id in streams
    ]
    async with world.db.transaction() as connection:
        for some in chunks(rows, 1_000):
            await connection.execute(store.deliveries.insert(), some)
    async with world.db.transaction() as connection:
        await connection.exec_driver_sql("ANALYZE")
    return streams


async def use_all(world: World, push: str, poll: str) -> None:
    """Run what delivery, polls, admins and the upkeep run."""
    now = world.clock.now()
    async with world.db.snapshot() as connection:
        waiting, is_last = await system_waiting_streams(connection, after=None, limit=64)
        assert (set(waiting), is_last) == ({(TENANT, push), (TENANT, poll)}, True)
        targets = await system_targets_among(
            connection, among=waiting, buckets=range(BUCKETS), now=now
        )
        of_all = await system_push_targets(
            connection, buckets=range(BUCKETS), now=now, limit=64, after=None
        )
        assert of_all == targets
        assert [target.stream_id for target in targets] == [push]
        assert await due_pushes(connection, TENANT, targets=targets, now=now, each=64)
        for wanted in (
            ReceiptFilter(),
            ReceiptFilter(stream_id=push),
            ReceiptFilter(jti="x"),
            ReceiptFilter(txn="cause-1"),
            ReceiptFilter(state=DeliveryState.DEAD),
            ReceiptFilter(stream_id=push, state=DeliveryState.PENDING),
            ReceiptFilter(period=Period(since=now - timedelta(seconds=9), until=now)),
        ):
            await list_receipts(connection, TENANT, wanted, limit=51)
        await dead_letters(connection, TENANT, limit=51)
    sets = list((await world.poll(poll)).sets)
    errors = {sets[-1]: "invalid_request"}
    await world.poll(poll, ack=tuple(sets[:-1]), errors=errors)
    rosa = parse_subject(dict(ROSA[0]))
    for state in (DeliveryState.DEAD, DeliveryState.DELIVERED):
        again = Wanted(
            state=state,
            subject=rosa,
            event_types=frozenset({SESSION_REVOKED}),
            period=Period(since=now - timedelta(seconds=60)),
        )
        async with world.db.transaction() as connection:
            await send_again(connection, TENANT, stream_id=push, wanted=again, now=now)
    await tend(world)


async def tend(world: World) -> None:
    @asynccontextmanager
    async def begin() -> AsyncIterator[Connection]:
        async with world.db.transaction() as connection:
            yield connection

    async def breathe() -> None:
        pass

    world.clock.advance(31 * 86_400)
    limits = Limits(sets_max=500, age_max_s=90 * 86_400, settled_max_s=30 * 86_400)
    kept = Upkeep(database=world.db, clock=world.clock, limits=limits, breathe=breathe)
    await kept.tend(TENANT, begin)


async def plan_of(world: World, sql: str, values: Any) -> str:
    explain = "EXPLAIN QUERY PLAN " if world.db.dialect == "sqlite" else "EXPLAIN "
    async with world.db.snapshot() as connection:
        if world.db.dialect == "postgresql":
            # Of so few rows PostgreSQL rightly reads all; what counts is that an index would serve.
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        result = await connection.exec_driver_sql(explain + sql, values)
        return "\n".join(str(row[-1]) for row in result)


async def test_no_statement_reads_all_deliveries(world: World) -> None:
    push, poll = await filled(world)
    statements = Statements(world.db)
    plans: dict[str, str] = {}
    await use_all(world, push, poll)
    assert len(statements.seen) > 20
    for sql, values in list(statements.seen.items()):
        plans[sql] = await plan_of(world, sql, values)
    # SQLite says SCAN for a table read from end to end, unless it is in the order of an index.
    whole = ("SCAN deliveries\n", "SCAN delivery\n", "SCAN due\n", "Seq Scan on deliveries")
    reading = {
        sql: plan for sql, plan in plans.items() if any(words in plan + "\n" for words in whole)
    }
    assert reading == {}
