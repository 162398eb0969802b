"""Use cases of containment: plan a batch, do the core's own tasks, look, and step in by hand.

All functions take the connection of a running transaction. `plan` is part of the transaction that
handles a batch of signals: it reads once per table, decides in memory and writes in batches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter

from actions import store
from actions.batch import Changes, Guard, key_of
from actions.drafts import Situation
from actions.model import (
    NOTIFICATION_DEADLINE,
    TASK_DEADLINE,
    Attempt,
    Containment,
    ContainmentOrder,
    ContainmentState,
    ContainmentView,
    Planned,
    PlanOutcome,
    Proof,
    Task,
    TaskKind,
    TaskResult,
    TaskState,
    TaskView,
)
from actions.outcomes import OutcomeClass
from actions.planning import Decider, Decision, decide, needs_admission, order_of
from actions.registry import store as registry_store
from actions.settlement import move_on, read_registries
from actions.store import Connection, Key
from actions.tasks import store as task_store
from runtime.errors import Conflict, NotFound
from runtime.ids import new_id

PAGE_MAX: Final = 500
LOCAL_BATCH_MAX: Final = 64
REASONS_TOLD_MAX: Final = 3
log = structlog.get_logger()
_planned_total = Counter(
    "hub_actions_containments_total", "Decisions about containments.", ["outcome"]
)


async def plan(
    connection: Connection,
    orders: Sequence[ContainmentOrder],
    *,
    user_counts: Mapping[str, int],
    now: datetime,
    decider: Decider = decide,
) -> list[Planned]:
    """Open, extend, hold or end containments as ordered; at most one result per user.

    orders: the last one of a user counts. user_counts: users per tenant, for the blast-radius
    guard. The caller wakes the topic "tasks" after its commit when any result has tasks.
    """
    latest = {(order.tenant_id, order.user_id): order for order in orders}
    if not latest:
        return []
    situations = await _situations(connection, latest.keys())
    concerned = {key: order for key, order in latest.items() if order.actions or key in situations}
    if not concerned:
        return []
    registries = await read_registries(connection, {tenant_id for tenant_id, _ in concerned})
    guard = await _guard(connection, concerned, situations, user_counts=user_counts, now=now)
    changes = Changes(known={key_of(one.containment) for one in situations.values()})
    planned = []
    for key, order in concerned.items():
        decision = decider(
            order,
            situations.get(key),
            registry=registries[order.tenant_id],
            admitted=guard.admits(*key) and not order.hold,
            containment_id=new_id("ctn"),
            now=now,
        )
        guard.note(key, decision, situations.get(key))
        tasks = changes.add(decision, now=now)
        planned.append(_planned(order, decision, situations.get(key), tasks=tasks))
    await changes.write(connection, now=now)
    return planned


async def local_due(
    connection: Connection, now: datetime, *, limit: int = LOCAL_BATCH_MAX
) -> list[Task]:
    """Return due publish_session_revoked tasks, with identifiers and reason in their payload.

    Their containments are locked: publish for each in the same transaction, then call
    `finish_local`.
    """
    due = await task_store.system_local_due(connection, now, limit=limit)
    held = await store.lock_containments(connection, _containment_keys(due), skip_locked=True)
    mine = [task for task in due if (task.tenant_id, task.containment_id) in held]
    # Read again under the lock: another core process may have done it meanwhile.
    again = await task_store.tasks_by_key(connection, [(t.tenant_id, t.task_id) for t in mine])
    return [
        _with_facts(task, held[task.tenant_id, task.containment_id])
        for task in sorted(again.values(), key=lambda task: task.task_id)
        if task.state is TaskState.QUEUED
    ]


async def finish_local(
    connection: Connection,
    tasks: Sequence[Task],
    receipts: Mapping[str, Sequence[str]],
    *,
    now: datetime,
) -> None:
    """Settle tasks that `local_due` returned. receipts: by task id, the streams that got it."""
    held = await store.lock_containments(connection, _containment_keys(tasks))
    finished: dict[Key, list[Task]] = {}
    done = [_published(task, tuple(receipts.get(task.task_id, ())), now=now) for task in tasks]
    for task in done:
        finished.setdefault((task.tenant_id, task.containment_id), []).append(task)
    await task_store.update_tasks(connection, done)
    await task_store.add_attempts(
        connection, [(task.tenant_id, _local_attempt(task, now)) for task in done]
    )
    await move_on(connection, held, finished, now=now)


async def containment_of_user(
    connection: Connection, tenant_id: str, user_id: str
) -> Containment | None:
    """Return the user's containment that is not closed; `denies` tells whether it quarantines."""
    found = await store.current_of(connection, [(tenant_id, user_id)])
    return found.get((tenant_id, user_id))


async def denied_users(
    connection: Connection, tenant_id: str, user_ids: Collection[str] | None = None
) -> dict[str, str]:
    """Return who is quarantined, of these users or of all, with the trace id of what led there."""
    if user_ids is None:
        current = await store.current_in(connection, tenant_id)
    else:
        keys = [(tenant_id, user_id) for user_id in user_ids]
        current = list((await store.current_of(connection, keys)).values())
    return {one.user_id: one.trace_id for one in current if one.denies}


async def list_containments(
    connection: Connection,
    tenant_id: str,
    *,
    state: ContainmentState | None = None,
    user_id: str | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[Containment]:
    """Return a page of containments, newest first; `before` is the last id of the page before."""
    return await store.list_containments(
        connection,
        tenant_id,
        state=state,
        user_id=user_id,
        before=before,
        limit=min(limit, PAGE_MAX),
    )


async def get_containment(
    connection: Connection, tenant_id: str, containment_id: str
) -> ContainmentView:
    """Return who, what and why: causes, and tasks with attempts, results and what they prove.

    Raises NotFound.
    """
    key = (tenant_id, containment_id)
    found = await store.containments_by_key(connection, [key])
    if key not in found:
        raise NotFound("No such containment.")
    causes = await store.causes_of(connection, [key])
    tasks = (await task_store.tasks_of(connection, [key]))[key]
    attempts = await task_store.attempts_of(connection, tenant_id, containment_id)
    names = await target_names(connection, tasks)
    return ContainmentView(
        containment=found[key],
        causes=tuple(causes[key]),
        tasks=tuple(
            TaskView(
                task=task,
                target_name=names[task.task_id],
                attempts=tuple(attempts.get(task.task_id, ())),
            )
            for task in tasks
        ),
    )


async def list_tasks(
    connection: Connection,
    tenant_id: str,
    *,
    state: TaskState | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[Task]:
    """Return a page of tasks, newest first; state FAILED is the dead-letter list."""
    return await task_store.list_tasks(
        connection, tenant_id, state=state, before=before, limit=min(limit, PAGE_MAX)
    )


async def retry_task(connection: Connection, tenant_id: str, task_id: str, now: datetime) -> Task:
    """Put a failed task back into the queue, with a new budget of tries.

    Raises NotFound; Conflict when it is not failed or its containment no longer wants it.
    """
    task, containment = await _failed_task(connection, tenant_id, task_id)
    still_wanted = containment.state is ContainmentState.OPEN or task.undo_of is not None
    if not still_wanted and task.kind is not TaskKind.NOTIFY:
        raise Conflict(f"The containment is {containment.state.value}; this step is not wanted.")
    notify = task.kind is TaskKind.NOTIFY
    again = replace(
        task,
        state=TaskState.QUEUED,
        attempts_before=task.attempts,
        due_at=now,
        deadline_at=now + (NOTIFICATION_DEADLINE if notify else TASK_DEADLINE),
        payload=msgspec.structs.replace(task.payload, format_index=0),
        settled_at=None,
    )
    await task_store.update_tasks(connection, [again])
    return again


async def abandon_task(connection: Connection, tenant_id: str, task_id: str, now: datetime) -> Task:
    """Give a failed task up, so that its containment may close without it.

    Raises NotFound; Conflict when it is not failed.
    """
    task, containment = await _failed_task(connection, tenant_id, task_id)
    given_up = replace(task, state=TaskState.CANCELLED, settled_at=now)
    await task_store.update_tasks(connection, [given_up])
    key = key_of(containment)
    await move_on(connection, {key: containment}, {key: [given_up]}, now=now)
    return given_up


async def approve_containment(
    connection: Connection, tenant_id: str, containment_id: str, now: datetime
) -> Planned:
    """Carry out a containment that the blast-radius guard held.

    Raises NotFound; Conflict when it is not held.
    """
    key = (tenant_id, containment_id)
    found = await store.lock_containments(connection, [key])
    if key not in found:
        raise NotFound("No such containment.")
    held = found[key]
    if held.state is not ContainmentState.HELD:
        raise Conflict(f"The containment is {held.state.value}, not held.")
    situation = (await _complete(connection, {key: held}))[tenant_id, held.user_id]
    order = order_of(situation)
    registries = await read_registries(connection, {tenant_id})
    decision = decide(
        order,
        situation,
        registry=registries[tenant_id],
        admitted=True,
        containment_id=containment_id,
        now=now,
    )
    changes = Changes(known={key})
    tasks = changes.add(decision, now=now)
    await changes.write(connection, now=now)
    return _planned(order, decision, situation, tasks=tasks)


async def target_names(connection: Connection, tasks: Sequence[Task]) -> dict[str, str]:
    """Return by task id what people call the task's target: the app's name or the webhook's id."""
    keys = {(task.tenant_id, task.app_id) for task in tasks if task.app_id}
    apps = await registry_store.sealed_apps(connection, keys)
    names = {}
    for task in tasks:
        app = apps.get((task.tenant_id, task.app_id or ""))
        fallback = task.app_id or task.webhook_id or "streams"
        names[task.task_id] = app.app.name if app else fallback
    return names


async def _situations(connection: Connection, users: Collection[Key]) -> dict[Key, Situation]:
    held = await store.lock_current(connection, users)
    return await _complete(connection, {key_of(one): one for one in held.values()})


async def _complete(
    connection: Connection, held: Mapping[Key, Containment]
) -> dict[Key, Situation]:
    """Return situations by (tenant_id, user_id) of locked containments."""
    causes = await store.causes_of(connection, held.keys())
    tasks = await task_store.tasks_of(connection, held.keys(), only_open=True)
    return {
        (one.tenant_id, one.user_id): Situation(
            containment=one, causes=tuple(causes[key]), tasks=tuple(tasks[key])
        )
        for key, one in held.items()
    }


async def _guard(
    connection: Connection,
    orders: Mapping[Key, ContainmentOrder],
    situations: Mapping[Key, Situation],
    *,
    user_counts: Mapping[str, int],
    now: datetime,
) -> Guard:
    tenants = {
        order.tenant_id
        for key, order in orders.items()
        if needs_admission(order, situations.get(key))
    }
    return await Guard.of(connection, tenants, user_counts=user_counts, now=now)


async def _failed_task(
    connection: Connection, tenant_id: str, task_id: str
) -> tuple[Task, Containment]:
    """Return a failed task and its locked containment. Raises NotFound, Conflict."""
    key = (tenant_id, task_id)
    task = (await task_store.tasks_by_key(connection, [key])).get(key)
    if task is None:
        raise NotFound("No such task.")
    containment_key = (tenant_id, task.containment_id)
    held = await store.lock_containments(connection, [containment_key])
    if containment_key not in held:
        # A notice to admins, or the logout of one session.
        raise Conflict("The task belongs to no containment.")
    task = (await task_store.tasks_by_key(connection, [key]))[key]
    if task.state is not TaskState.FAILED:
        raise Conflict(f"The task is {task.state.value}, not failed.")
    return task, held[containment_key]


def _planned(
    order: ContainmentOrder, decision: Decision, before: Situation | None, *, tasks: int
) -> Planned:
    containment = decision.containment or (before.containment if before else None)
    containment_id = containment.containment_id if containment else ""
    _planned_total.labels(decision.outcome.value).inc()
    if decision.outcome is not PlanOutcome.NOTHING:
        write = log.warning if decision.outcome is PlanOutcome.HELD else log.info
        write(
            "containment.planned",
            tenant_id=order.tenant_id,
            containment_id=containment_id,
            user_id=order.user_id,
            trace_id=order.trace_id,
            outcome=decision.outcome.value,
            tasks=tasks,
        )
    return Planned(
        tenant_id=order.tenant_id,
        user_id=order.user_id,
        trace_id=order.trace_id,
        containment_id=containment_id,
        outcome=decision.outcome,
        tasks_enqueued=tasks,
        logs_out=decision.logs_out,
    )


def _containment_keys(tasks: Sequence[Task]) -> set[Key]:
    return {(task.tenant_id, task.containment_id) for task in tasks}


def _with_facts(task: Task, containment: Containment) -> Task:
    """Return the task knowing whom and why, as the containment has it now."""
    payload = msgspec.structs.replace(
        task.payload,
        identifiers=tuple(dict(identifier) for identifier in containment.identifiers),
        reason="; ".join(containment.reasons[:REASONS_TOLD_MAX]),
    )
    return replace(task, payload=payload)


def _published(task: Task, receipts: tuple[str, ...], *, now: datetime) -> Task:
    detail = f"session-revoked queued for {len(set(receipts))} streams"
    return replace(
        task,
        state=TaskState.DONE,
        attempts=task.attempts + 1,
        result=TaskResult(detail=detail, receipts=receipts),
        proves=Proof.ACCEPTED if receipts else Proof.NOTHING,
        settled_at=now,
    )


def _local_attempt(task: Task, now: datetime) -> Attempt:
    return Attempt(
        task_id=task.task_id,
        attempt_number=task.attempts,
        at=now,
        duration_ms=0.0,
        outcome=OutcomeClass.DONE.value,
        status=0,
        detail=task.result.detail,
    )
