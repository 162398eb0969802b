"""The policies of one tenant's sessions and sign-ins, ready to judge. Pure but for counters.

    facts ─▶ global session policy ──────────────┐
          ─▶ policy of each app (or the default) ─┴▶ what fails ─▶ what failing means ─▶ strongest

Each policy: the first rule that matches, else ALLOW. A failure of an app's policy is about that
app, one of the global policy about the session. In `judge_session` the session protection policy
says which changes are judged at all and what failing means. A policy that monitors allows, and the
verdict says what it would have decided. Nothing waits: past the deadline the stated fallbacks
decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
from prometheus_client import Counter

from risk.contexts.model import Change
from risk.policies.ages import Ages
from risk.policies.assurance import decided, why
from risk.policies.conditions import SetCondition, Test, tests_of
from risk.policies.documents import (
    DEFAULT_APP_ID,
    GLOBAL_SESSION_ID,
    SESSION_PROTECTION_ID,
    Failure,
    Outcome,
    PolicyKind,
    PolicyRule,
    SessionPolicy,
)
from risk.policies.expressions import Expression, ExpressionError, activate
from risk.policies.facts import RequestFacts, RequestKind
from risk.policies.presets import DEFAULTS
from risk.policy import PolicyMode
from risk.verdict import Decision, Scope, Verdict, Violation, as_verdict, strongest

__all__ = ["CompiledPolicies", "RequestFacts", "RequestKind"]

#: for a whole decision, from the start of the request's evaluation
DEADLINE_S: Final = 0.020
FAILURE_LOG_EVERY_S: Final = 60.0
FALLBACK: Final = "fallback"
OUT_OF_TIME: Final = "out_of_time"
#: changes that an exempt origin excuses
_OF_NETWORK: Final = frozenset({Change.MINOR, Change.NETWORK, Change.ASN, Change.COUNTRY})

log = structlog.get_logger()
_failures_total = Counter(
    "hub_risk_policy_expression_failures_total",
    "Expressions of policies that gave no answer; the rule did not match.",
    ["kind"],
)
_deadlines_total = Counter(
    "hub_risk_policy_deadlines_total",
    "Decisions for which time was up: the policies' fallbacks decided.",
    ["kind"],
)

_ALLOW_APP: Final = Verdict(decision=Decision.ALLOW, scope=Scope.APP)
_ALLOW: Final = Verdict(decision=Decision.ALLOW, scope=Scope.SESSION)


class _OutOfTime(Exception):  # noqa: N818 - a turn of events inside this module
    """The deadline has passed."""


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    tests: tuple[Test, ...]
    expression: Expression | None
    outcome: Outcome


class _Policy:
    """One policy with its rules made ready."""

    __slots__ = ("by_app", "policy", "rules", "scope")

    def __init__(self, policy: SessionPolicy) -> None:
        self.policy = policy
        self.scope = Scope.APP if policy.kind is PolicyKind.APP_SIGN_IN else Scope.SESSION
        self.rules = tuple(_compile(rule) for rule in policy.rules)
        self.by_app = any(rule.when.depends_on_app() for rule in policy.rules)


def _compile(rule: PolicyRule) -> _Rule:
    return _Rule(rule.name, tests_of(rule.when), rule.when.expression, rule.then)


class _Run:
    """One decision: its facts, the variables of its expressions, its deadline."""

    __slots__ = ("_activation", "_names", "_started_s", "_timer", "facts")

    def __init__(
        self,
        facts: RequestFacts,
        names: frozenset[str],
        timer: Callable[[], float],
        started_s: float | None,
    ) -> None:
        self.facts = facts
        self._names = names
        self._timer = timer
        self._started_s = timer() if started_s is None else started_s
        self._activation: Any = None

    def about(self, facts: RequestFacts) -> None:
        """Go on with other facts."""
        self.facts = facts
        self._activation = None

    def holds(self, expression: Expression) -> bool:
        """Tell whether an expression is true. Raises ExpressionError, _OutOfTime."""
        if self._timer() - self._started_s > DEADLINE_S:
            raise _OutOfTime
        if self._activation is None:
            self._activation = activate(self.facts, self._names)
        return expression.holds(self._activation)


class CompiledPolicies:
    """One tenant's policies; immutable. Made anew when the tenant's policies change.

    stored: what the tenant has; what is missing of the singletons is the default. timer: seconds
    that only go forward. ages: of proofs, at which something else may be decided.
    """

    def __init__(
        self,
        stored: Iterable[SessionPolicy] = (),
        *,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        by_id = {**DEFAULTS, **{policy.policy_id: policy for policy in stored}}
        self.protection = by_id.pop(SESSION_PROTECTION_ID)
        self._global = _Policy(by_id.pop(GLOBAL_SESSION_ID))
        self._default = _Policy(by_id.pop(DEFAULT_APP_ID))
        self._timer = timer
        self._by_app: dict[str, _Policy] = {}
        for policy in by_id.values():
            made = _Policy(policy)
            self._by_app |= dict.fromkeys(policy.app_ids, made)
        self._names = frozenset(
            name
            for each in (self._global, self._default, *self._by_app.values())
            for rule in each.rules
            if rule.expression
            for name in rule.expression.names
        )
        self.ages = Ages(
            rule
            for each in (self._global, self._default, *self._by_app.values())
            for rule in each.policy.rules
        )
        self._logged_at: dict[tuple[str, str], float] = {}

    def judge_sign_in(self, facts: RequestFacts, *, started_s: float | None = None) -> Verdict:
        """Return what the global policy and that of the app say of a sign-in or an enrolment.

        started_s: when the decision began, on the timer; None is now. Raises nothing.
        """
        run = _Run(facts, self._names, self._timer, started_s)
        policies = [(self._global, ())] + (
            [(self._of_app(facts.app_id), (facts.app_id,))] if facts.app_id else []
        )
        try:
            found = [self._judge(policy, run, app_ids) for policy, app_ids in policies]
        except _OutOfTime:
            return self._out_of_time(facts, [policy for policy, _ in policies])
        return _joined(found)

    def judge_session(
        self, facts: RequestFacts, app_ids: Sequence[str], *, started_s: float | None = None
    ) -> Verdict:
        """Return what the global policy and those of the session's apps say of a live session.

        facts.changes: since the context before; with none, an app is opened for the first time, and
        the policies are asked whatever the risk. Raises nothing.
        """
        if not self._is_judged(facts):
            return _ALLOW
        run = _Run(facts, self._names, self._timer, started_s)
        by_policy: dict[_Policy, list[str]] = {}
        for app_id in dict.fromkeys(app_ids):
            by_policy.setdefault(self._of_app(app_id), []).append(app_id)
        try:
            found = [self._judge(self._global, run, (), in_session=True)]
            for policy, apps in by_policy.items():
                found += self._judge_apps(policy, run, facts, apps)
        except _OutOfTime:
            return self._out_of_time(facts, [self._global, *by_policy], in_session=True)
        return _joined(found)

    def default_verdict(self, facts: RequestFacts, app_ids: Sequence[str] = ()) -> Verdict:
        """Return what is decided when time is up before the policies were asked; counted."""
        policies = [self._global, *{self._of_app(app_id): None for app_id in app_ids}]
        in_session = facts.kind == RequestKind.SESSION
        return self._out_of_time(facts, policies, in_session=in_session)

    def _of_app(self, app_id: str) -> _Policy:
        return self._by_app.get(app_id, self._default)

    def _is_judged(self, facts: RequestFacts) -> bool:
        changes = [change for change in facts.changes if change != Change.NONE]
        if not changes:
            return True
        if facts.exempt and _OF_NETWORK.issuperset(changes):
            return False
        detection = self.protection.detection
        return facts.level >= detection.min_level and _within(detection.zones, facts.zones)

    def _judge_apps(
        self, policy: _Policy, run: _Run, facts: RequestFacts, apps: Sequence[str]
    ) -> list[Verdict]:
        if not policy.by_app:
            return [self._judge(policy, run, tuple(apps), in_session=True)]
        found = []
        for app_id in apps:
            run.about(replace(facts, app_id=app_id))
            found.append(self._judge(policy, run, (app_id,), in_session=True))
        run.about(facts)
        return found

    def _judge(
        self, compiled: _Policy, run: _Run, app_ids: tuple[str, ...], *, in_session: bool = False
    ) -> Verdict:
        policy = compiled.policy
        rule, failed = self._first(compiled, run)
        outcome = None if rule is None else rule.outcome
        decision = Decision.ALLOW if outcome is None else decided(outcome, run.facts)
        if failed is not None and policy.fallback > decision:
            return self._fallback(compiled, run.facts, app_ids, failed, in_session=in_session)
        if rule is None or outcome is None or decision is Decision.ALLOW:
            if policy.mode is PolicyMode.MONITOR:
                return _calm(compiled.scope, PolicyMode.MONITOR)
            if outcome is not None and outcome.log:
                return replace(_ALLOW, logs=f"{policy.name}/{rule.name}" if rule else "")
            return _ALLOW if compiled.scope is Scope.SESSION else _ALLOW_APP
        violation = Violation(
            policy=policy.name,
            policy_id=policy.policy_id,
            version=policy.version,
            rule=rule.name,
            decision=decision,
            scope=compiled.scope if outcome.scope is None else outcome.scope,
            why=why(outcome, run.facts),
            app_ids=app_ids,
            is_enforced=policy.mode is PolicyMode.ENFORCE,
            acr=outcome.acr,
            amr_any_of=outcome.amr_any_of,
            max_age=outcome.max_age,
            alerts=outcome.alert,
        )
        return as_verdict(self._meaning(violation, run.facts) if in_session else violation)

    def _first(self, compiled: _Policy, run: _Run) -> tuple[_Rule | None, str | None]:
        """Return the first rule that matches, and the first whose expression gave no answer."""
        facts, failed = run.facts, None
        for rule in compiled.rules:
            for test in rule.tests:
                if not test(facts):
                    break
            else:
                if rule.expression is None:
                    return rule, failed
                try:
                    if run.holds(rule.expression):
                        return rule, failed
                except ExpressionError as error:
                    failed = failed or rule.name
                    self._note(compiled.policy, rule, error)
        return None, failed

    def _meaning(self, violation: Violation, facts: RequestFacts) -> Violation:
        """Return what a failure in a session leads to, by the session protection policy."""
        enforcement = self.protection.enforcement
        is_enforced = (
            violation.is_enforced
            and self.protection.mode is PolicyMode.ENFORCE
            and enforcement.failure is not Failure.LOG
            and _within(enforcement.groups, facts.groups)
        )
        alerts = violation.alerts or enforcement.alert
        if enforcement.failure is Failure.TERMINATE:
            return replace(
                violation,
                decision=Decision.TERMINATE,
                is_enforced=is_enforced,
                alerts=alerts,
                acr=None,
                amr_any_of=(),
                max_age=None,
            )
        return replace(violation, is_enforced=is_enforced, alerts=alerts)

    def _fallback(
        self,
        compiled: _Policy,
        facts: RequestFacts,
        app_ids: tuple[str, ...],
        failed: str,
        *,
        in_session: bool,
    ) -> Verdict:
        policy = compiled.policy
        if policy.fallback is Decision.ALLOW:
            return _calm(compiled.scope, policy.mode)
        violation = Violation(
            policy=policy.name,
            policy_id=policy.policy_id,
            version=policy.version,
            rule=FALLBACK,
            decision=policy.fallback,
            scope=compiled.scope,
            why=f"no answer of {failed}",
            app_ids=app_ids,
            is_enforced=policy.mode is PolicyMode.ENFORCE,
            max_age=0 if policy.fallback is Decision.STEP_UP else None,
        )
        return as_verdict(self._meaning(violation, facts) if in_session else violation)

    def _out_of_time(
        self, facts: RequestFacts, policies: Iterable[_Policy], *, in_session: bool = False
    ) -> Verdict:
        _deadlines_total.labels(str(facts.kind)).inc()
        verdict = strongest(
            [
                self._fallback(policy, facts, (), OUT_OF_TIME, in_session=in_session)
                for policy in policies
            ]
        )
        return replace(verdict, reasons=(*verdict.reasons, OUT_OF_TIME))

    def _note(self, policy: SessionPolicy, rule: _Rule, error: ExpressionError) -> None:
        _failures_total.labels(policy.kind.value).inc()
        key, now_s = (policy.policy_id, rule.name), self._timer()
        # At most one entry per rule of the tenant, and one line per rule and minute.
        if now_s - self._logged_at.get(key, float("-inf")) < FAILURE_LOG_EVERY_S:
            return
        self._logged_at[key] = now_s
        log.warning(
            "policy_expression.failed", policy=policy.policy_id, rule=rule.name, err=str(error)
        )


def _joined(found: list[Verdict]) -> Verdict:
    if any(each.violations for each in found):
        return strongest(found)
    # Most requests: everybody allows, and there is nothing to join.
    acting = [each for each in found if each.mode is PolicyMode.ENFORCE]
    return next((each for each in acting if each.logs), (acting or found)[0])


_CALM: Final = {
    (scope, mode): Verdict(decision=Decision.ALLOW, scope=scope, mode=mode)
    for scope in Scope
    for mode in PolicyMode
}


def _calm(scope: Scope, mode: PolicyMode) -> Verdict:
    return _CALM[scope, mode]


def _within(condition: SetCondition, present: frozenset[str]) -> bool:
    """Tell whether what is present satisfies a condition that may be empty."""
    if condition.include and condition.include.isdisjoint(present):
        return False
    return condition.exclude.isdisjoint(present)
