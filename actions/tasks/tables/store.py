"""Tables of tasks and their attempts."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from runtime.database import JSONDocument, UTCDateTime, id_column, metadata, tenant_column

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
# A literal, not a parameter: only then the databases may use the partial indexes.
IS_QUEUED = tasks.c.state == sa.literal_column("'queued'")
sa.Index(
    "ix_tasks_tenant_id_lane_queued",
    tasks.c.tenant_id,
    tasks.c.lane,
    tasks.c.task_id,
    sqlite_where=IS_QUEUED,
    postgresql_where=IS_QUEUED,
)
sa.Index(
    "ix_tasks_tenant_id_bucket_queued",
    tasks.c.tenant_id,
    tasks.c.bucket,
    tasks.c.due_at,
    sqlite_where=IS_QUEUED,
    postgresql_where=IS_QUEUED,
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
