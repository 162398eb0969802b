"""Policies of sessions and sign-ins: what they decide, about what, and how strongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.contexts.model import Change
from risk.model import Level
from risk.policies.compiled import CompiledPolicies
from risk.policies.facts import RequestFacts
from risk.policies.recorded import RecordedAddress
from risk.policy import PolicyMode
from risk.verdict import Decision, Scope, Verdict
from tests.risk.policy_kit import (
    compiled,
    everywhere,
    facts,
    for_apps,
    policy,
    protection,
    rule,
    standard,
)

NEW_NETWORK: dict[str, Any] = {"changes": (Change.ASN, Change.COUNTRY)}
SESSION, SIGN_IN, ENROL = "session", "sign_in", "enroll_factor"
names = st.sampled_from(("a", "b", "c"))
request_facts = st.builds(
    RequestFacts,
    kind=st.sampled_from((SESSION, SIGN_IN, ENROL)),
    level=st.sampled_from(Level),
    user_level=st.sampled_from(Level),
    device_level=st.sampled_from(Level),
    zones=st.frozensets(names),
    groups=st.frozensets(names),
    app_id=st.none() | names,
    posture=st.dictionaries(names, names),
    behaviours=st.dictionaries(names, st.sampled_from(("POSITIVE", "NEGATIVE", "UNKNOWN"))),
    detections=st.frozensets(names),
    changes=st.lists(st.sampled_from(Change), max_size=3).map(tuple),
    amr=st.lists(names, max_size=2).map(tuple),
    acr=st.none() | names,
    auth_age_s=st.none() | st.floats(0, 1e6),
    exempt=st.booleans(),
)
app_ids = st.lists(names, max_size=3, unique=True)


def asked(policies: CompiledPolicies, given_facts: RequestFacts, apps: list[str]) -> Verdict:
    if given_facts.kind == SESSION:
        return policies.judge_session(given_facts, apps)
    return policies.judge_sign_in(given_facts)


# The preset.


@pytest.mark.parametrize(
    ("kind", "level", "decision", "alerts"),
    [
        (SESSION, Level.LOW, Decision.ALLOW, False),
        (SESSION, Level.MEDIUM, Decision.STEP_UP, False),
        (SESSION, Level.HIGH, Decision.TERMINATE, True),
        (SIGN_IN, Level.LOW, Decision.ALLOW, False),
        (SIGN_IN, Level.MEDIUM, Decision.STEP_UP, False),
        (SIGN_IN, Level.HIGH, Decision.STEP_UP, True),
        (ENROL, Level.MEDIUM, Decision.STEP_UP, False),
        (ENROL, Level.HIGH, Decision.DENY, True),
    ],
)
def test_row_4_the_preset_logs_low_steps_up_medium_and_logs_high_out(
    kind: str, level: Level, decision: Decision, *, alerts: bool
) -> None:
    verdict = asked(standard(), facts(kind, level, **NEW_NETWORK), [])
    assert (verdict.decision, verdict.alerts) == (decision, alerts)
    assert verdict.scope is Scope.SESSION
    assert verdict.logs or verdict.violations


def test_the_preset_looks_at_the_device_and_the_user_too() -> None:
    for name, scope in (("user_level", Scope.USER), ("device_level", Scope.SESSION)):
        verdict = asked(standard(), facts(SESSION, **{name: Level.HIGH}), [])
        assert (verdict.decision, verdict.scope) == (Decision.TERMINATE, scope)
        for kind in (SESSION, SIGN_IN, ENROL):
            prompted = asked(standard(), facts(kind, **{name: Level.MEDIUM}), [])
            assert prompted.decision is Decision.STEP_UP


@given(request_facts, app_ids, st.sampled_from(Level))
def test_under_the_preset_more_risk_never_gives_a_weaker_decision(
    one: RequestFacts, apps: list[str], higher: Level
) -> None:
    policies = standard()
    for name in ("level", "user_level", "device_level"):
        more = replace(one, **{name: max(getattr(one, name), higher)})
        assert asked(policies, more, apps).decision >= asked(policies, one, apps).decision


@given(request_facts, app_ids)
def test_a_policy_that_monitors_allows_and_says_what_it_would_have_decided(
    one: RequestFacts, apps: list[str]
) -> None:
    acting, watching = standard(), standard(PolicyMode.MONITOR)
    given_, held = asked(acting, one, apps), asked(watching, one, apps)
    assert (held.decision, held.reasons, held.alerts) == (Decision.ALLOW, (), False)
    assert (held.would_have or Decision.ALLOW) is given_.decision
    assert [each.rule for each in held.violations] == [each.rule for each in given_.violations]
    assert not any(each.is_enforced for each in held.violations)


@given(request_facts, app_ids)
def test_the_same_facts_get_the_same_answer(one: RequestFacts, apps: list[str]) -> None:
    assert asked(standard(), one, apps) == asked(standard(), one, apps)


def test_a_tenant_that_stored_nothing_monitors() -> None:
    verdict = CompiledPolicies().judge_session(facts(level=Level.HIGH, **NEW_NETWORK), ["a"])
    assert (verdict.decision, verdict.would_have, verdict.mode) == (
        Decision.ALLOW,
        Decision.TERMINATE,
        PolicyMode.MONITOR,
    )


# The lattice.


def test_row_14_exactly_the_apps_whose_policies_fail_are_named() -> None:
    strict = rule("known-network", "TERMINATE", changes={"include": ["asn"]})
    recent = rule("recent", {"decision": "STEP_UP", "max_age": 300, "acr": "phr"})
    policies = compiled(
        everywhere(rule("everybody", "ALLOW")),
        for_apps("crm", rules=[strict], policy_id="pol_crm"),
        for_apps("wiki", "mail", rules=[rule("lax", "ALLOW")], policy_id="pol_lax"),
        for_apps("bank", rules=[recent], policy_id="pol_bank", name="bank"),
    )
    verdict = policies.judge_session(
        facts(acr="pwd", auth_age_s=900.0, **NEW_NETWORK), ["crm", "wiki", "mail", "bank", "chat"]
    )
    assert {each.app_ids: (each.rule, each.decision) for each in verdict.violations} == {
        ("crm",): ("known-network", Decision.TERMINATE),
        ("bank",): ("recent", Decision.STEP_UP),
    }
    (bank,) = [each for each in verdict.violations if each.app_ids == ("bank",)]
    assert "acr phr wanted, pwd there" in bank.why
    assert "at most 300 s ago wanted, 900 s there" in bank.why
    assert (verdict.decision, verdict.scope) == (Decision.TERMINATE, Scope.APP)
    asked_of_bank = policies.judge_session(facts(acr="pwd", auth_age_s=900.0), ["bank"])
    assert (asked_of_bank.decision, asked_of_bank.scope, asked_of_bank.acr) == (
        Decision.STEP_UP,
        Scope.APP,
        "phr",
    )
    assert policies.judge_session(facts(**NEW_NETWORK), ["mail"]).decision is Decision.ALLOW


def test_a_failure_of_the_global_policy_is_about_the_session_whichever_app_is_asked_for() -> None:
    policies = compiled(everywhere(rule("out", "TERMINATE")), for_apps("crm", rules=[]))
    verdict = policies.judge_session(facts(), ["crm", "mail"])
    assert (verdict.decision, verdict.scope) == (Decision.TERMINATE, Scope.SESSION)
    assert policies.judge_session(facts(), ["crm"]).scope is Scope.SESSION


def test_the_widest_scope_wins_among_equal_decisions() -> None:
    out = {"decision": "TERMINATE", "scope": "user"}
    policies = compiled(
        everywhere(rule("out", out)), for_apps("crm", rules=[rule("crm-out", "TERMINATE")])
    )
    verdict = policies.judge_session(facts(), ["crm"])
    assert (verdict.decision, verdict.scope) == (Decision.TERMINATE, Scope.USER)
    assert verdict.reasons == ("global-session/out", "pol_1/crm-out")


def test_an_app_without_a_policy_of_its_own_has_the_default() -> None:
    default = policy(
        for_apps(rules=[]).kind, rule("all", "STEP_UP"), policy_id="app-sign-in", apps=[]
    )
    policies = compiled(everywhere(), default, for_apps("crm", rules=[rule("in", "ALLOW")]))
    assert policies.judge_sign_in(facts(SIGN_IN, app_id="mail")).decision is Decision.STEP_UP
    assert policies.judge_sign_in(facts(SIGN_IN, app_id="crm")).decision is Decision.ALLOW
    assert policies.judge_sign_in(facts(SIGN_IN)).decision is Decision.ALLOW


def test_rules_about_apps_are_asked_once_per_app() -> None:
    policies = compiled(
        everywhere(),
        for_apps("a", "b", rules=[rule("b-out", "TERMINATE", expression="app == 'b'")]),
    )
    verdict = policies.judge_session(facts(), ["a", "b"])
    assert [each.app_ids for each in verdict.violations] == [("b",)]


def test_row_17_enforcing_gives_what_monitoring_would_have_given() -> None:
    watching = compiled(
        everywhere(rule("out", "TERMINATE"), mode="monitor"),
        for_apps("crm", rules=[rule("prompt", "STEP_UP")]),
    )
    verdict = watching.judge_session(facts(), ["crm"])
    assert (verdict.decision, verdict.would_have) == (Decision.STEP_UP, Decision.TERMINATE)
    assert verdict.mode is PolicyMode.ENFORCE
    assert {each.rule: each.is_enforced for each in verdict.violations} == {
        "out": False,
        "prompt": True,
    }


# Session protection.


@pytest.mark.parametrize(
    ("detection", "level", "zones", "is_judged"),
    [
        ({"min_level": "MEDIUM"}, Level.LOW, [], False),
        ({"min_level": "MEDIUM"}, Level.MEDIUM, [], True),
        ({"zones": {"exclude": ["office"]}}, Level.HIGH, ["office"], False),
        ({"zones": {"include": ["abroad"]}}, Level.HIGH, ["office"], False),
        ({"zones": {"include": ["abroad"]}}, Level.HIGH, ["abroad"], True),
    ],
)
def test_detection_says_which_changes_are_judged(
    detection: dict[str, Any], level: Level, zones: list[str], *, is_judged: bool
) -> None:
    policies = compiled(everywhere(rule("out", "TERMINATE")), protection(detection=detection))
    changed = facts(level=level, zones=frozenset(zones), **NEW_NETWORK)
    decision = policies.judge_session(changed, []).decision
    assert (decision is Decision.TERMINATE) is is_judged
    # What is no change is judged in any case: an app is opened for the first time.
    unchanged = replace(changed, changes=(Change.NONE,))
    assert policies.judge_session(unchanged, []).decision is Decision.TERMINATE


def test_row_21_an_exempt_origin_excuses_changes_of_network_and_nothing_else() -> None:
    policies = compiled(everywhere(rule("out", "TERMINATE")))
    moved = facts(level=Level.HIGH, exempt=True, **NEW_NETWORK)
    assert policies.judge_session(moved, []).decision is Decision.ALLOW
    copied = replace(moved, changes=(Change.ASN, Change.DEVICE))
    assert policies.judge_session(copied, []).decision is Decision.TERMINATE
    assert policies.judge_sign_in(replace(moved, kind=SIGN_IN)).decision is Decision.TERMINATE


@pytest.mark.parametrize(
    ("enforcement", "decision", "would_have"),
    [
        ({"failure": "follow"}, Decision.STEP_UP, None),
        ({"failure": "terminate"}, Decision.TERMINATE, None),
        ({"failure": "log"}, Decision.ALLOW, Decision.STEP_UP),
        ({"groups": {"include": ["pilot"]}}, Decision.STEP_UP, None),
        ({"groups": {"exclude": ["pilot"]}}, Decision.ALLOW, Decision.STEP_UP),
    ],
)
def test_enforcement_says_what_failing_means(
    enforcement: dict[str, Any], decision: Decision, would_have: Decision | None
) -> None:
    policies = compiled(
        everywhere(),
        for_apps("crm", rules=[rule("prompt", "STEP_UP")]),
        protection(enforcement=enforcement),
    )
    verdict = policies.judge_session(facts(groups=frozenset({"pilot"})), ["crm"])
    assert (verdict.decision, verdict.would_have) == (decision, would_have)
    # Sign-ins are none of its business.
    sign_in = policies.judge_sign_in(facts(SIGN_IN, app_id="crm"))
    assert sign_in.decision is Decision.STEP_UP


# Assurances.


@pytest.mark.parametrize(
    ("then", "present", "decision"),
    [
        ({"acr": "phr"}, {"acr": "phr"}, Decision.ALLOW),
        ({"acr": "phr"}, {"acr": "pwd"}, Decision.STEP_UP),
        ({"acr": "phr phrh"}, {"acr": "phrh"}, Decision.ALLOW),
        ({"acr": "phr phrh"}, {"acr": "phr phrh"}, Decision.STEP_UP),
        ({"amr_any_of": ["hwk", "fpt"]}, {"amr": ("pwd", "hwk")}, Decision.ALLOW),
        ({"amr_any_of": ["hwk", "fpt"]}, {"amr": ("pwd",)}, Decision.STEP_UP),
        ({"max_age": 300}, {"auth_age_s": 304.0}, Decision.ALLOW),
        ({"max_age": 300}, {"auth_age_s": 306.0}, Decision.STEP_UP),
        ({"max_age": 300}, {}, Decision.STEP_UP),
        ({"max_age": 0}, {"auth_age_s": 0.0}, Decision.STEP_UP),
        ({}, {"acr": "phr", "auth_age_s": 0.0}, Decision.STEP_UP),
        ({"acr": "phr", "max_age": 300}, {"acr": "phr"}, Decision.STEP_UP),
    ],
)
def test_a_step_up_is_asked_for_only_where_it_is_not_there_yet(
    then: dict[str, Any], present: dict[str, Any], decision: Decision
) -> None:
    policies = compiled(everywhere(rule("prove", {"decision": "STEP_UP", **then})))
    assert policies.judge_sign_in(facts(SIGN_IN, **present)).decision is decision


def test_a_step_up_that_says_nothing_means_now() -> None:
    verdict = compiled(everywhere(rule("prove", "STEP_UP"))).judge_sign_in(facts(SIGN_IN))
    assert (verdict.acr, verdict.amr_any_of, verdict.max_age) == (None, (), 0)


# Conditions.

PARIS = RecordedAddress(
    ip="192.0.2.1",
    known=True,
    asn=64500,
    country="FR",
    city="Paris",
    categories=frozenset({"HOSTING"}),
)


@pytest.mark.parametrize(
    ("when", "yes", "no"),
    [
        ({"action": ["enroll_factor"]}, {"kind": ENROL}, {"kind": SIGN_IN}),
        ({"level": "MEDIUM"}, {"level": Level.MEDIUM}, {"level": Level.HIGH}),
        ({"level": {"at_least": "MEDIUM"}}, {"level": Level.HIGH}, {"level": Level.LOW}),
        ({"user_level": "HIGH"}, {"user_level": Level.HIGH}, {}),
        ({"device_level": {"at_least": "MEDIUM"}}, {"device_level": Level.HIGH}, {}),
        ({"zones": {"include": ["z"]}}, {"zones": frozenset("z")}, {}),
        ({"zones": {"exclude": ["z"]}}, {}, {"zones": frozenset("z")}),
        (
            {"groups": {"include": ["a"], "exclude": ["b"]}},
            {"groups": frozenset("a")},
            {"groups": frozenset("ab")},
        ),
        ({"apps": {"include": ["crm"]}}, {"app_id": "crm"}, {"app_id": "mail"}),
        (
            {"behaviours": {"include": ["New City"]}},
            {"behaviours": {"New City": "POSITIVE"}},
            {"behaviours": {"New City": "UNKNOWN"}},
        ),
        (
            {"detections": {"exclude": ["travel"]}},
            {"detections": frozenset({"travel", "spray"})},
            {"detections": frozenset({"travel"})},
        ),
        (
            {"changes": {"include": ["device"]}},
            {"changes": ("asn", "device")},
            {"changes": ("asn",)},
        ),
        ({"issuers": {"include": ["https://i"]}}, {"issuer": "https://i"}, {}),
        ({"amr": {"exclude": ["hwk"]}}, {"amr": ("pwd",)}, {"amr": ("hwk",)}),
        ({"acr": {"include": ["phr"]}}, {"acr": "phr"}, {}),
        ({"auth_age": {"over_s": 60}}, {}, {"auth_age_s": 60.0}),
        ({"auth_age": {"over_s": 60, "within_s": 90}}, {"auth_age_s": 61.0}, {"auth_age_s": 91.0}),
        ({"posture": {"include": {"fw": "on"}}}, {"posture": {"fw": "on"}}, {}),
        ({"posture": {"exclude": {"fw": ["on"]}}}, {}, {"posture": {"fw": "on"}}),
        (
            {"expression": "country == 'FR' && asn == 64500 && 'HOSTING' in categories"},
            {"record": PARIS},
            {},
        ),
        (
            {"expression": "level >= MEDIUM && groups.exists(g, g.startsWith('eu-'))"},
            {"level": Level.HIGH, "groups": frozenset({"eu-1", "x"})},
            {"level": Level.HIGH, "groups": frozenset({"us-1"})},
        ),
        ({"expression": "auth_age_s > 60.0"}, {}, {"auth_age_s": 1.0}),
        (
            {"expression": "extra.resource.type == 'file'"},
            {"extra": {"resource": {"type": "file"}}},
            {"extra": {"resource": {"type": "door"}}},
        ),
    ],
)
def test_each_condition_matches_what_it_says(
    when: dict[str, Any], yes: dict[str, Any], no: dict[str, Any]
) -> None:
    policies = compiled(everywhere(rule("hit", "DENY", **when), fallback="ALLOW"))
    decisions = [
        policies.judge_sign_in(facts(**{"kind": SIGN_IN, **case})).decision for case in (yes, no)
    ]
    assert decisions == [Decision.DENY, Decision.ALLOW]


def test_the_first_rule_that_matches_decides() -> None:
    policies = compiled(
        everywhere(rule("second", "DENY", 20), rule("first", "ALLOW", 10, zones={"include": ["z"]}))
    )
    assert policies.judge_sign_in(facts(SIGN_IN, zones=frozenset("z"))).decision is Decision.ALLOW
    assert policies.judge_sign_in(facts(SIGN_IN)).reasons == ("global-session/second",)
