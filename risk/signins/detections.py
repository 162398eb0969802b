"""What a good sign-in says about its user beyond its own risk. Pure.

These go the ordinary way in: a signal of the hub itself, the inbox, the pipeline. Each has a benign
twin that must not fire (`risk.catalogue`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from risk.behaviours.history import View
from risk.model import Level
from risk.policies.facts import RequestKind
from risk.scoring.model import POSITIVE

#: failed attempts of one user from one address that are a brute force attack; `failures.WINDOW`
GUESSES_MIN: Final = 10
#: below the floor of the kind: whoever only types wrong passwords makes no user MEDIUM
WRONG_CONFIDENCE: Final = 0.4
#: an account that nobody used for longer; a holiday is shorter
DORMANT_AFTER: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One detection by its name in the catalogue, at which level, how sure, and why."""

    name: str
    level: Level
    reason: str
    confidence: float = 1.0


def found_by(
    view: View, *, action: RequestKind, ip_level: Level, of_idp: bool, now: datetime
) -> tuple[Found, ...]:
    """Return what a successful sign-in or enrolment gives reason to tell of its user.

    view: as it was before this sign-in. of_idp: an identity provider says so; nobody else's word
    makes a user HIGH by itself. While the user is learned, novelty says nothing. Raises nothing.
    """
    found: list[Found] = []
    if action is RequestKind.ENROLL_FACTOR and ip_level is Level.HIGH:
        found.append(
            Found(
                name="entity_critical_action_from_high_threat_ip",
                level=Level.HIGH if of_idp else Level.MEDIUM,
                reason="A factor was enrolled from an address that is reported HIGH.",
            )
        )
    if view.is_learning:
        return tuple(found)
    if _is_new(view, "New Country", "country"):
        found.append(
            Found(
                name="new_country",
                level=Level.LOW,
                reason="A country the user was never seen in.",
            )
        )
    if _is_new(view, "Velocity", "trip"):
        found.append(
            Found(
                name="impossible_travel",
                level=Level.MEDIUM,
                reason="Further away than anybody travels in the time.",
            )
        )
    last = view.baseline.recent[-1].at if view.baseline.recent else None
    if last is not None and now - last > DORMANT_AFTER:
        found.append(
            Found(
                name="dormant_account_use",
                level=Level.MEDIUM,
                reason=f"The account was not used for {(now - last).days} days.",
            )
        )
    return tuple(found)


def guessed(failed: int, *, is_right: bool) -> Found | None:
    """Return what many failed attempts at a user from one address say of the user, None: nothing.

    failed: of the last hour, since the last success. is_right: the credentials were right at last.
    Without that it counts one level less: anybody can type a stranger's name. Raises nothing.
    """
    if failed < GUESSES_MIN:
        return None
    after = ", then the right credentials" if is_right else ""
    return Found(
        name="brute_force_attack",
        level=Level.MEDIUM,
        reason=f"{failed} failed attempts from one address within an hour{after}.",
        confidence=1.0 if is_right else WRONG_CONFIDENCE,
    )


def _is_new(view: View, behaviour: str, dimension: str) -> bool:
    return view.behaviours.get(behaviour) == POSITIVE and dimension not in view.familiar
