"""Named queries of tasks and their attempts. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from actions.model import (
    LOCAL_BUCKET,
    Attempt,
    Proof,
    Stage,
    Task,
    TaskKind,
    TaskPayload,
    TaskResult,
    TaskState,
)
from actions.tasks.tables.store import IS_QUEUED, attempts, tasks
from runtime.database import UTCDateTime, insert_new
from runtime.queue import BUCKETS
from runtime.statements import Query, Write, among, inserts, rows_of_keys

#: what services pass through without knowing it
Connection: TypeAlias = AsyncConnection
#: (tenant_id, id)
Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """How much of due work may be handed out. busy: lanes under way.

    full: targets that have enough under way. failing: targets that get one at a time.
    suspended: tenants whose tasks wait.
    """

    busy: Collection[str]
    full: Collection[str]
    failing: Collection[str]
    per_target: int
    suspended: Collection[str] = ()


_CHANGEABLE: Final = (
    "state",
    "attempts",
    "attempts_before",
    "due_at",
    "deadline_at",
    "payload",
    "result",
    "proves",
    "settled_at",
)


_BY_KEY: Final = (
    tasks.c.tenant_id == sa.bindparam("key_tenant"),
    tasks.c.task_id == sa.bindparam("key_id"),
)
_ADD: Final = inserts(tasks, or_nothing=True)
_CANCEL: Final = Write(
    sa.update(tasks)
    .where(*_BY_KEY, IS_QUEUED)
    .values(state=TaskState.CANCELLED.value, settled_at=sa.bindparam("at")),
    ("key_tenant", "key_id", "at"),
)
_CHANGE: Final = Write(
    sa.update(tasks)
    .where(*_BY_KEY)
    .values({name: sa.bindparam(f"new_{name}") for name in _CHANGEABLE}),
    ("key_tenant", "key_id", *(f"new_{name}" for name in _CHANGEABLE)),
)
_ADD_ATTEMPTS: Final = inserts(attempts, or_nothing=True)


_MEMBERSHIP: Final = (TaskKind.QUARANTINE_ADD.value, TaskKind.QUARANTINE_REMOVE.value)
_IN_ORDER: Final = sa.select(tasks).order_by(tasks.c.task_id)
_ALL_OF: Final = among(_IN_ORDER, tasks, tasks.c.containment_id)
_OPEN_OF: Final = among(
    _IN_ORDER.where(sa.or_(IS_QUEUED, tasks.c.kind.in_(_MEMBERSHIP))),
    tasks,
    tasks.c.containment_id,
)
_BY_ID: Final = among(sa.select(tasks), tasks, tasks.c.task_id)


async def tasks_of(
    connection: Connection, keys: Collection[Key], *, only_open: bool = False
) -> dict[Key, list[Task]]:
    """Return the tasks of containments, oldest first.

    only_open: those that can still matter: queued ones, and all membership changes.
    """
    grouped: dict[Key, list[Task]] = {key: [] for key in keys}
    for row in await rows_of_keys(connection, _OPEN_OF if only_open else _ALL_OF, keys):
        task = _task(row)
        grouped[task.tenant_id, task.containment_id].append(task)
    return grouped


async def add_tasks(connection: Connection, new: Sequence[Task]) -> None:
    """Enqueue tasks; one whose idempotency key exists already is left as it is."""
    await _ADD.run(connection, [_task_row(task) for task in new])


async def add_new_tasks(connection: Connection, new: Sequence[Task]) -> list[Task]:
    """Enqueue tasks; return those whose idempotency key did not exist."""
    added = await insert_new(connection, tasks, [_task_row(task) for task in new], "task_id")
    return [task for task in new if task.task_id in added]


async def cancel_tasks(connection: Connection, keys: Sequence[Key], *, now: datetime) -> None:
    """Cancel tasks that are still queued."""
    await _CANCEL.run(
        connection,
        [{"key_tenant": tenant, "key_id": task_id, "at": now} for tenant, task_id in keys],
    )


async def tasks_by_key(connection: Connection, keys: Collection[Key]) -> dict[Key, Task]:
    """Return tasks by (tenant_id, task_id)."""
    found = [_task(row) for row in await rows_of_keys(connection, _BY_ID, keys)]
    return {(task.tenant_id, task.task_id): task for task in found}


async def update_tasks(connection: Connection, changed: Sequence[Task]) -> None:
    """Write what settling changes of tasks."""
    rows = []
    for task in changed:
        row = _task_row(task)
        rows.append(
            {"key_tenant": task.tenant_id, "key_id": task.task_id}
            | {f"new_{name}": row[name] for name in _CHANGEABLE}
        )
    await _CHANGE.run(connection, rows)


async def pull_tasks(connection: Connection, keys: Sequence[Key], *, now: datetime) -> None:
    """Make queued tasks due now."""
    if keys:
        statement = (
            sa.update(tasks)
            .where(
                tasks.c.tenant_id == sa.bindparam("key_tenant"),
                tasks.c.task_id == sa.bindparam("key_id"),
                IS_QUEUED,
            )
            .values(due_at=now)
        )
        await connection.execute(
            statement, [{"key_tenant": tenant, "key_id": task_id} for tenant, task_id in keys]
        )


async def add_attempts(connection: Connection, made: Iterable[tuple[str, Attempt]]) -> None:
    """Record attempts, each with its tenant; one that is recorded already stays as it is."""
    rows = [
        {
            "tenant_id": tenant_id,
            "task_id": attempt.task_id,
            "attempt_number": attempt.attempt_number,
            "at": attempt.at,
            "duration_ms": attempt.duration_ms,
            "outcome": attempt.outcome,
            "status": attempt.status,
            "detail": attempt.detail,
        }
        for tenant_id, attempt in made
    ]
    await _ADD_ATTEMPTS.run(connection, rows)


async def system_due_tasks(
    connection: Connection,
    buckets: Collection[int],
    now: datetime,
    *,
    limits: LaneLimits,
    limit: int,
) -> list[Task]:
    """Return due heads of lanes of some buckets, fair over targets. System query.

    A head is the oldest queued task of its lane; a lane whose head waits, waits. Most looks find
    nothing: they cost one walk along the index of queued tasks.
    """
    everywhere = len(buckets) >= BUCKETS
    scope = {"suspended": limits.suspended, **({} if everywhere else {"buckets": buckets})}
    if not await _ANY_DUE[everywhere].rows(connection, now=now, **scope):
        return []
    rows = await _DUE[everywhere].rows(
        connection,
        now=now,
        busy=limits.busy,
        full=limits.full,
        failing=limits.failing,
        per_target=limits.per_target,
        at_most=limit,
        **scope,
    )
    return [_task(row) for row in rows]


def _is_due(*, everywhere: bool) -> sa.ColumnElement[bool]:
    mine = (
        tasks.c.bucket != LOCAL_BUCKET
        if everywhere
        else tasks.c.bucket.in_(sa.bindparam("buckets", expanding=True, type_=sa.Integer))
    )
    return sa.and_(
        IS_QUEUED,
        mine,
        tasks.c.due_at <= sa.bindparam("now", type_=UTCDateTime),
        tasks.c.tenant_id.not_in(_lanes("suspended")),
    )


def _lanes(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(name, expanding=True, type_=sa.String)


def _due_heads(*, everywhere: bool) -> Query:
    earlier = tasks.alias("earlier")
    has_earlier = sa.exists(
        sa.select(sa.literal_column("1")).where(
            earlier.c.tenant_id == tasks.c.tenant_id,
            earlier.c.lane == tasks.c.lane,
            earlier.c.state == sa.literal_column("'queued'"),
            earlier.c.task_id < tasks.c.task_id,
        )
    )
    turn = sa.func.row_number().over(
        partition_by=(tasks.c.tenant_id, tasks.c.target),
        order_by=(tasks.c.due_at, tasks.c.task_id),
    )
    heads = (
        sa.select(tasks, turn.label("turn"))
        .where(
            _is_due(everywhere=everywhere),
            tasks.c.lane.not_in(_lanes("busy")),
            tasks.c.target.not_in(_lanes("full")),
            ~has_earlier,
        )
        .subquery()
    )
    allowed = sa.or_(
        heads.c.turn == 1,
        sa.and_(
            heads.c.turn <= sa.bindparam("per_target", type_=sa.Integer),
            heads.c.target.not_in(_lanes("failing")),
        ),
    )
    return Query(
        sa.select(*(heads.c[name] for name in _COLUMNS))
        .where(allowed)
        .order_by(heads.c.due_at, heads.c.task_id)
        .limit(sa.bindparam("at_most", type_=sa.Integer)),
        scalars=["now", "per_target", "at_most"],
        lists=["busy", "full", "failing", *_BUCKETS[everywhere]],
    )


_COLUMNS: Final = tuple(tasks.columns.keys())
#: lists of the statements for all buckets, and for some
_BUCKETS: Final = {True: ("suspended",), False: ("suspended", "buckets")}
_ANY_DUE: Final = {
    everywhere: Query(
        sa.select(sa.literal_column("1")).where(_is_due(everywhere=everywhere)).limit(1),
        scalars=["now"],
        lists=_BUCKETS[everywhere],
    )
    for everywhere in (True, False)
}
_DUE: Final = {everywhere: _due_heads(everywhere=everywhere) for everywhere in (True, False)}
_LOCAL_DUE: Final = Query(
    sa.select(tasks)
    .where(
        IS_QUEUED,
        tasks.c.bucket == sa.literal_column(str(LOCAL_BUCKET)),
        tasks.c.due_at <= sa.bindparam("now", type_=UTCDateTime),
    )
    .order_by(tasks.c.due_at, tasks.c.task_id)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["now", "at_most"],
)


async def system_local_due(connection: Connection, now: datetime, *, limit: int) -> list[Task]:
    """Return due tasks that the core performs itself. System query."""
    rows = await _LOCAL_DUE.rows(connection, now=now, at_most=limit)
    return [_task(row) for row in rows]


async def list_tasks(
    connection: Connection,
    tenant_id: str,
    *,
    state: TaskState | None,
    before: str | None,
    limit: int,
) -> list[Task]:
    """Return a page of tasks, newest first."""
    query = sa.select(tasks).where(tasks.c.tenant_id == tenant_id)
    if state is not None:
        query = query.where(tasks.c.state == state.value)
    if before is not None:
        query = query.where(tasks.c.task_id < before)
    query = query.order_by(tasks.c.task_id.desc()).limit(limit)
    return [_task(row) for row in await connection.execute(query)]


async def attempts_of(
    connection: Connection, tenant_id: str, containment_id: str
) -> dict[str, list[Attempt]]:
    """Return all attempts of a containment's tasks by task id, in order."""
    mine = sa.select(tasks.c.task_id).where(
        tasks.c.tenant_id == tenant_id, tasks.c.containment_id == containment_id
    )
    query = (
        sa.select(attempts)
        .where(attempts.c.tenant_id == tenant_id, attempts.c.task_id.in_(mine))
        .order_by(attempts.c.task_id, attempts.c.attempt_number)
    )
    grouped: dict[str, list[Attempt]] = {}
    for row in await connection.execute(query):
        attempt = Attempt(
            task_id=row.task_id,
            attempt_number=row.attempt_number,
            at=row.at,
            duration_ms=row.duration_ms,
            outcome=row.outcome,
            status=row.status,
            detail=row.detail,
        )
        grouped.setdefault(row.task_id, []).append(attempt)
    return grouped


def _task_row(task: Task) -> dict[str, Any]:
    return {
        "tenant_id": task.tenant_id,
        "task_id": task.task_id,
        "containment_id": task.containment_id,
        "round": task.round,
        "kind": task.kind.value,
        "app_id": task.app_id,
        "webhook_id": task.webhook_id,
        "user_id": task.user_id,
        "stage": int(task.stage),
        "target": task.target,
        "lane": task.lane,
        "bucket": task.bucket,
        "idempotency_key": task.idempotency_key,
        "state": task.state.value,
        "attempts": task.attempts,
        "attempts_before": task.attempts_before,
        "due_at": task.due_at,
        "deadline_at": task.deadline_at,
        "payload": msgspec.to_builtins(task.payload),
        "result": msgspec.to_builtins(task.result),
        "proves": task.proves.value,
        "created_at": task.created_at,
        "settled_at": task.settled_at,
        "undo_of": task.undo_of,
    }


def _task(row: Sequence[Any]) -> Task:
    """Make a task of all columns of the table, in their order."""
    values = dict(zip(_COLUMNS, row, strict=True))
    values["kind"] = _KINDS[values["kind"]]
    values["stage"] = _STAGES[values["stage"]]
    values["state"] = _STATES[values["state"]]
    values["proves"] = _PROOFS[values["proves"]]
    values["payload"] = msgspec.convert(values["payload"], TaskPayload)
    values["result"] = msgspec.convert(values["result"], TaskResult)
    return Task(**values)


_KINDS: Final = {kind.value: kind for kind in TaskKind}
_STAGES: Final = {stage.value: stage for stage in Stage}
_STATES: Final = {state.value: state for state in TaskState}
_PROOFS: Final = {proof.value: proof for proof in Proof}
