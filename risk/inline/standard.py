"""What decides while a tenant has no policies for sessions: the standard preset.

Low risk is told, medium asks for a step-up, high ends the session in that context. The risk is that
of the context, of the device and of the user, whichever is worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from risk.model import Level
from risk.policies.facts import RequestFacts
from risk.policy import PolicyMode
from risk.verdict import Decision, Scope, Verdict, Violation

POLICY: Final = "standard"


@dataclass(frozen=True, slots=True)
class StandardPolicies:
    """The standard preset, acting or only saying what it would have done."""

    mode: PolicyMode = PolicyMode.MONITOR

    def judge_session(
        self,
        facts: RequestFacts,
        app_ids: Sequence[str],  # noqa: ARG002 - the same for all apps
    ) -> Verdict:
        """Return the verdict on the worst of the three risks. Raises nothing."""
        risks = {
            "session": facts.level,
            "device": facts.device_level,
            "user": facts.user_level,
        }
        whose, level = max(risks.items(), key=lambda each: (each[1], each[0]))
        if level is Level.LOW:
            return Verdict(decision=Decision.ALLOW, scope=Scope.SESSION, mode=self.mode)
        decision = Decision.TERMINATE if level is Level.HIGH else Decision.STEP_UP
        scope = Scope.USER if whose == "user" else Scope.SESSION
        reasons = (f"{whose}_risk_{level.name.lower()}",)
        is_enforced = self.mode is PolicyMode.ENFORCE
        violation = Violation(
            policy=POLICY,
            rule=f"{level.name.lower()} risk",
            decision=decision,
            why=f"{whose} risk is {level.name}",
            is_enforced=is_enforced,
        )
        if not is_enforced:
            return Verdict(
                decision=Decision.ALLOW,
                scope=scope,
                mode=self.mode,
                reasons=reasons,
                would_have=decision,
                violations=(violation,),
            )
        return Verdict(
            decision=decision,
            scope=scope,
            reasons=reasons,
            max_age=0 if decision is Decision.STEP_UP else None,
            mode=self.mode,
            violations=(violation,),
            alerts=level is Level.HIGH,
        )
