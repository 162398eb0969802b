"""What the session check found: a session has a level, and a HIGH one concerns its user.

The evaluator tells levels that changed; each is a finding about the session, and at HIGH one more
about its user, MEDIUM, which ends when that session is at HIGH no more. Source: threat model §0.2,
§1.1 ("Session Influenced User Risk").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from risk import catalogue
from risk.finding_type import SESSION
from risk.levels import service as levels
from risk.levels.service import Change, Trigger
from risk.model import (
    REASON_CHARS_MAX,
    REASONS_MAX,
    Assessment,
    Clearance,
    Detection,
    DetectionState,
    EntityKind,
    Level,
    Sighting,
    SignalMode,
)
from risk.sql.store import Connection
from runtime.ids import new_id

#: who speaks when the session check does
SESSIONS_ISSUER: Final = "urn:signalhub:sessions"


class SessionLevel(msgspec.Struct, frozen=True, kw_only=True):
    """The level of one session by the session check, when it is not what it was before.

    level: a name. trace_id: of the answer that was given. reasons: for people.
    """

    tenant_id: str
    session_id: str
    user_id: str
    level: str
    reasons: tuple[str, ...]
    at: datetime
    trace_id: str


async def note_levels(
    connection: Connection,
    tenant_id: str,
    told: Sequence[SessionLevel],
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> list[Assessment]:
    """Record levels of sessions of one tenant, and judge their users; in the caller's transaction.

    Raises nothing of its own.
    """
    users = frozenset(each.user_id for each in told)
    triggers = {
        each.user_id: Trigger(trace_id=each.trace_id, occurred_at=each.at, received_at=each.at)
        for each in sorted(told, key=lambda each: each.at)
    }
    return await levels.recompute(
        connection,
        tenant_id,
        Change(
            user_ids=users,
            device_ids=frozenset(each.session_id for each in told),
            found=[found for each in told for found in _found(each, now)],
            remedied=[remedy for each in told for remedy in _remedied(each)],
            triggers=triggers,
        ),
        caps={issuer: cap for (tenant, issuer), cap in caps.items() if tenant == tenant_id},
        now=now,
    )


def _found(told: SessionLevel, now: datetime) -> Iterable[Detection]:
    level = Level[told.level]
    if level > Level.LOW:
        yield _detection(
            told,
            catalogue.SESSION_RISK,
            (EntityKind.SESSION, told.session_id),
            (told.user_id, level, (catalogue.SESSION_RISK_LOWERED, catalogue.CONFIRMED_SAFE)),
            now,
        )
    if level is Level.HIGH:
        lowered = catalogue.session_risk_lowered(told.session_id)
        yield _detection(
            told,
            catalogue.SESSION_INFLUENCED,
            (EntityKind.USER, told.user_id),
            (told.session_id, Level.MEDIUM, (lowered, catalogue.CONFIRMED_SAFE)),
            now,
        )


def _remedied(told: SessionLevel) -> Iterable[Clearance]:
    level = Level[told.level]
    if level is Level.HIGH:
        return
    yield _clearance(told, told.session_id, catalogue.SESSION_RISK_LOWERED, keep=level)
    yield _clearance(told, told.user_id, catalogue.session_risk_lowered(told.session_id), keep=None)


def _detection(
    told: SessionLevel,
    name: str,
    entity: tuple[EntityKind, str],
    claim: tuple[str, Level, tuple[str, ...]],
    now: datetime,
) -> Detection:
    related, level, clears_on = claim
    detection_id = new_id("det")
    return Detection(
        tenant_id=told.tenant_id,
        detection_id=detection_id,
        revision=0,
        name=name,
        source_class=SESSION,
        mode=SignalMode.ENFORCE,
        entity_kind=entity[0],
        entity_id=entity[1],
        related=(related,),
        level=level,
        confidence=1.0,
        issuer=SESSIONS_ISSUER,
        sightings=(Sighting(signal_id=told.trace_id, occurred_at=told.at),),
        detected_at=now,
        reasons=tuple(each[:REASON_CHARS_MAX] for each in told.reasons[:REASONS_MAX]),
        clears_on=clears_on,
        state=DetectionState.ACTIVE,
        state_at=now,
        state_by=told.trace_id,
    )


def _clearance(told: SessionLevel, entity_id: str, remedy: str, *, keep: Level | None) -> Clearance:
    return Clearance(
        tenant_id=told.tenant_id,
        entity_id=entity_id,
        issuer=SESSIONS_ISSUER,
        remedy=remedy,
        # Equal times are of no concern: the newest word of the check counts.
        level=keep,
        mode=SignalMode.ENFORCE,
        occurred_at=told.at,
        signal_id=told.trace_id,
    )
