"""Promise: on PostgreSQL the batch writer stores SETs at twice the rate of single inserts.

Both store the same rows into the hub's `signals` table of one PostgreSQL, durably. Single: 16
connections, each inserting one row and waiting for its commit, with asyncpg directly. Batched: 256
callers of the hub's `LocalWriter`, which commits what has gathered.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import uvloop

from benchmarks.databases import database_settings
from benchmarks.figures import table
from benchmarks.history import migrate
from benchmarks.machine import Machine, machine_facts, write_result
from receivers.model import AcceptedSET
from receivers.store import ACCEPT
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.ids import new_id
from runtime.notify import Notifier
from runtime.writer import LocalWriter

TARGET: Final = 2.0
SINGLE_CALLERS: Final = 16
BATCH_CALLERS: Final = 256
RAW: Final = "e30." * 250
INSERT: Final = """
    INSERT INTO signals (tenant_id, signal_id, provider_id, iss, jti, event_type, sub_id, payload,
                         raw, occurred_at, received_at, mode, state)
    VALUES ('default', $1, 'prv_1', 'https://v.example', $1, 'urn:t', $2, $3, $4, $5, $5,
            'enforce', 'ignored')
    ON CONFLICT DO NOTHING
"""


class GroupCommitResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run: rows per second, the medians over the rounds."""

    machine: Machine
    command: str
    rows: int
    single_per_s: float
    batched_per_s: float
    ratio: float


async def measure(url: str, rows: int, rounds: int) -> tuple[float, float]:
    """Return rows per second, single and batched."""
    pool = await asyncpg.create_pool(url, min_size=SINGLE_CALLERS, max_size=SINGLE_CALLERS)
    database = Database.connect(url)
    writer = LocalWriter(database, Notifier())
    running = asyncio.create_task(writer.run())

    async def single(item: AcceptedSET) -> None:
        await pool.execute(
            INSERT,
            item.signal_id,
            item.sub_id.decode(),
            item.payload.decode(),
            item.raw,
            item.received_at,
        )

    async def batched(item: AcceptedSET) -> None:
        assert await writer.submit(ACCEPT, item)

    rates: dict[str, list[float]] = {"single": [], "batched": []}
    try:
        for _ in range(rounds):
            rates["single"].append(await _rate(single, _items(rows), SINGLE_CALLERS))
            rates["batched"].append(await _rate(batched, _items(rows), BATCH_CALLERS))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await database.close()
        await pool.close()
    return statistics.median(rates["single"]), statistics.median(rates["batched"])


async def _rate(
    store: Callable[[AcceptedSET], Awaitable[None]], items: Sequence[AcceptedSET], callers: int
) -> float:
    waiting: Iterator[AcceptedSET] = iter(items)

    async def call() -> None:
        for item in waiting:
            await store(item)

    started = time.monotonic()
    await asyncio.gather(*(call() for _ in range(callers)))
    return len(items) / (time.monotonic() - started)


def _items(count: int) -> list[AcceptedSET]:
    now = SystemClock().now()
    ids = [new_id("sig") for _ in range(count)]
    return [
        AcceptedSET(
            tenant_id="default",
            signal_id=signal_id,
            provider_id="prv_1",
            iss="https://v.example",
            jti=signal_id,
            event_type="urn:t",
            sub_id=b'{"format":"email","email":"a@load.example"}',
            payload=b'{"event_timestamp":1790000000}',
            txn=None,
            raw=RAW,
            occurred_at=now,
            received_at=now,
            mode="enforce",
            state="ignored",
            detail=None,
        )
        for signal_id in ids
    ]


def main() -> int:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the database goes; a new one by default")
    parser.add_argument("--keep-result", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        machine = machine_facts(Path(made))
        with database_settings("postgresql", Path(made)) as settings:
            migrate(settings)
            single, batched = uvloop.run(
                measure(settings["SIGNALHUB_DATABASE_URL"], options.rows, options.rounds)
            )
    result = GroupCommitResult(
        machine=machine,
        command=shlex.join(["python", "-m", "benchmarks.group_commit", *sys.argv[1:]]),
        rows=options.rows,
        single_per_s=single,
        batched_per_s=batched,
        ratio=batched / single,
    )
    row = ("rows per s", f"{single:,.0f}", f"{batched:,.0f}", f"{result.ratio:.1f}", f"{TARGET}")
    print(table(("PostgreSQL", "16 single", "batched", "ratio", "target"), [row]))
    if options.keep_result:
        print(f"written to {write_result('group-commit', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
