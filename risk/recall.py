"""Looking again: an issuer's word counts no longer, or again; or policy has to be asked anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from risk.entities import store as entities_store
from risk.findings import store as findings_store
from risk.levels import service as levels
from risk.levels import store as levels_store
from risk.levels.model import BY_TIME, LINKED, caps_of_tenant
from risk.levels.service import Change
from risk.model import Assessment, DetectionState, EntityKind, Level
from risk.reviews.moves import note_moves
from risk.sql.store import Connection


async def reassess(
    connection: Connection,
    tenant_id: str,
    user_ids: Collection[str],
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> list[Assessment]:
    """Assess users once more in the same transaction, under other caps; return who moved."""
    change = Change(user_ids=frozenset(user_ids))
    of_tenant = caps_of_tenant(caps, tenant_id)
    return await levels.recompute(connection, tenant_id, change, caps=of_tenant, now=now)


async def ask_policy(
    connection: Connection,
    tenant_id: str,
    user_ids: Collection[str],
    *,
    caps: Mapping[tuple[str, str], Level | None],
    now: datetime,
) -> list[Assessment]:
    """Assess users, and ask policy even where nothing changed; one result per user."""
    users = frozenset(user_ids)
    change = Change(user_ids=users, insist=users)
    of_tenant = caps_of_tenant(caps, tenant_id)
    return await levels.recompute(connection, tenant_id, change, caps=of_tenant, now=now)


async def schedule_issuer(
    connection: Connection, tenant_id: str, issuer: str, *, now: datetime
) -> None:
    """Have everybody assessed again about whom, or whose device, an issuer's word is in force."""
    about = await findings_store.entities_of_issuer(connection, tenant_id, issuer=issuer)
    device_ids = {each for each, kind in about.items() if kind is EntityKind.DEVICE}
    links = await entities_store.links_of_devices(connection, tenant_id, device_ids=device_ids)
    users = {each for each, kind in about.items() if kind is EntityKind.USER}
    users |= {link.user_id for link in links}
    due = dict.fromkeys(users, now)
    await levels_store.schedule(connection, tenant_id, due=due, reason=BY_TIME)


async def dismiss_issuer(
    connection: Connection, tenant_id: str, issuer: str, *, by: str, now: datetime
) -> None:
    """Dismiss everything an issuer says at present; its next word counts anew."""
    about = await findings_store.entities_of_issuer(connection, tenant_id, issuer=issuer)
    active = await findings_store.active_detections(connection, tenant_id, entity_ids=about)
    dismissed = [
        replace(
            each,
            revision=each.revision + 1,
            state=DetectionState.DISMISSED,
            state_at=now,
            state_by=by,
        )
        for each in active
        if each.issuer == issuer
    ]
    await findings_store.write_detections(connection, dismissed, now=now)
    devices = {each.entity_id for each in dismissed if each.entity_kind is EntityKind.DEVICE}
    await note_moves(connection, tenant_id, devices=devices, now=now)


async def schedule_users(
    connection: Connection, tenant_id: str, user_ids: Collection[str], *, now: datetime
) -> None:
    """Have users assessed again, and policy asked even if nothing changed."""
    due = dict.fromkeys(user_ids, now)
    await levels_store.schedule(connection, tenant_id, due=due, reason=LINKED)
