"""Use cases of the guards: watch a batch, quarantine and lift, tell admins, break-glass users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.notices
import receivers.registry.store
import risk.entities.service as entities
import risk.recall
import risk.service
from actions.messages import Event
from actions.model import DISRUPTIVE, Action, ContainmentOrder
from hub.guard import store
from hub.guard.model import (
    BREAK_GLASS_MAX,
    BreakGlass,
    Harm,
    Quarantine,
    harms,
    is_runaway,
    message,
)
from hub.store import add_audit
from receivers.registry.service import KIND
from risk.entities.model import parse_reference
from risk.model import Assessment, EntityKind, Signal
from runtime.audit import AuditNote
from runtime.errors import Conflict, NotFound
from runtime.feed import bump
from runtime.ids import new_id

GUARD: Final = "guard"

log = structlog.get_logger()
_quarantined_total = Counter("hub_guard_quarantines_total", "Providers quarantined by the hub.")
_spared_total = Counter(
    "hub_guard_spared_total", "Orders that were softened, by the guard that did.", ["guard"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a guard saw in a batch.

    quarantined: (tenant, issuer) that ran away just now. held: (tenant, user) whose containment
    has to wait for a person.
    """

    quarantined: frozenset[tuple[str, str]]
    held: frozenset[tuple[str, str]]


async def watch(
    connection: AsyncConnection,
    signals: Sequence[Signal],
    assessments: Sequence[Assessment],
    *,
    now: datetime,
) -> Watched:
    """Count whom each issuer made HIGH; quarantine who made too many, hold what is too much.

    In the transaction of the assessment. The caller assesses again whom a quarantine concerns.
    Raises database errors only. Source: contracts §6 Guards; requirement SSF-SEC-5.
    """
    found = harms(assessments, [signal.signal_id for signal in signals], now)
    await store.add_harms(connection, found)
    quarantined: set[tuple[str, str]] = set()
    held: set[tuple[str, str]] = set()
    for tenant_id, some in groupby(found, key=lambda harm: harm.tenant_id):
        of_tenant = list(some)
        issuers = {harm.iss for harm in of_tenant}
        marked = await store.marked_by(connection, tenant_id, issuers=issuers, now=now)
        users = await risk.service.count_users(connection, tenant_id)
        limits = await receivers.registry.store.harm_limits(connection, tenant_id)
        for iss in sorted(issuers & marked.keys()):
            if is_runaway(marked[iss].lately, users):
                count = marked[iss].lately
                await _quarantine(connection, tenant_id, iss, marked=count, users=users, now=now)
                quarantined.add((tenant_id, iss))
            elif marked[iss].hourly > limits.get(iss, marked[iss].hourly):
                held |= _beyond(of_tenant, iss, marked[iss].hourly - limits[iss])
    return Watched(quarantined=frozenset(quarantined), held=frozenset(held))


def _beyond(found: Sequence[Harm], iss: str, excess: int) -> set[tuple[str, str]]:
    """Return the last ones of a batch, as many as are beyond the limit."""
    mine = [harm for harm in found if harm.iss == iss]
    return {(harm.tenant_id, harm.user_id) for harm in mine[max(0, len(mine) - excess) :]}


async def _quarantine(
    connection: AsyncConnection,
    tenant_id: str,
    iss: str,
    *,
    marked: int,
    users: int,
    now: datetime,
) -> None:
    provider_ids = await receivers.registry.store.quarantine_issuer(
        connection, tenant_id, iss, now=now
    )
    await bump(connection, tenant_id, KIND)
    await risk.recall.schedule_issuer(connection, tenant_id, iss, now=now)
    added = [
        Quarantine(
            tenant_id=tenant_id,
            quarantine_id=new_id("qrn"),
            provider_id=provider_id,
            iss=iss,
            marked=marked,
            users=users,
            at=now,
        )
        for provider_id in provider_ids
    ]
    await store.add_quarantines(connection, added)
    for one in added:
        _quarantined_total.inc()
        log.error(
            "provider.quarantined",
            tenant_id=tenant_id,
            provider_id=one.provider_id,
            iss=iss,
            users_marked=marked,
            users_count=users,
        )


def merged(first: Sequence[Assessment], again: Sequence[Assessment]) -> list[Assessment]:
    """Return what a batch means after some users were assessed again.

    A user's level then moved from before the first look to after the last. Raises nothing.
    """
    later = {(made.tenant_id, made.user_id): made for made in again}
    result = []
    for made in first:
        last = later.get((made.tenant_id, made.user_id))
        if last is not None:
            made = replace(  # noqa: PLW2901 - the same assessment, as it ends
                last,
                previous_level=made.previous_level,
                trace_id=made.trace_id,
                occurred_at=made.occurred_at,
                received_at=made.received_at,
            )
        result.append(made)
    return result


async def softened(
    connection: AsyncConnection,
    orders: Sequence[ContainmentOrder],
    held: frozenset[tuple[str, str]] = frozenset(),
) -> list[ContainmentOrder]:
    """Return the orders as the guards let them pass.

    Break-glass users are told about and nothing else; held ones wait for a person.
    """
    exempt: set[tuple[str, str]] = set()
    for tenant_id in {order.tenant_id for order in orders if order.actions & DISRUPTIVE}:
        entries = await store.list_break_glass(connection, tenant_id)
        found = await _users_of(connection, tenant_id, entries)
        exempt |= {(tenant_id, user_id) for user_id in found}
    return [_soften(order, exempt, held) for order in orders]


def _soften(
    order: ContainmentOrder,
    exempt: set[tuple[str, str]],
    held: frozenset[tuple[str, str]],
) -> ContainmentOrder:
    key = (order.tenant_id, order.user_id)
    if key in exempt and order.actions & DISRUPTIVE:
        _spared_total.labels("break_glass").inc()
        log.warning(
            "break_glass.spared",
            tenant_id=order.tenant_id,
            user_id=order.user_id,
            trace_id=order.trace_id,
            would_have=sorted(order.actions & DISRUPTIVE),
        )
        allowed = (order.actions - DISRUPTIVE) | {Action.NOTIFY.value}
        return replace(order, actions=frozenset(allowed), exempt=True)
    if key in held:
        _spared_total.labels("provider_limit").inc()
        return replace(order, hold=True)
    return order


async def tell(connection: AsyncConnection, *, now: datetime) -> bool:
    """Tell admins of quarantines: audit and notifications, once; return whether there were any.

    Apart from the pipeline's transaction, whose locks must not wait for those of the audit. A
    quarantine that was committed is told of, whenever the process dies.
    """
    told = False
    for one in await store.system_untold(connection):
        if not await store.mark_told(connection, one, now=now):
            continue
        told = True
        detail: Mapping[str, object] = {
            "iss": one.iss,
            "users_marked": one.marked,
            "users": one.users,
        }
        note = AuditNote(
            tenant_id=one.tenant_id,
            actor=GUARD,
            action="provider.quarantine",
            ref=one.provider_id,
            detail=dict(detail),
        )
        await add_audit(connection, note, now=now)
        await actions.notices.tell(
            connection,
            one.tenant_id,
            Event.QUARANTINED,
            notice_id=one.quarantine_id,
            facts={"provider_id": one.provider_id, **detail, "message": message(one)},
            now=now,
        )
    return told


async def status_changed(
    connection: AsyncConnection, tenant_id: str, iss: str, *, now: datetime
) -> None:
    """Let everybody be assessed again whom an issuer spoke of: its word counts or no longer."""
    await store.forget_harms(connection, tenant_id, iss=iss)
    await risk.recall.schedule_issuer(connection, tenant_id, iss, now=now)


# --- break-glass users --------------------------------------------------------------------------


async def add_break_glass(
    connection: AsyncConnection, tenant_id: str, user: str, *, reason: str, now: datetime
) -> BreakGlass:
    """Put a user on the list, known yet or not; a containment that is open ends.

    Raises Invalid for what is no reference, Conflict.
    """
    entry = BreakGlass(
        tenant_id=tenant_id, entry_id=new_id("bgl"), user=user, reason=reason, added_at=now
    )
    if len(await store.list_break_glass(connection, tenant_id)) >= BREAK_GLASS_MAX:
        raise Conflict(f"A tenant has at most {BREAK_GLASS_MAX} break-glass users.")
    user_ids = await _users_of(connection, tenant_id, [entry])
    await store.add_break_glass(connection, entry)
    await risk.recall.schedule_users(connection, tenant_id, user_ids, now=now)
    return entry


async def get_break_glass(connection: AsyncConnection, tenant_id: str, entry_id: str) -> BreakGlass:
    """Return an entry of the list. Raises NotFound."""
    for entry in await store.list_break_glass(connection, tenant_id):
        if entry.entry_id == entry_id:
            return entry
    raise NotFound("No such entry.")


async def delete_break_glass(
    connection: AsyncConnection, tenant_id: str, entry_id: str, *, now: datetime
) -> None:
    """Take a user off the list; what policy says counts again at once. Raises NotFound."""
    entry = await get_break_glass(connection, tenant_id, entry_id)
    await store.delete_break_glass(connection, tenant_id, entry_id)
    user_ids = await _users_of(connection, tenant_id, [entry])
    await risk.recall.schedule_users(connection, tenant_id, user_ids, now=now)


async def break_glass_users(connection: AsyncConnection, tenant_id: str) -> set[str]:
    """Return the users that are told of, and nothing else."""
    return await _users_of(
        connection, tenant_id, await store.list_break_glass(connection, tenant_id)
    )


async def _users_of(
    connection: AsyncConnection, tenant_id: str, entries: Sequence[BreakGlass]
) -> set[str]:
    """Return the users on the list that we know."""
    references = {parse_reference(entry.user) for entry in entries}
    if not references:
        return set()
    found = await entities.resolve_all(connection, tenant_id, references, kind=EntityKind.USER)
    return {user_id for user_id in found.values() if user_id}
