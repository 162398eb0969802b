"""A session at high risk is a finding about its user: the hub's own signal, on the ordinary way in.

judged HIGH ─▶ AcceptedSET of the hub itself ─▶ inbox ─▶ pipeline ─▶ MEDIUM on the user
"""

from __future__ import annotations

from typing import Final

import msgspec

from hub.inline.case import Case
from receivers.model import AcceptedSET, ProviderMode, SignalState
from risk.model import Level
from risk.policy import PolicyMode
from runtime.clock import epoch_s
from runtime.ids import new_id
from ssf.events.caep import RiskLevelChange
from ssf.events.registry import render_event

#: stands for the provider of what the hub says itself
OWN_PROVIDER: Final = "hub"
OWN_ISSUER: Final = "urn:signalhub:sessions"


def finding_of(case: Case, trace_id: str | None) -> AcceptedSET:
    """Return the signal that a session is at high risk; a repeat about the context is a duplicate.

    While the policies only monitor it is recorded and counts nothing. Raises nothing.
    """
    session, now = case.live.session, case.situation.now
    acts = case.judged.verdict.mode is PolicyMode.ENFORCE
    event = RiskLevelChange(
        principal="SESSION",
        current_level=Level.HIGH.name,
        risk_reason=", ".join(f"{change.value} changed" for change in case.judged.changes),
        event_timestamp=epoch_s(now),
        initiating_entity="policy",
    )
    payload = msgspec.json.encode(render_event(event))
    key = {"format": "iss_sub", "iss": session.iss, "sub": session.sid}
    subject = {"format": "complex", "session": key}
    return AcceptedSET(
        tenant_id=session.tenant_id,
        signal_id=new_id("sig"),
        provider_id=OWN_PROVIDER,
        iss=OWN_ISSUER,
        jti=f"session:{session.session_id}:{case.key}",
        event_type=RiskLevelChange.type_uri,
        sub_id=msgspec.json.encode(subject),
        payload=payload,
        txn=trace_id,
        raw=payload.decode(),
        occurred_at=now,
        received_at=now,
        mode=(ProviderMode.ENFORCE if acts else ProviderMode.LOG_ONLY).value,
        state=SignalState.RECEIVED.value,
        detail=None,
    )
