"""Replays of policies: shares of the work in processes of their own, so that no request waits.

Replays.run ─▶ risk.policies.replaying, twice ─▶ tallies ─▶ report

Where nothing was recorded there is nothing to share: the answer needs no process then.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from actions.model import GUARD_WINDOW
from risk.contexts.store import read_recorded
from risk.lookups.store import changes_between
from risk.policies import entity_replay
from risk.policies.documents import SessionPolicy
from risk.policies.entity_replay import EntityJob, EntityTally, enforced, held_by_guard
from risk.policies.replay import (
    CONTEXTS_MAX,
    ReplayJob,
    Tally,
    compiled_of,
    documents_of,
    merge,
    report,
)
from risk.policies.replaying import LEVELS, REQUESTS
from risk.policy import Policy, render_policy
from runtime.database import Database
from runtime.errors import Conflict, TimedOut, Unavailable

SHARES: Final = 2
LIMIT_S: Final = 900.0

#: returns the first of what a replay would look at, if there is any
_Recorded = Callable[[AsyncConnection, str], Awaitable[Sequence[object]]]


class Replays:
    """Runs one replay at a time in this process of the hub."""

    def __init__(self, database: Database, database_url: str) -> None:
        """database_url: of the same database, for the processes."""
        self._database = database
        self._database_url = database_url
        self._is_running = False

    async def run(
        self,
        tenant_id: str,
        policies: Sequence[SessionPolicy],
        *,
        since: datetime,
        until: datetime,
        contexts_max: int = CONTEXTS_MAX,
    ) -> dict[str, Any]:
        """Return the report. Raises Conflict while another runs, TimedOut, Unavailable."""
        job = ReplayJob(
            database_url=self._database_url,
            tenant_id=tenant_id,
            policies=documents_of(policies),
            since=since,
            until=until,
            share=0,
            shares=SHARES,
            contexts_max=contexts_max,
        )
        # Read as the processes read them, so that whoever asks too early is told the same.
        compiled_of(job.policies)
        recorded = partial(read_recorded, since=since, until=until, after=None, limit=1)
        raw = await self._shares(REQUESTS, job, recorded)
        tallies = [msgspec.msgpack.decode(each, type=Tally) for each in raw]
        return report(merge(tallies), contexts_max=contexts_max)

    async def run_levels(
        self,
        tenant_id: str,
        policy: Policy,
        *,
        since: datetime,
        until: datetime,
        exempt: Collection[str],
        contained_max: int,
    ) -> dict[str, Any]:
        """Return the report of an entity risk policy. Raises as `run`.

        exempt: users of the break-glass list. contained_max: what the guard lets pass at once.
        """
        job = EntityJob(
            database_url=self._database_url,
            tenant_id=tenant_id,
            document=render_policy(policy),
            since=since,
            until=until,
            share=0,
            shares=SHARES,
            changes_max=CONTEXTS_MAX,
            exempt=sorted(exempt),
        )
        enforced(job.document)
        recorded = partial(changes_between, span=(since, until), after="", limit=1)
        raw = await self._shares(LEVELS, job, recorded)
        tally = entity_replay.merge(
            [msgspec.msgpack.decode(each, type=EntityTally) for each in raw]
        )
        held = held_by_guard(tally.contained, limit=contained_max, window=GUARD_WINDOW)
        return entity_replay.report(tally, held=held, changes_max=CONTEXTS_MAX)

    async def _shares(
        self, kind: str, job: ReplayJob | EntityJob, recorded: _Recorded
    ) -> list[bytes]:
        """Return what the processes that share a job answer; none when nothing is recorded."""
        if self._is_running:
            raise Conflict("Another replay is running here; try again when it is done.")
        self._is_running = True
        try:
            async with asyncio.timeout(LIMIT_S):
                async with self._database.snapshot() as connection:
                    if not await recorded(connection, job.tenant_id):
                        return []
                return await asyncio.gather(
                    *(
                        _share(kind, msgspec.structs.replace(job, share=share))
                        for share in range(SHARES)
                    )
                )
        except TimeoutError as error:
            raise TimedOut("The replay took too long: ask for fewer days.") from error
        finally:
            self._is_running = False


async def _share(kind: str, job: ReplayJob | EntityJob) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "risk.policies.replaying",
        kind,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        answer, _ = await process.communicate(msgspec.msgpack.encode(job))
        if process.returncode != 0:
            raise Unavailable("The replay failed; the log has the reason.")
        return answer
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
