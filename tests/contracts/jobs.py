"""A small source of work for the lanes: what a feature's `store.py` and `worker.py` would hold."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from runtime.clock import from_epoch_s
from runtime.database import Database, UTCDateTime, chunks
from runtime.lanes import Forgetful
from runtime.queue import Fence, bucket_of, fences_valid
from runtime.writer import Operation

KIND = "tasks"
EPOCH = from_epoch_s(0)

#: metadata of its own: the tables of the hub stay what they are
metadata = sa.MetaData()
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("tenant_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("lane", sa.String(64), nullable=False),
    sa.Column("bucket", sa.Integer, nullable=False),
    sa.Column("due_at", UTCDateTime, nullable=False),
    sa.Column("settled_by", sa.String(64)),
    sa.Column("settled_times", sa.Integer, nullable=False),
)


class Job(msgspec.Struct, frozen=True):
    """One piece of work."""

    number: int
    lane: str
    bucket: int


class Settlement(msgspec.Struct, frozen=True):
    """What became of a job, by whom, and under which ownership."""

    number: int
    by: str
    fence: Fence


async def _settle(connection: AsyncConnection, batch: Sequence[Settlement]) -> list[bool]:
    valid = await fences_valid(connection, {settlement.fence for settlement in batch})
    for settlement in batch:
        if settlement.fence in valid:
            await connection.execute(
                sa.update(jobs)
                .where(jobs.c.tenant_id == "default", jobs.c.number == settlement.number)
                .values(settled_by=settlement.by, settled_times=jobs.c.settled_times + 1)
            )
    return [settlement.fence in valid for settlement in batch]


SETTLE = Operation(name="jobs.settle", item=Settlement, result=bool, handle=_settle, wakes=(KIND,))


class Journal:
    """What all workers of a test did, in the order they did it."""

    def __init__(self) -> None:
        self.started: list[Job] = []
        self.finished: list[Job] = []
        self.under_way: list[Job] = []
        self.under_way_max = 0
        self.overlaps: list[str] = []
        self.changed = asyncio.Event()

    def start(self, job: Job) -> None:
        """Note that a job begins; two of one lane at a time are an overlap."""
        if any(other.lane == job.lane for other in self.under_way):
            self.overlaps.append(job.lane)
        self.started.append(job)
        self.under_way.append(job)
        self.under_way_max = max(self.under_way_max, len(self.under_way))
        self.changed.set()

    def end(self, job: Job) -> None:
        """Note that a job ended, however it did."""
        self.under_way.remove(job)
        self.finished.append(job)
        self.changed.set()

    def numbers(self, lane: str) -> list[int]:
        """Return the job numbers that were started in a lane."""
        return [job.number for job in self.started if job.lane == lane]


class JobSource(Forgetful):
    """One worker's view of the jobs. A lane in `gates` waits there before its job is done."""

    kind = KIND
    settle = SETTLE

    def __init__(self, database: Database, journal: Journal, *, name: str = "worker") -> None:
        self._database = database
        self.journal = journal
        self.name = name
        self.gates: dict[str, asyncio.Event] = {}
        self.failures: dict[str, list[Exception]] = {}
        self.due_failures: list[Exception] = []
        self.leaves_early = False

    async def due(
        self, buckets: Collection[int], now: datetime, limit: int, busy: Collection[str]
    ) -> Sequence[Job]:
        """Return the oldest open job of each lane, if it is due."""
        if self.due_failures:
            raise self.due_failures.pop()
        oldest = (
            sa.select(sa.func.min(jobs.c.number))
            .where(jobs.c.tenant_id == "default", jobs.c.settled_by.is_(None))
            .group_by(jobs.c.lane)
        )
        query = (
            sa.select(jobs.c.number, jobs.c.lane, jobs.c.bucket)
            .where(
                jobs.c.tenant_id == "default",
                jobs.c.number.in_(oldest),
                jobs.c.due_at <= now,
                jobs.c.bucket.in_(list(buckets)),
                jobs.c.lane.not_in(list(busy)),
            )
            .order_by(jobs.c.number)
            .limit(limit)
        )
        async with self._database.snapshot() as connection:
            rows = (await connection.execute(query)).all()
        return [Job(number=row.number, lane=row.lane, bucket=row.bucket) for row in rows]

    def lane(self, work: Job) -> str:
        """Return the lane of a job."""
        return work.lane

    def bucket(self, work: Job) -> int:
        """Return the bucket of a job."""
        return work.bucket

    @override
    def makes_room(self, _settlement: Settlement) -> bool:
        """Return what the test wants."""
        return self.leaves_early

    async def perform(self, work: Job, fence: Fence) -> Settlement:
        """Do the job: wait at its gate, or raise what the test wants."""
        self.journal.start(work)
        try:
            if failures := self.failures.get(work.lane):
                raise failures.pop()
            if gate := self.gates.get(work.lane):
                await gate.wait()
            return Settlement(number=work.number, by=self.name, fence=fence)
        finally:
            self.journal.end(work)


async def create(database: Database) -> None:
    """Create the table."""
    async with database.transaction() as connection:
        await connection.run_sync(metadata.create_all)


async def add(database: Database, *lanes: str, due_at: datetime = EPOCH) -> list[Job]:
    """Add one job per lane name given, in this order; numbers go on from those present."""
    async with database.transaction() as connection:
        last = await connection.scalar(sa.select(sa.func.max(jobs.c.number))) or 0
        made = [
            Job(number=number, lane=lane, bucket=bucket_of("default", lane))
            for number, lane in enumerate(lanes, start=last + 1)
        ]
        rows = [
            {
                "tenant_id": "default",
                "number": job.number,
                "lane": job.lane,
                "bucket": job.bucket,
                "due_at": due_at,
                "settled_by": None,
                "settled_times": 0,
            }
            for job in made
        ]
        for part in chunks(rows, 200):
            await connection.execute(sa.insert(jobs), part)
    return made


async def settled(database: Database) -> dict[int, tuple[str, int]]:
    """Return by whom and how often each settled job was settled."""
    query = sa.select(jobs).where(jobs.c.settled_by.is_not(None))
    async with database.snapshot() as connection:
        return {
            row.number: (row.settled_by, row.settled_times)
            for row in await connection.execute(query)
        }


async def until_settled(database: Database, made: Collection[Job], journal: Journal) -> None:
    """Return when all of these jobs are settled; look again whenever a worker did something."""
    wanted = {job.number for job in made}
    while not wanted <= (await settled(database)).keys():
        journal.changed.clear()
        # A settlement commits a moment after its job ended, so a look may come too early.
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await journal.changed.wait()
