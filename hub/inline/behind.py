"""What is written behind the answer: contexts that were let pass, durable within a second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import structlog
from prometheus_client import Counter

from hub.alerting import TELL_ALERT, PolicyAlert
from hub.operations import LOG_OUT_SESSION, SETTLE
from receivers.model import AcceptedSET
from receivers.store import ACCEPT
from risk.contexts.service import RECORD
from risk.inline.model import SessionLogout, Settled, Stand
from risk.policies.recorded import RecordedContext
from runtime.errors import Refused, Unavailable
from runtime.writer import Writer

FLUSH_S: Final = 0.25
#: what waits at most; beyond, the oldest is lost: it is noted again when it is seen again
WAITING_MAX: Final = 10_000
BATCH_MAX: Final = 256

log = structlog.get_logger()
_lost_total = Counter(
    "hub_inline_notes_lost_total", "Contexts that were let pass and could not be written."
)


Note: TypeAlias = Stand | RecordedContext | AcceptedSET | PolicyAlert | SessionLogout


class Behind:
    """Writes stands and records of contexts behind the answers that made them."""

    def __init__(self, writer: Writer, written: Callable[[Stand, Settled | None], None]) -> None:
        """written: hears what became of each stand, None when it could not be written."""
        self._writer = writer
        self._written = written
        self._waiting: deque[Note] = deque()
        #: whoever flushes also waits for what another one is writing
        self._writing = asyncio.Lock()

    def note(self, item: Note) -> None:
        """Write a stand, a record, a finding or an alert soon. Raises nothing."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            _lost_total.inc()
        self._waiting.append(item)

    async def run(self) -> None:
        """Write what waits, again and again, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits now; return after the commit. Raises nothing."""
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
            results = await asyncio.gather(*map(self._write, batch), return_exceptions=True)
            for item, result in zip(batch, results, strict=True):
                if isinstance(item, Stand):
                    self._written(item, result if isinstance(result, Settled) else None)
            failed = [each for each in results if isinstance(each, BaseException)]
            for each in failed:
                if not isinstance(each, Refused | Unavailable):
                    raise each
            if failed:
                _lost_total.inc(len(failed))
                log.warning("contexts.lost", count=len(failed), error=type(failed[0]).__name__)
                return

    async def _write(self, item: Note) -> Settled | bool | int:
        if isinstance(item, Stand):
            return await self._writer.submit(SETTLE, item)
        if isinstance(item, SessionLogout):
            return await self._writer.submit(LOG_OUT_SESSION, item)
        if isinstance(item, AcceptedSET):
            return await self._writer.submit(ACCEPT, item)
        if isinstance(item, PolicyAlert):
            return await self._writer.submit(TELL_ALERT, item)
        return await self._writer.submit(RECORD, item)
