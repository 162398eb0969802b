"""May this go on? Sign-ins against the hub's own denial of contained users; for sessions its rules.

    POST /v1/sign-ins/evaluate           whose, from where ──▶ DeniedUsers, IPClaims ─▶ strongest

An open quarantine denies from the moment it is committed: this process hears of it from the change
feed, asks no IdP and waits for none. At most one indexed query finds the user or the session.
Whatever goes wrong is an error answer, and a caller takes everything but ALLOW as a no. Verdicts
about risk and context join `strongest` later; the shape of the answer stays (contracts §7).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.denied import DeniedUsers
from hub.node import Node
from risk.deps import RiskDeps
from risk.entities import service as entities
from risk.entities.model import Reference, parse_identifiers, parse_reference
from risk.ips.model import IPRisk, judge_ip, normal_ip
from risk.model import EntityKind, Level
from risk.policy import PolicyMode
from risk.routes import json_object
from risk.sessions.model import Session
from risk.verdict import Decision, Scope, Verdict, strongest
from runtime.caller import Caller

EVALUATE_SCOPE: Final = "sessions.evaluate"

log = structlog.get_logger()
_evaluations_total = Counter(
    "hub_evaluations_total", "Decisions given to apps and IdPs.", ["of", "decision"]
)


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


def judge_login(level: Level, reasons: tuple[str, ...]) -> Verdict:
    """Return what a login risk asks for: HIGH a step-up, what is below is only told.

    Never a denial: an address is shared by many, and somebody who passes a strong factor from
    there is who they say. Raises nothing.
    """
    decision = Decision.STEP_UP if level is Level.HIGH else Decision.ALLOW
    return Verdict(decision=decision, scope=Scope.SESSION, reasons=reasons)


def judge_address(risk: IPRisk, mode: PolicyMode) -> tuple[Verdict, dict[str, object]]:
    """Return the verdict on an address, and what the answer shows of it.

    mode: of the tenant's entity risk policy. What only would have been decided, because a provider
    is logged only or the policy monitors, is in `would_have`. Raises nothing.
    """
    enforced = risk if mode is PolicyMode.ENFORCE else IPRisk()
    verdict = judge_login(enforced.level, enforced.reasons)
    shadow = judge_login(risk.shadow_level, risk.shadow_reasons)
    shown: dict[str, object] = {
        "login_risk": {"level": enforced.level.name, "reasons": enforced.reasons}
    }
    if risk.shadow_reasons != enforced.reasons:
        shown["would_have"] = {
            "decision": shadow.decision.name,
            "level": risk.shadow_level.name,
            "reasons": risk.shadow_reasons,
        }
    return verdict, shown


async def evaluate_sign_in(request: Request) -> Response:
    """Decide about a sign-in: `{user: reference or subject identifier, ip?}`; more is ignored."""
    caller = evaluator(request)
    body = await json_object(request)
    references = _references(body.get("user"))
    judged, shown = await _at_address(request, caller, body.get("ip"))
    async with _node(request).database.snapshot() as connection:
        found = await entities.resolve_all(
            connection, caller.tenant_id, references, kind=EntityKind.USER
        )
    user_ids = {user_id for user_id in found.values() if user_id}
    denied = await denials(request.app.state, caller.tenant_id, user_ids)
    verdict = strongest([judge_user(references, user_ids), *denied, *judged])
    count_decision(caller, "sign_in", verdict)
    return render_verdict(verdict, shown)


def evaluator(request: Request) -> Caller:
    """Return who asks for a decision. Raises Unauthorized or Forbidden without the scope."""
    caller: Caller = request.state.caller
    caller.require(EVALUATE_SCOPE)
    return caller


def _node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


async def denials(state: State, tenant_id: str, user_ids: Collection[str]) -> list[Verdict]:
    """Return the denial of each contained user. Raises database errors."""
    denied_users: DeniedUsers = state.denied_users
    denied = await denied_users.among(tenant_id, user_ids)
    return [
        Verdict(
            decision=Decision.DENY, scope=Scope.USER, reasons=("quarantined",), trace_id=trace_id
        )
        for trace_id in denied.values()
    ]


def _references(user: object) -> list[Reference]:
    """Return how a body names its user. Raises Invalid."""
    if isinstance(user, str):
        return [parse_reference(user)]
    return [Reference(subject=subject) for subject in parse_identifiers([user], "/user")]


async def _at_address(
    request: Request, caller: Caller, ip: object
) -> tuple[list[Verdict], dict[str, object]]:
    """Return what follows from the address of a sign-in; nothing without one. Raises Invalid."""
    if ip is None:
        return [], {}
    address = normal_ip(ip, "/ip")
    deps: RiskDeps = request.app.state.risk
    claims = await deps.ip_claims.of(caller.tenant_id, str(address))
    reporters = {
        claim.source: await deps.reporter_of(caller.tenant_id, claim.source) for claim in claims
    }
    mode: PolicyMode = await request.app.state.policy_modes.get(caller.tenant_id)
    verdict, shown = judge_address(judge_ip(claims, reporters, now=deps.clock.now()), mode)
    return [verdict], shown


def count_decision(caller: Caller, of: str, verdict: Verdict) -> None:
    """Count a decision and say so in the log. of: `sign_in` or `session`. Raises nothing."""
    _evaluations_total.labels(of, verdict.decision.name).inc()
    (log.debug if verdict.decision is Decision.ALLOW else log.info)(
        "decision.given",
        of=of,
        tenant_id=caller.tenant_id,
        client_id=caller.client_id,
        decision=verdict.decision.name,
        reasons=verdict.reasons,
        trace_id=verdict.trace_id,
    )


def render_verdict(verdict: Verdict, shown: Mapping[str, object] | None = None) -> Response:
    """Answer a verdict as JSON. shown: further members. Raises nothing. Source: contracts §7."""
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
    return Response(
        msgspec.json.encode(body),
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


ROUTES: Final = (Route("/v1/sign-ins/evaluate", evaluate_sign_in, methods=["POST"]),)
