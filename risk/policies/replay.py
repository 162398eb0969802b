"""What a proposed policy would have decided about requests of the past. Pure.

    recorded contexts ─▶ Tally.add, a share of the users per process ─▶ merge ─▶ report

All policies count as if they were enforced: the question is what people would feel. A prompt is a
STEP_UP, a logout a TERMINATE. A session is asked once per new context, and so are the records.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from risk.policies.compiled import CompiledPolicies
from risk.policies.documents import PolicyKind, SessionPolicy, parse_policy, render_policy
from risk.policies.facts import RequestFacts, RequestKind
from risk.policies.recorded import RecordedContext, decode
from risk.verdict import Decision, Verdict

DAYS_MAX: Final = 90
#: records that one replay looks at
CONTEXTS_MAX: Final = 1_000_000
REASONS_MAX: Final = 20


class PolicyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on its way to another process."""

    policy_id: str
    kind: str
    document: dict[str, Any]
    version: int


class ReplayJob(msgspec.Struct, frozen=True, kw_only=True):
    """A share of a replay. share: this one of `shares`, by user, so that nobody is in two."""

    database_url: str
    tenant_id: str
    policies: list[PolicyDocument]
    since: datetime
    until: datetime
    share: int
    shares: int
    contexts_max: int = CONTEXTS_MAX


class Day(msgspec.Struct, kw_only=True):
    """One day of it, UTC. users: ids of those who would have felt something."""

    contexts: int = 0
    prompts: int = 0
    denials: int = 0
    logouts: int = 0
    users: set[str] = msgspec.field(default_factory=set)
    seen: set[str] = msgspec.field(default_factory=set)


class Tally(msgspec.Struct, kw_only=True):
    """What was counted. reasons: "policy/rule" -> contexts; stricter, milder: than decided then."""

    days: dict[str, Day] = msgspec.field(default_factory=dict)
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    stricter: int = 0
    milder: int = 0
    unreadable: int = 0
    read: int = 0

    def add(self, context: RecordedContext, policies: CompiledPolicies) -> None:
        """Judge one record and count it. Raises nothing: what cannot be read is counted."""
        try:
            facts, app_ids = decode(context.facts)
        except msgspec.MsgspecError:
            self.unreadable += 1
            return
        verdict = judge(policies, facts, app_ids)
        decision = felt(verdict)
        day = self.days.setdefault(context.at.date().isoformat(), Day())
        day.contexts += 1
        day.seen.add(context.user_id)
        self.stricter += decision > context.decision
        self.milder += decision < context.decision
        if decision is Decision.ALLOW:
            return
        day.users.add(context.user_id)
        day.prompts += decision is Decision.STEP_UP
        day.denials += decision is Decision.DENY
        day.logouts += decision is Decision.TERMINATE
        for violation in verdict.violations:
            reason = f"{violation.policy}/{violation.rule}"
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


def judge(policies: CompiledPolicies, facts: RequestFacts, app_ids: Sequence[str]) -> Verdict:
    """Return what policies say of recorded facts. Raises nothing."""
    if facts.kind == RequestKind.SESSION:
        return policies.judge_session(facts, app_ids)
    return policies.judge_sign_in(facts)


def felt(verdict: Verdict) -> Decision:
    """Return the decision as if every policy were enforced."""
    return max(verdict.decision, verdict.would_have or Decision.ALLOW)


def share_of(user_id: str, shares: int) -> int:
    """Return which process counts a user; the same in every process."""
    return zlib.crc32(user_id.encode()) % shares


def merge(tallies: Sequence[Tally]) -> Tally:
    """Return one tally of several that share no user. Raises nothing."""
    merged = Tally()
    reasons: Counter[str] = Counter()
    for tally in tallies:
        reasons.update(tally.reasons)
        merged.stricter += tally.stricter
        merged.milder += tally.milder
        merged.unreadable += tally.unreadable
        merged.read = max(merged.read, tally.read)
        for date, day in tally.days.items():
            into = merged.days.setdefault(date, Day())
            into.contexts += day.contexts
            into.prompts += day.prompts
            into.denials += day.denials
            into.logouts += day.logouts
            into.users |= day.users
            into.seen |= day.seen
    merged.reasons = dict(reasons)
    return merged


def report(tally: Tally, *, contexts_max: int = CONTEXTS_MAX) -> dict[str, Any]:
    """Render a tally for people. Raises nothing."""
    days = [_shown(date, day) for date, day in sorted(tally.days.items())]
    user_days = sum(len(day.seen) for day in tally.days.values())
    prompts = sum(day.prompts for day in tally.days.values())
    hit = {user_id for day in tally.days.values() for user_id in day.users}
    reasons = sorted(tally.reasons.items(), key=lambda each: (-each[1], each[0]))
    return {
        "contexts": sum(day.contexts for day in tally.days.values()),
        "prompts": prompts,
        "denials": sum(day.denials for day in tally.days.values()),
        "logouts": sum(day.logouts for day in tally.days.values()),
        "users": len(hit),
        "prompts_per_user_day": round(prompts / user_days, 4) if user_days else 0.0,
        "days": days,
        "top_reasons": [
            {"reason": reason, "contexts": count} for reason, count in reasons[:REASONS_MAX]
        ],
        "stricter_than_then": tally.stricter,
        "milder_than_then": tally.milder,
        "unreadable": tally.unreadable,
        "is_cut": tally.read >= contexts_max,
    }


def _shown(date: str, day: Day) -> dict[str, Any]:
    return {
        "day": date,
        "contexts": day.contexts,
        "prompts": day.prompts,
        "denials": day.denials,
        "logouts": day.logouts,
        "users": len(day.users),
    }


def documents_of(policies: Sequence[SessionPolicy]) -> list[PolicyDocument]:
    """Return policies in the form that travels. Raises nothing."""
    return [
        PolicyDocument(
            policy_id=policy.policy_id,
            kind=policy.kind.value,
            document=dict(render_policy(policy)),
            version=policy.version,
        )
        for policy in policies
    ]


def compiled_of(documents: Sequence[PolicyDocument]) -> CompiledPolicies:
    """Return the policies of a job, ready to judge; nothing is ever late. Raises Invalid."""
    return CompiledPolicies(
        [
            parse_policy(each.document, policy_id=each.policy_id, kind=PolicyKind(each.kind))
            for each in documents
        ],
        timer=_standing_still,
    )


def _standing_still() -> float:
    # A replay is no request: a busy machine must not change what it counts.
    return 0.0


def with_proposed(present: Sequence[SessionPolicy], proposed: SessionPolicy) -> list[SessionPolicy]:
    """Return the tenant's policies with one of them replaced or added."""
    others: Mapping[str, SessionPolicy] = {each.policy_id: each for each in present}
    return list((dict(others) | {proposed.policy_id: proposed}).values())
