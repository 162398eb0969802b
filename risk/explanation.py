"""Use cases that read: a user's risk, how it came about, what would end it, lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from risk import assessment
from risk import level as levels
from risk.assessment import Judgement
from risk.entities import service as entities
from risk.entities.model import Link
from risk.levels import service as levels_service
from risk.levels import store as levels_store
from risk.levels.model import LevelChange, LevelRecord, caps_of_tenant
from risk.model import Clearance, Detection, DetectionState, Level, Pin, SignalMode
from risk.sql.store import Connection

PAGE_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRisk:
    """A user's level as computed last. record: None if nothing was ever said about the user."""

    user_id: str
    label: str
    record: LevelRecord | None
    pin: Pin | None

    @property
    def level(self) -> Level:
        """The level; LOW for somebody nothing was ever said about."""
        return Level.LOW if self.record is None else self.record.level


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One active detection that concerns a user. counts_as: None if it does not count.

    via: the links that bring it to the user; none for a detection about the user.
    """

    detection: Detection
    counts_as: Level | None
    is_cause: bool
    via: tuple[Link, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A judgement made anew, with everything it rests on."""

    user_id: str
    judgement: Judgement
    evidence: tuple[Evidence, ...]
    remedies: tuple[Clearance, ...]
    pin: Pin | None


async def user_risk(connection: Connection, tenant_id: str, user: str) -> UserRisk:
    """Return the level of a user. Raises Invalid, NotFound; makes nothing (contracts §5)."""
    user_id = await entities.resolve(connection, tenant_id, user)
    found = await _users(connection, tenant_id, [user_id])
    return found[0]


async def list_user_risks(
    connection: Connection,
    tenant_id: str,
    *,
    level: Level | None,
    since: datetime | None = None,
    after: str = "",
    limit: int = 50,
) -> list[UserRisk]:
    """Return users of a level (None: all that were ever assessed), ascending by id.

    since: only levels computed then or later. limit: at most 200.
    """
    records = await levels_store.list_levels(
        connection, tenant_id, level=level, since=since, after=after, limit=min(limit, PAGE_MAX)
    )
    return await _users(connection, tenant_id, [record.entity_id for record in records])


async def history(
    connection: Connection, tenant_id: str, user: str, *, before: str = "", limit: int = 50
) -> list[LevelChange]:
    """Return the changes of a user's level, newest first, at most 200. Raises NotFound."""
    user_id = await entities.resolve(connection, tenant_id, user)
    return await levels_store.list_history(
        connection, tenant_id, entity_id=user_id, before=before, limit=min(limit, PAGE_MAX)
    )


async def explain(
    connection: Connection,
    tenant_id: str,
    user: str,
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> Explanation:
    """Judge a user anew and show what the judgement rests on. Changes nothing.

    Raises Invalid, NotFound.
    """
    user_id = await entities.resolve(connection, tenant_id, user)
    facts = await levels_service.read_facts(connection, tenant_id, user_ids=frozenset({user_id}))
    of_tenant = caps_of_tenant(caps, tenant_id)
    standing, _ = assessment.record(
        facts.detections, (), assessment.by_entity(facts.clearances), now=now
    )
    grouped = assessment.by_subject(standing)
    judgement = levels_service.judge_user(facts, user_id, grouped, caps=of_tenant, now=now)
    links = facts.links.get(user_id, ())
    return Explanation(
        user_id=user_id,
        judgement=judgement,
        evidence=tuple(
            Evidence(
                detection=each,
                counts_as=_counts_as(each, of_tenant),
                is_cause=each.detection_id in judgement.result.cause_ids,
                via=_via(each, links),
                expires_at=levels.expires_at(each),
            )
            for each in assessment.evidence_of(user_id, links, grouped)
        ),
        remedies=tuple(facts.clearances),
        pin=facts.people[user_id].pin,
    )


async def _users(connection: Connection, tenant_id: str, user_ids: Sequence[str]) -> list[UserRisk]:
    people = await levels_store.read_people(connection, tenant_id, user_ids=user_ids)
    return [
        UserRisk(
            user_id=user_id,
            label=people[user_id].user.label,
            record=people[user_id].record,
            pin=people[user_id].pin,
        )
        for user_id in user_ids
        if user_id in people
    ]


def _counts_as(detection: Detection, caps: Mapping[str, Level | None]) -> Level | None:
    if detection.state is not DetectionState.ACTIVE or detection.mode is not SignalMode.ENFORCE:
        return None
    return levels.effective_level(detection, caps)


def _via(detection: Detection, links: Sequence[Link]) -> tuple[Link, ...]:
    return tuple(
        link
        for link in links
        if link.device_id == detection.entity_id and link.covers(detection.since)
    )
