"""Expressions: checked when saved, limited, and harmless when they fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from risk.model import Level
from risk.policies.compiled import CompiledPolicies
from risk.policies.expressions import VARIABLES, Expression, ExpressionError, activate, check
from risk.policies.facts import FACT_ITEMS_MAX, RequestFacts
from risk.policies.recorded import RecordedAddress
from risk.policies.syntax import measure
from risk.verdict import Decision
from tests.risk.policy_kit import compiled, everywhere, facts, for_apps, rule

SIGN_IN = "sign_in"


def failures(kind: str) -> float:
    name = "hub_risk_policy_expression_failures_total"
    return REGISTRY.get_sample_value(name, {"kind": kind}) or 0.0


def deadlines(kind: str) -> float:
    return REGISTRY.get_sample_value("hub_risk_policy_deadlines_total", {"kind": kind}) or 0.0


def holds(expression: Expression, given_facts: RequestFacts) -> bool:
    return expression.holds(activate(given_facts, expression.names))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "1 to 1000 characters"),
        ("x" * 1001, "1 to 1000 characters"),
        ("level >=", "Syntax error"),
        ("levl == 1", "undeclared reference"),
        ("level + 'a' == 'b'", "no matching overload"),
        ("level", "not BOOL"),
        ("extra.anything", "not BOOL"),
        ("(" * 40 + "true" + ")" * 40, "recursion"),
        ("true" + " || level == 1" * 60, "nodes"),
        ("groups.exists(g, zones.exists(z, z == g))", "a macro"),
        ("groups.exists(g, groups.map(h, h).exists(i, i == g))", "a macro"),
        ("zones.exists(z, " + "z == 'a' || " * 15 + "false)", "steps"),
        ("ip.matches('(x{100}){10}')", "matches() is not available"),
        ("groups.exists(g, g.matches(ip))", "matches() is not available"),
        ("level == 1 // comment\n.x(", "Syntax error"),
        ("\ud800", "incompatible"),
    ],
)
def test_what_is_wrong_or_expensive_is_refused_when_it_is_saved(source: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why.replace("(", r"\(").replace(")", r"\)")):
        check(source)


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused(source: str) -> None:
    try:
        expression = check(source)
    except ExpressionError:
        return
    assert expression.source == source


@given(st.binary(max_size=80))
def test_any_bytes_are_a_tree_or_refused(raw: bytes) -> None:
    try:
        measure(raw, list_items=FACT_ITEMS_MAX)
    except (ValueError, IndexError):
        return


def test_every_variable_has_a_value_for_every_request() -> None:
    full = facts(
        record=RecordedAddress(ip="192.0.2.1", asn=1, country="FR"),
        groups=frozenset(f"g{number}" for number in range(2 * FACT_ITEMS_MAX)),
        posture={f"p{number}": "x" for number in range(2 * FACT_ITEMS_MAX)},
        extra={"a": {"b": [1, 2.5, None, True, "x"]}},
    )
    everything = check(" && ".join(f"type({name}) == type({name})" for name in VARIABLES[:20]))
    rest = check(" && ".join(f"type({name}) == type({name})" for name in VARIABLES[20:]))
    for each in (full, facts()):
        assert holds(everything, each)
        assert holds(rest, each)
    assert holds(check(f"size(groups) == {FACT_ITEMS_MAX}"), full)
    assert holds(check(f"size(posture) == {FACT_ITEMS_MAX}"), full)


@pytest.mark.parametrize(
    ("source", "more"),
    [
        ("posture.missing == 'on'", {}),
        ("extra.a.b == 1", {}),
        ("extra.a > 1", {"extra": {"a": "text"}}),
        ("1 / (level - 1) == 1", {}),
        ("extra.a == 1", {"extra": {"a": object()}}),
        ("extra.a == 1", {"extra": {"a": 2**80}}),
        ("acr == 'x'", {"acr": "\ud800"}),
    ],
)
def test_an_expression_that_fails_does_not_match_and_the_fallback_decides(
    source: str, more: dict[str, Any]
) -> None:
    before = failures("global_session")
    bad = rule("bad", "DENY", 10, expression=source)
    for fallback, decision in (("ALLOW", Decision.ALLOW), ("DENY", Decision.DENY)):
        policies = compiled(everywhere(bad, rule("next", "ALLOW", 20), fallback=fallback))
        assert policies.judge_sign_in(facts(SIGN_IN, **more)).decision is decision
    assert failures("global_session") == before + 2


def test_a_later_rule_that_is_stronger_than_the_fallback_decides() -> None:
    bad = rule("bad", "ALLOW", 10, expression="posture.missing == 'on'")
    policies = compiled(everywhere(bad, rule("next", "DENY", 20), fallback="STEP_UP"))
    assert policies.judge_sign_in(facts(SIGN_IN)).reasons == ("global-session/next",)


def test_a_fallback_says_which_rule_gave_no_answer() -> None:
    bad = rule("bad", "ALLOW", 10, expression="posture.missing == 'on'")
    (violation,) = compiled(everywhere(bad)).judge_sign_in(facts(SIGN_IN)).violations
    assert (violation.rule, violation.decision) == ("fallback", Decision.STEP_UP)
    assert violation.why == "no answer of bad"


class Slow:
    """A timer by which every look takes 15 ms."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        self.at_s += 0.015
        return self.at_s


def slow_policies(**more: str) -> CompiledPolicies:
    rules = [rule(f"r{number}", "ALLOW", number, expression="level > 9") for number in range(1, 9)]
    return compiled(
        everywhere(*rules, **more), for_apps("crm", rules=[], fallback="DENY"), timer=Slow()
    )


def test_row_18_past_the_deadline_the_stated_fallbacks_decide_and_are_counted() -> None:
    before = deadlines("session")
    verdict = slow_policies().judge_session(facts(level=Level.HIGH), ["crm"])
    assert verdict.decision is Decision.DENY
    assert "out_of_time" in verdict.reasons
    assert slow_policies(fallback="ALLOW").judge_session(facts(), []).decision is Decision.ALLOW
    assert deadlines("session") == before + 2


def test_whoever_runs_out_of_time_before_the_policies_gets_their_fallbacks() -> None:
    verdict = slow_policies().default_verdict(facts(), ["crm"])
    assert (verdict.decision, verdict.reasons[-1]) == (Decision.DENY, "out_of_time")
    started_long_ago = slow_policies().judge_sign_in(facts(SIGN_IN), started_s=-1.0)
    assert started_long_ago.decision is Decision.STEP_UP


def test_a_policy_without_expressions_never_runs_out_of_time() -> None:
    policies = compiled(everywhere(rule("in", "ALLOW")), timer=Slow())
    assert policies.judge_sign_in(facts(SIGN_IN), started_s=-1.0).decision is Decision.ALLOW
