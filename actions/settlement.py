"""What an attempt's end does to its task, and what that sets free. Runs in the writing process.

    attempt ends ──▶ fence valid? ──▶ task: done | queued for later | failed
                                           │ settled for good
                                           ▼
                     next stage may start · containment restored? closed · people told of failures

INVARIANT: containments are locked before their tasks are read, here and in planning, so that one
sees what the other decided.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from actions import store
from actions.drafts import Registry, Situation, notify_drafts
from actions.messages import Event
from actions.model import (
    CONTAINMENTS_KIND,
    LOCAL_BUCKET,
    NOTIFICATION_DEADLINE,
    REQUESTED,
    TASK_DEADLINE,
    Attempt,
    Containment,
    ContainmentState,
    Proof,
    Task,
    TaskDraft,
    TaskKind,
    TaskPayload,
    TaskResult,
    TaskState,
)
from actions.outcomes import OutcomeClass
from actions.planning import LOGOUTS, Decision, due_to_pull, is_restored
from actions.registry import store as registry_store
from actions.requests import end_request
from actions.store import Connection, Key
from actions.tasks import store as task_store
from runtime.changes import note_changes
from runtime.feed import bump
from runtime.ids import new_id
from runtime.queue import Fence, bucket_of, fences_valid
from runtime.writer import Operation

log = structlog.get_logger()


class TaskSettlement(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended, and the state its task is to move to.

    at: when it ended. outcome: an OutcomeClass. state: a TaskState. payload: what the task knows
    now. status: HTTP status, 0 when there was no answer.
    """

    tenant_id: str
    task_id: str
    containment_id: str
    fence: Fence
    attempt_number: int
    at: datetime
    duration_ms: float
    outcome: str
    state: str
    due_at: datetime
    payload: TaskPayload
    result: TaskResult
    proves: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """What a batch of settlements changed, by containment key."""

    tasks: dict[Key, Task] = field(default_factory=dict)
    finished: dict[Key, list[Task]] = field(default_factory=dict)

    def note(self, before: Task, after: Task) -> None:
        self.tasks[after.tenant_id, after.task_id] = after
        if after.state is not before.state:
            key = (after.tenant_id, after.containment_id)
            self.finished.setdefault(key, []).append(after)


def settle_task(task: Task, settlement: TaskSettlement) -> Task | None:
    """Return the task after an attempt, or None when the attempt was counted before.

    A task that was cancelled while its request was under way is done when the request succeeded:
    the record says what happened. Pure; raises nothing.
    """
    if settlement.attempt_number != task.attempts + 1:
        return None
    state = TaskState(settlement.state)
    counted = replace(task, attempts=settlement.attempt_number)
    if task.state is TaskState.CANCELLED and state is not TaskState.DONE:
        return counted
    if task.state not in {TaskState.QUEUED, TaskState.CANCELLED}:
        return None
    return replace(
        counted,
        state=state,
        due_at=settlement.due_at,
        payload=settlement.payload,
        result=settlement.result,
        proves=Proof(settlement.proves),
        settled_at=None if state is TaskState.QUEUED else settlement.at,
    )


async def settle_tasks(connection: Connection, settlements: Sequence[TaskSettlement]) -> list[bool]:
    """Record the ends of attempts; True for each that counted.

    An attempt made under a lost lease, or one that was recorded before, changes nothing.
    """
    valid = await fences_valid(connection, {one.fence for one in settlements})
    good = [one for one in settlements if one.fence in valid]
    held = await store.lock_containments(
        connection, {(one.tenant_id, one.containment_id) for one in good}
    )
    tasks = await task_store.tasks_by_key(
        connection, {(one.tenant_id, one.task_id) for one in good}
    )
    progress = _Progress()
    counted: list[TaskSettlement] = []
    answers: list[bool] = []
    for one in settlements:
        key = (one.tenant_id, one.task_id)
        before = (progress.tasks.get(key) or tasks.get(key)) if one.fence in valid else None
        after = settle_task(before, one) if before else None
        answers.append(after is not None)
        if before and after:
            progress.note(before, after)
            counted.append(one)
    if counted:
        await _write(connection, progress, counted)
        now = max(one.at for one in counted)
        await move_on(connection, held, progress.finished, now=now)
    return answers


SETTLE_TASKS: Final = Operation(
    name="actions.settle",
    item=TaskSettlement,
    result=bool,
    handle=settle_tasks,
    wakes=("tasks",),
    is_own=True,
)
OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (SETTLE_TASKS,)


async def move_on(
    connection: Connection,
    held: Mapping[Key, Containment],
    finished: Mapping[Key, Sequence[Task]],
    *,
    now: datetime,
) -> None:
    """Set free what waited for finished tasks: next stages, closing, telling people.

    held: the locked containments. finished: tasks that just left the queue, by containment.
    """
    keys = [key for key in finished if key in held]
    if not keys:
        return
    tasks = await task_store.tasks_of(connection, keys, only_open=True)
    pulled = [
        (tenant_id, task_id)
        for tenant_id, containment_id in keys
        for task_id in due_to_pull(_queued(tasks[tenant_id, containment_id]), now)
    ]
    await task_store.pull_tasks(connection, pulled, now=now)
    closed = [
        replace(held[key], state=ContainmentState.CLOSED, closed_at=now)
        for key in keys
        if held[key].state is ContainmentState.RESTORING and is_restored(tasks[key])
    ]
    await store.write_containments(connection, closed, known=held.keys())
    await note_changed(connection, closed)
    await _end_requests(connection, held, tasks, now=now)
    failed = [
        (held[key], task)
        for key in keys
        for task in finished[key]
        if task.state is TaskState.FAILED
    ]
    await _tell(connection, closed, failed, now=now)


async def _end_requests(
    connection: Connection,
    held: Mapping[Key, Containment],
    tasks: Mapping[Key, Sequence[Task]],
    *,
    now: datetime,
) -> None:
    """End requested logouts that were carried out. One that failed waits for a person.

    held: the locked containments. tasks: of those that just moved on, queued ones included.
    """
    quiet = [
        key
        for key, all_open in tasks.items()
        if held[key].state is ContainmentState.OPEN
        and not any(task.kind is not TaskKind.NOTIFY for task in _queued(all_open))
    ]
    causes = await store.causes_of(connection, quiet)
    asked = [key for key in quiet if any(each.name == REQUESTED for each in causes[key])]
    if not asked:
        return
    everything = await task_store.tasks_of(connection, asked)
    registries = await read_registries(connection, {tenant_id for tenant_id, _ in asked})
    for key in asked:
        if any(t.kind in LOGOUTS and t.state is TaskState.FAILED for t in everything[key]):
            continue
        situation = Situation(
            containment=held[key], causes=tuple(causes[key]), tasks=tuple(tasks[key])
        )
        decision = end_request(situation, registry=registries[key[0]], now=now)
        if decision is not None:
            await _write_end(connection, key, decision, now=now)


async def _write_end(
    connection: Connection, key: Key, decision: Decision, *, now: datetime
) -> None:
    await store.write_causes(
        connection, attached=(), cleared=[(key, each) for each in decision.cleared], now=now
    )
    if decision.containment is None:
        return
    await store.write_containments(connection, [decision.containment], known={key})
    await task_store.add_tasks(
        connection, [task_of(draft, decision.containment, now=now) for draft in decision.drafts]
    )
    await note_changed(connection, [decision.containment])


async def read_registries(
    connection: Connection, tenant_ids: Collection[str]
) -> dict[str, Registry]:
    """Return whom containments reach, per tenant; one read per table."""
    apps = await registry_store.system_apps_of(connection, tenant_ids)
    webhooks = await registry_store.system_webhooks_of(connection, tenant_ids)
    return {
        tenant_id: Registry(
            apps=tuple(app for app in apps if app.tenant_id == tenant_id),
            webhooks=tuple(hook for hook in webhooks if hook.tenant_id == tenant_id),
        )
        for tenant_id in tenant_ids
    }


async def note_changed(connection: Connection, changed: Sequence[Containment]) -> None:
    """Tell every node's caches that these users' containments are not what they were."""
    await note_changes(
        connection, CONTAINMENTS_KIND, [(one.tenant_id, one.user_id) for one in changed]
    )


def task_of(draft: TaskDraft, containment: Containment, *, now: datetime) -> Task:
    """Return the queued task a draft becomes; ids ascend in the order of the calls."""
    local = draft.kind is TaskKind.PUBLISH_SESSION_REVOKED
    notify = draft.kind is TaskKind.NOTIFY
    bucket = LOCAL_BUCKET if local else bucket_of(containment.tenant_id, draft.target)
    return Task(
        tenant_id=containment.tenant_id,
        task_id=new_id("tsk"),
        containment_id=containment.containment_id,
        round=containment.round,
        kind=draft.kind,
        app_id=draft.app_id,
        webhook_id=draft.webhook_id,
        user_id=containment.user_id,
        stage=draft.stage,
        target=draft.target,
        lane=draft.lane,
        bucket=bucket,
        idempotency_key=draft.key,
        state=TaskState.QUEUED,
        attempts=0,
        attempts_before=0,
        due_at=now + draft.due_in,
        deadline_at=now + (NOTIFICATION_DEADLINE if notify else TASK_DEADLINE),
        payload=draft.payload,
        result=TaskResult(),
        proves=Proof.NOTHING,
        created_at=now,
        settled_at=None,
        undo_of=draft.undo_of,
    )


async def _write(
    connection: Connection, progress: _Progress, counted: Sequence[TaskSettlement]
) -> None:
    await task_store.update_tasks(connection, list(progress.tasks.values()))
    await task_store.add_attempts(connection, [(one.tenant_id, _attempt(one)) for one in counted])
    gone = [
        (one.tenant_id, task.webhook_id)
        for one in counted
        if one.outcome == OutcomeClass.GONE
        and (task := progress.tasks[one.tenant_id, one.task_id]).webhook_id
    ]
    await registry_store.switch_webhooks_off(connection, gone)
    for tenant_id in Tally(tenant_id for tenant_id, _ in gone):
        await bump(connection, tenant_id, "apps")


async def _tell(
    connection: Connection,
    closed: Sequence[Containment],
    failed: Sequence[tuple[Containment, Task]],
    *,
    now: datetime,
) -> None:
    """Enqueue notifications of closed containments and of steps that failed for good."""
    tenant_ids = {one.tenant_id for one in closed} | {one.tenant_id for one, _ in failed}
    if not tenant_ids:
        return
    registries = await read_registries(connection, tenant_ids)
    tasks: list[Task] = []
    for one in closed:
        log.info("containment.closed", containment_id=one.containment_id, user_id=one.user_id)
        drafts = notify_drafts(one, Event.CLOSED, registries[one.tenant_id], key="closed")
        tasks += [task_of(draft, one, now=now) for draft in drafts]
    for one, task in failed:
        drafts = _failure_drafts(one, task, registries[one.tenant_id])
        tasks += [task_of(draft, one, now=now) for draft in drafts]
    await task_store.add_tasks(connection, tasks)


def _failure_drafts(
    containment: Containment, task: Task, registry: Registry
) -> tuple[TaskDraft, ...]:
    if task.kind is TaskKind.NOTIFY:
        return ()  # a failing webhook is not told through webhooks
    what = task.kind.value.replace("_", " ")
    note = f"a step failed and waits for a person ({what}: {task.result.detail})."
    key = f"failed:{task.task_id}:{task.attempts}"
    return notify_drafts(containment, Event.UPDATED, registry, key=key, note=note)


def _attempt(one: TaskSettlement) -> Attempt:
    return Attempt(
        task_id=one.task_id,
        attempt_number=one.attempt_number,
        at=one.at,
        duration_ms=one.duration_ms,
        outcome=one.outcome,
        status=one.status,
        detail=one.result.detail,
    )


def _queued(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.state is TaskState.QUEUED]
