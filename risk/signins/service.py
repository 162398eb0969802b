"""Use cases of sign-ins: keep them, at once or soon; forget the old."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from risk.signins import store
from risk.signins.model import SignInRecord
from risk.sql.store import Connection
from runtime.errors import Refused, Unavailable
from runtime.writer import Operation, Writer

#: how long sign-ins are kept
LIFE: Final = timedelta(days=90)
FLUSH_S: Final = 0.25
WAITING_MAX: Final = 10_000
BATCH_MAX: Final = 256

log = structlog.get_logger()
_lost_total = Counter("hub_risk_sign_ins_lost_total", "Allowed sign-ins that could not be kept.")


async def record_sign_ins(connection: Connection, items: Sequence[SignInRecord]) -> list[bool]:
    """Keep sign-ins of any tenants."""
    await store.write_sign_ins(connection, items)
    return [True] * len(items)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget old sign-ins, a bounded number; return how many."""
    return await store.system_purge_sign_ins(connection, before=now - LIFE)


RECORD_SIGN_IN: Final = Operation(
    name="risk.record_sign_in", item=SignInRecord, result=bool, handle=record_sign_ins
)


class SignInLog:
    """Sign-ins that were allowed and are written behind the answer; bounded."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: deque[SignInRecord] = deque()
        #: whoever flushes also waits for what another one is writing
        self._writing = asyncio.Lock()
        self._noted = asyncio.Event()

    async def write(self, record: SignInRecord) -> None:
        """Keep a sign-in; return after the commit. Raises Refused, Unavailable."""
        await self._writer.submit(RECORD_SIGN_IN, record)

    def note(self, record: SignInRecord) -> None:
        """Keep a sign-in soon. Never waits, raises nothing."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            _lost_total.inc()
        self._waiting.append(record)
        self._noted.set()

    async def run(self) -> None:
        """Write what was noted, at most four times a second, until cancelled."""
        while True:
            await self._noted.wait()
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted. What the writer does not take is dropped and counted."""
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
        self._noted.clear()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            results = await asyncio.gather(*map(self.write, batch), return_exceptions=True)
            lost = [each for each in results if isinstance(each, BaseException)]
            for each in lost:
                if not isinstance(each, Refused | Unavailable):
                    raise each
            if lost:
                _lost_total.inc(len(lost))
                log.warning("sign_ins.lost", count=len(lost), error=type(lost[0]).__name__)
