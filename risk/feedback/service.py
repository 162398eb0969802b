"""Use cases of feedback: say it, take it back.

All in the caller's transaction, which holds the tenant's lock: findings, labels, levels and the
log of words change together, and the caller responds to the assessments in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter

from risk.entities import store as entities_store
from risk.feedback import store
from risk.feedback.learning import teach, withdraw
from risk.feedback.model import (
    CLOSED_MAX,
    LABELS,
    QUIET,
    Feedback,
    Outcome,
    Said,
    Word,
    outcome_of,
    taken_back,
)
from risk.findings import store as findings_store
from risk.levels import service as levels
from risk.levels.service import Change, Trigger
from risk.lookups import service as lookups
from risk.lookups import store as lookup_store
from risk.lookups.service import Subject
from risk.model import (
    ADMIN_PIN_LIFE,
    AdminWord,
    Assessment,
    Detection,
    DetectionState,
    EntityKind,
    Level,
)
from risk.reviews.moves import note_moves
from risk.sql.store import Connection
from runtime.errors import Conflict
from runtime.ids import new_id

UNDOABLE: Final = (Word.CONFIRM_COMPROMISED, Word.CONFIRM_SAFE, Word.DISMISS)
LISTED_MAX: Final = 20

log = structlog.get_logger()
_words_total = Counter("hub_risk_feedback_total", "What people said of risk.", ["word"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a word came to. feedback: None if it changed nothing. assessments: of its users."""

    feedback: Feedback | None
    outcome: Outcome = field(default_factory=Outcome)
    assessments: tuple[Assessment, ...] = ()


async def give(
    connection: Connection,
    tenant_id: str,
    subject: Subject,
    said: Said,
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> Given:
    """Do what a person says about an entity, or about one finding about it.

    Saying it again changes nothing and is no error. Raises nothing of its own.
    """
    touches = _touches(subject)
    await entities_store.lock_entities(connection, tenant_id, entity_ids=set(touches))
    active = await findings_store.active_detections(connection, tenant_id, entity_ids=touches)
    feedback = _feedback(tenant_id, subject, said, touches=touches, now=now)
    outcome = outcome_of(
        said,
        feedback,
        sorted(_concerned(active, subject, said.only), key=lambda each: each.detection_id)[
            :CLOSED_MAX
        ],
        new_id=_new_ids(),
    )
    if outcome.changes_nothing:
        return Given(feedback=None, outcome=outcome)
    await store.add(connection, feedback)
    label = LABELS.get(said.word)
    if label is not None:
        await store.add_labels(connection, feedback, outcome.labelled, label)
    await findings_store.write_detections(connection, outcome.closed, now=now)
    if said.word is Word.CONFIRM_COMPROMISED:
        await withdraw(connection, tenant_id, subject, now=now)
    if said.word is Word.CONFIRM_SAFE:
        await teach(connection, tenant_id, subject, now=now)
    user_ids = await lookups.users_of(connection, tenant_id, subject)
    made = await _recompute(connection, feedback, user_ids, outcome=outcome, caps=caps, now=now)
    await _note_devices(connection, tenant_id, outcome, now=now)
    _tell(feedback, said.word.value)
    return Given(feedback=feedback, outcome=outcome, assessments=tuple(made))


async def undo(
    connection: Connection,
    tenant_id: str,
    subject: Subject,
    *,
    by: str,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> Given:
    """Take back the newest word about an entity: what it closed is open again, unless remedied.

    When that is undone already nothing changes. Raises Conflict when nobody ever said anything.
    """
    newest = await store.list_of(connection, tenant_id, subject.entity_id, limit=1, words=UNDOABLE)
    if not newest:
        raise Conflict("There is no feedback to undo.")
    feedback = newest[0]
    if feedback.undone_at is not None:
        return Given(feedback=None)
    await entities_store.lock_entities(connection, tenant_id, entity_ids=set(feedback.touches))
    changed = [
        taken_back(each, feedback, by=by, now=now)
        for each in await lookup_store.detections_by(
            connection, tenant_id, entity_ids=feedback.touches, state_by=feedback.feedback_id
        )
        if each.state is not DetectionState.EXPIRED
    ]
    await store.undo(connection, feedback, by=by, now=now)
    await findings_store.forget_clearances(
        connection, tenant_id, entity_ids=feedback.touches, signal_id=feedback.feedback_id
    )
    await findings_store.write_detections(connection, changed, now=now)
    user_ids = await lookups.users_of(connection, tenant_id, subject)
    outcome = Outcome(closed=tuple(changed))
    made = await _recompute(connection, feedback, user_ids, outcome=Outcome(), caps=caps, now=now)
    await _note_devices(connection, tenant_id, outcome, now=now)
    _tell(feedback, "undo")
    return Given(feedback=feedback, outcome=outcome, assessments=tuple(made))


async def note_level(
    connection: Connection, tenant_id: str, user_id: str, word: AdminWord, *, now: datetime
) -> None:
    """Keep in the log that a person set a user's level: a look into the past needs the pin."""
    is_pin = word.level is Level.LOW
    await store.add(
        connection,
        Feedback(
            tenant_id=tenant_id,
            feedback_id=new_id("fbk"),
            entity_kind=EntityKind.USER,
            entity_id=user_id,
            detection_id=None,
            touches=(user_id,),
            word=Word.SET_LEVEL,
            level=word.level,
            reason=word.reason,
            by=word.by,
            at=now,
            until=now + ADMIN_PIN_LIFE if is_pin else None,
        ),
    )


def _touches(subject: Subject) -> tuple[str, ...]:
    """Return the entities whose findings a word about the subject is about: itself first.

    A word about a session is one about what it led to for its user.
    """
    if subject.session is None:
        return (subject.entity_id,)
    return (subject.entity_id, subject.session.user_id)


def _concerned(
    active: list[Detection], subject: Subject, only: Detection | None
) -> Iterator[Detection]:
    for each in sorted(active, key=lambda each: each.detection_id):
        if only is not None and each.detection_id != only.detection_id:
            continue
        if each.entity_id == subject.entity_id or subject.entity_id in each.related:
            yield each


def _feedback(
    tenant_id: str,
    subject: Subject,
    said: Said,
    *,
    touches: tuple[str, ...],
    now: datetime,
) -> Feedback:
    is_safe = said.word is Word.CONFIRM_SAFE
    return Feedback(
        tenant_id=tenant_id,
        feedback_id=new_id("fbk"),
        entity_kind=subject.kind,
        entity_id=subject.entity_id,
        detection_id=None if said.only is None else said.only.detection_id,
        touches=touches,
        word=said.word,
        level=None,
        reason=said.reason,
        by=said.by,
        at=now,
        until=(said.quiet_until or now + QUIET) if is_safe else None,
    )


async def _recompute(
    connection: Connection,
    feedback: Feedback,
    user_ids: frozenset[str],
    *,
    outcome: Outcome,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> list[Assessment]:
    tenant_id = feedback.tenant_id
    trigger = Trigger(trace_id=feedback.feedback_id, occurred_at=now, received_at=now)
    return await levels.recompute(
        connection,
        tenant_id,
        Change(
            user_ids=user_ids,
            device_ids=frozenset(feedback.touches) - user_ids,
            found=outcome.found,
            remedied=outcome.quiet,
            triggers=dict.fromkeys(user_ids, trigger),
            insist=user_ids,
        ),
        caps={issuer: cap for (tenant, issuer), cap in caps.items() if tenant == tenant_id},
        now=now,
    )


async def _note_devices(
    connection: Connection, tenant_id: str, outcome: Outcome, *, now: datetime
) -> None:
    """Have the sessions on devices judged again of which something ended, or is true again."""
    devices = {each.entity_id for each in outcome.closed if each.entity_kind is EntityKind.DEVICE}
    await note_moves(connection, tenant_id, devices=devices, now=now)


def _new_ids() -> Iterator[str]:
    while True:
        yield new_id("det")


def _tell(feedback: Feedback, word: str) -> None:
    _words_total.labels(word).inc()
    log.info(
        "feedback.given",
        tenant_id=feedback.tenant_id,
        feedback_id=feedback.feedback_id,
        entity_id=feedback.entity_id,
        word=word,
    )
