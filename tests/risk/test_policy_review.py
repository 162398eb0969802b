"""Warnings about policies: a rule is told to be unreachable only when it surely is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.model import Level
from risk.policies import conditions
from risk.policies.documents import PolicyKind
from risk.policies.facts import RequestFacts
from risk.policies.review import implies, warnings
from tests.risk.policy_kit import everywhere, for_apps, policy, rule

some_names = st.lists(st.sampled_from("ab"), min_size=1, max_size=2, unique=True)
level_conditions = st.sampled_from(list(Level.__members__)).flatmap(
    lambda name: st.sampled_from([name, {"at_least": name}])
)
sides = st.one_of(
    some_names.map(lambda names: {"include": names}),
    some_names.map(lambda names: {"exclude": names}),
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "action": st.lists(st.sampled_from(("sign_in", "session")), min_size=1, unique=True),
        "level": level_conditions,
        "user_level": level_conditions,
        "zones": sides,
        "detections": sides,
        "posture": st.sampled_from(("include", "exclude")).map(lambda side: {side: {"fw": "on"}}),
        "auth_age": st.integers(0, 3).flatmap(
            lambda age: st.sampled_from([{"over_s": age}, {"within_s": age}])
        ),
    },
)
subsets = st.frozensets(st.sampled_from("ab"))
requests = st.builds(
    RequestFacts,
    kind=st.sampled_from(("sign_in", "session", "enroll_factor")),
    level=st.sampled_from(Level),
    user_level=st.sampled_from(Level),
    zones=subsets,
    detections=subsets,
    posture=st.sampled_from([{}, {"fw": "on"}, {"fw": "off"}]),
    auth_age_s=st.none() | st.integers(0, 4).map(float),
)


def matches(document: dict[str, Any], facts: RequestFacts) -> bool:
    return all(test(facts) for test in conditions.tests_of(conditions.parse(document, "")))


@given(documents, documents, requests)
def test_what_is_implied_holds_for_every_request(
    one: dict[str, Any], other: dict[str, Any], facts: RequestFacts
) -> None:
    if implies(conditions.parse(one, ""), conditions.parse(other, "")):
        assert not matches(one, facts) or matches(other, facts)


@given(documents)
def test_every_condition_implies_itself_and_the_empty_one(document: dict[str, Any]) -> None:
    parsed = conditions.parse(document, "")
    assert implies(parsed, parsed)
    assert implies(parsed, conditions.parse({}, ""))


@pytest.mark.parametrize(
    ("expression", "is_warned"),
    [
        ("posture.fw == 'on'", True),
        ("has(posture.fw) && posture.fw == 'on'", False),
        ("true", True),
        ("extra.anything == 1", False),
        ("level > LOW", False),
    ],
)
def test_an_expression_that_can_fail_or_looks_at_nothing_is_told(
    expression: str, *, is_warned: bool
) -> None:
    told = warnings(everywhere(rule("one", "DENY", expression=expression)))
    assert bool(told) is is_warned


def test_rules_about_apps_that_are_not_the_policys_are_told() -> None:
    ours = rule("ours", "DENY", 1, apps={"include": ["crm"]})
    others = rule("others", "DENY", 2, apps={"include": ["mail"]})
    assert warnings(for_apps("crm", rules=[ours, others])) == [
        "rule others never matches: its apps are not the policy's"
    ]
    assert warnings(policy(PolicyKind.APP_SIGN_IN, apps=[])) == [
        "it names no app, so it never applies"
    ]


@pytest.mark.parametrize(("max_age", "is_told"), [(0, False), (600, False), (601, True)])
def test_a_step_up_that_takes_a_proof_its_rule_finds_too_old_is_told(
    max_age: int, *, is_told: bool
) -> None:
    """Stored by an earlier release it is not refused any more."""
    asks = rule("asks", {"decision": "STEP_UP", "max_age": max_age}, auth_age={"over_s": 600})
    assert bool(warnings(everywhere(asks))) is is_told
