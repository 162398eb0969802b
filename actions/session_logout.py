"""Logouts of one session: at the apps that know sessions; the user's others stay as they are.

    order ─▶ drafts: Back-Channel Logout with `sid`, IdP first ─▶ tasks, each at most once
          ├▶ session-revoked about user and session: the caller publishes it for what is new
          └▶ beyond the blast-radius guard: held for a person, who approves or refuses it

A method that only knows users, such as Global Token Revocation, is never called for one session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from actions.batch import Guard
from actions.drafts import ACTIVE, Registry
from actions.held import store as held_store
from actions.held.model import HELD_LIFE, HeldLogout, HeldState
from actions.model import (
    SESSION_PREFIX,
    STAGE_WAIT,
    App,
    AppKind,
    Containment,
    LogoutMethod,
    Stage,
    Task,
    TaskDraft,
    TaskKind,
    TaskPayload,
    TaskState,
)
from actions.notices import notice_containment
from actions.settlement import read_registries, task_of
from actions.store import Connection
from actions.tasks import store as task_store
from runtime.errors import Conflict, NotFound
from runtime.ids import new_id

log = structlog.get_logger()
_held_total = Counter(
    "hub_actions_session_logouts_held_total",
    "Logouts of sessions that the blast-radius guard held back.",
)

#: methods that can end one session and leave the user's others
OF_SESSIONS: Final = frozenset({LogoutMethod.BCL})
REASON: Final = "The session is no longer trusted."
SETTLED_BY_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOrder:
    """What is to be logged out. app_ids: only there; None: everywhere the session is known.

    context_key: of the context that was judged; one order per session, context and app.
    identifiers: RFC 9493 objects of the user. trace_id: of the decision.
    """

    tenant_id: str
    user_id: str
    session_id: str
    iss: str
    sid: str
    context_key: str
    app_ids: tuple[str, ...] | None
    reasons: tuple[str, ...]
    identifiers: tuple[Mapping[str, object], ...]
    trace_id: str = ""

    @property
    def order_key(self) -> str:
        """The same for the same session, context and apps."""
        where = "*" if self.app_ids is None else "\0".join(self.app_ids)
        text = f"{self.order_id}\0{where}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def order_id(self) -> str:
        """The same for the same session and context."""
        text = f"{self.session_id}\0{self.context_key}"
        return SESSION_PREFIX + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def drafts_of(order: SessionOrder, registry: Registry) -> tuple[TaskDraft, ...]:
    """Return the tasks of an order, the identity provider's first. Raises nothing.

    The first ones are the publications, one per app or one for all.
    """
    apps = [app for app in registry.apps if app.status == ACTIVE and _is_meant(order, app)]
    published = (None,) if order.app_ids is None else tuple(sorted(app.app_id for app in apps))
    publications = [_publication(order, app_id) for app_id in published]
    logouts = [
        _logout(order, app, setting.method)
        for app in sorted(apps, key=lambda app: (-app.sensitivity, app.app_id))
        for setting in app.logout
        if setting.method in OF_SESSIONS
    ]
    has_idp = any(draft.stage is Stage.IDP for draft in logouts)
    wait = STAGE_WAIT if has_idp else timedelta()
    return (
        *publications,
        *(replace(each, due_in=wait) if each.stage is Stage.APPS else each for each in logouts),
    )


async def log_out(
    connection: Connection,
    orders: Sequence[SessionOrder],
    *,
    user_counts: Mapping[str, int],
    now: datetime,
) -> list[tuple[SessionOrder, Task]]:
    """Enqueue what orders want and was not ordered before; return each order with its new tasks.

    user_counts: users per tenant, for the blast-radius guard: users whose sessions are logged out
    are counted with those who are contained. The caller has locked the tenants, so that processes
    share one limit. What is beyond waits for a person, and so does what was held before.
    Publications are settled already: publish them in this transaction. The caller wakes "tasks"
    after its commit.
    """
    made: list[tuple[SessionOrder, Task]] = []
    held: list[SessionOrder] = []
    tenants = {order.tenant_id for order in orders}
    registries = await read_registries(connection, tenants)
    guard = await Guard.of(connection, tenants, user_counts=user_counts, now=now)
    for tenant_id in sorted(tenants):
        mine = [each for each in orders if each.tenant_id == tenant_id]
        decided = await held_store.known_orders(
            connection, tenant_id, order_keys={each.order_key for each in mine}
        )
        for order in (each for each in mine if each.order_key not in decided):
            if not guard.admits(tenant_id, order.user_id):
                held.append(order)
                continue
            guard.count(tenant_id, order.user_id)
            made += [
                (order, task)
                for task in await task_store.add_new_tasks(
                    connection, _tasks(order, registries[tenant_id], now)
                )
            ]
    await _hold(connection, held, now=now)
    return made


async def list_held(
    connection: Connection,
    tenant_id: str,
    *,
    state: HeldState | None = None,
    user_id: str | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[HeldLogout]:
    """Return a page of held logouts, newest first; `before` is the last id of the page before."""
    return await held_store.list_held(
        connection, tenant_id, state=state, user_id=user_id, before=before, limit=limit
    )


async def get_held(connection: Connection, tenant_id: str, held_id: str) -> HeldLogout:
    """Return one held logout. Raises NotFound."""
    found = await held_store.get_held(connection, tenant_id, held_id)
    if found is None:
        raise NotFound("No such logout.")
    return found


async def settle_held(
    connection: Connection,
    tenant_id: str,
    held_id: str,
    state: HeldState,
    *,
    by: str,
    now: datetime,
) -> HeldLogout:
    """Note what a person decided; return the logout.

    Raises NotFound; Conflict when somebody decided before.
    """
    found = await held_store.get_held(connection, tenant_id, held_id, lock=True)
    if found is None:
        raise NotFound("No such logout.")
    if found.state is not HeldState.HELD:
        raise Conflict(f"The logout is {found.state.value}, not held.")
    settled = replace(found, state=state, settled_at=now, settled_by=by[:SETTLED_BY_CHARS_MAX])
    await held_store.settle(connection, settled)
    return settled


async def carry_out(connection: Connection, order: SessionOrder, *, now: datetime) -> list[Task]:
    """Enqueue what one order wants, whatever the guard says; return the new tasks.

    As in `log_out`, publications are the caller's.
    """
    registries = await read_registries(connection, {order.tenant_id})
    tasks = _tasks(order, registries[order.tenant_id], now)
    return await task_store.add_new_tasks(connection, tasks)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget logouts that were held long ago, a bounded number; return how many."""
    return await held_store.system_purge_held(connection, before=now - HELD_LIFE)


async def _hold(connection: Connection, orders: Sequence[SessionOrder], *, now: datetime) -> None:
    held = {each.order_key: _held(each, now) for each in orders}
    new = await held_store.hold(connection, list(held.values()))
    for each in (one for one in held.values() if one.held_id in new):
        _held_total.inc()
        log.warning(
            "session_logout.held",
            tenant_id=each.tenant_id,
            held_id=each.held_id,
            session_id=each.session_id,
            user_id=each.user_id,
            trace_id=each.trace_id,
        )


def _held(order: SessionOrder, now: datetime) -> HeldLogout:
    return HeldLogout(
        tenant_id=order.tenant_id,
        held_id=new_id("hsl"),
        order_key=order.order_key,
        user_id=order.user_id,
        session_id=order.session_id,
        iss=order.iss,
        sid=order.sid,
        context_key=order.context_key,
        app_ids=order.app_ids,
        reasons=order.reasons,
        trace_id=order.trace_id,
        state=HeldState.HELD,
        held_at=now,
    )


def _tasks(order: SessionOrder, registry: Registry, now: datetime) -> list[Task]:
    about: Containment = replace(
        notice_containment(order.tenant_id, order.order_id, now), user_id=order.user_id
    )
    tasks = [task_of(draft, about, now=now) for draft in drafts_of(order, registry)]
    return [
        replace(task, state=TaskState.DONE, settled_at=now)
        if task.kind is TaskKind.PUBLISH_SESSION_REVOKED
        else task
        for task in tasks
    ]


def _is_meant(order: SessionOrder, app: App) -> bool:
    return order.app_ids is None or app.app_id in order.app_ids


def _publication(order: SessionOrder, app_id: str | None) -> TaskDraft:
    return TaskDraft(
        kind=TaskKind.PUBLISH_SESSION_REVOKED,
        stage=Stage.APPS,
        target="publish",
        lane=f"publish|{order.session_id}",
        key=f"{order.order_id}:publish:{app_id or 'all'}",
        app_id=app_id,
        payload=_payload(order, LogoutMethod.SSF),
    )


def _logout(order: SessionOrder, app: App, method: LogoutMethod) -> TaskDraft:
    is_idp = app.kind is AppKind.IDP
    return TaskDraft(
        kind=TaskKind.IDP_LOGOUT if is_idp else TaskKind.APP_LOGOUT,
        stage=Stage.IDP if is_idp else Stage.APPS,
        target=f"logout|{app.app_id}",
        lane=f"logout|{app.app_id}|{method.value}:{order.session_id}",
        key=f"{order.order_id}:logout:{app.app_id}:{method.value}",
        app_id=app.app_id,
        payload=_payload(order, method),
    )


def _payload(order: SessionOrder, method: LogoutMethod) -> TaskPayload:
    return TaskPayload(
        method=method.value,
        identifiers=tuple(dict(each) for each in order.identifiers),
        reason="; ".join(order.reasons) or REASON,
        session={"iss": order.iss, "sid": order.sid},
    )
