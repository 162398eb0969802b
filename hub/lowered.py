"""A session at HIGH whose user proved themselves is at risk no more; nobody else is in it.

    step-up passed, or fresh sign-in in the context ─▶ every context that was found at HIGH proven?
        └─▶ CAEP risk-level-change about the session, LOW ─▶ inbox ─▶ pipeline ─▶ findings end

In the transaction that notes the proof, so that neither is without the other. A context that was
stopped, or never asked, keeps the session at HIGH: somebody has its secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.inline.finding import finding_prefix, signal_about
from receivers.inbox.store import enforced_jtis
from receivers.model import AcceptedSET
from receivers.store import add_to_inbox
from risk.catalogue_reported import SESSION_RISK
from risk.findings import store as findings_store
from risk.inline import store as stands_store
from risk.inline.model import Stand, StandState
from risk.model import SESSIONS_ISSUER, SIGHTINGS_MAX, Level, SignalMode
from risk.policy import PolicyMode
from risk.sessions.model import Session
from runtime.clock import epoch_s
from ssf.events.caep import RiskLevelChange

log = structlog.get_logger()


async def tell_lowered(
    connection: AsyncConnection, tenant_id: str, sessions: Collection[Session], *, now: datetime
) -> int:
    """Say which of the sessions are at HIGH no more; return how many.

    sessions: of one tenant, in which somebody just proved themselves. Raises database errors only.
    """
    live = {session.session_id: session for session in sessions if session.is_live(now)}
    if not live:
        return 0
    stands = await stands_store.newest_stands(connection, tenant_id, session_ids=live)
    sightings = await _sightings(connection, tenant_id, live)
    told: list[AcceptedSET] = []
    for session_id, session in sorted(live.items()):
        seen = sightings.get(session_id, ())
        settled = {each.context_key: each for each in stands.get(session_id, ())}
        others = sum(not each.is_known for each in settled.values())
        if len(seen) >= SIGHTINGS_MAX or others >= stands_store.STANDS_MAX:
            # More contexts than are kept: it is not known any more which all of them are.
            continue
        prefix = finding_prefix(session_id)
        found = await enforced_jtis(
            connection,
            tenant_id,
            SESSIONS_ISSUER,
            signal_ids=seen,
            jtis=[prefix + key for key in settled],
        )
        keys = sorted(jti.removeprefix(prefix) for jti in found)
        if keys and all(_is_proven(settled.get(key)) for key in keys):
            told.append(_lowered(session, keys, now))
    are_new = await add_to_inbox(connection, told)
    for each in (each for each, is_new in zip(told, are_new, strict=True) if is_new):
        log.info("session.risk_lowered", tenant_id=tenant_id, signal_id=each.signal_id)
    return sum(are_new)


async def _sightings(
    connection: AsyncConnection, tenant_id: str, session_ids: Collection[str]
) -> dict[str, list[str]]:
    """Return the signals that sessions are at HIGH by, as far as they were assessed."""
    active = await findings_store.active_detections(connection, tenant_id, entity_ids=session_ids)
    return {
        each.entity_id: [seen.signal_id for seen in each.sightings]
        for each in active
        if (each.name, each.issuer, each.mode)
        == (SESSION_RISK, SESSIONS_ISSUER, SignalMode.ENFORCE)
    }


def _is_proven(stand: Stand | None) -> bool:
    return stand is not None and stand.state == StandState.PASSED


def _lowered(session: Session, keys: Sequence[str], now: datetime) -> AcceptedSET:
    """Return the signal. keys: of the contexts that were found at HIGH; told once for the same."""
    of_keys = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
    event = RiskLevelChange(
        principal="SESSION",
        current_level=Level.LOW.name,
        previous_level=Level.HIGH.name,
        risk_reason="stepped up",
        event_timestamp=epoch_s(now),
        initiating_entity="user",
    )
    return signal_about(
        session,
        event,
        jti=f"session_lowered:{session.session_id}:{of_keys}",
        txn=None,
        mode=PolicyMode.ENFORCE,
        now=now,
    )
