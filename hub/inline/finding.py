"""A session at high risk is a finding about its user: judged HIGH ─▶ MEDIUM on the user."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from hub.inline.case import Case
from hub.own_signal import own_signal
from receivers.model import AcceptedSET
from risk.inline.orders import FindingMark, SessionFinding
from risk.model import SESSIONS_ISSUER, Level
from risk.policy import PolicyMode
from risk.sessions.model import Session
from runtime.clock import epoch_s
from ssf.events.caep import RiskLevelChange
from ssf.events.registry import render_event

#: in the name of a finding that policies only watched
_WATCHED: Final = "watched"


def finding_prefix(session_id: str) -> str:
    """Return how the `jti` of each finding about a session begins; `named` ends it."""
    return f"session:{session_id}:"


def named(mark: FindingMark) -> str:
    """Return how the `jti` of a finding ends. Raises nothing."""
    proven = () if mark.proven_at is None else (mark.proven_at.isoformat(),)
    return ":".join((mark.context_key, *(() if mark.acts else (_WATCHED,)), *proven))


def signal_about(
    session: Session | SessionFinding,
    event: RiskLevelChange,
    *,
    jti: str,
    txn: str | None,
    mode: PolicyMode,
    now: datetime,
) -> AcceptedSET:
    """Return what the hub says of the risk of a session. Raises nothing."""
    key = {"format": "iss_sub", "iss": session.iss, "sub": session.sid}
    return own_signal(
        tenant_id=session.tenant_id,
        iss=SESSIONS_ISSUER,
        jti=jti,
        event_type=event.type_uri,
        subject={"format": "complex", "session": key},
        payload=msgspec.json.encode(render_event(event)),
        txn=txn,
        mode=mode,
        now=now,
    )


def finding_of(case: Case, trace_id: str | None) -> SessionFinding | None:
    """Return that the context of a case is at HIGH; None: it is not, or was told. Raises nothing.

    It may have been judged at less before, or proven since.
    """
    session, stand, judged = case.live.session, case.situation.stand, case.judged
    if case.situation.here is None or judged.level is not Level.HIGH:
        return None
    found = SessionFinding(
        tenant_id=session.tenant_id,
        session_id=session.session_id,
        iss=session.iss,
        sid=session.sid,
        context_key=case.key,
        at=case.situation.now,
        changes=tuple(change.value for change in judged.changes),
        trace_id=trace_id,
        acts=judged.verdict.mode is PolicyMode.ENFORCE,
        proven_at=None if stand is None else stand.last_proof_at,
    )
    return None if found.mark in case.live.at_high else found


def signal_of(finding: SessionFinding) -> AcceptedSET:
    """Return the signal that a session is at high risk; a repeat of the finding is a duplicate.

    While the policies only monitor it is recorded and counts nothing. Raises nothing.
    """
    event = RiskLevelChange(
        principal="SESSION",
        current_level=Level.HIGH.name,
        risk_reason=", ".join(f"{change} changed" for change in finding.changes),
        event_timestamp=epoch_s(finding.at),
        initiating_entity="policy",
    )
    return signal_about(
        finding,
        event,
        jti=finding_prefix(finding.session_id) + named(finding.mark),
        txn=finding.trace_id,
        mode=PolicyMode.ENFORCE if finding.acts else PolicyMode.MONITOR,
        now=finding.at,
    )
