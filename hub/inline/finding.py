"""A session at high risk is a finding about its user: judged HIGH ─▶ MEDIUM on the user."""

from __future__ import annotations

import msgspec

from hub.inline.case import Case
from hub.own_signal import own_signal
from receivers.model import AcceptedSET
from risk.model import SESSIONS_ISSUER, Level
from runtime.clock import epoch_s
from ssf.events.caep import RiskLevelChange
from ssf.events.registry import render_event


def finding_prefix(session_id: str) -> str:
    """Return how the `jti` of each finding about a session begins; the context key ends it."""
    return f"session:{session_id}:"


def finding_of(case: Case, trace_id: str | None) -> AcceptedSET:
    """Return the signal that a session is at high risk; a repeat about the context is a duplicate.

    While the policies only monitor it is recorded and counts nothing. Raises nothing.
    """
    session, now = case.live.session, case.situation.now
    event = RiskLevelChange(
        principal="SESSION",
        current_level=Level.HIGH.name,
        risk_reason=", ".join(f"{change.value} changed" for change in case.judged.changes),
        event_timestamp=epoch_s(now),
        initiating_entity="policy",
    )
    key = {"format": "iss_sub", "iss": session.iss, "sub": session.sid}
    return own_signal(
        tenant_id=session.tenant_id,
        iss=SESSIONS_ISSUER,
        jti=finding_prefix(session.session_id) + case.key,
        event_type=RiskLevelChange.type_uri,
        subject={"format": "complex", "session": key},
        payload=msgspec.json.encode(render_event(event)),
        txn=trace_id,
        mode=case.judged.verdict.mode,
        now=now,
    )
