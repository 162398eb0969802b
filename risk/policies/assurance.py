"""Whether a request already has what a rule asks for, and how that is told. Pure."""

from __future__ import annotations

from typing import Final

from risk.contexts.model import Change
from risk.policies.documents import Outcome
from risk.policies.facts import RequestFacts
from risk.verdict import Decision

#: how far the clocks of identity providers may be off (requirement STEP-6)
CLOCK_SKEW_S: Final = 5.0


def decided(outcome: Outcome, facts: RequestFacts) -> Decision:
    """Return what a rule decides: a step-up that is done already allows. Raises nothing."""
    if outcome.decision is Decision.STEP_UP and is_met(outcome, facts):
        return Decision.ALLOW
    return outcome.decision


def is_met(outcome: Outcome, facts: RequestFacts) -> bool:
    """Tell whether a request already has what a step-up would ask for. "Now" is never there."""
    if outcome.acr is not None and facts.acr not in outcome.acr.split():
        return False
    if outcome.amr_any_of and set(outcome.amr_any_of).isdisjoint(facts.amr):
        return False
    if outcome.max_age is None:
        return True
    return (
        facts.auth_age_s is not None
        and facts.auth_age_s <= outcome.max_age + CLOCK_SKEW_S
        and (outcome.max_age > 0)
    )


def why(outcome: Outcome, facts: RequestFacts) -> str:
    """Say what a request is like, and what it lacks. Raises nothing."""
    parts = [f"level {facts.level.name}, of the user {facts.user_level.name}"]
    changes = [change for change in facts.changes if change != Change.NONE]
    if changes:
        parts.append(f"changed: {', '.join(changes)}")
    if outcome.acr is not None:
        parts.append(f"acr {outcome.acr} wanted, {facts.acr or 'none'} there")
    if outcome.amr_any_of:
        parts.append(f"one of {', '.join(outcome.amr_any_of)} wanted")
    if outcome.max_age:
        age = "unknown" if facts.auth_age_s is None else f"{facts.auth_age_s:.0f} s"
        parts.append(f"signed in at most {outcome.max_age} s ago wanted, {age} there")
    return "; ".join(parts)
