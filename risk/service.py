"""Use cases of risk: assess signals, assess again when due, set a user's risk.

All functions work inside the caller's transaction and write everything they decide before they
return; the caller turns the assessments into responses in the same transaction.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Final, TypeAlias

from prometheus_client import Counter, Histogram

from risk import assessment, placement
from risk.drafts import ClearanceDraft, DetectionDraft
from risk.entities import service as entities
from risk.entities import store as entities_store
from risk.entities.model import SOURCE_CHARS_MAX, Link, LinkKind, owner_changes
from risk.feedback import service as feedback
from risk.findings import store as findings_store
from risk.levels import service as levels
from risk.levels import store as levels_store
from risk.levels.model import LINKED, caps_of_tenant
from risk.levels.service import Change, Trigger
from risk.lowering import without_early_relief
from risk.mappings.service import MappingCache
from risk.model import (
    ADMIN_PIN_LIFE,
    AdminWord,
    Assessment,
    AssessResult,
    Detection,
    EntityKind,
    Level,
    Pin,
    Signal,
    SignalMark,
    SignalMode,
)
from risk.naming import occurred_at
from risk.placement import Drafted, Known, Placement
from risk.posture.service import apply_postures
from risk.reviews.presence import note_presence
from risk.sessions import store as sessions_store
from risk.sessions.reports import apply_reports
from risk.sql.store import Connection
from runtime.ids import new_id

TRACE_CHARS_MAX: Final = 200

_LinkKey: TypeAlias = tuple[str, str, str, str]

_signals_total = Counter(
    "hub_risk_signals_total", "Signals assessed, by what became of them.", ["outcome"]
)
_changes_total = Counter(
    "hub_risk_level_changes_total", "Changes of user levels, by the new level.", ["level"]
)
_assess_seconds = Histogram("hub_risk_assess_seconds", "Duration of one batch of signals.")


async def assess(
    connection: Connection,
    signals: Sequence[Signal],
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
    mappings: MappingCache | None = None,
) -> AssessResult:
    """Assess a batch of signals of any tenants, in the order given; write all that follows.

    Reads once per table and tenant, decides in memory, writes with executemany. caps: (tenant,
    issuer) to the highest level. mappings: what this process has compiled so far, None to begin
    anew. Returns one assessment per user who is concerned and one mark per signal, in order.
    Raises database errors only.
    """
    assessments: list[Assessment] = []
    marks: dict[tuple[str, str], SignalMark] = {}
    reviews = 0
    with _assess_seconds.time():
        compiled = await (mappings or MappingCache()).get(
            connection, {signal.tenant_id for signal in signals}
        )
        ordered = sorted(signals, key=lambda signal: signal.tenant_id)
        for tenant_id, batch in groupby(ordered, key=lambda signal: signal.tenant_id):
            of_tenant = [placement.draft(each, compiled[tenant_id]) for each in batch]
            speakers = [each.signal for each in of_tenant]
            made, marked, noted = await _assess_tenant(
                connection, tenant_id, of_tenant, caps=_caps_of(tenant_id, caps, speakers), now=now
            )
            reviews += noted
            assessments += made
            marks |= {(tenant_id, each.signal_id): each for each in marked}
    in_order = tuple(marks[signal.tenant_id, signal.signal_id] for signal in signals)
    for outcome, count in Tally(each.state for each in in_order).items():
        _signals_total.labels(outcome).inc(count)
    _report(assessments)
    return AssessResult(assessments=tuple(assessments), marks=in_order, reviews=reviews)


async def tenants_to_reassess(connection: Connection, now: datetime) -> set[str]:
    """Return the tenants in which somebody has to be assessed again. Raises nothing of its own."""
    return await levels_store.system_due_tenants(connection, now=now)


async def reassess_due(
    connection: Connection,
    now: datetime,
    *,
    limit: int,
    caps: Mapping[tuple[str, str], Level | None],
    tenant_ids: Collection[str] | None = None,
) -> list[Assessment]:
    """Assess users again whose time has come: expiry, end of a pin, a new session or owner.

    limit: reassessments to take at once. tenant_ids: of `tenants_to_reassess`, None to ask again;
    caps must hold the caps of these tenants. A user with a new link is in the result whenever the
    level is above LOW, so that the policy sees the new session. Raises database errors only.
    """
    if tenant_ids is None:
        tenant_ids = await tenants_to_reassess(connection, now)
    made: list[Assessment] = []
    for tenant_id in sorted(tenant_ids):
        reasons = await levels_store.take_due(connection, tenant_id, now=now, limit=limit)
        if not reasons:
            continue
        limit -= sum(len(why) for why in reasons.values())
        linked = frozenset(user for user, why in reasons.items() if LINKED in why)
        assessed = await levels.recompute(
            connection,
            tenant_id,
            Change(user_ids=frozenset(reasons), insist=linked),
            caps=_caps_of(tenant_id, caps),
            now=now,
        )
        made += [each for each in assessed if each.level > Level.LOW or _has_moved(each)]
        if limit <= 0:
            break
    _report(made)
    return made


async def count_users(connection: Connection, tenant_id: str) -> int:
    """Return how many users the tenant has. Raises nothing of its own."""
    return await entities.count_users(connection, tenant_id)


async def set_user_risk(
    connection: Connection,
    tenant_id: str,
    user: str,
    word: AdminWord,
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> tuple[Assessment, bool]:
    """Set a user's risk by hand; return the assessment and whether this user had none before.

    HIGH and MEDIUM write an admin-reported detection in place of an earlier one. LOW closes those
    and pins LOW for 24 h, but never below a floor. The effective level may differ from the wished
    one; the assessment says why. Raises Invalid, NotFound. Source: contracts §6.
    """
    user_id = await entities.resolve(connection, tenant_id, user)
    await entities_store.lock_entities(connection, tenant_id, entity_ids=[user_id])
    before = (await levels_store.read_people(connection, tenant_id, user_ids=[user_id]))[user_id]
    active = await findings_store.active_detections(connection, tenant_id, entity_ids=[user_id])
    await findings_store.write_detections(
        connection, assessment.closed_by_admin(active, word, now=now), now=now
    )
    found: list[Detection] = []
    if word.level is Level.LOW:
        pin = Pin(
            tenant_id=tenant_id,
            entity_id=user_id,
            level=Level.LOW,
            until=now + ADMIN_PIN_LIFE,
            reason=word.reason,
            set_by=word.by,
            set_at=now,
        )
        await levels_store.write_pin(connection, pin)
    else:
        await levels_store.remove_pins(connection, tenant_id, entity_ids=[user_id])
        found = [
            assessment.admin_detection(
                word,
                tenant_id=tenant_id,
                user_id=user_id,
                detection_id=_new_detection_id(),
                now=now,
            )
        ]
    await feedback.note_level(connection, tenant_id, user_id, word, now=now)
    trigger = Trigger(trace_id=new_id("chg"), occurred_at=now, received_at=now)
    users = frozenset({user_id})
    (made,) = await levels.recompute(
        connection,
        tenant_id,
        Change(user_ids=users, found=found, triggers={user_id: trigger}, insist=users),
        caps=_caps_of(tenant_id, caps),
        now=now,
    )
    _report([made])
    return made, before.record is None


# --- assessing one tenant -----------------------------------------------------------------------


async def _assess_tenant(
    connection: Connection,
    tenant_id: str,
    drafted: Sequence[Drafted],
    *,
    caps: Mapping[str, Level | None],
    now: datetime,
) -> tuple[list[Assessment], list[SignalMark], int]:
    speaking = [each for each in drafted if each.drafts]
    known = await _look_up(connection, tenant_id, speaking, now=now)
    placed = await without_early_relief(
        connection, tenant_id, [placement.place(each, known) for each in drafted]
    )
    await entities_store.lock_entities(
        connection, tenant_id, entity_ids={each.device_id for each in placed if each.device_id}
    )
    await apply_reports(connection, tenant_id, placed, now=now)
    reviews = await apply_postures(connection, tenant_id, placed, now=now)
    reviews += await note_presence(connection, tenant_id, placed, now=now)
    links = await _owners_and_links(connection, tenant_id, placed)
    change = _change(placed, links, now=now)
    made: list[Assessment] = []
    if change.user_ids or change.found or change.remedied:
        made = await levels.recompute(connection, tenant_id, change, caps=caps, now=now)
    return made, [placement.mark(each) for each in placed], reviews


async def _look_up(
    connection: Connection, tenant_id: str, drafted: Sequence[Drafted], *, now: datetime
) -> Known:
    """Find who is named, and make the devices that are named with a user we know."""
    keys = placement.alias_keys(drafted)
    session_keys = placement.session_keys(drafted)
    known = Known(
        entities=await entities_store.find_aliases(connection, tenant_id, alias_keys=keys),
        sessions=await sessions_store.find_sessions(connection, tenant_id, keys=session_keys),
    )
    made, _ = await entities.make_entities(
        connection,
        tenant_id,
        kind=EntityKind.DEVICE,
        wanted=placement.devices_to_make(drafted, known),
        now=now,
    )
    devices = {(EntityKind.DEVICE, key): entity_id for key, entity_id in made.items()}
    return replace(known, entities={**known.entities, **devices})


async def _owners_and_links(
    connection: Connection, tenant_id: str, placed: Iterable[Placement]
) -> list[Link]:
    """Record who owns the devices by what was said.

    Returns all links of the users who are named or linked to the devices that are spoken of.
    """
    concerned = [each for each in placed if each.device_id and _speaks_of_device(each)]
    found = await entities_store.links_around(
        connection,
        tenant_id,
        device_ids={each.device_id for each in concerned if each.device_id},
        user_ids={each.user_id for each in placed if each.user_id},
    )
    links = {_key(link): link for link in found}
    written: dict[_LinkKey, Link] = {}
    of_device: dict[str, dict[_LinkKey, Link]] = {}
    for key, link in links.items():
        of_device.setdefault(link.device_id, {})[key] = link
    for each in concerned:
        # A log_only provider ties nobody to a device: others' words about it would have effects.
        if not each.user_id or not each.device_id or each.signal.mode is not SignalMode.ENFORCE:
            continue
        stated = Link(
            tenant_id=tenant_id,
            device_id=each.device_id,
            user_id=each.user_id,
            kind=LinkKind.OWNER,
            source=each.signal.iss[:SOURCE_CHARS_MAX],
            since=occurred_at(each.signal),
            until=None,
        )
        known = of_device.setdefault(each.device_id, {})
        changed = {_key(link): link for link in owner_changes(list(known.values()), stated)}
        known |= changed
        written |= changed
    await entities_store.write_links(connection, [written[key] for key in sorted(written)])
    return list((links | written).values())


def _key(link: Link) -> _LinkKey:
    return (link.device_id, link.user_id, link.kind._value_, link.source)


def _speaks_of_device(placed: Placement) -> bool:
    return any(
        isinstance(draft, DetectionDraft | ClearanceDraft) and draft.kind is EntityKind.DEVICE
        for draft in placed.drafts
    )


def _change(placed: Sequence[Placement], links: Sequence[Link], *, now: datetime) -> Change:
    users_of: dict[str, set[str]] = {}
    for link in links:
        users_of.setdefault(link.device_id, set()).add(link.user_id)
    user_ids: set[str] = set()
    device_ids: set[str] = set()
    found: list[Detection] = []
    remedied = []
    triggers: dict[str, Trigger] = {}
    strongest: dict[str, int] = {}
    for each in sorted(placed, key=lambda each: each.signal.received_at):
        findings = assessment.findings(each, new_id=_new_detection_id, now=now)
        remedies = assessment.remedies(each)
        if not findings and not remedies:
            continue
        found += findings
        remedied += remedies
        concerned = {each.user_id} if each.user_id else set()
        if each.device_id:
            device_ids.add(each.device_id)
            concerned |= users_of.get(each.device_id, set())
        device_ids |= {finding.entity_id for finding in findings} - concerned
        device_ids |= {remedy.entity_id for remedy in remedies} - concerned
        user_ids |= concerned
        weight = max((finding.level for finding in findings), default=0)
        for user_id in concerned:
            # Of several signals about one user the strongest is named as the cause of the change,
            # the latest among equals.
            if weight >= strongest.get(user_id, 0):
                strongest[user_id] = weight
                triggers[user_id] = _trigger(each.signal)
    return Change(
        user_ids=frozenset(user_ids),
        device_ids=frozenset(device_ids),
        found=found,
        remedied=remedied,
        triggers=triggers,
        links=links,
    )


def trace_of(txn: str | None, signal_id: str) -> str:
    """Return what an assessment calls the cause that a signal brought. Raises nothing."""
    return (txn or signal_id)[:TRACE_CHARS_MAX]


def _trigger(signal: Signal) -> Trigger:
    return Trigger(
        trace_id=trace_of(signal.txn, signal.signal_id),
        occurred_at=occurred_at(signal),
        received_at=signal.received_at,
    )


def _new_detection_id() -> str:
    return new_id("det")


def _caps_of(
    tenant_id: str, caps: Mapping[tuple[str, str], Level | None], signals: Iterable[Signal] = ()
) -> dict[str, Level | None]:
    """Return the caps of one tenant by issuer; a signal's own cap can only lower."""
    of_tenant = caps_of_tenant(caps, tenant_id)
    for signal in signals:
        before = of_tenant.get(signal.iss, Level.HIGH)
        if signal.level_cap is not None and before is not None:
            of_tenant[signal.iss] = min(before, signal.level_cap)
    return of_tenant


def _has_moved(made: Assessment) -> bool:
    return made.level is not made.previous_level or bool(made.causes)


def _report(assessments: Iterable[Assessment]) -> None:
    moved = Tally(each.level.name for each in assessments if each.level is not each.previous_level)
    for level, count in moved.items():
        _changes_total.labels(level).inc(count)
