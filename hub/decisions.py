"""What every decision has in common: the hub's own denial, and how a verdict is told.

    sign-ins (hub.sign_ins), sessions (hub.inline) ─▶ judge_…, denials ─▶ render_verdict

An open quarantine denies from the moment it is committed: this process hears of it from the change
feed, asks no IdP and waits for none. Whatever goes wrong is an error answer, and a caller takes
everything but ALLOW as a no (contracts §7).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec
import structlog
from prometheus_client import Counter
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from hub.denied import DeniedUsers
from risk.entities.model import Reference
from risk.sessions.model import Session
from risk.verdict import Decision, Scope, Verdict
from runtime.caller import Caller

EVALUATE_SCOPE: Final = "sessions.evaluate"

log = structlog.get_logger()
_evaluations_total = Counter(
    "hub_evaluations_total", "Decisions given to apps and IdPs.", ["of", "decision"]
)
_unknown_total = Counter(
    "hub_inline_unknown_total",
    "Questions about a session, or for an app, that nobody registered.",
    ["what"],
)


def count_unknown(what: Literal["session", "app"]) -> None:
    """Count a question that names something nobody registered. Raises nothing."""
    _unknown_total.labels(what).inc()


def judge_session(session: Session | None, now: datetime) -> Verdict:
    """Return what the index of sessions says about a session; None is unknown. Raises nothing."""
    if session is None:
        return Verdict(decision=Decision.DENY, scope=Scope.SESSION, reasons=("session_unknown",))
    if session.is_live(now):
        return Verdict(decision=Decision.ALLOW, scope=Scope.SESSION)
    reason = "session_expired" if session.ended_at is None else "session_ended"
    return Verdict(decision=Decision.TERMINATE, scope=Scope.SESSION, reasons=(reason,))


def judge_user(references: Collection[Reference], user_ids: Collection[str]) -> Verdict:
    """Return what is said about a sign-in by whom its user turned out to be. Raises nothing.

    A name the hub never heard is ALLOWed, and the reasons say so. It is the ordinary first
    sign-in: the hub gets to know people by their sessions, so a denial would keep everybody out
    who was not entered by hand, for good. It opens no way past a denial either: whom the hub
    contains, it knows. An id of the hub's own making that does not exist is another matter: it
    is no new person but a mistake, and mistakes are denied.
    """
    if user_ids:
        return Verdict(decision=Decision.ALLOW, scope=Scope.USER)
    is_mistake = any(reference.entity_id for reference in references)
    return Verdict(
        decision=Decision.DENY if is_mistake else Decision.ALLOW,
        scope=Scope.USER,
        reasons=("user_unknown",),
    )


def quarantined(trace_id: str) -> Verdict:
    """Return the hub's own denial of a user. trace_id: of the cause. Raises nothing."""
    return Verdict(
        decision=Decision.DENY, scope=Scope.USER, reasons=("quarantined",), trace_id=trace_id
    )


def evaluator(request: Request) -> Caller:
    """Return who asks for a decision. Raises Unauthorized or Forbidden without the scope."""
    caller: Caller = request.state.caller
    caller.require(EVALUATE_SCOPE)
    return caller


async def denials(state: State, tenant_id: str, user_ids: Collection[str]) -> list[Verdict]:
    """Return the denial of each contained user. Raises database errors."""
    denied_users: DeniedUsers = state.denied_users
    denied = await denied_users.among(tenant_id, user_ids)
    return [quarantined(trace_id) for trace_id in denied.values()]


#: by what was asked, then by decision: looking a label up costs as much as counting
_COUNTERS: Final = {
    of: tuple(_evaluations_total.labels(of, decision.name) for decision in sorted(Decision))
    for of in ("sign_in", "session", "subject")
}


def count_decision(
    caller: Caller, of: str, verdict: Verdict, *, trace_id: str | None = None
) -> None:
    """Count a decision and say so in the log. of: `sign_in` or `session`. Raises nothing."""
    _COUNTERS[of][verdict.decision].inc()
    (log.debug if verdict.decision is Decision.ALLOW else log.info)(
        "decision.given",
        of=of,
        tenant_id=caller.tenant_id,
        client_id=caller.client_id,
        decision=verdict.decision.name,
        reasons=verdict.reasons,
        trace_id=trace_id or verdict.trace_id,
    )


def render_verdict(verdict: Verdict, shown: Mapping[str, object] | None = None) -> Response:
    """Answer a verdict as JSON. shown: further members. Raises nothing."""
    return verdict_response(verdict_body(verdict, shown))


def verdict_response(body: bytes) -> Response:
    """Answer with a verdict that is rendered already. Raises nothing."""
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})


def verdict_body(verdict: Verdict, shown: Mapping[str, object] | None = None) -> bytes:
    """Return a verdict as JSON. shown: further members. Raises nothing. Source: contracts §7."""
    body: dict[str, object] = {
        "decision": verdict.decision.name,
        "scope": verdict.scope.name.lower(),
        "reasons": verdict.reasons,
        "mode": verdict.mode.value,
        # Nothing to keep: a user may be contained before the next request.
        "cache_ttl_ms": 0,
    }
    if verdict.would_have is not None:
        body["would_have"] = verdict.would_have.name
    if verdict.violations:
        body["violations"] = [
            {
                "policy": each.policy,
                "rule": each.rule,
                "decision": each.decision.name,
                "why": each.why,
                "apps": each.app_ids,
                "enforced": each.is_enforced,
            }
            for each in verdict.violations
        ]
    if verdict.trace_id:
        body["trace_id"] = verdict.trace_id
    body |= shown or {}
    return msgspec.json.encode(body)
