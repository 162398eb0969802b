"""How long a decision stays what it is while nothing but time passes. Pure.

Rules look at how long ago the user last proved themselves: by `auth_age`, by the `max_age` of a
step-up, and in expressions. Nothing else that they look at moves by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from risk.policies.assurance import CLOCK_SKEW_S
from risk.policies.documents import PolicyRule
from risk.policies.facts import RequestFacts
from risk.verdict import Decision, Verdict

#: what an expression says of an age is believed for this long
EXPRESSION_BELIEVED_S: Final = 1.0


class Ages:
    """The ages at which the rules of one tenant may decide something else. Immutable."""

    __slots__ = ("_changes_s", "_has_expressions", "is_looked_at")

    def __init__(self, rules: Iterable[PolicyRule]) -> None:
        known = list(rules)
        self._changes_s = sorted({each for rule in known for each in _changes_s(rule)})
        self._has_expressions = any(rule.when.reads_age() for rule in known)
        self.is_looked_at = bool(self._changes_s) or self._has_expressions

    def until(self, age_s: float | None, now: datetime) -> datetime | None:
        """Return until when, and no longer, a decision holds; None: time alone changes nothing.

        age_s: since the last proof, None if that is unknown, and stays so.
        """
        if age_s is None or not self.is_looked_at:
            return None
        place = bisect_left(self._changes_s, age_s)
        left_s = [each - age_s for each in self._changes_s[place : place + 1]]
        if self._has_expressions:
            left_s.append(EXPRESSION_BELIEVED_S)
        return now + timedelta(seconds=min(left_s)) if left_s else None


def _changes_s(rule: PolicyRule) -> Iterable[float]:
    yield from map(float, rule.when.ages_s())
    if rule.then.decision is Decision.STEP_UP and rule.then.max_age:
        yield rule.then.max_age + CLOCK_SKEW_S


class Judge(Protocol):
    """What decides about a live session by its facts."""

    @property
    def ages(self) -> Ages:
        """The ages of proofs at which something else may be decided."""
        ...

    def judge_session(self, facts: RequestFacts, app_ids: Sequence[str]) -> Verdict:
        """Return the verdict over the global session policy and those of the session's apps."""
        ...


def asks_for_newer(verdict: Verdict, facts: RequestFacts, policies: Judge) -> bool:
    """Return whether a step-up is asked for because the last proof is too long ago.

    Looked at is what the same request would get right after a proof: a rule that says nothing then
    speaks of the age alone; what a rule says in any case is satisfied by a proof that is recent
    enough. Raises nothing.
    """
    is_enforced = verdict.decision is Decision.STEP_UP
    if not policies.ages.is_looked_at or (
        not is_enforced and verdict.would_have is not Decision.STEP_UP
    ):
        return False
    proven, apps = replace(facts, auth_age_s=0.0), (facts.app_id,) if facts.app_id else ()
    anyway = {
        (each.policy_id, each.rule) for each in policies.judge_session(proven, apps).violations
    }
    return any(
        each.decision is Decision.STEP_UP
        and each.is_enforced is is_enforced
        and ((each.policy_id, each.rule) not in anyway or _is_over(each.max_age, facts.auth_age_s))
        for each in verdict.violations
    )


def _is_over(max_age_s: int | None, age_s: float | None) -> bool:
    return bool(max_age_s) and (age_s is None or age_s > (max_age_s or 0) + CLOCK_SKEW_S)
