"""One answer to "may this go on?", and how several of them become one. Pure.

    ALLOW < STEP_UP < DENY < TERMINATE       what the caller is to do
    APP   < SESSION < USER                   what that is about

The strongest decision wins, and the widest scope among equals; the reasons of all are kept. The
same verdict feeds every front door. Source: contracts §7, threat-protection §2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from risk.policy import PolicyMode


class Decision(IntEnum):
    """What the caller is to do, in ascending strength."""

    ALLOW = 0
    STEP_UP = 1
    DENY = 2
    TERMINATE = 3


class Scope(IntEnum):
    """What the decision is about, in ascending width."""

    APP = 0
    SESSION = 1
    USER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One policy that is not satisfied. app_ids: the apps it speaks for; none is the session.

    policy, rule: names; policy_id, version: which text of it. why: in words for people, with what
    an assurance asked for and what was there. is_enforced: False where the policy monitors.
    """

    policy: str
    rule: str
    decision: Decision
    why: str
    scope: Scope = Scope.SESSION
    app_ids: tuple[str, ...] = ()
    is_enforced: bool = True
    policy_id: str = ""
    version: int = 0
    acr: str | None = None
    amr_any_of: tuple[str, ...] = ()
    max_age: int | None = None
    alerts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One answer, or one part of it.

    trace_id: of the signal that led there, where there is one. acr, amr_any_of, max_age (in
    seconds, 0 is "now"): what a STEP_UP asks for (RFC 9470). would_have: the decision that
    monitoring policies held back, where it is stronger. alerts: whether somebody is told.
    logs: the rule for which the decision is worth a line although it is ALLOW, or "".
    """

    decision: Decision
    scope: Scope
    reasons: tuple[str, ...] = ()
    trace_id: str | None = None
    acr: str | None = None
    amr_any_of: tuple[str, ...] = ()
    max_age: int | None = None
    mode: PolicyMode = PolicyMode.ENFORCE
    would_have: Decision | None = None
    violations: tuple[Violation, ...] = ()
    alerts: bool = False
    logs: str = ""


def strongest(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the strongest of at least one verdict, the widest among equals, with all reasons.

    What a step-up asks for is that of the strongest one, and a shorter age of another that asks
    for a step-up too. `would_have` is the strongest that was held back, `mode` is `monitor` only
    when all parts monitor. Raises nothing. Source: contracts §7.
    """
    ranked = sorted(verdicts, key=lambda each: (each.decision, each.scope), reverse=True)
    first = ranked[0]
    if len(ranked) == 1:
        return first
    asking = [each for each in ranked if each.decision is Decision.STEP_UP]
    ages_s = [each.max_age for each in asking if each.max_age is not None]
    held = max((each.would_have for each in ranked if each.would_have is not None), default=None)
    return replace(
        first,
        reasons=tuple(dict.fromkeys(reason for each in ranked for reason in each.reasons)),
        trace_id=next((each.trace_id for each in ranked if each.trace_id), None),
        acr=next((each.acr for each in asking if each.acr), first.acr),
        amr_any_of=next((each.amr_any_of for each in asking if each.amr_any_of), first.amr_any_of),
        max_age=min(ages_s, default=first.max_age),
        mode=(
            PolicyMode.MONITOR
            if all(each.mode is PolicyMode.MONITOR for each in ranked)
            else PolicyMode.ENFORCE
        ),
        would_have=held if held is not None and held > first.decision else None,
        violations=tuple(violation for each in ranked for violation in each.violations),
        alerts=any(each.alerts for each in ranked),
        logs=next((each.logs for each in ranked if each.logs), ""),
    )


def as_verdict(violation: Violation) -> Verdict:
    """Return what one violation alone leads to; what is only monitored allows. Raises nothing."""
    if not violation.is_enforced:
        return Verdict(
            decision=Decision.ALLOW,
            scope=violation.scope,
            mode=PolicyMode.MONITOR,
            would_have=violation.decision,
            violations=(violation,),
        )
    return Verdict(
        decision=violation.decision,
        scope=violation.scope,
        reasons=(f"{violation.policy}/{violation.rule}",),
        acr=violation.acr,
        amr_any_of=violation.amr_any_of,
        max_age=violation.max_age,
        violations=(violation,),
        alerts=violation.alerts,
    )
