"""Replays of policies: shares of the work in processes of their own, so that no request waits.

Replays.run ─▶ risk.policies.replaying, twice ─▶ tallies ─▶ report
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from risk.policies.documents import SessionPolicy
from risk.policies.replay import CONTEXTS_MAX, ReplayJob, Tally, documents_of, merge, report
from runtime.errors import Conflict, TimedOut, Unavailable

SHARES: Final = 2
LIMIT_S: Final = 900.0


class Replays:
    """Runs one replay at a time in this process of the hub."""

    def __init__(self, database_url: str) -> None:
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
        if self._is_running:
            raise Conflict("Another replay is running here; try again when it is done.")
        self._is_running = True
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
        try:
            async with asyncio.timeout(LIMIT_S):
                tallies = await asyncio.gather(
                    *(_share(msgspec.structs.replace(job, share=share)) for share in range(SHARES))
                )
        except TimeoutError as error:
            raise TimedOut("The replay took too long: ask for fewer days.") from error
        finally:
            self._is_running = False
        return report(merge(tallies), contexts_max=contexts_max)


async def _share(job: ReplayJob) -> Tally:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "risk.policies.replaying",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        answer, _ = await process.communicate(msgspec.msgpack.encode(job))
        if process.returncode != 0:
            raise Unavailable("The replay failed; the log has the reason.")
        return msgspec.msgpack.decode(answer, type=Tally)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
