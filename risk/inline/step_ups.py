"""How a step-up ends: what its word is, and what it does to the context it was asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from risk.contexts.model import Change, Context, nearest
from risk.contexts.stored import restore_context
from risk.inline.model import Stand, StandState
from risk.inline.proofs import Shown, is_recent
from risk.inline.shown import is_class, is_method, together
from risk.model import Level
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
    "amr": Conflict("The step-up asked for another amr than was used."),
}

#: a report about the device that came since the question makes no other context of it
_SAME: Final = frozenset({Change.NONE, Change.POSTURE})
#: changes that may be let pass without a proof
_NEAR: Final = _SAME | {Change.MINOR, Change.NETWORK}


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
    acr = (word.acr,) if word.acr else ()
    # Without a time it is the word itself that says when: it is about this very step-up.
    short = _short_of(stand, word if word.auth_time is not None else None, acr, word.amr)
    if short:
        return short
    passed = _become(stand, StandState.PASSED, word, "ALLOW", ())
    return msgspec.structs.replace(
        passed,
        shown_acr=together(stand.shown_acr, acr),
        shown_amr=together(stand.shown_amr, word.amr),
    )


def _short_of(stand: Stand, shown: Shown | None, acr: tuple[str, ...], amr: tuple[str, ...]) -> str:
    """Return in what a proof falls short of a step-up (a key of STEP_UP_REFUSALS), or "".

    shown: when it was; None: just now.
    """
    if shown is not None and not is_recent(stand, shown):
        return "stale"
    if not is_class(stand, *acr):
        return "acr"
    return "" if is_method(stand, amr) else "amr"


def answering(told: Stand, asked: Sequence[Stand], *, is_whole: bool) -> Stand | None:
    """Return what the proof that an identity provider tells of a context settles; None: nothing.

    told: PASSED. asked: the stands of its session that are asked for a step-up; is_whole: all are.
    It answers the one that was asked for there, and joins what is accepted where none was. Who asks
    may see more of a context than who tells of it, so that they are compared as contexts are, not
    by their keys. What falls short of what was asked for there, or next to it, joins nothing: what
    was asked about would then be compared with it. Raises nothing.
    """
    here = restore_context(told.context, told.at)
    by_age = sorted(asked, key=lambda each: each.at, reverse=True)
    asked_in = {each.context_key: restore_context(each.context, each.since) for each in by_age}
    same = [each for each in by_age if each.context_key == told.context_key] or [
        each for each in by_age if _changes(asked_in[each.context_key], here) <= _SAME
    ]
    short = {
        each.context_key: _short_of(each, told, told.shown_acr, told.shown_amr) for each in by_age
    }
    for known in same:
        if not short[known.context_key]:
            return _told_of(known, told)
    # Less may be told of it than is asked with: then all that is like it would be let pass.
    is_short = any(short[each.context_key] for each in same) or any(
        short[each.context_key] and _changes(here, asked_in[each.context_key]) <= _NEAR
        for each in by_age
    )
    return None if is_short or not is_whole else told


def _changes(before: Context, after: Context) -> set[Change]:
    """Return how contexts differ as far as both who tell of them see it."""
    return set(nearest([before], after)[1])


def _told_of(known: Stand, told: Stand) -> Stand:
    return msgspec.structs.replace(
        known,
        state=StandState.PASSED.value,
        level=max(Level[known.level], Level[told.level]).name,
        decision=told.decision,
        reasons=(),
        at=told.at,
        shown_acr=told.shown_acr,
        shown_amr=told.shown_amr,
        auth_time=told.auth_time,
    )


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
