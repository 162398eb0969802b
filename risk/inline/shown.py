"""What a step-up asks for against what was shown where it was passed. Pure.

    asked: acr, one of some amr, max_age      shown: every acr and amr that was reached there

A proof answers the question it was asked for; another rule, or another app, may want more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Protocol

from risk.policies.facts import RequestFacts
from risk.verdict import Decision, Verdict, Violation

#: a passed step-up, said in the reasons of the ALLOW that follows
STEPPED_UP: Final = "stepped_up"
#: classes and methods that are remembered of one context; the newest stay
SHOWN_MAX: Final = 20


class Asks(Protocol):
    """What a step-up has to reach. acr: one of these, by spaces. max_age: in seconds, 0 is now."""

    @property
    def acr(self) -> str | None: ...  # noqa: D102

    @property
    def amr_any_of(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def max_age(self) -> int | None: ...  # noqa: D102


class Passed(Protocol):
    """A context that passed. acr: what was asked for there at last."""

    @property
    def acr(self) -> str: ...  # noqa: D102

    @property
    def shown_acr(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def shown_amr(self) -> tuple[str, ...]: ...  # noqa: D102


def is_class(wanted: Asks, *shown: str) -> bool:
    """Return whether one of the `acr` that are asked for was reached. Raises nothing.

    Identity providers may return weaker ones. Source: RFC 9470 §5, §6.
    """
    return not wanted.acr or not set(wanted.acr.split()).isdisjoint(shown)


def is_method(wanted: Asks, amr: Iterable[str]) -> bool:
    """Return whether one of the methods that are asked for was used. Raises nothing."""
    return not wanted.amr_any_of or not set(wanted.amr_any_of).isdisjoint(amr)


def asks_no_less(one: Asks, other: Asks) -> bool:
    """Return whether whoever reaches what one asks for has reached what the other does."""
    is_as_strong = not other.acr or _is_part(one.acr, other.acr)
    is_as_strict = not other.amr_any_of or (
        bool(one.amr_any_of) and set(one.amr_any_of) <= set(other.amr_any_of)
    )
    is_as_recent = not one.max_age or one.max_age <= (other.max_age or 0)
    return is_as_strong and is_as_strict and is_as_recent


def asks_more(one: Asks, other: Asks) -> bool:
    """Return whether one asks for all that the other does, and for more. Raises nothing."""
    return asks_no_less(one, other) and not asks_no_less(other, one)


def has_shown(passed: Passed, wanted: Asks) -> bool:
    """Return whether what was shown in a context is what somebody wants there. Raises nothing.

    What the release before settled says only what was asked for, and that was reached.
    """
    if not is_method(wanted, passed.shown_amr):
        return False
    if passed.shown_acr or not wanted.acr:
        return is_class(wanted, *passed.shown_acr)
    return _is_part(passed.acr, wanted.acr)


def together(before: tuple[str, ...], now: Iterable[str]) -> tuple[str, ...]:
    """Return what was shown before and now, the newest last, a bounded number."""
    return tuple(dict.fromkeys([*before, *now]))[-SHOWN_MAX:]


def without_shown(verdict: Verdict, passed: Passed, facts: RequestFacts) -> Verdict:
    """Return a verdict without the step-ups that were passed; it asks for what is left of them.

    Raises nothing.
    """
    is_enforced = verdict.decision is Decision.STEP_UP
    if not is_enforced and verdict.would_have is not Decision.STEP_UP:
        return verdict
    left = [
        each
        for each in verdict.violations
        if each.decision is Decision.STEP_UP
        and each.is_enforced is is_enforced
        and not _is_shown(each, passed, facts)
    ]
    if not is_enforced:
        return verdict if left else replace(verdict, would_have=None)
    if not left:
        return replace(verdict, decision=Decision.ALLOW, reasons=(STEPPED_UP,), violations=())
    return replace(
        verdict,
        acr=next((each.acr for each in left if each.acr), None),
        amr_any_of=next((each.amr_any_of for each in left if each.amr_any_of), ()),
        max_age=min((each.max_age for each in left if each.max_age is not None), default=None),
    )


def _is_shown(violation: Violation, passed: Passed, facts: RequestFacts) -> bool:
    """Return whether a rule has what it asks for, where its age was looked at before.

    What has to be of late is what the session's last proof showed.
    """
    if violation.max_age:
        return is_class(violation, facts.acr or "") and is_method(violation, facts.amr)
    return has_shown(passed, violation)


def _is_part(one: str | None, other: str) -> bool:
    return bool(one) and set((one or "").split()) <= set(other.split())
