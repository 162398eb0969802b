"""Named queries that look at detections; `risk.findings.store` owns the table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.findings.store import DETECTION_COLUMNS, IS_ACTIVE, detection, detections
from risk.levels.model import LevelChange
from risk.levels.store import level_history
from risk.model import Detection, DetectionState, EntityKind, Level
from risk.sessions.model import Session
from risk.sessions.store import find_sessions, sessions
from risk.sql.store import IDS, TENANT, rows_of
from runtime.database import UTCDateTime
from runtime.statements import Query

#: revisions that one look into the past reads
REVISIONS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionFilter:
    """Which detections are wanted; None for all. names: any of these."""

    entity_id: str | None = None
    entity_kind: EntityKind | None = None
    state: DetectionState | None = None
    issuer: str | None = None
    names: frozenset[str] | None = None


async def list_detections(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    wanted: DetectionFilter,
    before: str,
    limit: int,
) -> list[Detection]:
    """Return up to `limit` latest revisions with an id below `before`, newest first."""
    statement = sa.select(*DETECTION_COLUMNS).where(
        detections.c.tenant_id == tenant_id, sa.text("is_latest")
    )
    if wanted.entity_id is not None:
        statement = statement.where(detections.c.entity_id == wanted.entity_id)
    if wanted.entity_kind is not None:
        statement = statement.where(detections.c.entity_kind == wanted.entity_kind.value)
    if wanted.state is not None:
        statement = statement.where(detections.c.state == wanted.state.value)
    if wanted.issuer is not None:
        statement = statement.where(detections.c.issuer == wanted.issuer)
    if wanted.names is not None:
        statement = statement.where(detections.c.name.in_(sorted(wanted.names)))
    if before:
        statement = statement.where(detections.c.detection_id < before)
    rows = await connection.execute(
        statement.order_by(detections.c.detection_id.desc()).limit(limit)
    )
    return [detection(row, tenant_id) for row in rows]


async def read_detection(
    connection: AsyncConnection, tenant_id: str, detection_id: str
) -> Detection | None:
    """Return a detection as it stands."""
    rows = await connection.execute(
        sa.select(*DETECTION_COLUMNS).where(
            detections.c.tenant_id == tenant_id,
            detections.c.detection_id == detection_id,
            sa.text("is_latest"),
        )
    )
    row = rows.first()
    return None if row is None else detection(row, tenant_id)


async def detections_by(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str], state_by: str
) -> list[Detection]:
    """Return detections about the entities, as they stand, whose state somebody brought about."""
    rows = await connection.execute(
        sa.select(*DETECTION_COLUMNS).where(
            detections.c.tenant_id == tenant_id,
            detections.c.entity_id.in_(sorted(entity_ids)),
            detections.c.state_by == state_by,
            sa.text("is_latest"),
        )
    )
    return [detection(row, tenant_id) for row in rows]


async def revisions(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    entity_ids: Collection[str],
    until: datetime | None = None,
    limit: int = REVISIONS_MAX,
) -> list[tuple[datetime, Detection]]:
    """Return what was written about the entities, with when, in that order; the newest `limit`.

    until: only what was written by then; None for all. Rows older than the column `recorded_at`
    stand at the time of their state.
    """
    recorded_at = sa.func.coalesce(detections.c.recorded_at, detections.c.state_at)
    statement = sa.select(sa.type_coerce(recorded_at, UTCDateTime), *DETECTION_COLUMNS).where(
        detections.c.tenant_id == tenant_id, detections.c.entity_id.in_(sorted(entity_ids))
    )
    if until is not None:
        statement = statement.where(recorded_at <= sa.bindparam("until", until, UTCDateTime))
    rows = await connection.execute(
        statement.order_by(
            recorded_at.desc(), detections.c.detection_id.desc(), detections.c.revision.desc()
        ).limit(limit)
    )
    return [(row[0], detection(row[1:], tenant_id)) for row in rows][::-1]


async def entities_at_risk(
    connection: AsyncConnection, tenant_id: str, *, kind: EntityKind, after: str, limit: int
) -> list[str]:
    """Return up to `limit` entities of a kind that have an active detection, ascending by id."""
    rows = await connection.execute(
        sa.select(detections.c.entity_id)
        .where(
            detections.c.tenant_id == tenant_id,
            IS_ACTIVE,
            detections.c.entity_kind == kind.value,
            detections.c.entity_id > after,
        )
        .distinct()
        .order_by(detections.c.entity_id)
        .limit(limit)
    )
    return [row.entity_id for row in rows]


async def session_by_id(
    connection: AsyncConnection, tenant_id: str, *, session_id: str
) -> Session | None:
    """Return a session by the id we gave it."""
    rows = await connection.execute(
        sa.select(sessions.c.iss, sessions.c.sid).where(
            sessions.c.tenant_id == tenant_id, sessions.c.session_id == session_id
        )
    )
    key = rows.first()
    if key is None:
        return None
    found = await find_sessions(connection, tenant_id, keys={(key.iss, key.sid)})
    return found.get((key.iss, key.sid))


async def level_at(
    connection: AsyncConnection, tenant_id: str, *, entity_id: str, at: datetime
) -> Level:
    """Return the level of a user as it was kept at a time; LOW before anything was said."""
    rows = await connection.execute(
        sa.select(level_history.c.level)
        .where(
            level_history.c.tenant_id == tenant_id,
            level_history.c.entity_id == entity_id,
            level_history.c.at <= at,
        )
        .order_by(level_history.c.at.desc(), level_history.c.history_id.desc())
        .limit(1)
    )
    level = rows.scalar_one_or_none()
    return Level.LOW if level is None else Level[level]


_CHANGES: Final = Query(
    sa.select(
        level_history.c.history_id,
        level_history.c.entity_id,
        level_history.c.previous_level,
        level_history.c.level,
        level_history.c.at,
        level_history.c.cause_ids,
    )
    .where(
        level_history.c.tenant_id == TENANT,
        level_history.c.history_id > sa.bindparam("after", type_=sa.String),
        level_history.c.at >= sa.bindparam("since", type_=UTCDateTime),
        level_history.c.at < sa.bindparam("until", type_=UTCDateTime),
    )
    .order_by(level_history.c.history_id)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["tenant_id", "after", "since", "until", "at_most"],
)
_NAMES: Final = sa.select(detections.c.detection_id, detections.c.name).where(
    detections.c.tenant_id == TENANT, detections.c.detection_id.in_(IDS), sa.text("is_latest")
)


async def changes_between(
    connection: AsyncConnection,
    tenant_id: str,
    span: tuple[datetime, datetime],
    *,
    after: str,
    limit: int,
) -> list[LevelChange]:
    """Return up to `limit` changes of users' levels behind the id `after`, in order of ids.

    span: from the first moment on, before the second.
    """
    rows = await _CHANGES.rows(
        connection,
        tenant_id=tenant_id,
        after=after,
        since=span[0],
        until=span[1],
        at_most=limit,
    )
    return [
        LevelChange(
            tenant_id=tenant_id,
            history_id=history_id,
            entity_id=entity_id,
            previous_level=Level[previous_level],
            level=Level[level],
            at=at,
            reasons=(),
            cause_ids=tuple(cause_ids),
            trace_id="",
        )
        for history_id, entity_id, previous_level, level, at, cause_ids in rows
    ]


async def names_of(
    connection: AsyncConnection, tenant_id: str, *, detection_ids: Collection[str]
) -> dict[str, str]:
    """Return the names of detections by id."""
    return dict(await rows_of(connection, _NAMES, tenant_id, detection_ids))
