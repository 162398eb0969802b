"""A session at HIGH whose user proved themselves is at risk no more; nobody else is in it.

    step-up passed, or fresh sign-in in the context ─▶ every context that was found at HIGH proven?
        └─▶ CAEP risk-level-change about the session, LOW ─▶ inbox ─▶ pipeline ─▶ findings end

In the transaction that notes the proof, so that neither is without the other. A context that was
stopped, or never asked, or found again since its proof, keeps the session at HIGH: somebody has its
secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.inline.finding import finding_prefix, named, signal_about
from receivers.inbox.store import enforced_jtis
from receivers.model import AcceptedSET
from receivers.store import add_to_inbox
from risk.inline import store as stands_store
from risk.inline.model import Stand, StandState
from risk.inline.orders import FindingMark
from risk.model import SESSIONS_ISSUER, Level
from risk.policy import PolicyMode
from risk.sessions.model import Session
from runtime.clock import epoch_s
from ssf.events.caep import RiskLevelChange

#: findings about one session; with more it stays at HIGH
FINDINGS_MAX: Final = 256

log = structlog.get_logger()


async def tell_lowered(
    connection: AsyncConnection, tenant_id: str, sessions: Collection[Session], *, now: datetime
) -> int:
    """Say which of the sessions are at HIGH no more; return how many.

    sessions: of one tenant, in which somebody just proved themselves. Raises database errors only.
    """
    told: list[AcceptedSET] = []
    for session in sorted(sessions, key=lambda each: each.session_id):
        if not session.is_live(now):
            continue
        found = await _findings(connection, session)
        keys = {(session.session_id, each.context_key) for each in found}
        stands = await stands_store.stands_at(connection, tenant_id, keys=keys)
        if found and all(
            _is_proven(each, stands.get((session.session_id, each.context_key))) for each in found
        ):
            told.append(_lowered(session, found, now))
    are_new = await add_to_inbox(connection, told)
    for each in (each for each, is_new in zip(told, are_new, strict=True) if is_new):
        log.info("session.risk_lowered", tenant_id=tenant_id, signal_id=each.signal_id)
    return sum(are_new)


class _Found(NamedTuple):
    """A finding about a session. ending: of its name, as `named` makes it."""

    context_key: str
    ending: str


async def _findings(connection: AsyncConnection, session: Session) -> list[_Found]:
    """Return what the session was ever found at HIGH by, assessed or not; [] also of too many."""
    prefix = finding_prefix(session.session_id)
    jtis = await enforced_jtis(
        connection, session.tenant_id, SESSIONS_ISSUER, prefix=prefix, limit=FINDINGS_MAX + 1
    )
    if len(jtis) > FINDINGS_MAX:
        return []
    endings = sorted(jti.removeprefix(prefix) for jti in jtis)
    return [_Found(ending.partition(":")[0], ending) for ending in endings]


def _is_proven(found: _Found, stand: Stand | None) -> bool:
    """Return whether somebody proved themselves in the context since it was found at HIGH."""
    if stand is None or stand.state != StandState.PASSED:
        return False
    since = FindingMark(found.context_key, acts=True, proven_at=stand.last_proof_at)
    return found.ending != named(since)


def _lowered(session: Session, found: Sequence[_Found], now: datetime) -> AcceptedSET:
    """Return the signal. found: whatever was found at HIGH; told once for the same."""
    endings = "\n".join(each.ending for each in found)
    of_findings = hashlib.sha256(endings.encode()).hexdigest()[:32]
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
        jti=f"session_lowered:{session.session_id}:{of_findings}",
        txn=None,
        mode=PolicyMode.ENFORCE,
        now=now,
    )
