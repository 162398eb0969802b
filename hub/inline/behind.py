"""What is written behind the answer: contexts that were let pass, durable within a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import structlog
from prometheus_client import Counter

from hub.alerting import TELL_ALERT, PolicyAlert
from hub.operations import LOG_OUT_SESSION, SETTLE
from receivers.model import AcceptedSET
from receivers.store import ACCEPT
from risk.contexts.service import RECORD
from risk.inline.model import SessionLogout, Settled, Stand
from risk.policies.recorded import RecordedContext
from runtime.behind import WriteBehind
from runtime.writer import Writer

log = structlog.get_logger()
_lost_total = Counter(
    "hub_inline_notes_lost_total", "Contexts that were let pass and could not be written."
)

Note: TypeAlias = Stand | RecordedContext | AcceptedSET | PolicyAlert | SessionLogout
Behind: TypeAlias = WriteBehind[Note, object]


def behind(writer: Writer, written: Callable[[Stand, Settled | None], None]) -> Behind:
    """Return what writes stands, records, findings and alerts behind the answers that made them.

    A context that is lost is noted again when it is seen again. written: hears what became of each
    stand, None when it could not be written.
    """

    async def write(item: Note) -> object:
        if isinstance(item, Stand):
            return await writer.submit(SETTLE, item)
        if isinstance(item, SessionLogout):
            return await writer.submit(LOG_OUT_SESSION, item)
        if isinstance(item, AcceptedSET):
            return await writer.submit(ACCEPT, item)
        if isinstance(item, PolicyAlert):
            return await writer.submit(TELL_ALERT, item)
        return await writer.submit(RECORD, item)

    def hear(item: Note, result: object) -> None:
        if isinstance(item, Stand):
            written(item, result if isinstance(result, Settled) else None)

    return WriteBehind(write, lost=_lost_total, warn=_warn, written=hear)


def _warn(count: int, error: str) -> None:
    log.warning("contexts.lost", count=count, error=error)
