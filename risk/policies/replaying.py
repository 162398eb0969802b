"""A process of a replay: `python -m risk.policies.replaying`, a job in, a tally out.

The job (msgpack) comes on standard input, the tally (msgpack) goes to standard output. It reads the
database and writes nothing; whoever starts it limits its time.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import msgspec

from risk.contexts.store import read_recorded
from risk.policies.replay import ReplayJob, Tally, compiled_of, share_of
from runtime.database import Database

#: records read at once
CHUNK: Final = 5_000


async def replay(job: ReplayJob, database: Database) -> Tally:
    """Judge this share of the records, a chunk at a time. Raises database errors, Invalid."""
    policies, tally, after = compiled_of(job.policies), Tally(), None
    while tally.read < job.contexts_max:
        async with database.snapshot() as connection:
            contexts = await read_recorded(
                connection,
                job.tenant_id,
                since=job.since,
                until=job.until,
                after=after,
                limit=min(CHUNK, job.contexts_max - tally.read),
            )
        tally.read += len(contexts)
        for context in contexts:
            if share_of(context.user_id, job.shares) == job.share:
                tally.add(context, policies)
        if len(contexts) < CHUNK:
            break
        after = contexts[-1].context_id
    return tally


async def _run(job: ReplayJob) -> Tally:
    database = Database.connect(job.database_url, pool_size=1)
    try:
        return await replay(job, database)
    finally:
        await database.close()


def main() -> None:
    """Do the job on standard input."""
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ReplayJob)
    sys.stdout.buffer.write(msgspec.msgpack.encode(asyncio.run(_run(job))))


if __name__ == "__main__":
    main()
