"""Ready-made policies for sessions and sign-ins, and what a tenant has that stored none. Values.

    low → log      medium → step up      high → logout and alert

The risk is that of the session or sign-in, of its device, and of its user, whichever is worst.

For a sign-in there is nothing to log out of, and an address is shared by many: high asks for a
proof there, and people are told. Enrolling a factor at high risk is denied: it is how a stolen
password becomes a lasting way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from risk.model import Level
from risk.policies.conditions import Conditions, LevelCondition
from risk.policies.documents import (
    DEFAULT_APP_ID,
    GLOBAL_SESSION_ID,
    SESSION_PROTECTION_ID,
    Detection,
    Enforcement,
    Outcome,
    PolicyKind,
    PolicyRule,
    SessionPolicy,
)
from risk.policy import PolicyMode
from risk.verdict import Decision, Scope
from runtime.errors import Invalid


def _rule(
    name: str, priority: int, then: Outcome, *actions: str, level: Level, which: str = "level"
) -> PolicyRule:
    condition = LevelCondition(which=which, level=level, at_least=True)
    return PolicyRule(
        name=name,
        priority=priority,
        when=Conditions(actions=frozenset(actions), levels=(condition,)),
        then=then,
    )


_STEP_UP: Final = Outcome(decision=Decision.STEP_UP, max_age=0)
_STEP_UP_AND_TELL: Final = replace(_STEP_UP, alert=True)
_DENY: Final = Outcome(decision=Decision.DENY, alert=True)
_LOGOUT: Final = Outcome(decision=Decision.TERMINATE, alert=True)
_LOGOUT_OF_USER: Final = replace(_LOGOUT, scope=Scope.USER)
_LOG: Final = Outcome(decision=Decision.ALLOW, log=True)

STANDARD_SESSION_RULES: Final = (
    _rule("high-user-logout", 10, _LOGOUT_OF_USER, "session", level=Level.HIGH, which="user_level"),
    _rule("high-logout", 20, _LOGOUT, "session", level=Level.HIGH),
    _rule("high-device-logout", 30, _LOGOUT, "session", level=Level.HIGH, which="device_level"),
    _rule("high-no-new-factor", 40, _DENY, "enroll_factor", level=Level.HIGH),
    _rule("high-step-up", 50, _STEP_UP_AND_TELL, "sign_in", level=Level.HIGH),
    _rule("medium-step-up", 60, _STEP_UP, level=Level.MEDIUM),
    _rule("risky-device-step-up", 70, _STEP_UP, level=Level.MEDIUM, which="device_level"),
    _rule("risky-user-step-up", 80, _STEP_UP, level=Level.MEDIUM, which="user_level"),
    _rule("low-log", 90, _LOG, level=Level.LOW),
)
_STANDARD: Final = (
    SessionPolicy(
        policy_id=GLOBAL_SESSION_ID,
        kind=PolicyKind.GLOBAL_SESSION,
        name=GLOBAL_SESSION_ID,
        rules=STANDARD_SESSION_RULES,
    ),
    SessionPolicy(
        policy_id=SESSION_PROTECTION_ID,
        kind=PolicyKind.SESSION_PROTECTION,
        name=SESSION_PROTECTION_ID,
        detection=Detection(min_level=Level.LOW),
        enforcement=Enforcement(),
    ),
)
#: an app that no policy names is under the global session policy alone
_DEFAULT_APP: Final = SessionPolicy(
    policy_id=DEFAULT_APP_ID, kind=PolicyKind.APP_SIGN_IN, name=DEFAULT_APP_ID
)
_PRESETS: Final[Mapping[str, tuple[SessionPolicy, ...]]] = MappingProxyType({"standard": _STANDARD})
#: by id; all monitor
DEFAULTS: Final[Mapping[str, SessionPolicy]] = MappingProxyType(
    {policy.policy_id: policy for policy in (*_STANDARD, _DEFAULT_APP)}
)


def preset(name: str, *, mode: PolicyMode) -> tuple[SessionPolicy, ...]:
    """Return the session policies of a preset. Raises Invalid for an unknown name."""
    if name not in _PRESETS:
        raise Invalid(f"There is no preset of this name; there are: {', '.join(sorted(_PRESETS))}.")
    return tuple(replace(policy, mode=mode) for policy in _PRESETS[name])
