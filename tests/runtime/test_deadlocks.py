"""Two transactions that wait for each other: one is undone by the database, and runs again."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from runtime.database import Database, serialize
from runtime.deadlocks import TRIES_MAX, repeated, was_undone

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
LIMIT_S = 20.0
#: an error of the server's own, as the end of a deadlock is
_UNDONE = "DO $$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = '40P01'; END $$"


def counted() -> float:
    return REGISTRY.get_sample_value("hub_runtime_deadlocks_total") or 0.0


async def test_whoever_is_undone_runs_again_and_both_are_through(database: Database) -> None:
    before, both = counted(), asyncio.Barrier(2)

    async def lock(first: str, second: str) -> int:
        tries = 0

        async def transaction() -> None:
            nonlocal tries
            tries += 1
            async with database.transaction() as connection:
                await serialize(connection, first)
                if tries == 1:
                    await both.wait()
                await serialize(connection, second)

        await repeated(transaction)
        return tries

    async with asyncio.timeout(LIMIT_S):
        tries = await asyncio.gather(lock("a", "b"), lock("b", "a"))
    assert sorted(tries) == [1, 2]
    assert counted() - before == 1


@pytest.mark.parametrize(("statement", "tries"), [(_UNDONE, TRIES_MAX), ("SELECT 1 / 0", 1)])
async def test_it_is_tried_a_few_times_and_only_for_that_reason(
    database: Database, statement: str, tries: int
) -> None:
    begun = 0

    async def transaction() -> None:
        nonlocal begun
        begun += 1
        async with database.transaction() as connection:
            await connection.execute(sa.text(statement))

    with pytest.raises(sa.exc.DBAPIError) as caught:
        await repeated(transaction)
    assert begun == tries
    assert was_undone(caught.value) is (tries > 1)
