"""What is written behind the answer: contexts that were let pass, durable within a second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client import Counter

from hub.alerting import TELL_ALERT, Alerts, PolicyAlert
from hub.app_access import NOTE_APP
from hub.operations import LOG_OUT_SESSION, SETTLE, TELL_FINDING
from risk.contexts.service import RECORD
from risk.inline.forks import TrailNote
from risk.inline.memory import LiveSessions
from risk.inline.model import Settled, Stand, UsedApp
from risk.inline.orders import SessionFinding, SessionLogout
from risk.inline.service import SHARE_TRAIL
from risk.policies.recorded import RecordedContext
from runtime.behind import WriteBehind
from runtime.writer import Operation, Writer

log = structlog.get_logger()
_lost_total = Counter(
    "hub_inline_notes_lost_total", "Contexts that were let pass and could not be written."
)

Note: TypeAlias = (
    Stand | UsedApp | TrailNote | RecordedContext | SessionFinding | PolicyAlert | SessionLogout
)
Behind: TypeAlias = WriteBehind[Note, object]
_OPERATIONS: Final[Mapping[type[Note], Operation[Any, Any]]] = {
    Stand: SETTLE,
    UsedApp: NOTE_APP,
    TrailNote: SHARE_TRAIL,
    RecordedContext: RECORD,
    SessionFinding: TELL_FINDING,
    PolicyAlert: TELL_ALERT,
    SessionLogout: LOG_OUT_SESSION,
}


def behind(writer: Writer, live: LiveSessions, alerts: Alerts) -> Behind:
    """Return what writes stands, apps, trails, records, findings, alerts behind their answers.

    Whatever is lost is noted again when the session is asked about again. live, alerts: hear what
    became of it.
    """

    async def write(item: Note) -> object:
        return await writer.submit(_OPERATIONS[type(item)], item)

    def hear(item: Note, result: object) -> None:
        if isinstance(item, Stand):
            live.written(item, result if isinstance(result, Settled) else None)
        elif result is None:
            if isinstance(item, PolicyAlert):
                alerts.untold(item)
            live.unwritten(item)

    return WriteBehind(write, lost=_lost_total, warn=_warn, written=hear)


def _warn(count: int, error: str) -> None:
    log.warning("contexts.lost", count=count, error=error)
