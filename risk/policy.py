"""The entity risk policy: ordered rules, first match decides. Pure.

A policy is in `monitor` (says what it would have done) or in `enforce`. A tenant without a stored
policy has the standard rules in monitor. Behind all rules stands the catch-all at priority 99,
which only logs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from risk import catalogue
from risk.model import Level
from risk.policies.reading import (
    check_unique,
    members,
    number,
    one_of,
    refuse,
    sides,
    strings,
    text,
)
from runtime.errors import Invalid

CATCH_ALL_PRIORITY: Final = 99
CATCH_ALL_NAME: Final = "catch-all"
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
    found = members(document, "", {"mode", "rules"})
    mode = found.get("mode", PolicyMode.MONITOR.value)
    one_of(mode, tuple(PolicyMode), "/mode")
    listed = found.get("rules")
    if not isinstance(listed, list) or len(listed) > CATCH_ALL_PRIORITY:
        refuse("/rules", f"an array of at most {CATCH_ALL_PRIORITY} rules")
    rules = [
        rule
        for position, item in enumerate(listed)
        if (rule := _parse_rule(item, f"/rules/{position}")) != CATCH_ALL
    ]
    check_unique([rule.priority for rule in rules], "priority")
    check_unique([rule.name for rule in rules], "name")
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
    found = members(item, at, {"name", "priority", "level", "actions", "detections", "groups"})
    detections_include, detections_exclude = sides(found.get("detections"), f"{at}/detections")
    if detections_include and detections_exclude:
        refuse(f"{at}/detections", "include or exclude, not both")
    for name in sorted(detections_include | detections_exclude):
        if not catalogue.is_own_name(name):
            one_of(name, catalogue.FINDING_TYPES, f"{at}/detections")
    groups_include, groups_exclude = sides(found.get("groups"), f"{at}/groups")
    level = found.get("level", ANY)
    one_of(level, (ANY, *Level.__members__), f"{at}/level")
    rule = Rule(
        name=text(found.get("name"), f"{at}/name"),
        priority=number(found.get("priority"), f"{at}/priority", least=1, most=CATCH_ALL_PRIORITY),
        actions=_parse_actions(found.get("actions"), f"{at}/actions"),
        level=None if level == ANY else Level[str(level)],
        detections_include=detections_include,
        detections_exclude=detections_exclude,
        groups_include=groups_include,
        groups_exclude=groups_exclude,
    )
    if rule.priority == CATCH_ALL_PRIORITY and rule != CATCH_ALL:
        refuse(f"{at}/priority", "1 to 98; 99 is the catch-all and cannot be changed")
    return rule


def _parse_actions(value: object, at: str) -> frozenset[Action]:
    names = strings(value, at, allowed=Action)
    if not names:
        refuse(at, "at least one action; LOG does nothing else")
    return frozenset(Action(name) for name in names)
