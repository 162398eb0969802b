"""Use cases that read the risk of anything: what is known of it now, or was known at a time.

    known_now | known_at  ─▶  Known: what counts for it, and the pin
      stand (pure)        ─▶  level, reasons, what would change it, score with its terms

The level of a user is kept as well, because policy acts on it; for devices, sessions, apps and
service accounts it is computed when somebody asks. A replay of what was known at a time gives the
same level as was computed then, as long as nobody changed the caps of issuers since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from risk import assessment
from risk import level as levels
from risk.entities import store as entities_store
from risk.entities.model import Link
from risk.feedback import store as feedback_store
from risk.feedback.model import Feedback, Word
from risk.findings import store as findings_store
from risk.level import LevelResult
from risk.levels import store as levels_store
from risk.lookups import store as lookup_store
from risk.lookups.service import Subject
from risk.model import Detection, DetectionState, EntityKind, Level, Pin, SignalMode
from risk.ranking import Ranking, Reliability, rank
from risk.sql.store import Connection

PAGE_MAX: Final = 200
#: entities that one list looks at, at most, to fill a page with those of one level
SCANNED_MAX: Final = 2_000
HISTORY_REVISIONS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What findings are weighed with. caps, reliability: by issuer; now: as of when."""

    caps: Mapping[str, Level | None]
    reliability: Mapping[str, Reliability]
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What part of a list is wanted: only of this level, with a finding seen since then."""

    level: Level | None = None
    since: datetime | None = None
    after: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of one entity. evidence: settled detections that concern it; links: of a user.

    pin: of a user.
    """

    subject: Subject
    evidence: tuple[Detection, ...]
    links: tuple[Link, ...] = ()
    pin: Pin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The risk of one entity, and what it rests on."""

    known: Known
    result: LevelResult
    ranking: Ranking
    counts_as: Mapping[str, Level | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of the level of something whose level is not kept."""

    at: datetime
    previous_level: Level
    level: Level
    reasons: tuple[str, ...]
    cause_ids: tuple[str, ...]


def stand(known: Known, weights: Weights) -> Standing:
    """Return the risk that follows from what is known. Raises nothing."""
    enforced = [each for each in known.evidence if each.mode is SignalMode.ENFORCE]
    pins = () if known.pin is None else (known.pin,)
    counted = {
        each.detection_id: levels.effective_level(each, weights.caps)
        for each in enforced
        if each.state is DetectionState.ACTIVE
    }
    return Standing(
        known=known,
        result=levels.level(enforced, (), pins=pins, caps=weights.caps, now=weights.now),
        ranking=rank(
            [
                (each, level)
                for each in enforced
                if (level := counted.get(each.detection_id)) is not None
            ],
            reliability=weights.reliability,
            now=weights.now,
        ),
        counts_as=counted,
    )


async def known_now(
    connection: Connection, tenant_id: str, subject: Subject, *, now: datetime
) -> Known:
    """Return what is known of one entity. Raises nothing of its own."""
    (known,) = await known_of(connection, tenant_id, [subject], now=now)
    return known


async def known_of(
    connection: Connection, tenant_id: str, subjects: Sequence[Subject], *, now: datetime
) -> list[Known]:
    """Return what is known of entities of one kind, in order; a fixed number of queries."""
    users = {each.entity_id for each in subjects if each.kind is EntityKind.USER}
    people = await levels_store.read_people(connection, tenant_id, user_ids=users)
    links = _by_user(await entities_store.links_of_users(connection, tenant_id, user_ids=users))
    about = {entity for each in subjects for entity in _about(each, links)}
    standing, _ = assessment.record(
        await findings_store.active_detections(connection, tenant_id, entity_ids=about),
        (),
        assessment.by_entity(
            await findings_store.read_clearances(connection, tenant_id, entity_ids=about)
        ),
        now=now,
    )
    grouped = assessment.by_subject(standing)
    return [
        Known(
            subject=each,
            evidence=_evidence(each, links, grouped, now),
            links=tuple(links.get(each.entity_id, ())),
            pin=people[each.entity_id].pin if each.entity_id in people else None,
        )
        for each in subjects
    ]


async def known_at(
    connection: Connection, tenant_id: str, subject: Subject, *, at: datetime
) -> Known:
    """Return what was known of one entity at a time. Raises nothing of its own."""
    users = {subject.entity_id} if subject.kind is EntityKind.USER else set()
    links = _by_user(
        link
        for link in await entities_store.links_of_users(connection, tenant_id, user_ids=users)
        if link.since <= at
    )
    written = await lookup_store.revisions(
        connection, tenant_id, entity_ids=_about(subject, links), until=at
    )
    latest = {each.detection_id: each for _, each in written}
    grouped = assessment.by_subject(_settled(latest.values(), at))
    words = await feedback_store.list_of(
        connection, tenant_id, subject.entity_id, limit=1, words=(Word.SET_LEVEL,), until=at
    )
    return Known(
        subject=subject,
        evidence=_evidence(subject, links, grouped, at),
        links=tuple(links.get(subject.entity_id, ())),
        pin=_pin_of(words[0]) if words else None,
    )


async def list_at_risk(
    connection: Connection,
    tenant_id: str,
    kind: EntityKind,
    wanted: Wanted,
    weights: Weights,
) -> tuple[list[Standing], str | None]:
    """Return entities of a kind with findings of their own, and where to go on (None: nowhere).

    Looks at no more than SCANNED_MAX entities: a page may be short and yet not the last.
    """
    found: list[Standing] = []
    after = wanted.after
    scanned = 0
    while scanned < SCANNED_MAX:
        ids = await lookup_store.entities_at_risk(
            connection, tenant_id, kind=kind, after=after, limit=PAGE_MAX
        )
        subjects = [Subject(kind=kind, entity_id=each) for each in ids]
        for known in await known_of(connection, tenant_id, subjects, now=weights.now):
            after = known.subject.entity_id
            standing = stand(known, weights)
            if _fits(standing, wanted):
                found.append(standing)
                if len(found) == wanted.limit:
                    return found, after
        scanned += len(ids)
        if len(ids) < PAGE_MAX:
            return found, None
    return found, after


async def history(
    connection: Connection, tenant_id: str, subject: Subject, weights: Weights
) -> list[Change]:
    """Return how the level of something changed, newest first, by replay of its findings.

    Of the newest HISTORY_REVISIONS_MAX revisions; for a user the kept history tells more.
    """
    written = await lookup_store.revisions(
        connection,
        tenant_id,
        entity_ids=_about(subject, {}),
        limit=HISTORY_REVISIONS_MAX,
    )
    moments = sorted(
        {at for at, _ in written}
        | {ends for _, each in written if (ends := levels.expires_at(each)) and ends <= weights.now}
    )
    changes: list[Change] = []
    latest: dict[str, Detection] = {}
    before, position = Level.LOW, 0
    for at in moments:
        while position < len(written) and written[position][0] <= at:
            latest[written[position][1].detection_id] = written[position][1]
            position += 1
        grouped = assessment.by_subject(_settled(latest.values(), at))
        known = Known(subject=subject, evidence=_evidence(subject, {}, grouped, at))
        result = stand(known, replace(weights, now=at)).result
        if result.level is not before:
            changes.append(
                Change(
                    at=at,
                    previous_level=before,
                    level=result.level,
                    reasons=result.reasons,
                    cause_ids=result.cause_ids,
                )
            )
            before = result.level
    return changes[::-1]


def via(known: Known, detection: Detection) -> tuple[Link, ...]:
    """Return the links that bring a device's finding to a user. Raises nothing."""
    return tuple(
        link
        for link in known.links
        if link.device_id == detection.entity_id and link.covers(detection.since)
    )


def _fits(standing: Standing, wanted: Wanted) -> bool:
    evidence, since = standing.known.evidence, wanted.since
    if not any(each.state is DetectionState.ACTIVE for each in evidence):
        # All it had ended by age, which nobody has written down yet.
        return False
    if wanted.level is not None and standing.result.level is not wanted.level:
        return False
    return since is None or any(each.occurred_at >= since for each in evidence)


def _about(subject: Subject, links: Mapping[str, Sequence[Link]]) -> set[str]:
    """Return the entities whose findings concern the subject."""
    about = {subject.entity_id} | {link.device_id for link in links.get(subject.entity_id, ())}
    if subject.session is not None and subject.session.device_id is not None:
        about.add(subject.session.device_id)
    return about


def _evidence(
    subject: Subject,
    links: Mapping[str, Sequence[Link]],
    grouped: Mapping[str, Sequence[Detection]],
    now: datetime,
) -> tuple[Detection, ...]:
    if subject.kind is EntityKind.USER:
        of_user = links.get(subject.entity_id, ())
        return tuple(assessment.evidence_of(subject.entity_id, of_user, grouped))
    own = [
        each for each in grouped.get(subject.entity_id, ()) if each.entity_id == subject.entity_id
    ]
    session = subject.session
    if session is not None and session.device_id is not None and session.is_live(now):
        # A compromised device raises its live sessions (contracts §6).
        own += grouped.get(session.device_id, ())
    return tuple(own)


def _settled(latest: Iterable[Detection], at: datetime) -> list[Detection]:
    """Return the findings that were active at a time: remedies are in their revisions already."""
    settled = (levels.settle(each, (), now=at) for each in latest)
    return [each for each in settled if each.state is DetectionState.ACTIVE]


def _by_user(links: Iterable[Link]) -> dict[str, list[Link]]:
    grouped: dict[str, list[Link]] = {}
    for link in links:
        grouped.setdefault(link.user_id, []).append(link)
    return grouped


def _pin_of(word: Feedback) -> Pin | None:
    if word.level is not Level.LOW or word.until is None:
        return None
    return Pin(
        tenant_id=word.tenant_id,
        entity_id=word.entity_id,
        level=word.level,
        until=word.until,
        reason=word.reason,
        set_by=word.by,
        set_at=word.at,
    )
