"""Ordered rules, first match; what may be saved."""

from __future__ import annotations

from typing import Any

import pytest

from risk.model import Level
from risk.policy import (
    CATCH_ALL,
    DEFAULT_POLICY,
    STANDARD_RULES,
    Action,
    Policy,
    PolicyFacts,
    PolicyMode,
    Rule,
    decide,
    parse_policy,
    preset,
    render_policy,
    render_rule,
    restore_policy,
)
from runtime.errors import Invalid


def facts(level: Level = Level.HIGH, *detections: str, groups: tuple[str, ...] = ()) -> PolicyFacts:
    return PolicyFacts(level=level, detections=frozenset(detections), groups=frozenset(groups))


def rule(name: str = "r", priority: int = 1, **more: Any) -> Rule:
    return Rule(name=name, priority=priority, **({"actions": frozenset({Action.NOTIFY})} | more))


def enforced(*rules: Rule) -> Policy:
    return Policy(mode=PolicyMode.ENFORCE, rules=rules)


@pytest.mark.parametrize(
    ("level", "name", "actions"),
    [
        (Level.LOW, "low-log", {"LOG"}),
        (Level.MEDIUM, "medium-step-up", {"REQUIRE_STEP_UP_NEXT", "NOTIFY"}),
        (Level.HIGH, "high-contain", {"QUARANTINE", "UNIVERSAL_LOGOUT", "NOTIFY"}),
    ],
)
def test_the_standard_preset_answers_each_level(level: Level, name: str, actions: set[str]) -> None:
    decision = decide(preset("standard", mode=PolicyMode.ENFORCE), facts(level))
    assert (decision.rule, set(decision.actions)) == (name, actions)
    assert decision.would_have == frozenset()


def test_monitor_mode_acts_on_nothing_and_says_what_it_would_have_done() -> None:
    decision = decide(DEFAULT_POLICY, facts(Level.HIGH))
    assert decision.mode is PolicyMode.MONITOR
    assert decision.actions == frozenset()
    assert decision.would_have == {"QUARANTINE", "UNIVERSAL_LOGOUT", "NOTIFY"}


def test_the_first_rule_that_matches_decides() -> None:
    policy = enforced(rule("a", 1, level=Level.LOW), rule("b", 2), rule("c", 3))
    assert decide(policy, facts()).rule == "b"


def test_the_catch_all_logs() -> None:
    decision = decide(enforced(), facts())
    assert (decision.rule, set(decision.actions)) == ("catch-all", {"LOG"})
    assert CATCH_ALL.priority == 99


@pytest.mark.parametrize(
    ("conditions", "given", "matches"),
    [
        ({"level": Level.HIGH}, facts(Level.HIGH), True),
        ({"level": Level.HIGH}, facts(Level.MEDIUM), False),
        ({"detections_include": frozenset({"x"})}, facts(Level.HIGH, "x", "y"), True),
        ({"detections_include": frozenset({"x"})}, facts(Level.HIGH, "y"), False),
        ({"detections_exclude": frozenset({"x"})}, facts(Level.HIGH, "x"), False),
        ({"detections_exclude": frozenset({"x"})}, facts(Level.HIGH, "x", "y"), True),
        ({"detections_exclude": frozenset({"x"})}, facts(Level.HIGH), True),
        ({"groups_include": frozenset({"g"})}, facts(groups=("g", "h")), True),
        ({"groups_include": frozenset({"g"})}, facts(groups=("h",)), False),
        ({"groups_exclude": frozenset({"g"})}, facts(groups=("g", "h")), False),
        ({"groups_exclude": frozenset({"g"})}, facts(groups=("h",)), True),
    ],
)
def test_all_conditions_of_a_rule_must_hold(
    conditions: dict[str, Any], given: PolicyFacts, *, matches: bool
) -> None:
    assert (decide(enforced(rule("r", 1, **conditions)), given).rule == "r") is matches


def test_a_policy_survives_rendering_and_parsing() -> None:
    policy = enforced(
        *STANDARD_RULES,
        rule("inc", 40, detections_include=frozenset({"account_hijacked"})),
        rule("exc", 41, detections_exclude=frozenset({"account_disabled"}), level=Level.LOW),
        rule("grp", 42, groups_include=frozenset({"a"}), groups_exclude=frozenset({"b"})),
    )
    rendered = render_policy(policy)
    assert rendered["rules"][-1] == render_rule(CATCH_ALL)  # type: ignore[index]  # a list
    assert parse_policy(rendered) == policy


def test_rules_are_kept_in_order_of_priority() -> None:
    parsed = parse_policy({"rules": [render_rule(rule("late", 9)), render_rule(rule("early", 2))]})
    assert parsed.mode is PolicyMode.MONITOR
    assert [each.name for each in parsed.rules] == ["early", "late"]


GOOD: dict[str, Any] = {"name": "r", "priority": 5, "actions": ["LOG"]}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (
            {"detections": {"include": ["account_hijacked"], "exclude": ["account_disabled"]}},
            "/rules/0/detections",
        ),
        ({"detections": {"include": ["no_such_finding"]}}, "/rules/0/detections"),
        ({"detections": ["account_hijacked"]}, "/rules/0/detections"),
        ({"detections": {"include": [1]}}, "/rules/0/detections/include"),
        ({"groups": {"only": ["g"]}}, "/rules/0/groups/only"),
        ({"groups": {"exclude": "g"}}, "/rules/0/groups/exclude"),
        ({"level": "EXTREME"}, "/rules/0/level"),
        ({"level": ["HIGH"]}, "/rules/0/level"),
        ({"actions": []}, "/rules/0/actions"),
        ({"actions": ["EXPLODE"]}, "/rules/0/actions"),
        ({"actions": None}, "/rules/0/actions"),
        ({"priority": 0}, "/rules/0/priority"),
        ({"priority": 99}, "/rules/0/priority"),
        ({"priority": 100}, "/rules/0/priority"),
        ({"priority": True}, "/rules/0/priority"),
        ({"priority": "1"}, "/rules/0/priority"),
        ({"name": ""}, "/rules/0/name"),
        ({"name": 7}, "/rules/0/name"),
        ({"colour": "red"}, "/rules/0/colour"),
    ],
)
def test_a_rule_that_breaks_a_rule_is_refused_with_its_place(
    change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        parse_policy({"rules": [GOOD | change]})
    assert refused.value.pointers[0][0] == pointer


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"rules": None},
        {"mode": "sometimes", "rules": []},
        {"mode": ["monitor"], "rules": []},
        {"rules": [], "extra": 1},
        {"rules": [GOOD, GOOD | {"name": "other"}]},
        {"rules": [GOOD, GOOD | {"priority": 6}]},
        {"rules": [GOOD] * 100},
    ],
)
def test_a_document_that_breaks_a_rule_is_refused(document: object) -> None:
    with pytest.raises(Invalid):
        parse_policy(document)


def test_a_stored_rule_that_can_no_longer_be_read_is_skipped_and_reported() -> None:
    stored = [GOOD, GOOD | {"priority": 6, "detections": {"include": ["retired_finding"]}}]
    policy, skipped = restore_policy("enforce", stored)
    assert [each.name for each in policy.rules] == ["r"]
    assert len(skipped) == 1
    assert "/rules/1/detections" in skipped[0]


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(Invalid):
        preset("strict", mode=PolicyMode.ENFORCE)
