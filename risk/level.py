"""The level of an entity: a pure function of findings, remedies, pins, caps and the time.

Precedence: state and expiry, confidence, issuer cap, maximum, corroboration, floor, pin. Order of
arrival never matters: everything compares the times at which things occurred (SET-18), and a
remedy that arrives first closes an older finding that arrives later. At equal times the finding
stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations
from typing import Final

from risk import catalogue
from risk.model import (
    CALLER_ISSUERS,
    CORROBORATION_WINDOW,
    REASONS_MAX,
    SIGHTINGS_MAX,
    Clearance,
    Detection,
    DetectionState,
    Level,
    Pin,
    SignalMode,
)
from risk.ranking import PRIOR_LOG_ODDS, SCORE_DIGITS, claimed_score

CLASSES_FOR_MEDIUM: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelResult:
    """The level and why.

    score: log-odds, ranks users of one level, no probability. cause_ids: the detections that
    support the level, ascending. next_change_at: when time alone can change the result.
    """

    level: Level
    score: float
    reasons: tuple[str, ...]
    cause_ids: tuple[str, ...]
    next_change_at: datetime | None
    pinned: bool = False


_NOTHING_KNOWN: Final = LevelResult(
    level=Level.LOW,
    score=round(PRIOR_LOG_ODDS, SCORE_DIGITS),
    reasons=(),
    cause_ids=(),
    next_change_at=None,
)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A detection that counts, with its level after confidence and cap."""

    detection: Detection
    level: Level


def level(
    detections: Iterable[Detection],
    clearances: Sequence[Clearance],
    *,
    pins: Iterable[Pin],
    caps: Mapping[str, Level | None],
    now: datetime,
) -> LevelResult:
    """Compute the level of one entity from everything that is known about it.

    detections, clearances: of the entity and of what is linked to it, in any order. caps: issuer
    to the highest level its word can lead to, None when it does not count. Raises nothing.
    Source: contracts §6 "Level precedence"; requirement SET-18.
    """
    detections, pins = tuple(detections), tuple(pins)
    if not detections and not pins:
        return _NOTHING_KNOWN
    open_now = [
        settled
        for detection in detections
        if (settled := settle(detection, clearances, now=now)).state is DetectionState.ACTIVE
    ]
    counted = [
        _Counted(detection, effective)
        for detection in sorted(open_now, key=lambda each: each.detection_id)
        if (effective := effective_level(detection, caps)) is not None
    ]
    computed, causes, reasons = _highest(counted, caps)
    pin = _pin_in_force(pins, now)
    result = LevelResult(
        level=computed,
        # As the issuers claim. Whoever shows the score weighs them by what people said of them; the
        # level does not depend on it, and here nobody waits for a look at the feedback.
        score=claimed_score([(each.detection, each.level) for each in counted], now),
        reasons=tuple(reasons[:REASONS_MAX]),
        cause_ids=tuple(sorted(causes)),
        next_change_at=_next_change_at(open_now, pin),
    )
    return result if pin is None else _pinned(result, pin, counted)


def settle(detection: Detection, clearances: Iterable[Clearance], *, now: datetime) -> Detection:
    """Return the detection as remedies and time leave it: sightings dropped, or closed.

    A remedy closes the sightings that are older than it; one that is as old or newer stays
    ("clean before compromised"; equal times count as compromised). Raises nothing.
    """
    if detection.state is not DetectionState.ACTIVE:
        return detection
    if catalogue.SESSIONS_SECURED in detection.clears_on:
        clearances = (*clearances, *_secured(tuple(clearances)))
    remedy = max(
        (clearance for clearance in clearances if _applies(clearance, detection)),
        key=lambda each: (each.occurred_at, each.signal_id),
        default=None,
    )
    if remedy is not None and remedy.occurred_at > detection.since:
        kept = tuple(s for s in detection.sightings if s.occurred_at >= remedy.occurred_at)
        if not kept:
            return replace(
                detection,
                state=_state_after(remedy),
                # A person's word may reach into the future; what it closes is closed now.
                state_at=min(remedy.occurred_at, now),
                state_by=remedy.signal_id,
            )
        detection = replace(detection, sightings=kept)
    ends_at = expires_at(detection)
    if ends_at is not None and ends_at <= now:
        return replace(detection, state=DetectionState.EXPIRED, state_at=ends_at, state_by="expiry")
    return detection


def expires_at(detection: Detection) -> datetime | None:
    """Return when the detection stops to count by age; None: never. Raises nothing."""
    life = catalogue.life(detection.name, detection.level)
    return None if life is None else detection.occurred_at + life


def effective_level(detection: Detection, caps: Mapping[str, Level | None]) -> Level | None:
    """Return what a detection counts for: lowered by poor confidence, capped by issuer.

    None: it does not count at all. Raises nothing.
    """
    claimed: int = detection.level
    if not _is_sure(detection):
        claimed -= 1
    if claimed < Level.LOW:
        return None
    cap = caps.get(detection.issuer, Level.HIGH)
    return None if cap is None else Level(min(claimed, cap))


def _is_sure(detection: Detection) -> bool:
    return detection.confidence >= catalogue.finding_type(detection.name).confidence_min


def merge(first: Detection, second: Detection) -> Detection:
    """Join two reports of one finding: all sightings, and the rest as the newest tells it.

    Gives the same for any order of arguments as long as no more than SIGHTINGS_MAX sightings meet;
    beyond that the first and the newest are kept. Raises nothing.
    """
    newest, other = sorted((first, second), key=_newest_first)
    sightings = sorted(
        {*first.sightings, *second.sightings}, key=lambda each: (each.occurred_at, each.signal_id)
    )
    if len(sightings) > SIGHTINGS_MAX:
        sightings = [sightings[0], *sightings[1 - SIGHTINGS_MAX :]]
    return replace(
        newest,
        sightings=tuple(sightings),
        related=tuple(sorted({*newest.related, *other.related})),
        confidence=max(first.confidence, second.confidence),
        detected_at=min(first.detected_at, second.detected_at),
    )


def same_finding(detection: Detection) -> tuple[object, ...]:
    """Return what reports must share to be the same finding. Raises nothing.

    INVARIANT: doubtful reports keep none alive that was sure. Anybody can cause those of a brute
    force attack; joined with a sure one, each would count as it, for as long as they come.
    """
    return (
        detection.entity_id,
        detection.issuer,
        detection.name,
        detection.level,
        detection.mode,
        detection.clears_on,
        _is_sure(detection),
    )


def describe(detection: Detection) -> str:
    """Return one line that tells people what was found and who says so. Raises nothing."""
    title = catalogue.finding_type(detection.name).title
    said = f"{title}, says {detection.issuer}"
    return f"{said}: {detection.reasons[0]}" if detection.reasons else said


def _newest_first(detection: Detection) -> tuple[float, str]:
    newest = detection.sightings[-1]
    return (-newest.occurred_at.timestamp(), newest.signal_id)


def _secured(clearances: Sequence[Clearance]) -> list[Clearance]:
    """Return the words that together say: all sessions are over, and the real user is back.

    One sign-in that cannot be phished, no earlier than the end of all sessions, secures them: what
    was found before their end is remedied. Neither does it alone.
    """
    revoked = [each for each in clearances if each.remedy == catalogue.SESSIONS_REVOKED]
    returned = [each for each in clearances if each.remedy == catalogue.PHISHING_RESISTANT_SIGN_IN]
    return [
        replace(
            end,
            remedy=catalogue.SESSIONS_SECURED,
            mode=end.mode if start.mode is SignalMode.ENFORCE else start.mode,
            signal_id=start.signal_id,
        )
        for end in revoked
        for start in returned
        if start.entity_id == end.entity_id
        and start.occurred_at >= end.occurred_at
        # A log_only issuer's word counts beside its own words alone.
        and (start.issuer == end.issuer or start.mode is end.mode is SignalMode.ENFORCE)
    ]


def _state_after(remedy: Clearance) -> DetectionState:
    said_safe = remedy.remedy.startswith(catalogue.CONFIRMED_SAFE)
    return DetectionState.CONFIRMED_SAFE if said_safe else DetectionState.REMEDIATED


def _applies(clearance: Clearance, detection: Detection) -> bool:
    if clearance.entity_id != detection.entity_id:
        return False
    if clearance.remedy not in detection.clears_on and (
        clearance.remedy != catalogue.confirmed_safe(detection.name)
    ):
        return False
    if clearance.level is not None and detection.level <= clearance.level:
        return False
    if clearance.issuer == detection.issuer:
        return True
    # The word of a log_only issuer has no effect on what others said.
    return not (
        catalogue.bound_to_issuer(clearance.remedy) or clearance.mode is SignalMode.LOG_ONLY
    )


def _highest(
    counted: Sequence[_Counted], caps: Mapping[str, Level | None]
) -> tuple[Level, set[str], list[str]]:
    """Return level, supporting detections and reasons: maximum, then corroboration."""
    if len(counted) == 1:
        # The usual case, and nothing corroborates itself.
        return counted[0].level, {counted[0].detection.detection_id}, [_told(counted[0])]
    support: dict[Level, dict[str, _Counted]] = {each: {} for each in Level}
    for each in counted:
        support[each.level][each.detection.detection_id] = each
    notes: dict[Level, str] = {}
    pairs = _corroborating_pairs(list(support[Level.MEDIUM].values()), caps)
    if pairs:
        support[Level.HIGH].update(pairs)
        notes[Level.HIGH] = "Medium findings of different source classes within 24 h."
    trio = _corroborating_classes(list(support[Level.LOW].values()), caps)
    if trio:
        support[Level.MEDIUM].update(trio)
        notes[Level.MEDIUM] = "Low findings of three source classes within 24 h."
    top = max((each for each in Level if support[each]), default=Level.LOW)
    reasons = [_told(each) for each in support[top].values()]
    return top, set(support[top]), reasons + ([notes[top]] if top in notes else [])


def _told(each: _Counted) -> str:
    return describe(each.detection)


def _corroborating_pairs(
    mediums: Sequence[_Counted], caps: Mapping[str, Level | None]
) -> dict[str, _Counted]:
    """Return the MEDIUM findings that have a partner of another source class near in time."""
    found: dict[str, _Counted] = {}
    for first, second in combinations(mediums, 2):
        one, other = first.detection, second.detection
        if (
            _sources((one, other)) > 1
            and _may_lift({one.issuer, other.issuer}, Level.HIGH, caps)
            and _near(one, other)
        ):
            found[one.detection_id] = first
            found[other.detection_id] = second
    return found


def _corroborating_classes(
    lows: Sequence[_Counted], caps: Mapping[str, Level | None]
) -> dict[str, _Counted]:
    """Return the LOW findings that share a window with two other source classes."""
    found: dict[str, _Counted] = {}
    starts = sorted({s.occurred_at for each in lows for s in each.detection.sightings})
    for start in starts:
        window = {
            each.detection.detection_id: each
            for each in lows
            if any(
                start <= sighting.occurred_at <= start + CORROBORATION_WINDOW
                for sighting in each.detection.sightings
            )
        }
        issuers = {each.detection.issuer for each in window.values()}
        sources = _sources([each.detection for each in window.values()])
        if sources >= CLASSES_FOR_MEDIUM and _may_lift(issuers, Level.MEDIUM, caps):
            found |= window
    return found


def _sources(detections: Collection[Detection]) -> int:
    """Return how many sources stand behind findings: their classes, callers being one of them.

    INVARIANT: who may ask for decisions cannot confirm one forged question by another one.
    """
    classes = {each.source_class for each in detections if each.issuer not in CALLER_ISSUERS}
    told = {each.source_class for each in detections if each.issuer in CALLER_ISSUERS}
    return len(classes) + bool(told - classes)


def _may_lift(issuers: Collection[str], to: Level, caps: Mapping[str, Level | None]) -> bool:
    """INVARIANT: an issuer never gets beyond its cap on its own word alone."""
    return len(issuers) > 1 or all(
        (caps.get(issuer, Level.HIGH) or Level.LOW) >= to for issuer in issuers
    )


def _near(one: Detection, other: Detection) -> bool:
    return any(
        abs(a.occurred_at - b.occurred_at) <= CORROBORATION_WINDOW
        for a in one.sightings
        for b in other.sightings
    )


def _pin_in_force(pins: Iterable[Pin], now: datetime) -> Pin | None:
    in_force = [pin for pin in pins if pin.until is None or pin.until > now]
    return max(in_force, key=lambda pin: (pin.set_at, pin.level), default=None)


def _pinned(result: LevelResult, pin: Pin, counted: Sequence[_Counted]) -> LevelResult:
    """Apply the pin, but never below a floor: those stay until they are remedied."""
    floors = [
        each
        for each in counted
        if each.level is Level.HIGH and catalogue.finding_type(each.detection.name).floor
    ]
    if floors and pin.level < Level.HIGH:
        note = f"Pinned {pin.level.name} by {pin.set_by}, not applied: below the floor."
        return replace(result, reasons=(note, *result.reasons)[:REASONS_MAX])
    note = f"Pinned {pin.level.name} by {pin.set_by}: {pin.reason}"
    keeps_causes = result.level is pin.level
    return replace(
        result,
        level=pin.level,
        reasons=(note, *result.reasons)[:REASONS_MAX] if keeps_causes else (note,),
        cause_ids=result.cause_ids if keeps_causes else (),
        pinned=True,
    )


def _next_change_at(open_now: Iterable[Detection], pin: Pin | None) -> datetime | None:
    moments = [ends for each in open_now if (ends := expires_at(each)) is not None]
    if pin is not None and pin.until is not None:
        moments.append(pin.until)
    return min(moments, default=None)
