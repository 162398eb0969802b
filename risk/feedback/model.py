"""The words of people about risk, and what each of them does. Pure rules.

- *confirm compromised*: HIGH at once, a floor; the findings were right.
- *confirm safe*: the findings were false. They are closed, the same kind of the same issuer stays
  quiet for a while, and the issuer's evidence weighs less from then on.
- *dismiss*: the findings were right and of no concern. They are closed; nothing is learned, and the
  same may fire again. It never closes a floor: that stays until it is remedied.
- *undo* takes the latest of them back.

Source: threat model §1.2 (feedback triad), §1.3; risk-models §3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from risk import catalogue
from risk.model import (
    ADMIN_ISSUER,
    ADMIN_SOURCE_CLASS,
    RISK_REASON_CHARS_MAX,
    Clearance,
    Detection,
    DetectionState,
    EntityKind,
    Level,
    Sighting,
    SignalMode,
)
from risk.sessions.model import parse_moment
from runtime.errors import Invalid

#: for how long the same finding stays quiet after "confirm safe", and the most one can ask for
QUIET: Final = timedelta(days=7)
QUIET_MAX: Final = timedelta(days=30)
CLOSED_MAX: Final = 500


class Word(StrEnum):
    """What a person says. SET_LEVEL: by the user risk API; it is part of the log, not of undo."""

    CONFIRM_COMPROMISED = "confirm-compromised"
    CONFIRM_SAFE = "confirm-safe"
    DISMISS = "dismiss"
    SET_LEVEL = "set-level"


class Label(StrEnum):
    """What a word says about one finding, for the reliability of its issuer."""

    TRUE_POSITIVE = "true_positive"
    FALSE_POSITIVE = "false_positive"


LABELS: Final = {
    Word.CONFIRM_COMPROMISED: Label.TRUE_POSITIVE,
    Word.CONFIRM_SAFE: Label.FALSE_POSITIVE,
}
_STATES: Final = {
    Word.CONFIRM_SAFE: DetectionState.CONFIRMED_SAFE,
    Word.DISMISS: DetectionState.DISMISSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a request says. quiet_until: of "confirm safe", None for the default.

    only: the one finding it is about; None for everything about the entity.
    """

    word: Word
    reason: str
    by: str
    quiet_until: datetime | None = None
    only: Detection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One word about one entity, as it is kept.

    detection_id: the only finding it is about, None for all of the entity. touches: the entities
    whose findings it changed. level: of SET_LEVEL. until: the end of the quiet, or of a pin.
    """

    tenant_id: str
    feedback_id: str
    entity_kind: EntityKind
    entity_id: str
    detection_id: str | None
    touches: tuple[str, ...]
    word: Word
    level: Level | None
    reason: str
    by: str
    at: datetime
    until: datetime | None
    undone_at: datetime | None = None
    undone_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a word comes to. closed: rows to append; kept: findings it cannot close.

    found: fresh findings (revision 0). quiet: words about kinds of finding. labels: by detection.
    """

    closed: tuple[Detection, ...] = ()
    kept: tuple[Detection, ...] = ()
    found: tuple[Detection, ...] = ()
    quiet: tuple[Clearance, ...] = ()
    labelled: tuple[Detection, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether everything is as it was before."""
        return not (self.closed or self.found)


def parse_said(word: Word, body: dict[str, Any], *, by: str, now: datetime) -> Said:
    """Read `{reason?, until?}`; until: of "confirm safe" alone. Raises Invalid with pointers."""
    for name in sorted(set(body) - {"reason", "until"}):
        raise _invalid(f"/{name[:64]}", "not a member of this")
    reason = body.get("reason", "")
    if (
        not isinstance(reason, str)
        or len(reason) > RISK_REASON_CHARS_MAX
        or not reason.isprintable()
    ):
        raise _invalid("/reason", f"one line of at most {RISK_REASON_CHARS_MAX} characters")
    until = parse_moment(body.get("until"), "/until")
    if until is not None and (word is not Word.CONFIRM_SAFE or not now < until <= now + QUIET_MAX):
        raise _invalid("/until", f"with confirm-safe: within the next {QUIET_MAX.days} days")
    return Said(word=word, reason=reason, by=by, quiet_until=until)


def outcome_of(
    said: Said, feedback: Feedback, active: Sequence[Detection], *, new_id: Iterable[str]
) -> Outcome:
    """Return what a word does to the active findings about what it touches. Raises nothing.

    active: those that the word is about, at most CLOSED_MAX. new_id: ids of new findings.
    """
    others = [each for each in active if each.issuer != ADMIN_ISSUER]
    if said.word is Word.CONFIRM_COMPROMISED:
        known = {each.entity_id for each in active if each.name == catalogue.ADMIN_CONFIRMED}
        wanted = [each for each in feedback.touches if each not in known]
        found = [
            _confirmed(said, feedback, entity_id, detection_id)
            for entity_id, detection_id in zip(wanted, new_id, strict=False)
        ]
        return Outcome(found=tuple(found), labelled=tuple(others) if found else ())
    kept = [each for each in active if said.word is Word.DISMISS and is_floor(each)]
    closed = [each for each in active if each not in kept]
    is_false = said.word is Word.CONFIRM_SAFE
    return Outcome(
        closed=tuple(_closed(each, said.word, feedback) for each in closed),
        kept=tuple(kept),
        quiet=_quiet(closed, feedback) if is_false else (),
        labelled=tuple(each for each in closed if each in others) if is_false else (),
    )


def is_floor(detection: Detection) -> bool:
    """Return whether no pin and no dismissal gets below it. Raises nothing."""
    return detection.level is Level.HIGH and catalogue.finding_type(detection.name).floor


def taken_back(detection: Detection, feedback: Feedback, *, by: str, now: datetime) -> Detection:
    """Return a finding as it is when the word that brought its state is undone. Raises nothing."""
    is_ours = detection.name == catalogue.ADMIN_CONFIRMED and (
        detection.sightings[0].signal_id == feedback.feedback_id
    )
    return replace(
        detection,
        revision=detection.revision + 1,
        state=DetectionState.SUPERSEDED if is_ours else DetectionState.ACTIVE,
        state_at=now,
        state_by=by,
    )


def _confirmed(said: Said, feedback: Feedback, entity_id: str, detection_id: str) -> Detection:
    # A session that is confirmed as compromised makes its user compromised.
    is_own = entity_id == feedback.entity_id
    kind = feedback.entity_kind if is_own else EntityKind.USER
    known = catalogue.finding_type(catalogue.ADMIN_CONFIRMED)
    ends = known.clears_on if kind is EntityKind.USER else (catalogue.CONFIRMED_SAFE,)
    return Detection(
        tenant_id=feedback.tenant_id,
        detection_id=detection_id,
        revision=0,
        name=catalogue.ADMIN_CONFIRMED,
        source_class=ADMIN_SOURCE_CLASS,
        mode=SignalMode.ENFORCE,
        entity_kind=kind,
        entity_id=entity_id,
        related=() if is_own else (feedback.entity_id,),
        level=Level.HIGH,
        confidence=1.0,
        issuer=ADMIN_ISSUER,
        sightings=(Sighting(signal_id=feedback.feedback_id, occurred_at=feedback.at),),
        detected_at=feedback.at,
        reasons=(said.reason,) if said.reason else (),
        clears_on=ends,
        state=DetectionState.ACTIVE,
        state_at=feedback.at,
        state_by=feedback.feedback_id,
    )


def _closed(detection: Detection, word: Word, feedback: Feedback) -> Detection:
    return replace(
        detection,
        revision=detection.revision + 1,
        state=_STATES[word],
        state_at=feedback.at,
        state_by=feedback.feedback_id,
    )


def _quiet(closed: Iterable[Detection], feedback: Feedback) -> tuple[Clearance, ...]:
    """Return the words that keep the same kinds of finding of the same issuers quiet.

    Not for floors: a device that is compromised again is no old story.
    """
    until = feedback.until
    if until is None:
        return ()
    kinds = {
        (each.entity_id, each.issuer, each.name)
        for each in closed
        if not is_floor(each) and each.issuer != ADMIN_ISSUER
    }
    return tuple(
        Clearance(
            tenant_id=feedback.tenant_id,
            entity_id=entity_id,
            issuer=issuer,
            remedy=catalogue.confirmed_safe(name),
            level=None,
            mode=SignalMode.ENFORCE,
            occurred_at=until,
            signal_id=feedback.feedback_id,
        )
        for entity_id, issuer, name in sorted(kinds)
    )


def _invalid(pointer: str, rule: str) -> Invalid:
    return Invalid(f"{pointer}: {rule}.", pointers=((pointer, rule),))
