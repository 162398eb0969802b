"""How a step-up ends: what its word is, and what it does to the context it was asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from risk.inline.model import Stand, StandState
from risk.inline.proofs import is_recent, is_strong
from risk.sessions.model import AMR_MAX, TEXT_CHARS_MAX, check_key, parse_moment
from runtime.errors import Conflict, Invalid, NotFound, Refused

PASSED: Final = "passed"
REFUSED: Final = "refused"
STEP_UP_REFUSALS: Final[Mapping[str, Refused]] = {
    "unknown": NotFound("No such step-up."),
    "ended": Conflict("The session has ended."),
    "over": Conflict("This context is over: it was refused or ended before."),
    "stale": Conflict("auth_time is older than the step-up allows: nothing was proven since."),
    "acr": Conflict("The step-up asked for another acr than was reached."),
}


class StepUp(msgspec.Struct, frozen=True, kw_only=True):
    """The word of an identity provider on one step-up; item of the operation SETTLE_STEP_UP."""

    tenant_id: str
    iss: str
    sid: str
    step_up_id: str
    outcome: str
    at: datetime
    auth_time: datetime | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()


def parse_step_up(
    body: Mapping[str, Any], *, tenant_id: str, iss: str, sid: str, step_up_id: str, now: datetime
) -> StepUp:
    """Read `{outcome: passed | refused, auth_time?, acr?, amr?}`. Raises Invalid with pointers."""
    check_key(iss, sid)
    outcome = body.get("outcome")
    if not isinstance(outcome, str) or outcome not in {PASSED, REFUSED}:
        raise _invalid("/outcome", f"{PASSED} or {REFUSED}")
    auth_time = parse_moment(body.get("auth_time"), "/auth_time")
    acr, amr = body.get("acr"), body.get("amr", [])
    if acr is not None and not _is_text(acr):
        raise _invalid("/acr", f"at most {TEXT_CHARS_MAX} printable characters")
    if not isinstance(amr, list) or len(amr) > AMR_MAX or not all(map(_is_text, amr)):
        raise _invalid("/amr", f"an array of at most {AMR_MAX} strings")
    return StepUp(
        tenant_id=tenant_id,
        iss=iss,
        sid=sid,
        step_up_id=step_up_id,
        outcome=outcome,
        at=now,
        auth_time=None if auth_time is None else min(auth_time, now),
        acr=acr,
        amr=tuple(amr),
    )


def answered(stand: Stand, word: StepUp) -> Stand | str:
    """Return what a stand becomes by the word, or why not (a key of STEP_UP_REFUSALS).

    A repeat of the same word changes nothing. A step-up that was given up and not asked again is
    still answered. Raises nothing. Source: RFC 9470 §4, §6.
    """
    if stand.is_final:
        is_repeat = word.outcome == REFUSED and stand.state == StandState.REFUSED
        return stand if is_repeat else "over"
    if word.outcome == REFUSED:
        return _become(stand, StandState.REFUSED, word, "TERMINATE", ("step_up_refused",))
    if stand.state == StandState.PASSED:
        return stand
    # Without a time it is the word itself that says when: it is about this very step-up.
    if word.auth_time is not None and not is_recent(stand, word):
        return "stale"
    if not is_strong(stand, word.acr):
        return "acr"
    return _become(stand, StandState.PASSED, word, "ALLOW", ())


def _become(
    stand: Stand, state: StandState, word: StepUp, decision: str, reasons: tuple[str, ...]
) -> Stand:
    return msgspec.structs.replace(
        stand, state=state.value, at=word.at, decision=decision, reasons=reasons
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= TEXT_CHARS_MAX


def _invalid(at: str, rule: str) -> Invalid:
    return Invalid(f"Not valid: {at}: {rule}.", pointers=((at, rule),))
