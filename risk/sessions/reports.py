"""What providers report about their own sessions: established, seen, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from risk import placement
from risk.drafts import SessionEndDraft, SessionSeenDraft
from risk.model import SignalMode
from risk.naming import occurred_at
from risk.placement import Placement
from risk.sessions import service, store
from risk.sessions.model import PutSession, Session, session_key
from risk.sql.store import Connection


async def apply_reports(
    connection: Connection, tenant_id: str, placed: Sequence[Placement], *, now: datetime
) -> None:
    """Keep the session index in line with what issuers say about their own sessions."""
    believed = [each for each in placed if each.signal.mode is SignalMode.ENFORCE]
    seen = [
        item
        for each in believed
        for draft in each.drafts
        if isinstance(draft, SessionSeenDraft)
        and (item := _session_seen(each, draft, now)) is not None
    ]
    if seen:
        await service.put_sessions(connection, seen)
    ending = [
        each
        for each in believed
        if any(isinstance(draft, SessionEndDraft) for draft in each.drafts)
    ]
    if not ending:
        return
    live = await store.live_sessions(
        connection,
        tenant_id,
        user_ids={each.user_id for each in ending if each.user_id},
        issuers={each.signal.iss for each in ending},
    )
    ended: dict[tuple[str, str], Session] = {}
    for each in sorted(ending, key=lambda each: occurred_at(each.signal), reverse=True):
        of_user = [session for session in live if session.user_id == each.user_id]
        # The earliest end wins: it is applied last.
        for session in placement.sessions_to_end(each, of_user):
            ended[session.iss, session.sid] = session
    await service.write_ended(connection, tenant_id, list(ended.values()))


def _session_seen(placed: Placement, draft: SessionSeenDraft, now: datetime) -> PutSession | None:
    """Return the session to add to the index; what is known already stays as it is."""
    signal = placed.signal
    keys = [session_key(subject, signal.iss) for subject in placed.names.sessions]
    if placed.user_id is None or placed.sessions or not keys or keys[0] is None:
        return None
    iss, sid = keys[0]
    if iss != signal.iss:
        return None
    return PutSession(
        tenant_id=signal.tenant_id,
        iss=iss,
        sid=sid,
        user=placed.user_id,
        device=placed.device_id,
        started_at=occurred_at(signal),
        now=now,
        amr=draft.amr or (),
        acr=draft.acr,
    )
