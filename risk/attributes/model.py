"""Rules over attributes and what follows from them. Pure.

A question is permitted when a rule permits it and none denies it. A rule that permits and cannot be
evaluated permits nothing; one that denies and cannot be evaluated denies: closed when in doubt.
Source: standards AZF-14.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from risk.policies.expressions import (
    Expression,
    ExpressionError,
    activate_attributes,
    check_attributes,
)
from risk.verdict import Decision, Scope, Verdict
from runtime.errors import Invalid

NAME_CHARS_MAX: Final = 100
TYPE_CHARS_MAX: Final = 200
TYPES_MAX: Final = 50
#: of one tenant
RULES_MAX: Final = 200
#: what the configuration feed calls them
KIND: Final = "attribute-rules"
NO_RULE: Final = "no_attribute_rule"


class Effect(StrEnum):
    """What a rule does where its expression holds."""

    PERMIT = "permit"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeRule:
    """One rule. resource_types: what it is asked about. expression: CEL over a question."""

    tenant_id: str
    rule_id: str
    name: str
    resource_types: tuple[str, ...]
    effect: Effect
    expression: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Compiled:
    """The rules of one tenant, ready to be asked; by resource type."""

    by_type: Mapping[str, Sequence[tuple[AttributeRule, Expression]]]

    def judge(self, question: Mapping[str, Any]) -> Verdict | None:
        """Return the verdict on a question; None when no rule names its resource type.

        question: `{subject, action, resource, context}` as objects. Raises nothing.
        """
        rules = self.by_type.get(question["resource"]["type"])
        if not rules:
            return None
        permits = False
        try:
            activation = activate_attributes(question)
        except ExpressionError:
            return _denied("attributes_unreadable")
        for rule, expression in rules:
            try:
                holds = expression.holds(activation)
            except ExpressionError:
                if rule.effect is Effect.DENY:
                    return _denied(f"attribute_rule_failed:{rule.name}")
                continue
            if holds and rule.effect is Effect.DENY:
                return _denied(f"attribute_rule:{rule.name}")
            permits = permits or holds
        if permits:
            return Verdict(decision=Decision.ALLOW, scope=Scope.APP)
        return _denied(NO_RULE)


def check_rule(rule: AttributeRule) -> None:
    """Raise Invalid with one pointer per wrong member."""
    problems: list[tuple[str, str]] = []
    if not rule.name.isprintable() or not 0 < len(rule.name) <= NAME_CHARS_MAX:
        problems.append(("/name", f"1 to {NAME_CHARS_MAX} printable characters"))
    if not 0 < len(rule.resource_types) <= TYPES_MAX or any(
        not 0 < len(each) <= TYPE_CHARS_MAX for each in rule.resource_types
    ):
        problems.append(("/resource_types", f"1 to {TYPES_MAX} names"))
    try:
        check_attributes(rule.expression)
    except ExpressionError as error:
        problems.append(("/expression", str(error)))
    if problems:
        raise Invalid("The rule is not acceptable.", pointers=tuple(problems))


def compile_rules(rules: Iterable[AttributeRule]) -> Compiled:
    """Return rules ready to be asked, in the order of their names. Raises ExpressionError."""
    by_type: dict[str, list[tuple[AttributeRule, Expression]]] = {}
    for rule in sorted(rules, key=lambda each: each.name):
        for resource_type in rule.resource_types:
            by_type.setdefault(resource_type, []).append((rule, check_attributes(rule.expression)))
    return Compiled(by_type)


def _denied(reason: str) -> Verdict:
    return Verdict(decision=Decision.DENY, scope=Scope.APP, reasons=(reason,))
