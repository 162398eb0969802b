"""What follows when it is the user who is not trusted any more: all their sessions are over.

    TERMINATE of scope user ─▶ break-glass? guard? ─▶ sessions ended, logouts everywhere

It is no quarantine: who signs in anew is judged anew (ADR 0016). Runs in the transaction that
settles the context, without outbound HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.service
import hub.guard.service as guard
import risk.service
from actions.model import REQUESTED, Action, Cause, ContainmentOrder, PlanOutcome
from actions.requests import decide_request
from hub import store
from hub.pipeline import end_sessions
from risk import explanation
from risk.entities import service as entities
from risk.inline.orders import SessionLogout
from runtime.audit import AuditNote
from runtime.ids import new_id

#: who did it, in the audit and in causes
POLICY: Final = "session-policy"
SUMMARY: Final = "a session policy ended all sessions"

log = structlog.get_logger()


async def order_for(
    connection: AsyncConnection,
    user: tuple[str, str],
    *,
    cause: tuple[str, str],
    reasons: tuple[str, ...],
    trace_id: str,
    now: datetime,
) -> ContainmentOrder:
    """Return the order to log a user out everywhere.

    user: tenant and id. cause: who wants it, and what, in words. Raises NotFound.
    """
    tenant_id, user_id = user
    seen = await entities.view(connection, tenant_id, user_id)
    present = await explanation.user_risk(connection, tenant_id, user_id)
    issuer, summary = cause
    return ContainmentOrder(
        tenant_id=tenant_id,
        user_id=user_id,
        trace_id=trace_id,
        level=present.level.name,
        reasons=reasons,
        causes=(
            # One per user: asking again while it is open starts another round, not another cause.
            Cause(
                detection_id=f"{REQUESTED}_{user_id}"[:64],
                name=REQUESTED,
                issuer=issuer,
                summary=summary,
            ),
        ),
        actions=frozenset({Action.UNIVERSAL_LOGOUT, Action.NOTIFY}),
        identifiers=seen.identifiers,
        label=seen.entity.label,
        received_at=now,
    )


async def log_out_users(connection: AsyncConnection, items: Sequence[SessionLogout]) -> None:
    """End all sessions of users in the index and order their logouts.

    items: one per user, of tenants whose audit and pipeline the caller has locked, in that order.
    Break-glass users keep their other sessions. Beyond the blast-radius guard's limit the
    containment is held for a person, and so are the other sessions. Wakes nobody.
    """
    if not items:
        return
    now = max(item.at for item in items)
    counts = {
        tenant_id: await risk.service.count_users(connection, tenant_id)
        for tenant_id in sorted({item.tenant_id for item in items})
    }
    orders = await guard.softened(
        connection,
        [
            await order_for(
                connection,
                (item.tenant_id, item.user_id),
                cause=(POLICY, SUMMARY),
                reasons=item.reasons,
                trace_id=item.trace_id or new_id("evt"),
                now=now,
            )
            for item in items
        ],
    )
    planned = await actions.service.plan(
        connection,
        [order for order in orders if not order.exempt],
        user_counts=counts,
        now=now,
        decider=decide_request,
    )
    plans = {(plan.tenant_id, plan.user_id): plan for plan in planned}
    sessions_ended = await end_sessions(connection, planned, now=now)
    for item in items:
        plan = plans.get((item.tenant_id, item.user_id))
        if plan is None:
            continue
        is_held = plan.outcome is PlanOutcome.HELD
        ended = sessions_ended[item.tenant_id, item.user_id]
        await store.add_audit(connection, _note(item, plan.containment_id, ended), now=now)
        (log.warning if is_held else log.info)(
            "user.logged_out",
            tenant_id=item.tenant_id,
            user_id=item.user_id,
            session_id=item.session_id,
            outcome=plan.outcome.value,
            sessions_ended=ended,
            containment_id=plan.containment_id,
            trace_id=item.trace_id,
        )


def _note(item: SessionLogout, containment_id: str, ended: int) -> AuditNote:
    return AuditNote(
        tenant_id=item.tenant_id,
        actor=POLICY,
        action="user.logout",
        ref=item.user_id,
        detail={
            "by": "policy",
            "session_id": item.session_id,
            "reasons": list(item.reasons),
            "containment_id": containment_id,
            "sessions_ended": ended,
            "trace_id": item.trace_id,
        },
    )
