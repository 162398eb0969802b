"""Where providers see sessions in use: judged like a request, off the request path.

An app that never asks about its sessions, and tells of them with CAEP session-presented or
session-established, feeds their contexts all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from risk.contexts.agents import parse_agent
from risk.contexts.model import AGENT_FINGERPRINT
from risk.contexts.parsing import HOP_CHARS_MAX, SIGNAL_VALUE_CHARS_MAX
from risk.drafts import SessionSeenDraft
from risk.model import Signal, SignalMode
from risk.naming import occurred_at
from risk.placement import Placement
from risk.reviews import service as reviews
from risk.reviews.model import Review, ReviewCause, new_review
from risk.sessions import store as sessions_store
from risk.sessions.model import Session, session_key
from risk.sql.store import Connection

TRACE_CHARS_MAX: Final = 200
TOLD_BY_CHARS_MAX: Final = 1024


async def note_presence(
    connection: Connection, tenant_id: str, placed: Iterable[Placement], *, now: datetime
) -> int:
    """Note what believed providers saw of live sessions; return how many are to be judged.

    What happened long ago says nothing of where the session is now.
    """
    seen = [
        (each, draft)
        for each in placed
        if each.signal.mode is SignalMode.ENFORCE and now - occurred_at(each.signal) <= reviews.LIFE
        for draft in each.drafts
        if isinstance(draft, SessionSeenDraft) and (draft.ip or draft.fp_ua)
    ]
    if not seen:
        return 0
    keys = {key for each, _ in seen for key in _keys(each)}
    known = await sessions_store.find_sessions(connection, tenant_id, keys=keys)
    noted = [
        _review(session, each.signal, draft, now)
        for each, draft in seen
        for key in _keys(each)
        if (session := known.get(key)) is not None and _is_theirs(session, each, now)
    ]
    await reviews.note(connection, noted)
    return len(noted)


def _keys(placed: Placement) -> Sequence[tuple[str, str]]:
    subjects = (*placed.names.sessions, *placed.names.maybe_sessions)
    return [key for each in subjects if (key := session_key(each, placed.signal.iss)) is not None]


def _is_theirs(session: Session, placed: Placement, now: datetime) -> bool:
    return session.is_live(now) and placed.user_id in (None, session.user_id)


def _review(session: Session, signal: Signal, draft: SessionSeenDraft, now: datetime) -> Review:
    context: dict[str, Any] = {}
    if draft.ip:
        context["chain"] = [draft.ip[:HOP_CHARS_MAX]]
    fingerprint = "".join(filter(str.isprintable, draft.fp_ua))
    if parse_agent(fingerprint).os_family not in {"", "other"}:
        context["user_agent"] = fingerprint[:TOLD_BY_CHARS_MAX]
    elif fingerprint:
        # Comparable with others of the same transmitter, and with nothing else.
        context["signals"] = {AGENT_FINGERPRINT: fingerprint[:SIGNAL_VALUE_CHARS_MAX]}
    return new_review(
        session,
        ReviewCause.PRESENTED,
        at=now,
        trace_id=(signal.txn or signal.signal_id)[:TRACE_CHARS_MAX],
        context=context,
        told_by=f"set:{signal.iss}"[:TOLD_BY_CHARS_MAX],
    )
