"""What a proof settles, and what may become known by it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from risk.model import Level
from risk.policies.facts import RequestFacts
from risk.signins.model import is_strong
from risk.verdict import Decision, Verdict


class SignInPolicies(Protocol):
    """Whatever judges sign-ins; `risk.policies.compiled.CompiledPolicies` does."""

    def judge_sign_in(self, facts: RequestFacts) -> Verdict:
        """Return the verdict. Raises nothing."""
        ...


def after_proof(verdict: Verdict, amr: tuple[str, ...], acr: str | None) -> Verdict:
    """Return the verdict once the credential check was passed: a step-up that is done allows.

    The check has just been, so "now" is met; what remains is how strong it was: what the policy
    asks for, and where it names nothing, more than a password. Raises nothing.
    """
    if verdict.decision is not Decision.STEP_UP:
        return verdict
    asks = verdict.acr is not None or bool(verdict.amr_any_of)
    is_met = (
        (verdict.acr is None or verdict.acr == acr)
        and (not verdict.amr_any_of or not set(verdict.amr_any_of).isdisjoint(amr))
        and (asks or is_strong(amr))
    )
    if not is_met:
        return verdict
    return replace(
        verdict,
        decision=Decision.ALLOW,
        reasons=(*verdict.reasons, "stepped_up"),
        acr=None,
        amr_any_of=(),
        max_age=None,
    )


def is_good(verdict: Verdict, level: Level, amr: tuple[str, ...]) -> bool:
    """Return whether a success may enter the baseline.

    It has what policy asked for; and at HIGH risk, also where no policy asks, more than a
    password: a stolen one must not make its thief known. Raises nothing.
    """
    if verdict.decision is not Decision.ALLOW:
        return False
    return is_strong(amr) or (level is not Level.HIGH and verdict.would_have is None)
