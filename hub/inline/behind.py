"""What is written behind the answer: contexts that were let pass, durable within a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import structlog
from prometheus_client import Counter

from hub.alerting import TELL_ALERT, Alerts, PolicyAlert
from hub.app_access import NOTE_APP
from hub.operations import LOG_OUT_SESSION, SETTLE, TELL_FINDING
from risk.baselines.memory import Recorder
from risk.baselines.model import Occurrence
from risk.contexts.service import RECORD
from risk.inline.forks import TrailNote
from risk.inline.memory import LiveSessions
from risk.inline.model import Settled, Stand
from risk.inline.orders import SessionFinding, SessionLogout, UsedApp
from risk.inline.service import SHARE_TRAIL
from risk.policies.recorded import RecordedContext
from runtime.behind import WriteBehind
from runtime.writer import Operation, Writer

log = structlog.get_logger()
_lost_total = Counter(
    "hub_inline_notes_lost_total", "Contexts that were let pass and could not be written."
)


class Joining(NamedTuple):
    """A context that was let pass and joins what is accepted. seen: what it teaches of the user."""

    stand: Stand
    user_id: str
    seen: Occurrence | None


Note: TypeAlias = (
    Joining | UsedApp | TrailNote | RecordedContext | SessionFinding | PolicyAlert | SessionLogout
)
Behind: TypeAlias = WriteBehind[Note, object]
_OPERATIONS: Final[Mapping[type[Note], Operation[Any, Any]]] = {
    Joining: SETTLE,
    UsedApp: NOTE_APP,
    TrailNote: SHARE_TRAIL,
    RecordedContext: RECORD,
    SessionFinding: TELL_FINDING,
    PolicyAlert: TELL_ALERT,
    SessionLogout: LOG_OUT_SESSION,
}


def joins(live: LiveSessions, recorder: Recorder) -> Callable[[Joining, Settled | None], None]:
    """Return what hears how contexts that join ended; None: it could not be written.

    INVARIANT: only what did join teaches anything of the user. A stranger is let pass for a moment
    where the process does not know yet whose session it is.
    """

    def hear(joining: Joining, settled: Settled | None) -> None:
        stand, user_id, seen = joining
        live.written(stand, settled)
        if seen is not None and settled is not None and settled.is_new:
            recorder.note(stand.tenant_id, user_id, seen)

    return hear


def behind(
    writer: Writer,
    live: LiveSessions,
    alerts: Alerts,
    joined: Callable[[Joining, Settled | None], None],
) -> Behind:
    """Return what writes stands, apps, trails, records, findings, alerts behind their answers.

    Whatever is lost is noted again when the session is asked about again. live, alerts, joined:
    hear what became of it.
    """

    async def write(item: Note) -> object:
        what = item.stand if isinstance(item, Joining) else item
        return await writer.submit(_OPERATIONS[type(item)], what)

    def hear(item: Note, result: object) -> None:
        if isinstance(item, Joining):
            joined(item, result if isinstance(result, Settled) else None)
        elif result is None:
            if isinstance(item, PolicyAlert):
                alerts.untold(item)
            live.unwritten(item)

    return WriteBehind(write, lost=_lost_total, warn=_warn, written=hear)


def _warn(count: int, error: str) -> None:
    log.warning("contexts.lost", count=count, error=error)
