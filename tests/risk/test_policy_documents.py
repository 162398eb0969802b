"""Policy documents: what is read is rendered again, what is wrong is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest

from risk.policies.documents import PolicyKind, parse_policy, render_policy
from risk.policies.presets import DEFAULTS, preset
from risk.policy import PolicyMode
from risk.verdict import Decision, Scope
from runtime.errors import Invalid
from tests.risk.policy_kit import IDS, everywhere, for_apps, policy, protection, rule

EVERYTHING = rule(
    "everything",
    {
        "decision": "STEP_UP",
        "acr": "phr",
        "amr_any_of": ["hwk"],
        "max_age": 60,
        "alert": True,
        "log": True,
    },
    action=["session"],
    level={"at_least": "MEDIUM"},
    user_level="HIGH",
    zones={"include": ["z"], "exclude": ["y"]},
    groups={"include": ["staff"]},
    apps={"exclude": ["crm"]},
    behaviours={"include": ["New City"]},
    detections={"exclude": ["travel"]},
    changes={"include": ["asn"]},
    issuers={"include": ["https://idp.example"]},
    amr={"exclude": ["pwd"]},
    acr={"include": ["aal2"]},
    posture={"include": {"fw": ["on"]}, "exclude": {"managed": ["false"]}},
    auth_age={"over_s": 60, "within_s": 3600},
    expression="level > LOW",
)


@pytest.mark.parametrize(
    "made",
    [
        everywhere(EVERYTHING, fallback="DENY"),
        for_apps("crm", "mail", rules=[EVERYTHING]),
        protection(
            detection={"min_level": "MEDIUM", "zones": {"exclude": ["z"]}},
            enforcement={"failure": "terminate", "groups": {"include": ["g"]}, "alert": True},
        ),
        *DEFAULTS.values(),
        *preset("standard", mode=PolicyMode.ENFORCE),
    ],
)
def test_what_is_rendered_reads_as_the_same_policy(made: Any) -> None:
    again = parse_policy(render_policy(made), policy_id=made.policy_id, kind=made.kind)
    assert render_policy(again) == render_policy(made)
    assert again.fallback is made.fallback or made.kind is PolicyKind.SESSION_PROTECTION


GLOBAL, APP, PROTECTION = PolicyKind


@pytest.mark.parametrize(
    ("kind", "document", "pointer"),
    [
        (GLOBAL, [], ""),
        (GLOBAL, {"colour": 1}, "/colour"),
        (GLOBAL, {"apps": ["crm"]}, "/apps"),
        (GLOBAL, {"detection": {}}, "/detection"),
        (GLOBAL, {"type": "app_sign_in"}, "/type"),
        (GLOBAL, {"mode": "off"}, "/mode"),
        (GLOBAL, {"name": ""}, "/name"),
        (GLOBAL, {"fallback": "TERMINATE"}, "/fallback"),
        (GLOBAL, {"rules": {}}, "/rules"),
        (GLOBAL, {"rules": [1]}, "/rules/0"),
        (GLOBAL, {"rules": [rule("a", "ALLOW", number) for number in range(1, 120)]}, "/rules"),
        (GLOBAL, {"rules": [rule("a", "ALLOW", 1), rule("b", "ALLOW", 1)]}, "/rules"),
        (GLOBAL, {"rules": [rule("a", "ALLOW", 1), rule("a", "ALLOW", 2)]}, "/rules"),
        (GLOBAL, {"rules": [rule("a", "ALLOW", 99)]}, "/rules/0/priority"),
        (GLOBAL, {"rules": [rule("a", "ALLOW", 0)]}, "/rules/0/priority"),
        (GLOBAL, {"rules": [rule("catch-all", "DENY")]}, "/rules/0/name"),
        (GLOBAL, {"rules": [rule("a", "BLOCK")]}, "/rules/0/then/decision"),
        (GLOBAL, {"rules": [rule("a", {})]}, "/rules/0/then/decision"),
        (GLOBAL, {"rules": [rule("a", {"decision": "DENY", "acr": "x"})]}, "/rules/0/then/acr"),
        (
            GLOBAL,
            {"rules": [rule("a", {"decision": "STEP_UP", "max_age": -1})]},
            "/rules/0/then/max_age",
        ),
        (
            GLOBAL,
            {"rules": [rule("a", {"decision": "DENY", "alert": 1})]},
            "/rules/0/then/alert",
        ),
        (
            GLOBAL,
            {"rules": [rule("a", {"decision": "TERMINATE", "scope": "app"})]},
            "/rules/0/then/scope",
        ),
        (
            APP,
            {"rules": [rule("a", {"decision": "TERMINATE", "scope": "user"})]},
            "/rules/0/then/scope",
        ),
        (
            GLOBAL,
            {"rules": [rule("a", {"decision": "ALLOW", "scope": "user"})]},
            "/rules/0/then/scope",
        ),
        (APP, {"apps": "crm"}, "/apps"),
        (PROTECTION, {"rules": []}, "/rules"),
        (PROTECTION, {"detection": {"min_level": "ANY"}}, "/detection/min_level"),
        (
            PROTECTION,
            {"detection": {"zones": {"include": ["z"], "exclude": ["z"]}}},
            "/detection/zones",
        ),
        (PROTECTION, {"enforcement": {"failure": "explode"}}, "/enforcement/failure"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(
    kind: PolicyKind, document: Any, pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        parse_policy(document, policy_id=IDS[kind], kind=kind)
    assert refused.value.pointers[0][0] == pointer


@pytest.mark.parametrize(
    ("when", "pointer"),
    [
        ([], ""),
        ({"hour": 9}, "/hour"),
        ({"action": ["logout"]}, "/action"),
        ({"level": "SEVERE"}, "/level"),
        ({"level": {"at_most": "LOW"}}, "/level/at_most"),
        ({"level": 3}, "/level"),
        ({"zones": {}}, "/zones"),
        ({"zones": {"include": ["a"], "exclude": ["a", "b"]}}, "/zones"),
        ({"zones": {"include": [1]}}, "/zones/include"),
        ({"detections": {"include": ["a"], "exclude": ["b"]}}, "/detections"),
        ({"changes": {"include": ["weather"]}}, "/changes"),
        ({"posture": {}}, "/posture"),
        ({"posture": {"include": {"fw": []}}}, "/posture"),
        ({"posture": {"include": {"fw": 1}}}, "/posture/include/fw"),
        ({"posture": {"include": {"fw": "on"}, "exclude": {"fw": "on"}}}, "/posture"),
        ({"auth_age": {}}, "/auth_age"),
        ({"auth_age": {"over_s": 60, "within_s": 60}}, "/auth_age"),
        ({"auth_age": {"over_s": "60"}}, "/auth_age/over_s"),
        ({"expression": "level"}, "/expression"),
        ({"expression": 1}, "/expression"),
    ],
)
def test_a_wrong_condition_or_one_that_never_matches_is_refused(when: Any, pointer: str) -> None:
    document = {"rules": [{"name": "a", "priority": 1, "when": when, "then": {"decision": "DENY"}}]}
    with pytest.raises(Invalid) as refused:
        parse_policy(document, policy_id="global-session", kind=GLOBAL)
    assert refused.value.pointers[0][0] == f"/rules/0/when{pointer}"


def test_a_rule_of_an_app_is_about_the_app() -> None:
    out = rule("out", {"decision": "TERMINATE", "scope": "app"})
    assert policy(APP, out, apps=["crm"]).rules[0].then.scope is Scope.APP
    assert policy(GLOBAL).fallback is Decision.STEP_UP
