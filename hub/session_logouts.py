"""What follows when a session is not trusted any more: logouts at its apps, and nowhere else.

    TERMINATE ─▶ SessionLogout ─▶ break-glass? guard? ─▶ tasks with `sid` + session-revoked
                                          └▶ held ─▶ a person approves or refuses

Idempotent per session, context and app. Runs in the transaction that settles the context, without
outbound HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

import hub.guard.service as guard
import risk.service
import transmitters.service
from actions import session_logout
from actions.held.model import HeldState
from actions.model import Action, ContainmentOrder, Task, TaskKind
from actions.session_logout import SessionOrder
from risk.entities import store as entities_store
from risk.inline.orders import SessionLogout
from risk.sessions.store import find_sessions
from runtime.clock import epoch_s
from runtime.errors import Conflict
from ssf.events.caep import SessionRevoked
from ssf.events.registry import render_event
from transmitters.model import EventToPublish

REASON_USER: Final = "For your security you were signed out. Please sign in again."

log = structlog.get_logger()


async def log_out_sessions(connection: AsyncConnection, items: Sequence[SessionLogout]) -> None:
    """Order the logouts, as far as the guards let them pass. Wakes nobody."""
    if not items:
        return
    now = max(item.at for item in items)
    identifiers: dict[tuple[str, str], tuple[Mapping[str, object], ...]] = {}
    counts: dict[str, int] = {}
    for tenant_id in sorted({item.tenant_id for item in items}):
        users = {item.user_id for item in items if item.tenant_id == tenant_id}
        found = await entities_store.identifiers_of(connection, tenant_id, entity_ids=users)
        identifiers |= {(tenant_id, user_id): tuple(found.get(user_id, ())) for user_id in users}
        counts[tenant_id] = await risk.service.count_users(connection, tenant_id)
    softened = await guard.softened(
        connection, [_asked(item, identifiers[item.tenant_id, item.user_id]) for item in items]
    )
    orders = [
        _order(item, identifiers[item.tenant_id, item.user_id])
        for item, order in zip(items, softened, strict=True)
        if not order.exempt
    ]
    made = await session_logout.log_out(connection, orders, user_counts=counts, now=now)
    await _publish(connection, made, now=now)
    for order in orders:
        tasks = [
            task
            for each, task in made
            if (each.session_id, each.app_ids) == (order.session_id, order.app_ids)
        ]
        if tasks:
            _tell(order, order_id=tasks[0].containment_id, tasks=len(tasks))


async def approve(
    connection: AsyncConnection, tenant_id: str, held_id: str, *, by: str, now: datetime
) -> None:
    """Carry out a logout that the guard held. Raises NotFound, Conflict. Wakes nobody.

    Apps know a session by its `sid` alone: when another one began under it meanwhile, that would
    be logged out.
    """
    about = await session_logout.get_held(connection, tenant_id, held_id)
    key = (about.iss, about.sid)
    there = (await find_sessions(connection, tenant_id, keys={key}, lock=True)).get(key)
    held = await session_logout.settle_held(
        connection, tenant_id, held_id, HeldState.APPROVED, by=by, now=now
    )
    if there is not None and there.session_id != held.session_id:
        raise Conflict("The session began anew under the same sid, which this would log out.")
    found = await entities_store.identifiers_of(connection, tenant_id, entity_ids={held.user_id})
    order = SessionOrder(
        tenant_id=tenant_id,
        user_id=held.user_id,
        session_id=held.session_id,
        iss=held.iss,
        sid=held.sid,
        context_key=held.context_key,
        app_ids=held.app_ids,
        reasons=held.reasons,
        identifiers=tuple(found.get(held.user_id, ())),
        trace_id=held.trace_id,
    )
    made = await session_logout.carry_out(connection, order, now=now)
    await _publish(connection, [(order, task) for task in made], now=now)
    _tell(order, order_id=order.order_id, tasks=len(made))


async def refuse(
    connection: AsyncConnection, tenant_id: str, held_id: str, *, by: str, now: datetime
) -> None:
    """Let a logout that the guard held never happen. Raises NotFound, Conflict."""
    await session_logout.settle_held(
        connection, tenant_id, held_id, HeldState.REFUSED, by=by, now=now
    )


def _tell(order: SessionOrder, *, order_id: str, tasks: int) -> None:
    log.info(
        "session.logged_out",
        tenant_id=order.tenant_id,
        session_id=order.session_id,
        user_id=order.user_id,
        apps="all" if order.app_ids is None else list(order.app_ids),
        tasks=tasks,
        order_id=order_id,
        trace_id=order.trace_id,
    )


async def _publish(
    connection: AsyncConnection, made: Sequence[tuple[SessionOrder, Task]], *, now: datetime
) -> None:
    events = [
        _event(order, task, now)
        for order, task in made
        if task.kind is TaskKind.PUBLISH_SESSION_REVOKED
    ]
    await transmitters.service.publish(connection, events, now)


def _asked(item: SessionLogout, identifiers: tuple[Mapping[str, object], ...]) -> ContainmentOrder:
    """Return the logout as the guards know orders."""
    return ContainmentOrder(
        tenant_id=item.tenant_id,
        user_id=item.user_id,
        trace_id=item.trace_id,
        level="HIGH",
        reasons=item.reasons,
        causes=(),
        actions=frozenset({Action.UNIVERSAL_LOGOUT}),
        identifiers=identifiers,
        label="",
        received_at=item.at,
    )


def _order(item: SessionLogout, identifiers: tuple[Mapping[str, object], ...]) -> SessionOrder:
    return SessionOrder(
        tenant_id=item.tenant_id,
        user_id=item.user_id,
        session_id=item.session_id,
        iss=item.iss,
        sid=item.sid,
        context_key=item.context_key,
        app_ids=item.app_ids,
        reasons=item.reasons,
        identifiers=identifiers,
        trace_id=item.trace_id,
    )


def _event(order: SessionOrder, task: Task, now: datetime) -> EventToPublish:
    """Return the CAEP session-revoked about one session of a user, for one app or all."""
    event = SessionRevoked(
        event_timestamp=epoch_s(now),
        initiating_entity="policy",
        reason_admin={"en": task.payload.reason},
        reason_user={"en": REASON_USER},
    )
    session = {"format": "iss_sub", "iss": order.iss, "sub": order.sid}
    users: list[dict[str, object]] = [{"user": dict(each)} for each in order.identifiers] or [{}]
    return EventToPublish(
        tenant_id=order.tenant_id,
        event_type=SessionRevoked.type_uri,
        payload=render_event(event),
        is_rendered=True,
        subjects=tuple({"format": "complex", **each, "session": session} for each in users),
        ordering_key=order.user_id,
        txn=order.order_id,
        toe_s=epoch_s(now),
        only_app_id=task.app_id,
    )
