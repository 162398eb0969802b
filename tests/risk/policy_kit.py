"""Policies and facts for tests, in few words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from risk.model import Level
from risk.policies.compiled import CompiledPolicies
from risk.policies.documents import (
    GLOBAL_SESSION_ID,
    SESSION_PROTECTION_ID,
    PolicyKind,
    SessionPolicy,
    parse_policy,
)
from risk.policies.facts import RequestFacts
from risk.policies.presets import preset
from risk.policy import PolicyMode

IDS = {
    PolicyKind.GLOBAL_SESSION: GLOBAL_SESSION_ID,
    PolicyKind.SESSION_PROTECTION: SESSION_PROTECTION_ID,
    PolicyKind.APP_SIGN_IN: "pol_1",
}


def facts(kind: str = "session", level: Level = Level.LOW, **more: Any) -> RequestFacts:
    return RequestFacts(kind=kind, level=level, **more)


def rule(name: str, then: Any, priority: int = 10, **when: Any) -> dict[str, Any]:
    outcome = then if isinstance(then, dict) else {"decision": then}
    return {"name": name, "priority": priority, "when": when, "then": outcome}


def policy(
    kind: PolicyKind,
    *rules: dict[str, Any],
    policy_id: str | None = None,
    mode: str = "enforce",
    **more: Any,
) -> SessionPolicy:
    document = {"mode": mode, **({"rules": list(rules)} if rules else {}), **more}
    made_id = policy_id or IDS[kind]
    document.setdefault("name", made_id)
    return parse_policy(document, policy_id=made_id, kind=kind)


def everywhere(*rules: dict[str, Any], **more: Any) -> SessionPolicy:
    return policy(PolicyKind.GLOBAL_SESSION, *rules, **more)


def for_apps(*app_ids: str, rules: list[dict[str, Any]], **more: Any) -> SessionPolicy:
    return policy(PolicyKind.APP_SIGN_IN, *rules, apps=list(app_ids), **more)


def protection(**more: Any) -> SessionPolicy:
    return policy(PolicyKind.SESSION_PROTECTION, **more)


def compiled(*policies: SessionPolicy, **more: Any) -> CompiledPolicies:
    """Return these policies; session protection enforces unless it is among them."""
    return CompiledPolicies([protection(), *policies], **more)


def standard(mode: PolicyMode = PolicyMode.ENFORCE) -> CompiledPolicies:
    return CompiledPolicies([replace(each, version=1) for each in preset("standard", mode=mode)])
