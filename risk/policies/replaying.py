"""A process of a replay: `python -m risk.policies.replaying KIND`, a job in, a tally out.

The job (msgpack) comes on standard input, the tally (msgpack) goes to standard output. It reads the
database and writes nothing; whoever starts it limits its time.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import msgspec

from risk.contexts.store import read_recorded
from risk.levels.store import read_people
from risk.lookups import store as lookups
from risk.policies.entity_replay import EntityJob, EntityTally, enforced
from risk.policies.replay import ReplayJob, Tally, compiled_of, share_of
from runtime.database import Database

#: records read at once
CHUNK: Final = 5_000
#: what is replayed: policies of sessions and sign-ins, or that of entity risk
REQUESTS: Final = "requests"
LEVELS: Final = "levels"


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


async def replay_levels(job: EntityJob, database: Database) -> EntityTally:
    """Ask a policy about this share of the changes. Raises database errors, Invalid."""
    policy, tally, after, exempt = enforced(job.document), EntityTally(), "", frozenset(job.exempt)
    while tally.read < job.changes_max:
        limit = min(CHUNK, job.changes_max - tally.read)
        async with database.snapshot() as connection:
            changes = await lookups.changes_between(
                connection, job.tenant_id, (job.since, job.until), after=after, limit=limit
            )
            mine = [each for each in changes if share_of(each.entity_id, job.shares) == job.share]
            names = await lookups.names_of(
                connection,
                job.tenant_id,
                detection_ids={cause for each in mine for cause in each.cause_ids},
            )
            people = await read_people(
                connection, job.tenant_id, user_ids={each.entity_id for each in mine}
            )
        tally.read += len(changes)
        for each in mine:
            person = people.get(each.entity_id)
            tally.add(
                each,
                policy,
                detections={names[cause] for cause in each.cause_ids if cause in names},
                groups=() if person is None else person.user.groups,
                is_exempt=each.entity_id in exempt,
            )
        if len(changes) < limit:
            break
        after = changes[-1].history_id
    tally.ordered = {}  # of no use to anybody else
    return tally


async def _requests(job: ReplayJob) -> Tally:
    database = Database.connect(job.database_url, pool_size=1)
    try:
        return await replay(job, database)
    finally:
        await database.close()


async def _levels(job: EntityJob) -> EntityTally:
    database = Database.connect(job.database_url, pool_size=1)
    try:
        return await replay_levels(job, database)
    finally:
        await database.close()


def main() -> None:
    """Do the job on standard input."""
    raw = sys.stdin.buffer.read()
    tally: Tally | EntityTally
    if sys.argv[1:] == [LEVELS]:
        tally = asyncio.run(_levels(msgspec.msgpack.decode(raw, type=EntityJob)))
    else:
        tally = asyncio.run(_requests(msgspec.msgpack.decode(raw, type=ReplayJob)))
    sys.stdout.buffer.write(msgspec.msgpack.encode(tally))


if __name__ == "__main__":
    main()
