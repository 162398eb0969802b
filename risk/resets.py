"""What a finished logout means for its users' risk: all sessions are over, or everything is.

Source: threat-protection §1.3, `reset_on_universal_logout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from risk import catalogue
from risk.feedback.model import is_floor
from risk.findings import store as findings_store
from risk.levels import service as levels
from risk.levels.service import Change, Trigger
from risk.model import Assessment, Clearance, Detection, DetectionState, Level, SignalMode
from risk.sql.store import Connection

#: who speaks when our own logouts do
LOGOUTS_ISSUER: Final = "urn:signalhub:logouts"
#: why a finding is superseded; the containment follows
RESET_BY: Final = "universal_logout:"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOut:
    """A user's logout was carried out.

    is_secured: their identity providers confirmed that all sessions are over. is_reset: everything
    that was found about the user is over with them, as Okta has it.
    """

    user_id: str
    containment_id: str
    at: datetime
    is_secured: bool
    is_reset: bool


async def hear(
    connection: Connection,
    tenant_id: str,
    told: Sequence[LoggedOut],
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> list[Assessment]:
    """Record finished logouts of users of one tenant and judge them; in the caller's transaction.

    A reset never gets below a floor, and findings about devices stay: to be logged out cleans no
    laptop. Raises nothing of its own.
    """
    reset = {each.user_id: each for each in told if each.is_reset}
    active = await findings_store.active_detections(connection, tenant_id, entity_ids=set(reset))
    await findings_store.write_detections(connection, list(_superseded(active, reset)), now=now)
    return await levels.recompute(
        connection,
        tenant_id,
        Change(
            user_ids=frozenset(each.user_id for each in told),
            remedied=[_ended(tenant_id, each) for each in told if each.is_secured],
            triggers={
                each.user_id: Trigger(
                    trace_id=each.containment_id, occurred_at=each.at, received_at=each.at
                )
                for each in told
            },
        ),
        caps={issuer: cap for (tenant, issuer), cap in caps.items() if tenant == tenant_id},
        now=now,
    )


def _superseded(active: Iterable[Detection], reset: Mapping[str, LoggedOut]) -> Iterable[Detection]:
    for each in active:
        if each.entity_id in reset and not is_floor(each):
            said = reset[each.entity_id]
            yield replace(
                each,
                revision=each.revision + 1,
                state=DetectionState.SUPERSEDED,
                state_at=said.at,
                state_by=RESET_BY + said.containment_id,
            )


def _ended(tenant_id: str, said: LoggedOut) -> Clearance:
    return Clearance(
        tenant_id=tenant_id,
        entity_id=said.user_id,
        issuer=LOGOUTS_ISSUER,
        remedy=catalogue.SESSIONS_REVOKED,
        level=None,
        mode=SignalMode.ENFORCE,
        occurred_at=said.at,
        signal_id=said.containment_id,
    )
