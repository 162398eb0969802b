"""The entity risk policy: ordered rules, first match decides. Pure.

A policy is in `monitor` (says what it would have done) or in `enforce`. A tenant without a stored
policy has the standard rules in monitor. Behind all rules stands the catch-all at priority 99,
which only logs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NoReturn, TypeVar

from risk import catalogue
from risk.model import Level
from runtime.errors import Invalid

CATCH_ALL_PRIORITY: Final = 99
CATCH_ALL_NAME: Final = "catch-all"
NAME_CHARS_MAX: Final = 100
LIST_ITEMS_MAX: Final = 200
GROUP_CHARS_MAX: Final = 200
ANY: Final = "ANY"


class PolicyMode(StrEnum):
    """Whether a policy acts."""

    MONITOR = "monitor"
    ENFORCE = "enforce"


class Action(StrEnum):
    """What a rule asks for."""

    LOG = "LOG"
    NOTIFY = "NOTIFY"
    REQUIRE_STEP_UP_NEXT = "REQUIRE_STEP_UP_NEXT"
    QUARANTINE = "QUARANTINE"
    UNIVERSAL_LOGOUT = "UNIVERSAL_LOGOUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: all its conditions must hold. level: None for any.

    detections_include, detections_exclude: names of findings, at most one of the two. groups: the
    user's groups.
    """

    name: str
    priority: int
    actions: frozenset[Action]
    level: Level | None = None
    detections_include: frozenset[str] = frozenset()
    detections_exclude: frozenset[str] = frozenset()
    groups_include: frozenset[str] = frozenset()
    groups_exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Rules in ascending order of priority; the catch-all comes after them."""

    mode: PolicyMode
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """What rules look at. detections: names of the findings that support the level."""

    level: Level
    detections: frozenset[str]
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision:
    """What the policy says. actions: to be done; would_have: what monitor mode held back."""

    rule: str
    actions: frozenset[str]
    mode: PolicyMode
    would_have: frozenset[str]


CATCH_ALL: Final = Rule(
    name=CATCH_ALL_NAME, priority=CATCH_ALL_PRIORITY, actions=frozenset({Action.LOG})
)
STANDARD_RULES: Final = (
    Rule(
        name="high-contain",
        priority=10,
        level=Level.HIGH,
        actions=frozenset({Action.QUARANTINE, Action.UNIVERSAL_LOGOUT, Action.NOTIFY}),
    ),
    Rule(
        name="medium-step-up",
        priority=20,
        level=Level.MEDIUM,
        actions=frozenset({Action.REQUIRE_STEP_UP_NEXT, Action.NOTIFY}),
    ),
    Rule(name="low-log", priority=30, level=Level.LOW, actions=frozenset({Action.LOG})),
)
PRESETS: Final[Mapping[str, tuple[Rule, ...]]] = MappingProxyType({"standard": STANDARD_RULES})
DEFAULT_POLICY: Final = Policy(mode=PolicyMode.MONITOR, rules=STANDARD_RULES)


def decide(policy: Policy, facts: PolicyFacts) -> PolicyDecision:
    """Return the outcome of the first rule that matches. Total: the catch-all always does."""
    rule = next((rule for rule in policy.rules if _matches(rule, facts)), CATCH_ALL)
    actions = _values(rule.actions)
    enforced = policy.mode is PolicyMode.ENFORCE
    return PolicyDecision(
        rule=rule.name,
        actions=actions if enforced else frozenset(),
        mode=policy.mode,
        would_have=frozenset() if enforced else actions,
    )


@functools.cache
def _values(actions: frozenset[Action]) -> frozenset[str]:
    # Asked for every user of a batch; there are few sets of actions.
    return frozenset(action.value for action in actions)


def preset(name: str, *, mode: PolicyMode) -> Policy:
    """Return a ready-made policy. Raises Invalid for an unknown name."""
    if name not in PRESETS:
        raise Invalid(f"There is no preset of this name; there are: {', '.join(sorted(PRESETS))}.")
    return Policy(mode=mode, rules=PRESETS[name])


def _matches(rule: Rule, facts: PolicyFacts) -> bool:
    if rule.level is not None and rule.level is not facts.level:
        return False
    if rule.detections_include and not rule.detections_include & facts.detections:
        return False
    # A rule that excludes findings steps back only when nothing else supports the level.
    if facts.detections and facts.detections <= rule.detections_exclude:
        return False
    if rule.groups_include and not rule.groups_include & facts.groups:
        return False
    return not rule.groups_exclude & facts.groups


# --- reading and rendering ----------------------------------------------------------------------


def render_policy(policy: Policy) -> dict[str, object]:
    """Render a policy as its JSON document, catch-all included. Raises nothing."""
    return {
        "mode": policy.mode.value,
        "rules": [render_rule(rule) for rule in (*policy.rules, CATCH_ALL)],
    }


def render_rule(rule: Rule) -> dict[str, object]:
    """Render one rule as JSON. Raises nothing."""
    rendered: dict[str, object] = {
        "name": rule.name,
        "priority": rule.priority,
        "level": ANY if rule.level is None else rule.level.name,
        "actions": sorted(rule.actions),
    }
    for member in ("detections", "groups"):
        condition = {
            side: sorted(names)
            for side in ("include", "exclude")
            if (names := getattr(rule, f"{member}_{side}"))
        }
        if condition:
            rendered[member] = condition
    return rendered


def parse_policy(document: object) -> Policy:
    """Read a policy from JSON `{mode, rules: [...]}`; the catch-all may be there, unchanged.

    Raises Invalid with pointers: unknown member, level, action or finding, a priority that is not
    1 to 98 or is used twice, or a rule that both includes and excludes findings.
    """
    members = _members(document, "", {"mode", "rules"})
    mode = members.get("mode", PolicyMode.MONITOR.value)
    _one_of(mode, tuple(PolicyMode), "/mode")
    listed = members.get("rules")
    if not isinstance(listed, list) or len(listed) > CATCH_ALL_PRIORITY:
        _refuse("/rules", f"an array of at most {CATCH_ALL_PRIORITY} rules")
    rules = [
        rule
        for position, item in enumerate(listed)
        if (rule := _parse_rule(item, f"/rules/{position}")) != CATCH_ALL
    ]
    _check_unique([rule.priority for rule in rules], "priority")
    _check_unique([rule.name for rule in rules], "name")
    return Policy(
        mode=PolicyMode(str(mode)), rules=tuple(sorted(rules, key=lambda rule: rule.priority))
    )


def restore_policy(mode: str, rules: Sequence[object]) -> tuple[Policy, tuple[str, ...]]:
    """Read a stored policy; a rule that can no longer be read is skipped and reported.

    Returns (policy, what was wrong with the skipped rules). Raises nothing for a stored mode.
    """
    kept: list[Rule] = []
    skipped: list[str] = []
    for position, item in enumerate(rules):
        try:
            kept.append(_parse_rule(item, f"/rules/{position}"))
        except Invalid as error:
            skipped.append(error.detail)
    return Policy(mode=PolicyMode(mode), rules=tuple(kept)), tuple(skipped)


def _parse_rule(item: object, at: str) -> Rule:
    members = _members(item, at, {"name", "priority", "level", "actions", "detections", "groups"})
    detections_include, detections_exclude = _parse_condition(
        members.get("detections"), f"{at}/detections"
    )
    if detections_include and detections_exclude:
        _refuse(f"{at}/detections", "include or exclude, not both")
    for name in sorted(detections_include | detections_exclude):
        if not catalogue.is_own_name(name):
            _one_of(name, catalogue.FINDING_TYPES, f"{at}/detections")
    groups_include, groups_exclude = _parse_condition(members.get("groups"), f"{at}/groups")
    level = members.get("level", ANY)
    _one_of(level, (ANY, *Level.__members__), f"{at}/level")
    rule = Rule(
        name=_parse_name(members.get("name"), f"{at}/name"),
        priority=_parse_number(members.get("priority"), f"{at}/priority"),
        actions=_parse_actions(members.get("actions"), f"{at}/actions"),
        level=None if level == ANY else Level[str(level)],
        detections_include=detections_include,
        detections_exclude=detections_exclude,
        groups_include=groups_include,
        groups_exclude=groups_exclude,
    )
    if rule.priority == CATCH_ALL_PRIORITY and rule != CATCH_ALL:
        _refuse(f"{at}/priority", "1 to 98; 99 is the catch-all and cannot be changed")
    return rule


def _parse_condition(value: object, at: str) -> tuple[frozenset[str], frozenset[str]]:
    if value is None:
        return frozenset(), frozenset()
    members = _members(value, at, {"include", "exclude"})
    return (
        _parse_strings(members.get("include", []), f"{at}/include"),
        _parse_strings(members.get("exclude", []), f"{at}/exclude"),
    )


def _parse_strings(value: object, at: str) -> frozenset[str]:
    if (
        not isinstance(value, list)
        or len(value) > LIST_ITEMS_MAX
        or not all(isinstance(each, str) and 0 < len(each) <= GROUP_CHARS_MAX for each in value)
    ):
        _refuse(at, f"an array of at most {LIST_ITEMS_MAX} strings")
    return frozenset(value)


def _parse_actions(value: object, at: str) -> frozenset[Action]:
    names = _parse_strings(value, at)
    if not names:
        _refuse(at, "at least one action; LOG does nothing else")
    for name in sorted(names):
        _one_of(name, tuple(Action), at)
    return frozenset(Action(name) for name in names)


def _parse_name(value: object, at: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARS_MAX:
        _refuse(at, f"a string of 1 to {NAME_CHARS_MAX} characters")
    return value


def _parse_number(value: object, at: str) -> int:
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or not 1 <= value <= CATCH_ALL_PRIORITY
    ):
        _refuse(at, "an integer from 1 to 98")
    return value


def _members(value: object, at: str, known: set[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        _refuse(at, "an object")
    for name in value:
        if name not in known:
            _refuse(f"{at}/{name}", f"unknown; known are {', '.join(sorted(known))}")
    return value


ValueT = TypeVar("ValueT", str, int)


def _check_unique(values: Sequence[ValueT], what: str) -> None:
    if len(set(values)) != len(values):
        _refuse("/rules", f"each {what} once")


def _one_of(value: object, allowed: Iterable[str], at: str) -> None:
    names = list(allowed)
    if value not in names:
        _refuse(at, f"one of {', '.join(names)}")


def _refuse(at: str, rule: str) -> NoReturn:
    raise Invalid(
        f"The policy is not valid: {at or 'the document'}: {rule}.", pointers=((at, rule),)
    )
