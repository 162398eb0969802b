"""Compute levels again after a change, record what came out, and say for whom it matters.

::

    change -> lock users -> read links, detections, clearances, pins, levels, policy (once each)
           -> assessment.record, assessment.judge (pure)
           -> append detections, clearances, levels, history, next looks (executemany)
           -> one Assessment per user whose level or causes changed or who has news
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from risk import assessment
from risk.assessment import Judgement, UserFacts
from risk.entities import store as entities_store
from risk.entities.model import Link
from risk.findings import store as findings_store
from risk.hijacks import withdraw_found
from risk.levels import store
from risk.levels.model import BY_TIME, LEVELS_KIND, LevelChange, LevelRecord, Standing
from risk.model import Assessment, Clearance, Detection, DetectionState, EntityKind, Level
from risk.policies import store as policies_store
from risk.policies.model import StoredPolicy
from risk.reviews.moves import note_moves
from risk.sql.store import Connection
from runtime.changes import note_changes
from runtime.ids import new_id

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What made us look at a user. received_at: when the news reached us."""

    trace_id: str
    occurred_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is new in one tenant. user_ids: whom it may concern.

    device_ids: devices, and whatever else is no user, that are involved besides.
    found: fresh detections (revision 0). triggers: by user; without one the time is the reason.
    insist: users whose policy must run even if nothing changed. links: all links of the users,
    None if they were not read yet.
    """

    user_ids: frozenset[str]
    device_ids: frozenset[str] = frozenset()
    found: Sequence[Detection] = ()
    remedied: Sequence[Clearance] = ()
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    insist: frozenset[str] = frozenset()
    links: Sequence[Link] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is stored about the users of a change and about their devices."""

    people: Mapping[str, Standing]
    links: Mapping[str, Sequence[Link]]
    detections: Sequence[Detection]
    clearances: Sequence[Clearance]
    policy: StoredPolicy


async def read_facts(
    connection: Connection,
    tenant_id: str,
    *,
    user_ids: frozenset[str],
    device_ids: frozenset[str] = frozenset(),
    links: Iterable[Link] | None = None,
) -> Facts:
    """Read everything a judgement of the users needs, once per table.

    links: all links of these users, if the caller has read them already.
    """
    people = await store.read_people(connection, tenant_id, user_ids=user_ids)
    if links is None:
        links = await entities_store.links_of_users(connection, tenant_id, user_ids=people)
    of_user: dict[str, list[Link]] = {}
    for link in links:
        of_user.setdefault(link.user_id, []).append(link)
    linked = {link.device_id for some in of_user.values() for link in some}
    about = sorted({*people, *device_ids, *linked})
    return Facts(
        people=people,
        links=of_user,
        detections=await findings_store.active_detections(connection, tenant_id, entity_ids=about),
        clearances=await findings_store.read_clearances(connection, tenant_id, entity_ids=about),
        policy=await policies_store.read_policy(connection, tenant_id),
    )


async def recompute(
    connection: Connection,
    tenant_id: str,
    change: Change,
    *,
    caps: Mapping[str, Level | None],
    now: datetime,
) -> list[Assessment]:
    """Record a change and judge the users it may concern, in order of their ids.

    caps: issuer to the highest level its word can lead to. Raises nothing of its own.
    """
    await entities_store.lock_entities(connection, tenant_id, entity_ids=change.user_ids)
    facts = await read_facts(
        connection,
        tenant_id,
        user_ids=change.user_ids,
        device_ids=change.device_ids,
        links=change.links,
    )
    for broken in facts.policy.skipped:
        log.error("policy_rule.skipped", tenant_id=tenant_id, detail=broken)
    standing, appended = assessment.record(
        facts.detections,
        change.found,
        assessment.by_entity((*facts.clearances, *change.remedied)),
        now=now,
    )
    judgements = _judge_all(facts, standing, caps=caps, now=now)
    news = _with_news(facts, appended) | change.insist
    concerned = [
        user_id
        for user_id, judgement in judgements.items()
        if user_id in news or _moved(facts.people[user_id].record, judgement)
    ]
    await findings_store.write_detections(connection, appended, now=now, is_told=True)
    await findings_store.write_clearances(connection, change.remedied)
    await withdraw_found(connection, tenant_id, appended, caps=caps, now=now)
    moved = await _write_levels(connection, tenant_id, facts, judgements=judgements, now=now)
    await note_changes(connection, LEVELS_KIND, sorted(moved | findings_store.devices_of(appended)))
    assessments = await _assessments(
        connection,
        facts,
        change,
        judgements={each: judgements[each] for each in concerned},
        now=now,
    )
    await note_moves(
        connection,
        tenant_id,
        users=assessments,
        devices={
            *(entity_id for _, entity_id in moved),
            *(each.entity_id for each in appended if _is_news_of_device(each)),
        },
        now=now,
    )
    await store.write_history(
        connection,
        [
            _level_change(each, judgements[each.user_id], now)
            for each in assessments
            if each.level is not each.previous_level
        ],
    )
    return assessments


def _is_news_of_device(each: Detection) -> bool:
    """Return whether something began or ended there: who repeats himself causes no reviews."""
    is_news = each.revision == 1 or each.state is not DetectionState.ACTIVE
    return is_news and each.entity_kind is EntityKind.DEVICE


def judge_user(
    facts: Facts,
    user_id: str,
    standing: Mapping[str, Sequence[Detection]],
    *,
    caps: Mapping[str, Level | None],
    now: datetime,
) -> Judgement:
    """Judge one user from facts and settled detections by entity. Raises nothing."""
    return assessment.judge(
        UserFacts(
            user_id=user_id,
            evidence=assessment.evidence_of(user_id, facts.links.get(user_id, ()), standing),
            pin=facts.people[user_id].pin,
            groups=facts.people[user_id].user.groups,
            caps=caps,
        ),
        facts.policy.policy,
        now=now,
    )


def _judge_all(
    facts: Facts, standing: Iterable[Detection], *, caps: Mapping[str, Level | None], now: datetime
) -> dict[str, Judgement]:
    grouped = assessment.by_subject(standing)
    return {
        user_id: judge_user(facts, user_id, grouped, caps=caps, now=now)
        for user_id in sorted(facts.people)
    }


def _with_news(facts: Facts, appended: Iterable[Detection]) -> frozenset[str]:
    """Return the users for whom a detection counts that was found or seen again just now."""
    fresh = assessment.by_subject(each for each in appended if each.state is DetectionState.ACTIVE)
    return frozenset(
        user_id
        for user_id in facts.people
        if assessment.evidence_of(user_id, facts.links.get(user_id, ()), fresh)
    )


def _moved(before: LevelRecord | None, judgement: Judgement) -> bool:
    if before is None:
        return judgement.result.level > Level.LOW or bool(judgement.result.cause_ids)
    after = judgement.result
    return before.level is not after.level or before.cause_ids != after.cause_ids


async def _write_levels(
    connection: Connection,
    tenant_id: str,
    facts: Facts,
    *,
    judgements: Mapping[str, Judgement],
    now: datetime,
) -> set[tuple[str, str]]:
    """Store levels; return for the change feed whose level is another one than before."""
    written: list[LevelRecord] = []
    due: dict[str, datetime] = {}
    for user_id, judgement in judgements.items():
        result, before = judgement.result, facts.people[user_id].record
        if result.next_change_at is not None:
            due[user_id] = result.next_change_at
        wanted = LevelRecord(
            tenant_id=tenant_id,
            entity_id=user_id,
            level=result.level,
            score=result.score,
            reasons=result.reasons,
            cause_ids=result.cause_ids,
            computed_at=now,
        )
        if before is None and not result.pinned and not _moved(before, judgement):
            # Nothing was ever said about this user: there is no record to keep.
            continue
        if before is None or not wanted.says_the_same(before):
            written.append(wanted)
    await store.write_levels(connection, written)
    await store.schedule(connection, tenant_id, due=due, reason=BY_TIME)
    return _moved_refs(tenant_id, facts, written)


def _moved_refs(
    tenant_id: str, facts: Facts, written: Iterable[LevelRecord]
) -> set[tuple[str, str]]:
    """Return for the change feed whose level is another one than before."""
    moved = set()
    for each in written:
        before = facts.people[each.entity_id].record
        if each.level is not (Level.LOW if before is None else before.level):
            moved.add(each.entity_id)
    # What moved them may be whose word counts, and then their devices are not what they were.
    linked = {link.device_id for user_id in moved for link in facts.links.get(user_id, ())}
    told = {each.entity_id for each in facts.detections}
    return {(tenant_id, entity_id) for entity_id in moved | (linked & told)}


async def _assessments(
    connection: Connection,
    facts: Facts,
    change: Change,
    *,
    judgements: Mapping[str, Judgement],
    now: datetime,
) -> list[Assessment]:
    if not judgements:
        return []
    tenant_id = next(iter(facts.people.values())).user.tenant_id
    identifiers = await entities_store.identifiers_of(connection, tenant_id, entity_ids=judgements)
    made: list[Assessment] = []
    for user_id, judgement in judgements.items():
        before = facts.people[user_id].record
        trigger = change.triggers.get(user_id) or Trigger(
            trace_id=new_id("chg"), occurred_at=now, received_at=now
        )
        result = judgement.result
        made.append(
            Assessment(
                tenant_id=tenant_id,
                user_id=user_id,
                trace_id=trigger.trace_id,
                previous_level=Level.LOW if before is None else before.level,
                level=result.level,
                score=result.score,
                reasons=result.reasons,
                causes=judgement.causes,
                actions=judgement.decision.actions,
                would_have=judgement.would_have,
                rule=judgement.decision.rule,
                mode=judgement.decision.mode.value,
                identifiers=tuple(identifiers.get(user_id, ())),
                label=facts.people[user_id].user.label,
                occurred_at=trigger.occurred_at,
                received_at=trigger.received_at,
            )
        )
    return made


def _level_change(made: Assessment, judgement: Judgement, now: datetime) -> LevelChange:
    return LevelChange(
        tenant_id=made.tenant_id,
        history_id=new_id("lvl"),
        entity_id=made.user_id,
        previous_level=made.previous_level,
        level=made.level,
        at=now,
        reasons=made.reasons,
        cause_ids=judgement.result.cause_ids,
        trace_id=made.trace_id,
    )
