"""Policies of sessions and sign-ins as values, and as the JSON documents they are written in. Pure.

    global_session      one per tenant    rules for every sign-in and every session
    app_sign_in         many              rules for the apps it names; one without apps: the default
    session_protection  one per tenant    which changes are judged again, and what failing means

The fourth kind, `entity_risk`, is older and lives in `risk.policy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from risk.model import Level
from risk.policies import conditions, reading
from risk.policies.conditions import Conditions, SetCondition
from risk.policy import CATCH_ALL_NAME, CATCH_ALL_PRIORITY, PolicyMode
from risk.verdict import Decision, Scope

RULES_MAX: Final = CATCH_ALL_PRIORITY - 1
APPS_MAX: Final = 200
ACR_CHARS_MAX: Final = 200
MAX_AGE_S_MAX: Final = 30 * 24 * 3600
#: of the singletons; other policies have an id of `runtime.ids`
GLOBAL_SESSION_ID: Final = "global-session"
SESSION_PROTECTION_ID: Final = "session-protection"
DEFAULT_APP_ID: Final = "app-sign-in"


class PolicyKind(StrEnum):
    """What a policy is about."""

    GLOBAL_SESSION = "global_session"
    APP_SIGN_IN = "app_sign_in"
    SESSION_PROTECTION = "session_protection"


class Failure(StrEnum):
    """What it means that a session no longer satisfies a policy."""

    FOLLOW = "follow"
    TERMINATE = "terminate"
    LOG = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a rule leads to.

    scope: of TERMINATE and DENY; None is that of the policy (the app, or the session). acr,
    amr_any_of, max_age (seconds): what a STEP_UP asks for; a request that has it already passes.
    alert: people are told. log: the decision names the rule also when it is ALLOW.
    """

    decision: Decision
    scope: Scope | None = None
    acr: str | None = None
    amr_any_of: tuple[str, ...] = ()
    max_age: int | None = None
    alert: bool = False
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One rule; lower priorities come first."""

    name: str
    priority: int
    when: Conditions
    then: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Which changes of a session are judged again: at this risk or above, from these zones."""

    min_level: Level = Level.LOW
    zones: SetCondition = field(default_factory=lambda: SetCondition(which="zones"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What failing means, and for whom; for users outside these groups it is only told."""

    failure: Failure = Failure.FOLLOW
    groups: SetCondition = field(default_factory=lambda: SetCondition(which="groups"))
    alert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """One policy of the three kinds.

    fallback: what it says at least when an expression fails or time is up. app_ids: of app_sign_in,
    none for the default. detection, enforcement: of session_protection alone, which has no rules.
    version: 0 for a default that nobody stored.
    """

    policy_id: str
    kind: PolicyKind
    name: str
    mode: PolicyMode = PolicyMode.MONITOR
    fallback: Decision = Decision.STEP_UP
    rules: tuple[PolicyRule, ...] = ()
    app_ids: tuple[str, ...] = ()
    detection: Detection = Detection()
    enforcement: Enforcement = Enforcement()
    version: int = 0


#: members of a document, by kind
_COMMON: Final = ("type", "name", "mode")
_MEMBERS: Final[Mapping[PolicyKind, tuple[str, ...]]] = {
    PolicyKind.GLOBAL_SESSION: (*_COMMON, "fallback", "rules"),
    PolicyKind.APP_SIGN_IN: (*_COMMON, "fallback", "rules", "apps"),
    PolicyKind.SESSION_PROTECTION: (*_COMMON, "detection", "enforcement"),
}
FALLBACKS: Final = (Decision.ALLOW.name, Decision.STEP_UP.name, Decision.DENY.name)


def parse_policy(document: object, *, policy_id: str, kind: PolicyKind) -> SessionPolicy:
    """Read a policy of a known kind. Raises Invalid with pointers."""
    found = reading.members(document, "", _MEMBERS[kind])
    reading.one_of(found.get("type", kind.value), (kind.value,), "/type")
    mode = reading.one_of(found.get("mode", PolicyMode.MONITOR.value), tuple(PolicyMode), "/mode")
    fallback = reading.one_of(found.get("fallback", "STEP_UP"), FALLBACKS, "/fallback")
    return SessionPolicy(
        policy_id=policy_id,
        kind=kind,
        name=reading.text(found.get("name", kind.value.replace("_", "-")), "/name"),
        mode=PolicyMode(mode),
        fallback=Decision[fallback],
        rules=_parse_rules(found.get("rules", []), kind),
        app_ids=_parse_apps(found.get("apps", [])),
        detection=_parse_detection(found.get("detection", {})),
        enforcement=_parse_enforcement(found.get("enforcement", {})),
    )


def _parse_rules(listed: object, kind: PolicyKind) -> tuple[PolicyRule, ...]:
    if not isinstance(listed, list) or len(listed) > RULES_MAX + 1:
        reading.refuse("/rules", f"an array of at most {RULES_MAX} rules")
    rules = [
        _parse_rule(item, f"/rules/{position}", kind)
        for position, item in enumerate(listed)
        if not _is_catch_all(item)
    ]
    reading.check_unique([rule.priority for rule in rules], "priority")
    reading.check_unique([rule.name for rule in rules], "name")
    return tuple(sorted(rules, key=lambda rule: rule.priority))


def _is_catch_all(item: object) -> bool:
    return item == CATCH_ALL_DOCUMENT


def _parse_rule(item: object, at: str, kind: PolicyKind) -> PolicyRule:
    found = reading.members(item, at, ("name", "priority", "when", "then"))
    name = reading.text(found.get("name"), f"{at}/name")
    if name == CATCH_ALL_NAME:
        reading.refuse(f"{at}/name", f"{CATCH_ALL_NAME} is taken: it allows and cannot be changed")
    return PolicyRule(
        name=name,
        priority=reading.number(found.get("priority"), f"{at}/priority", least=1, most=RULES_MAX),
        when=conditions.parse(found.get("when"), f"{at}/when"),
        then=_parse_outcome(found.get("then"), f"{at}/then", kind),
    )


_OUTCOME: Final = ("decision", "scope", "acr", "amr_any_of", "max_age", "alert", "log")


def _parse_outcome(value: object, at: str, kind: PolicyKind) -> Outcome:
    found = reading.members(value, at, _OUTCOME)
    decision = Decision[
        reading.one_of(found.get("decision"), Decision.__members__, f"{at}/decision")
    ]
    if decision is not Decision.STEP_UP:
        for name in ("acr", "amr_any_of", "max_age"):
            if name in found:
                reading.refuse(f"{at}/{name}", "only what a STEP_UP asks for")
    amr = reading.strings(found.get("amr_any_of", []), f"{at}/amr_any_of")
    asks_nothing = decision is Decision.STEP_UP and not {"acr", "amr_any_of", "max_age"} & set(
        found
    )
    return Outcome(
        decision=decision,
        scope=_parse_scope(found, at, kind, decision),
        acr=(
            reading.text(found["acr"], f"{at}/acr", chars_max=ACR_CHARS_MAX)
            if "acr" in found
            else None
        ),
        amr_any_of=tuple(sorted(amr)),
        max_age=(
            reading.number(found["max_age"], f"{at}/max_age", least=0, most=MAX_AGE_S_MAX)
            if "max_age" in found
            else (0 if asks_nothing else None)
        ),
        alert=reading.flag(found.get("alert", False), f"{at}/alert"),
        log=reading.flag(found.get("log", False), f"{at}/log"),
    )


def _parse_scope(
    found: Mapping[str, object], at: str, kind: PolicyKind, decision: Decision
) -> Scope | None:
    if "scope" not in found:
        return None
    allowed = ["app"] if kind is PolicyKind.APP_SIGN_IN else ["session", "user"]
    name = reading.one_of(found["scope"], allowed, f"{at}/scope")
    if decision not in {Decision.DENY, Decision.TERMINATE}:
        reading.refuse(f"{at}/scope", "only of DENY and TERMINATE")
    return Scope[name.upper()]


def _parse_apps(value: object) -> tuple[str, ...]:
    apps = reading.strings(value, "/apps")
    if len(apps) > APPS_MAX:
        reading.refuse("/apps", f"at most {APPS_MAX} apps")
    return tuple(sorted(apps))


def _parse_detection(value: object) -> Detection:
    found = reading.members(value, "/detection", ("min_level", "zones"))
    level = reading.one_of(found.get("min_level", "LOW"), Level.__members__, "/detection/min_level")
    return Detection(min_level=Level[level], zones=_parse_set(found, "zones", "/detection/zones"))


def _parse_enforcement(value: object) -> Enforcement:
    found = reading.members(value, "/enforcement", ("failure", "groups", "alert"))
    failure = reading.one_of(
        found.get("failure", Failure.FOLLOW.value), tuple(Failure), "/enforcement/failure"
    )
    return Enforcement(
        failure=Failure(failure),
        groups=_parse_set(found, "groups", "/enforcement/groups"),
        alert=reading.flag(found.get("alert", False), "/enforcement/alert"),
    )


def _parse_set(found: Mapping[str, object], which: str, at: str) -> SetCondition:
    include, exclude = reading.sides(found.get(which), at)
    if include and include <= exclude:
        reading.refuse(at, "it never matches: all that is included is excluded too")
    return SetCondition(which=which, include=include, exclude=exclude)


# --- rendering ----------------------------------------------------------------------------------


def render_policy(policy: SessionPolicy) -> dict[str, object]:
    """Render a policy as `parse_policy` reads it, catch-all included. Raises nothing."""
    rendered: dict[str, object] = {
        "type": policy.kind.value,
        "name": policy.name,
        "mode": policy.mode.value,
    }
    if policy.kind is PolicyKind.SESSION_PROTECTION:
        return rendered | {
            "detection": {
                "min_level": policy.detection.min_level.name,
                "zones": _render_set(policy.detection.zones),
            },
            "enforcement": {
                "failure": policy.enforcement.failure.value,
                "groups": _render_set(policy.enforcement.groups),
                "alert": policy.enforcement.alert,
            },
        }
    if policy.kind is PolicyKind.APP_SIGN_IN:
        rendered["apps"] = list(policy.app_ids)
    rendered["fallback"] = policy.fallback.name
    rendered["rules"] = [*render_rules(policy.rules), dict(CATCH_ALL_DOCUMENT)]
    return rendered


def render_rules(rules: Sequence[PolicyRule]) -> list[dict[str, object]]:
    """Render rules without the catch-all. Raises nothing."""
    return [
        {
            "name": rule.name,
            "priority": rule.priority,
            "when": conditions.render(rule.when),
            "then": render_outcome(rule.then),
        }
        for rule in rules
    ]


def render_outcome(outcome: Outcome) -> dict[str, object]:
    """Render `then`; what is not said is left out. Raises nothing."""
    rendered: dict[str, object] = {"decision": outcome.decision.name}
    if outcome.scope is not None:
        rendered["scope"] = outcome.scope.name.lower()
    more = (
        ("acr", outcome.acr),
        ("amr_any_of", list(outcome.amr_any_of) or None),
        ("max_age", outcome.max_age),
        ("alert", outcome.alert or None),
        ("log", outcome.log or None),
    )
    return rendered | {name: value for name, value in more if value is not None}


def _render_set(condition: SetCondition) -> dict[str, list[str]]:
    return {"include": sorted(condition.include), "exclude": sorted(condition.exclude)}


CATCH_ALL_DOCUMENT: Final[Mapping[str, object]] = {
    "name": CATCH_ALL_NAME,
    "priority": CATCH_ALL_PRIORITY,
    "when": {},
    "then": {"decision": "ALLOW", "log": True},
}
