"""Tables and named queries: levels, their history, pins, and when to compute a level again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.entities import store as entities_store
from risk.levels.model import LevelChange, LevelRecord, Standing
from risk.model import EntityKind, Level, Pin
from risk.sql.store import IDS, TENANT, rows_of
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import Query, inserts, upserts

pins: Final = sa.Table(
    "pins",
    metadata,
    tenant_column(),
    id_column("entity_id"),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("until", UTCDateTime),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("set_by", sa.String(200), nullable=False),
    sa.Column("set_at", UTCDateTime, nullable=False),
)

levels: Final = sa.Table(
    "levels",
    metadata,
    tenant_column(),
    id_column("entity_id"),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("reasons", JSONDocument, nullable=False),
    sa.Column("cause_ids", JSONDocument, nullable=False),
    sa.Column("computed_at", UTCDateTime, nullable=False),
)
sa.Index("ix_levels_level", levels.c.tenant_id, levels.c.level, levels.c.entity_id)

level_history: Final = sa.Table(
    "level_history",
    metadata,
    tenant_column(),
    id_column("history_id"),
    id_column("entity_id", primary_key=False),
    sa.Column("previous_level", sa.String(8), nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("reasons", JSONDocument, nullable=False),
    sa.Column("cause_ids", JSONDocument, nullable=False),
    sa.Column("trace_id", sa.String(1024), nullable=False),
)
sa.Index(
    "ix_level_history_entity_id",
    level_history.c.tenant_id,
    level_history.c.entity_id,
    level_history.c.history_id,
)

reassessments: Final = sa.Table(
    "reassessments",
    metadata,
    tenant_column(),
    id_column("entity_id"),
    sa.Column("reason", sa.String(16), primary_key=True),
    sa.Column("due_at", UTCDateTime, nullable=False),
)
sa.Index("ix_reassessments_due_at", reassessments.c.tenant_id, reassessments.c.due_at)


# --- pins ---------------------------------------------------------------------------------------


async def write_pin(connection: AsyncConnection, pin: Pin) -> None:
    """Set the pin of an entity in place of the one it had."""
    await remove_pins(connection, pin.tenant_id, entity_ids=[pin.entity_id])
    await connection.execute(
        sa.insert(pins).values(
            tenant_id=pin.tenant_id,
            entity_id=pin.entity_id,
            level=pin.level.name,
            until=pin.until,
            reason=pin.reason,
            set_by=pin.set_by,
            set_at=pin.set_at,
        )
    )


async def remove_pins(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Sequence[str]
) -> None:
    """Remove the pins of the entities."""
    await connection.execute(
        sa.delete(pins).where(pins.c.tenant_id == tenant_id, pins.c.entity_id.in_(entity_ids))
    )


# --- levels -------------------------------------------------------------------------------------


_READ_PEOPLE: Final = (
    sa.select(
        *entities_store.ENTITY_COLUMNS,
        levels.c.level,
        levels.c.score,
        levels.c.reasons,
        levels.c.cause_ids,
        levels.c.computed_at,
        pins.c.level,
        pins.c.until,
        pins.c.reason,
        pins.c.set_by,
        pins.c.set_at,
    )
    .select_from(
        entities_store.entities.outerjoin(
            levels,
            sa.and_(
                levels.c.tenant_id == entities_store.entities.c.tenant_id,
                levels.c.entity_id == entities_store.entities.c.entity_id,
            ),
        ).outerjoin(
            pins,
            sa.and_(
                pins.c.tenant_id == entities_store.entities.c.tenant_id,
                pins.c.entity_id == entities_store.entities.c.entity_id,
            ),
        )
    )
    .where(
        entities_store.entities.c.tenant_id == TENANT, entities_store.entities.c.entity_id.in_(IDS)
    )
)
_WRITE_LEVELS: Final = upserts(
    levels,
    ("tenant_id", "entity_id"),
    ("level", "score", "reasons", "cause_ids", "computed_at"),
)
_APPEND_HISTORY: Final = inserts(level_history)
_SCHEDULE: Final = upserts(reassessments, ("tenant_id", "entity_id", "reason"), ("due_at",))


async def read_people(
    connection: AsyncConnection, tenant_id: str, *, user_ids: Collection[str]
) -> dict[str, Standing]:
    """Return users with the level that was computed last and with their pin, by id."""
    rows = await rows_of(connection, _READ_PEOPLE, tenant_id, user_ids)
    found: dict[str, Standing] = {}
    for row in rows:
        user = entities_store.entity(row[:6], tenant_id)
        if user.kind is EntityKind.USER:
            found[user.entity_id] = Standing(
                user=user,
                record=_record((user.entity_id, *row[6:11]), tenant_id) if row[6] else None,
                pin=_pin((user.entity_id, *row[11:]), tenant_id) if row[11] else None,
            )
    return found


async def write_levels(connection: AsyncConnection, written: Sequence[LevelRecord]) -> None:
    """Insert levels, or replace the known ones."""
    await _WRITE_LEVELS.run(
        connection,
        [
            {
                "tenant_id": each.tenant_id,
                "entity_id": each.entity_id,
                "level": each.level._name_,
                "score": each.score,
                "reasons": list(each.reasons),
                "cause_ids": list(each.cause_ids),
                "computed_at": each.computed_at,
            }
            for each in written
        ],
    )


_LEVELS_OF: Final = sa.select(levels.c.entity_id, levels.c.level).where(
    levels.c.tenant_id == TENANT, levels.c.entity_id.in_(IDS)
)


async def levels_of(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> dict[str, Level]:
    """Return the levels that were computed last, by entity; who was never spoken of is left out."""
    rows = await rows_of(connection, _LEVELS_OF, tenant_id, entity_ids)
    return {entity_id: Level[level] for entity_id, level in rows}


async def list_levels(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    level: Level | None,
    since: datetime | None,
    after: str,
    limit: int,
) -> list[LevelRecord]:
    """Return up to `limit` levels of entities with an id above `after`, ascending."""
    statement = sa.select(*_LEVEL_COLUMNS).where(
        levels.c.tenant_id == tenant_id, levels.c.entity_id > after
    )
    if level is not None:
        statement = statement.where(levels.c.level == level.name)
    if since is not None:
        statement = statement.where(levels.c.computed_at >= since)
    rows = await connection.execute(statement.order_by(levels.c.entity_id).limit(limit))
    return [_record(row, tenant_id) for row in rows]


async def write_history(connection: AsyncConnection, written: Sequence[LevelChange]) -> None:
    """Append changes of levels."""
    await _APPEND_HISTORY.run(
        connection,
        [
            {
                "tenant_id": each.tenant_id,
                "history_id": each.history_id,
                "entity_id": each.entity_id,
                "previous_level": each.previous_level._name_,
                "level": each.level._name_,
                "at": each.at,
                "reasons": list(each.reasons),
                "cause_ids": list(each.cause_ids),
                "trace_id": each.trace_id,
            }
            for each in written
        ],
    )


async def list_history(
    connection: AsyncConnection, tenant_id: str, *, entity_id: str, before: str, limit: int
) -> list[LevelChange]:
    """Return up to `limit` changes of one entity, newest first, with an id below `before`."""
    statement = sa.select(*_HISTORY_COLUMNS).where(
        level_history.c.tenant_id == tenant_id, level_history.c.entity_id == entity_id
    )
    if before:
        statement = statement.where(level_history.c.history_id < before)
    rows = await connection.execute(
        statement.order_by(level_history.c.history_id.desc()).limit(limit)
    )
    return [
        LevelChange(
            tenant_id=tenant_id,
            history_id=history_id,
            entity_id=entity_id,
            previous_level=Level[previous_level],
            level=Level[level],
            at=at,
            reasons=tuple(reasons),
            cause_ids=tuple(cause_ids),
            trace_id=trace_id,
        )
        for history_id, previous_level, level, at, reasons, cause_ids, trace_id in rows
    ]


_LEVEL_COLUMNS: Final = (
    levels.c.entity_id,
    levels.c.level,
    levels.c.score,
    levels.c.reasons,
    levels.c.cause_ids,
    levels.c.computed_at,
)
_HISTORY_COLUMNS: Final = (
    level_history.c.history_id,
    level_history.c.previous_level,
    level_history.c.level,
    level_history.c.at,
    level_history.c.reasons,
    level_history.c.cause_ids,
    level_history.c.trace_id,
)


def _record(row: Sequence[Any], tenant_id: str) -> LevelRecord:
    entity_id, level, score, reasons, cause_ids, computed_at = row
    return LevelRecord(
        tenant_id=tenant_id,
        entity_id=entity_id,
        level=Level[level],
        score=score,
        reasons=tuple(reasons),
        cause_ids=tuple(cause_ids),
        computed_at=computed_at,
    )


def _pin(row: Sequence[Any], tenant_id: str) -> Pin:
    entity_id, level, until, reason, set_by, set_at = row
    return Pin(
        tenant_id=tenant_id,
        entity_id=entity_id,
        level=Level[level],
        until=until,
        reason=reason,
        set_by=set_by,
        set_at=set_at,
    )


# --- when to compute again ----------------------------------------------------------------------


async def schedule(
    connection: AsyncConnection, tenant_id: str, *, due: Mapping[str, datetime], reason: str
) -> None:
    """Have the levels of entities computed again at the given times, for one reason each."""
    await _SCHEDULE.run(
        connection,
        [
            {"tenant_id": tenant_id, "entity_id": entity_id, "reason": reason, "due_at": due_at}
            for entity_id, due_at in sorted(due.items())
        ],
    )


async def system_due_tenants(connection: AsyncConnection, *, now: datetime) -> set[str]:
    """Return the tenants that have anything due.

    A system query: it spans tenants. It steps from tenant to tenant through the index, so what is
    due later costs nothing.
    """
    return {row[0] for row in await _DUE_TENANTS.rows(connection, now=now)}


def _due_tenants() -> sa.Select[str]:
    first = sa.select(sa.func.min(reassessments.c.tenant_id).label("tenant_id")).cte(
        "tenants", recursive=True
    )
    following = (
        sa.select(sa.func.min(reassessments.c.tenant_id))
        .where(reassessments.c.tenant_id > first.c.tenant_id)
        .scalar_subquery()
    )
    tenants = first.union_all(sa.select(following).where(first.c.tenant_id.is_not(None)))
    due = sa.exists().where(
        reassessments.c.tenant_id == tenants.c.tenant_id,
        reassessments.c.due_at <= sa.bindparam("now", type_=UTCDateTime),
    )
    return sa.select(tenants.c.tenant_id).where(due)


_DUE_TENANTS: Final = Query(_due_tenants(), scalars=["now"])


async def take_due(
    connection: AsyncConnection, tenant_id: str, *, now: datetime, limit: int
) -> dict[str, set[str]]:
    """Remove up to `limit` due reassessments of a tenant; return the reasons by entity."""
    statement = (
        sa.select(reassessments.c.entity_id, reassessments.c.reason)
        .where(reassessments.c.tenant_id == tenant_id, reassessments.c.due_at <= now)
        .order_by(reassessments.c.due_at)
        .limit(limit)
    )
    if connection.dialect.name == "postgresql":
        statement = statement.with_for_update(skip_locked=True)
    rows = (await connection.execute(statement)).all()
    found: dict[str, set[str]] = {}
    for entity_id, reason in rows:
        found.setdefault(entity_id, set()).add(reason)
    if rows:
        await connection.execute(
            sa.delete(reassessments).where(
                reassessments.c.tenant_id == tenant_id,
                reassessments.c.entity_id == sa.bindparam("b_entity_id"),
                reassessments.c.reason == sa.bindparam("b_reason"),
            ),
            [{"b_entity_id": entity_id, "b_reason": reason} for entity_id, reason in rows],
        )
    return found
