"""What is odd about a policy although it can be read: names that lead nowhere, rules never reached.

A zone or an app that is not there is refused: the rule would never match, or always. What may be
meant is told as a warning. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from risk.model import Level
from risk.policies import reading
from risk.policies.conditions import AgeCondition, Conditions, LevelCondition
from risk.policies.documents import PolicyKind, PolicyRule, SessionPolicy
from risk.policies.expressions import Expression, ExpressionError, activate
from risk.policies.facts import RequestFacts, RequestKind


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What there is to refer to. None: nobody knows, so nothing is refused for it."""

    zones: frozenset[str] | None = None
    apps: frozenset[str] | None = None


def check_references(policy: SessionPolicy, there: References) -> None:
    """Raise Invalid for a zone or an app that is not there."""
    _check(policy.app_ids, there.apps, "/apps", "app")
    detected = policy.detection.zones
    _check({*detected.include, *detected.exclude}, there.zones, "/detection/zones", "zone")
    for position, rule in enumerate(policy.rules):
        at = f"/rules/{position}/when"
        _check(rule.when.names_of("zones"), there.zones, f"{at}/zones", "zone")
        _check(rule.when.names_of("apps"), there.apps, f"{at}/apps", "app")


def _check(names: Iterable[str], there: frozenset[str] | None, at: str, what: str) -> None:
    if there is None:
        return
    missing = sorted(set(names) - there)
    if missing:
        reading.refuse(at, f"there is no {what} {', '.join(missing)}")


def check_ages(policy: SessionPolicy) -> None:
    """Raise Invalid for a step-up that would be asked for again as soon as it is passed."""
    for position, rule in enumerate(policy.rules):
        if _asks_twice(rule):
            reading.refuse(f"/rules/{position}/then/max_age", _TWICE)


_TWICE: Final = (
    "at most over_s of auth_age: an older proof passes the step-up, and is asked for anew"
)


def _asks_twice(rule: PolicyRule) -> bool:
    """Tell whether a step-up takes a proof that is so old already that the rule matches again."""
    age, max_age = rule.when.age, rule.then.max_age
    if age is None or age.over_s is None or max_age is None:
        return False
    return max_age > age.over_s


def warnings(policy: SessionPolicy) -> list[str]:
    """Return what its author should look at, in their words. Raises nothing."""
    found = []
    for position, rule in enumerate(policy.rules):
        earlier = next(
            (each for each in policy.rules[:position] if implies(rule.when, each.when)), None
        )
        if earlier is not None:
            found.append(f"rule {rule.name} is never reached: {earlier.name} matches before it")
        found += _of_expression(rule)
        if _asks_twice(rule):
            found.append(f"rule {rule.name} may ask twice in a row: its max_age is {_TWICE}")
    if policy.kind is PolicyKind.APP_SIGN_IN:
        if not policy.app_ids and policy.policy_id.startswith("pol_"):
            found.append("it names no app, so it never applies")
        found += [
            f"rule {rule.name} never matches: its apps are not the policy's"
            for rule in policy.rules
            if policy.app_ids and not _meets(rule.when, policy.app_ids)
        ]
    return found


def _meets(when: Conditions, app_ids: Iterable[str]) -> bool:
    return all(
        each.which != "apps"
        or any(
            (not each.include or app in each.include) and app not in each.exclude for app in app_ids
        )
        for each in when.sets
    )


_FULL = RequestFacts(
    kind=RequestKind.SESSION, level=Level.MEDIUM, posture={"any": "any"}, behaviours={"any": "any"}
)


def _of_expression(rule: PolicyRule) -> list[str]:
    """Try an expression on a request with hardly anything; `extra` is for those who know."""
    expression = rule.when.expression
    if expression is None or "extra" in expression.names:
        return []
    if not expression.names:
        return [f"rule {rule.name}: its expression looks at nothing and is always the same"]
    try:
        expression.holds(activate(_FULL, expression.names))
    except ExpressionError as error:
        return [f"rule {rule.name}: its expression can fail, for instance: {error}; use has(...)"]
    return []


def implies(one: Conditions, other: Conditions) -> bool:
    """Tell whether whatever matches `one` surely matches `other`. False when in doubt."""
    return (
        (not other.actions or (bool(one.actions) and one.actions <= other.actions))
        and all(any(_level(mine, each) for mine in one.levels) for each in other.levels)
        and all(_set_implied(one, each.which, each.include, each.exclude) for each in other.sets)
        and all(
            any(
                mine.key == each.key
                and mine.is_excluded is each.is_excluded
                and (each.values <= mine.values if each.is_excluded else mine.values <= each.values)
                for mine in one.posture
            )
            for each in other.posture
        )
        and _age(one.age, other.age)
        and _same(one.expression, other.expression)
    )


def _level(mine: LevelCondition, other: LevelCondition) -> bool:
    if mine.which != other.which:
        return False
    if other.at_least:
        return mine.level >= other.level
    return mine.level is other.level and (not mine.at_least or mine.level is Level.HIGH)


def _set_implied(
    one: Conditions, which: str, include: frozenset[str], exclude: frozenset[str]
) -> bool:
    mine = [each for each in one.sets if each.which == which]
    included = not include or any(each.include and each.include <= include for each in mine)
    excluded = not exclude or any(exclude <= each.exclude for each in mine)
    # Excluding findings is milder than it looks: what has others matches all the same.
    if which == "detections" and exclude:
        return any(each.exclude == exclude for each in mine)
    return included and excluded


def _age(mine: AgeCondition | None, other: AgeCondition | None) -> bool:
    if other is None:
        return True
    if mine is None:
        return False
    over = other.over_s is None or (mine.over_s is not None and mine.over_s >= other.over_s)
    within = other.within_s is None or (
        mine.within_s is not None and mine.within_s <= other.within_s
    )
    return over and within


def _same(mine: Expression | None, other: Expression | None) -> bool:
    return other is None or (mine is not None and mine.source == other.source)
