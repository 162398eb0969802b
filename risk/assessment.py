"""The steps of an assessment between reading and writing. Pure.

::

    signal -> mapping.drafts, naming.names
      -> placement.place   whom does it concern, who is missing
      -> findings, remedies
      -> record            join reports of one finding, let remedies and time close them
      -> evidence_of       what counts for a user: its own and its devices' detections
      -> judge             level, causes, policy
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from risk import catalogue
from risk import level as levels
from risk.drafts import ClearanceDraft, DetectionDraft
from risk.entities.model import Link
from risk.level import LevelResult
from risk.model import (
    ADMIN_ISSUER,
    ADMIN_SOURCE_CLASS,
    AdminWord,
    Cause,
    Clearance,
    Detection,
    DetectionState,
    EntityKind,
    Level,
    Pin,
    Sighting,
    SignalMode,
)
from risk.naming import occurred_at
from risk.placement import Placement
from risk.policy import Policy, PolicyDecision, PolicyFacts, decide

PIN_CAUSE: Final = "admin_pin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The level of a user, why, and what policy says. would_have: held back for any reason."""

    result: LevelResult
    decision: PolicyDecision
    would_have: frozenset[str]
    causes: tuple[Cause, ...]


# --- findings and remedies ----------------------------------------------------------------------


def findings(placement: Placement, *, new_id: Callable[[], str], now: datetime) -> list[Detection]:
    """Return what the signal found, as fresh detections (revision 0). Raises nothing."""
    signal = placement.signal
    at = occurred_at(signal)
    found: list[Detection] = []
    for each in placement.drafts:
        if not isinstance(each, DetectionDraft):
            continue
        entity = placement.entity_of(each)
        if entity is None:
            continue
        kind, entity_id = entity
        sessions = {session.session_id for session in placement.sessions}
        related = {placement.user_id, placement.device_id, *sessions} - {entity_id, None}
        found.append(
            Detection(
                tenant_id=signal.tenant_id,
                detection_id=new_id(),
                revision=0,
                name=each.name,
                source_class=each.source_class or signal.source_class,
                mode=signal.mode,
                entity_kind=kind,
                entity_id=entity_id,
                related=tuple(sorted(str(entity) for entity in related)),
                level=each.level,
                confidence=each.confidence,
                issuer=signal.iss,
                sightings=(Sighting(signal_id=signal.signal_id, occurred_at=at),),
                detected_at=now,
                reasons=(each.reason,) if each.reason else (),
                clears_on=each.clears_on,
                state=DetectionState.ACTIVE,
                state_at=now,
                state_by=signal.signal_id,
            )
        )
    return found


def remedies(placement: Placement) -> list[Clearance]:
    """Return what the signal says is remedied. Raises nothing."""
    signal = placement.signal
    return [
        Clearance(
            tenant_id=signal.tenant_id,
            entity_id=entity[1],
            issuer=signal.iss,
            remedy=each.remedy,
            level=each.level,
            mode=signal.mode,
            occurred_at=occurred_at(signal),
            signal_id=signal.signal_id,
        )
        for each in placement.drafts
        if isinstance(each, ClearanceDraft) and (entity := placement.entity_of(each)) is not None
    ]


def record(
    stored: Iterable[Detection],
    found: Iterable[Detection],
    clearances: Mapping[str, Sequence[Clearance]],
    *,
    now: datetime,
) -> tuple[list[Detection], list[Detection]]:
    """Join what is stored with what was found; return (all as they stand now, rows to append).

    stored: active detections. found: fresh ones, revision 0. clearances: by entity id, new ones
    included. A signal that was recorded before changes nothing. Raises nothing.
    """
    before = {levels.same_finding(each): each for each in stored}
    current = dict(before)
    for each in found:
        key = levels.same_finding(each)
        known = current.get(key)
        if known is None:
            current[key] = each
        elif each.sightings[0] not in known.sightings:
            current[key] = replace(
                levels.merge(known, each),
                detection_id=known.detection_id,
                revision=known.revision,
                state_at=known.state_at,
                state_by=known.state_by,
            )
    standing: list[Detection] = []
    appended: list[Detection] = []
    for key, each in current.items():
        settled = levels.settle(each, clearances.get(each.entity_id, ()), now=now)
        known = before.get(key)
        if settled is not known and settled != known:
            settled = replace(settled, revision=settled.revision + 1)
            appended.append(settled)
        standing.append(settled)
    return standing, appended


def admin_detection(
    word: AdminWord, *, tenant_id: str, user_id: str, detection_id: str, now: datetime
) -> Detection:
    """Return what an administrator reports about a user, as a fresh detection. Raises nothing."""
    return Detection(
        tenant_id=tenant_id,
        detection_id=detection_id,
        revision=0,
        name=catalogue.ADMIN_REPORTED,
        source_class=ADMIN_SOURCE_CLASS,
        mode=SignalMode.ENFORCE,
        entity_kind=EntityKind.USER,
        entity_id=user_id,
        related=(),
        level=word.level,
        confidence=1.0,
        issuer=ADMIN_ISSUER,
        # There is no signal behind it: the report is its own evidence.
        sightings=(Sighting(signal_id=detection_id, occurred_at=now),),
        detected_at=now,
        reasons=(word.reason,),
        clears_on=(catalogue.ADMIN_LOWERED, catalogue.CONFIRMED_SAFE),
        state=DetectionState.ACTIVE,
        state_at=now,
        state_by=word.by,
    )


def closed_by_admin(
    active: Iterable[Detection], word: AdminWord, *, now: datetime
) -> list[Detection]:
    """Return the rows that close what administrators set before: their newest word counts alone.

    Raises nothing.
    """
    lowered = word.level is Level.LOW
    return [
        replace(
            each,
            revision=each.revision + 1,
            state=DetectionState.REMEDIATED if lowered else DetectionState.SUPERSEDED,
            state_at=now,
            state_by=word.by,
        )
        for each in active
        # What an analyst confirmed is no level that was set: feedback takes it back.
        if each.issuer == ADMIN_ISSUER and each.name == catalogue.ADMIN_REPORTED
    ]


def by_entity(clearances: Iterable[Clearance]) -> dict[str, list[Clearance]]:
    """Group remedies by the entity they are about. Raises nothing."""
    grouped: dict[str, list[Clearance]] = {}
    for each in clearances:
        grouped.setdefault(each.entity_id, []).append(each)
    return grouped


def by_subject(standing: Iterable[Detection]) -> dict[str, list[Detection]]:
    """Group detections by what they are about. Raises nothing.

    A log_only provider ties no device to a user. What it says of both together stands under the
    user as well, so that `would_have` shows what it would have led to.
    """
    grouped: dict[str, list[Detection]] = {}
    for each in standing:
        grouped.setdefault(each.entity_id, []).append(each)
        if each.mode is SignalMode.LOG_ONLY:
            for entity_id in each.related:
                grouped.setdefault(entity_id, []).append(each)
    return grouped


# --- the user -----------------------------------------------------------------------------------


def evidence_of(
    user_id: str, links: Iterable[Link], standing: Mapping[str, Sequence[Detection]]
) -> list[Detection]:
    """Return what counts for a user: its own detections, and its devices' while it used them.

    links: of the user. standing: detections as `by_subject` groups them. Each comes once.
    """
    found = {each.detection_id: each for each in standing.get(user_id, ())}
    for link in links:
        for each in standing.get(link.device_id, ()):
            if link.covers(each.since):
                found[each.detection_id] = each
    return list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFacts:
    """Everything a judgement needs. evidence: settled detections; caps: by issuer."""

    user_id: str
    evidence: Sequence[Detection]
    pin: Pin | None
    groups: tuple[str, ...]
    caps: Mapping[str, Level | None]


def judge(facts: UserFacts, policy: Policy, *, now: datetime) -> Judgement:
    """Compute the level and ask the policy.

    Findings of log_only providers are left out of the level; what they would have led to is in
    `would_have`. Raises nothing.
    """
    enforced = [each for each in facts.evidence if each.mode is SignalMode.ENFORCE]
    result = _level(facts, enforced, now)
    decision = decide(policy, _policy_facts(facts, result))
    would_have = decision.would_have
    if len(enforced) != len(facts.evidence):
        shadow = decide(policy, _policy_facts(facts, _level(facts, facts.evidence, now)))
        would_have |= (shadow.actions | shadow.would_have) - decision.actions
    return Judgement(
        result=result,
        decision=decision,
        would_have=would_have,
        causes=_causes(facts, result),
    )


def _level(facts: UserFacts, evidence: Iterable[Detection], now: datetime) -> LevelResult:
    pins = () if facts.pin is None else (facts.pin,)
    # The evidence is settled: remedies have had their effect.
    return levels.level(evidence, (), pins=pins, caps=facts.caps, now=now)


def _policy_facts(facts: UserFacts, result: LevelResult) -> PolicyFacts:
    causes = set(result.cause_ids)
    return PolicyFacts(
        level=result.level,
        detections=frozenset(each.name for each in facts.evidence if each.detection_id in causes),
        groups=frozenset(facts.groups),
    )


def _causes(facts: UserFacts, result: LevelResult) -> tuple[Cause, ...]:
    wanted = set(result.cause_ids)
    causes = [
        Cause(
            detection_id=each.detection_id,
            name=each.name,
            level=levels.effective_level(each, facts.caps) or each.level,
            issuer=each.issuer,
            summary=levels.describe(each),
            signal_ids=frozenset(seen.signal_id for seen in each.sightings),
        )
        for each in sorted(facts.evidence, key=lambda each: each.detection_id)
        if each.detection_id in wanted
    ]
    if not causes and result.pinned and result.level > Level.LOW:
        # A pin has no detection, yet a containment needs a cause that can end.
        causes = [
            Cause(
                detection_id=f"pin_{facts.user_id}",
                name=PIN_CAUSE,
                level=result.level,
                issuer=ADMIN_ISSUER,
                summary=result.reasons[0],
            )
        ]
    return tuple(causes)
