"""Tables and named queries of tasks and their attempts. Decides nothing."""

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
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)

#: what services pass through without knowing it
Connection: TypeAlias = AsyncConnection
#: (tenant_id, id)
Key: TypeAlias = tuple[str, str]
KEYS_PER_STATEMENT: Final = 400

tasks: Final = sa.Table(
    "tasks",
    metadata,
    tenant_column(),
    id_column("task_id"),
    id_column("containment_id", primary_key=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("app_id", sa.String(64)),
    sa.Column("webhook_id", sa.String(64)),
    id_column("user_id", primary_key=False),
    sa.Column("stage", sa.SmallInteger, nullable=False),
    sa.Column("target", sa.String(96), nullable=False),
    sa.Column("lane", sa.String(192), nullable=False),
    sa.Column("bucket", sa.SmallInteger, nullable=False),
    sa.Column("idempotency_key", sa.String(400), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("attempts_before", sa.Integer, nullable=False),
    sa.Column("due_at", UTCDateTime, nullable=False),
    sa.Column("deadline_at", UTCDateTime, nullable=False),
    sa.Column("payload", JSONDocument, nullable=False),
    sa.Column("result", JSONDocument, nullable=False),
    sa.Column("proves", sa.String(16), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("settled_at", UTCDateTime),
    sa.Column("undo_of", sa.String(64)),
    sa.UniqueConstraint("tenant_id", "idempotency_key"),
    sa.Index("ix_tasks_tenant_id_containment_id", "tenant_id", "containment_id"),
    sa.Index("ix_tasks_tenant_id_state_task_id", "tenant_id", "state", "task_id"),
)
_is_queued = tasks.c.state == "queued"
sa.Index(
    "ix_tasks_tenant_id_lane_queued",
    tasks.c.tenant_id,
    tasks.c.lane,
    tasks.c.task_id,
    sqlite_where=_is_queued,
    postgresql_where=_is_queued,
)
sa.Index(
    "ix_tasks_tenant_id_bucket_queued",
    tasks.c.tenant_id,
    tasks.c.bucket,
    tasks.c.due_at,
    sqlite_where=_is_queued,
    postgresql_where=_is_queued,
)

attempts: Final = sa.Table(
    "attempts",
    metadata,
    tenant_column(),
    id_column("task_id"),
    sa.Column("attempt_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("duration_ms", sa.Float, nullable=False),
    sa.Column("outcome", sa.String(32), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """How much of due work may be handed out. busy: lanes under way.

    full: targets that have enough under way. failing: targets that get one at a time.
    """

    busy: Collection[str]
    full: Collection[str]
    failing: Collection[str]
    per_target: int


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


async def tasks_of(
    connection: Connection, keys: Collection[Key], *, only_open: bool = False
) -> dict[Key, list[Task]]:
    """Return the tasks of containments, oldest first.

    only_open: those that can still matter: queued ones, and all membership changes.
    """
    grouped: dict[Key, list[Task]] = {key: [] for key in keys}
    if not keys:
        return grouped
    query = sa.select(tasks).where(
        sa.tuple_(tasks.c.tenant_id, tasks.c.containment_id).in_(list(keys))
    )
    if only_open:
        membership = (TaskKind.QUARANTINE_ADD.value, TaskKind.QUARANTINE_REMOVE.value)
        query = query.where(sa.or_(_is_queued, tasks.c.kind.in_(membership)))
    for row in await connection.execute(query.order_by(tasks.c.task_id)):
        grouped[row.tenant_id, row.containment_id].append(_task(row))
    return grouped


async def add_tasks(connection: Connection, new: Sequence[Task]) -> None:
    """Enqueue tasks; one whose idempotency key exists already is left as it is."""
    if new:
        insert = dialect_insert(connection, tasks).on_conflict_do_nothing()
        await connection.execute(insert, [_task_row(task) for task in new])


async def cancel_tasks(connection: Connection, keys: Sequence[Key], *, now: datetime) -> None:
    """Cancel tasks that are still queued."""
    if keys:
        statement = (
            sa.update(tasks)
            .where(
                tasks.c.tenant_id == sa.bindparam("key_tenant"),
                tasks.c.task_id == sa.bindparam("key_id"),
                _is_queued,
            )
            .values(state=TaskState.CANCELLED.value, settled_at=now)
        )
        await connection.execute(
            statement, [{"key_tenant": tenant, "key_id": task_id} for tenant, task_id in keys]
        )


async def tasks_by_key(connection: Connection, keys: Collection[Key]) -> dict[Key, Task]:
    """Return tasks by (tenant_id, task_id)."""
    found: dict[Key, Task] = {}
    for some in chunks(keys, KEYS_PER_STATEMENT):
        query = sa.select(tasks).where(sa.tuple_(tasks.c.tenant_id, tasks.c.task_id).in_(some))
        for row in await connection.execute(query):
            found[row.tenant_id, row.task_id] = _task(row)
    return found


async def update_tasks(connection: Connection, changed: Sequence[Task]) -> None:
    """Write what settling changes of tasks."""
    if changed:
        statement = (
            sa.update(tasks)
            .where(
                tasks.c.tenant_id == sa.bindparam("key_tenant"),
                tasks.c.task_id == sa.bindparam("key_id"),
            )
            .values({name: sa.bindparam(f"new_{name}") for name in _CHANGEABLE})
        )
        rows = []
        for task in changed:
            row = _task_row(task)
            rows.append(
                {"key_tenant": task.tenant_id, "key_id": task.task_id}
                | {f"new_{name}": row[name] for name in _CHANGEABLE}
            )
        await connection.execute(statement, rows)


async def pull_tasks(connection: Connection, keys: Sequence[Key], *, now: datetime) -> None:
    """Make queued tasks due now."""
    if keys:
        statement = (
            sa.update(tasks)
            .where(
                tasks.c.tenant_id == sa.bindparam("key_tenant"),
                tasks.c.task_id == sa.bindparam("key_id"),
                _is_queued,
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
    if rows:
        insert = dialect_insert(connection, attempts).on_conflict_do_nothing()
        await connection.execute(insert, rows)


async def system_due_tasks(
    connection: Connection,
    buckets: Collection[int],
    now: datetime,
    *,
    limits: LaneLimits,
    limit: int,
) -> list[Task]:
    """Return due heads of lanes of some buckets, fair over targets. System query.

    A head is the oldest queued task of its lane; a lane whose head waits, waits.
    """
    earlier = tasks.alias("earlier")
    has_earlier = sa.exists(
        sa.select(sa.literal(1)).where(
            earlier.c.tenant_id == tasks.c.tenant_id,
            earlier.c.lane == tasks.c.lane,
            earlier.c.state == "queued",
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
            _is_queued,
            tasks.c.bucket.in_(list(buckets)),
            tasks.c.due_at <= now,
            tasks.c.lane.not_in(list(limits.busy)),
            tasks.c.target.not_in(list(limits.full)),
            ~has_earlier,
        )
        .subquery()
    )
    allowed = sa.or_(
        heads.c.turn == 1,
        sa.and_(heads.c.turn <= limits.per_target, heads.c.target.not_in(list(limits.failing))),
    )
    query = sa.select(heads).where(allowed).order_by(heads.c.due_at, heads.c.task_id).limit(limit)
    return [_task(row) for row in await connection.execute(query)]


async def system_local_due(connection: Connection, now: datetime, *, limit: int) -> list[Task]:
    """Return due tasks that the core performs itself. System query."""
    query = (
        sa.select(tasks)
        .where(_is_queued, tasks.c.bucket == LOCAL_BUCKET, tasks.c.due_at <= now)
        .order_by(tasks.c.due_at, tasks.c.task_id)
        .limit(limit)
    )
    return [_task(row) for row in await connection.execute(query)]


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


def _task(row: sa.Row[Any]) -> Task:
    return Task(
        tenant_id=row.tenant_id,
        task_id=row.task_id,
        containment_id=row.containment_id,
        round=row.round,
        kind=TaskKind(row.kind),
        app_id=row.app_id,
        webhook_id=row.webhook_id,
        user_id=row.user_id,
        stage=Stage(row.stage),
        target=row.target,
        lane=row.lane,
        bucket=row.bucket,
        idempotency_key=row.idempotency_key,
        state=TaskState(row.state),
        attempts=row.attempts,
        attempts_before=row.attempts_before,
        due_at=row.due_at,
        deadline_at=row.deadline_at,
        payload=msgspec.convert(row.payload, TaskPayload),
        result=msgspec.convert(row.result, TaskResult),
        proves=Proof(row.proves),
        created_at=row.created_at,
        settled_at=row.settled_at,
        undo_of=row.undo_of,
    )
