"""Tables and named queries of containments and their causes. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from actions.model import Cause, Containment, ContainmentState
from actions.registry import store as registry_store
from actions.tasks import store as task_store
from actions.tasks.store import Connection, Key
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)

#: importing this module declares every table of the package
__all__ = ["Connection", "Key", "registry_store", "task_store"]

containments: Final = sa.Table(
    "containments",
    metadata,
    tenant_column(),
    id_column("containment_id"),
    id_column("user_id", primary_key=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("trace_id", sa.String(128), nullable=False),
    sa.Column("actions", JSONDocument, nullable=False),
    sa.Column("reasons", JSONDocument, nullable=False),
    sa.Column("identifiers", JSONDocument, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("opened_at", UTCDateTime, nullable=False),
    sa.Column("signal_received_at", UTCDateTime, nullable=False),
    sa.Column("enforced_at", UTCDateTime),
    sa.Column("closed_at", UTCDateTime),
    sa.Index("ix_containments_tenant_id_enforced_at", "tenant_id", "enforced_at"),
)
#: one containment per user that is not closed; new causes attach to it
sa.Index(
    "uq_containments_tenant_id_user_id_not_closed",
    containments.c.tenant_id,
    containments.c.user_id,
    unique=True,
    sqlite_where=containments.c.state != "closed",
    postgresql_where=containments.c.state != "closed",
)

containment_causes: Final = sa.Table(
    "containment_causes",
    metadata,
    tenant_column(),
    id_column("containment_id"),
    id_column("detection_id"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("attached_at", UTCDateTime, nullable=False),
    sa.Column("cleared_at", UTCDateTime),
)


async def lock_current(connection: Connection, users: Collection[Key]) -> dict[Key, Containment]:
    """Return the containments that are not closed, by (tenant_id, user_id), locked in id order."""
    table = containments
    query = (
        sa.select(table)
        .where(
            sa.tuple_(table.c.tenant_id, table.c.user_id).in_(list(users)),
            table.c.state != "closed",
        )
        .order_by(table.c.containment_id)
        .with_for_update()
    )
    found = [_containment(row) for row in await connection.execute(query)]
    return {(one.tenant_id, one.user_id): one for one in found}


async def current_of(connection: Connection, users: Collection[Key]) -> dict[Key, Containment]:
    """Return the containments that are not closed, by (tenant_id, user_id)."""
    table = containments
    query = sa.select(table).where(
        sa.tuple_(table.c.tenant_id, table.c.user_id).in_(list(users)), table.c.state != "closed"
    )
    found = [_containment(row) for row in await connection.execute(query)]
    return {(one.tenant_id, one.user_id): one for one in found}


async def current_in(connection: Connection, tenant_id: str) -> list[Containment]:
    """Return all containments of a tenant that are not closed."""
    table = containments
    query = sa.select(table).where(table.c.tenant_id == tenant_id, table.c.state != "closed")
    return [_containment(row) for row in await connection.execute(query)]


async def lock_containments(
    connection: Connection, keys: Collection[Key], *, skip_locked: bool = False
) -> dict[Key, Containment]:
    """Return containments by (tenant_id, containment_id), locked in id order.

    skip_locked: leave out those that another transaction holds, instead of waiting.
    """
    if not keys:
        return {}
    table = containments
    query = (
        sa.select(table)
        .where(sa.tuple_(table.c.tenant_id, table.c.containment_id).in_(list(keys)))
        .order_by(table.c.containment_id)
        .with_for_update(skip_locked=skip_locked)
    )
    found = [_containment(row) for row in await connection.execute(query)]
    return {(one.tenant_id, one.containment_id): one for one in found}


async def containments_by_key(
    connection: Connection, keys: Collection[Key]
) -> dict[Key, Containment]:
    """Return containments by (tenant_id, containment_id)."""
    if not keys:
        return {}
    table = containments
    query = sa.select(table).where(
        sa.tuple_(table.c.tenant_id, table.c.containment_id).in_(list(keys))
    )
    found = [_containment(row) for row in await connection.execute(query)]
    return {(one.tenant_id, one.containment_id): one for one in found}


async def system_count_enforced(
    connection: Connection, tenant_ids: Collection[str], *, since: datetime
) -> dict[str, int]:
    """Return per tenant how many containments took something away since then. System query."""
    table = containments
    query = (
        sa.select(table.c.tenant_id, sa.func.count())
        .where(table.c.tenant_id.in_(list(tenant_ids)), table.c.enforced_at > since)
        .group_by(table.c.tenant_id)
    )
    return {row[0]: int(row[1]) for row in await connection.execute(query)}


async def causes_of(connection: Connection, keys: Collection[Key]) -> dict[Key, list[Cause]]:
    """Return the causes of containments, in the order they were attached."""
    table = containment_causes
    grouped: dict[Key, list[Cause]] = {key: [] for key in keys}
    if not keys:
        return grouped
    query = (
        sa.select(table)
        .where(sa.tuple_(table.c.tenant_id, table.c.containment_id).in_(list(keys)))
        .order_by(table.c.attached_at, table.c.detection_id)
    )
    for row in await connection.execute(query):
        grouped[row.tenant_id, row.containment_id].append(
            Cause(
                detection_id=row.detection_id,
                name=row.name,
                issuer=row.issuer,
                summary=row.summary,
                attached_at=row.attached_at,
                cleared_at=row.cleared_at,
            )
        )
    return grouped


async def write_containments(
    connection: Connection, changed: Sequence[Containment], *, known: Collection[Key]
) -> None:
    """Insert new containments and update known ones ((tenant_id, containment_id))."""
    new = [one for one in changed if (one.tenant_id, one.containment_id) not in known]
    old = [one for one in changed if (one.tenant_id, one.containment_id) in known]
    if new:
        await connection.execute(sa.insert(containments), [_containment_row(one) for one in new])
    if old:
        table = containments
        statement = (
            sa.update(table)
            .where(
                table.c.tenant_id == sa.bindparam("key_tenant"),
                table.c.containment_id == sa.bindparam("key_id"),
            )
            .values({name: sa.bindparam(f"new_{name}") for name in _CHANGEABLE})
        )
        await connection.execute(statement, [_containment_change(one) for one in old])


async def write_causes(
    connection: Connection,
    *,
    attached: Sequence[tuple[Key, Cause]],
    cleared: Sequence[tuple[Key, str]],
    now: datetime,
) -> None:
    """Attach causes (or make them active again) and clear others, by containment key."""
    table = containment_causes
    if attached:
        insert = dialect_insert(connection, table)
        fresh = ("name", "issuer", "summary", "attached_at", "cleared_at")
        upsert = insert.on_conflict_do_update(
            index_elements=["tenant_id", "containment_id", "detection_id"],
            set_={name: insert.excluded[name] for name in fresh},
        )
        await connection.execute(upsert, [_cause_row(key, cause) for key, cause in attached])
    if cleared:
        statement = (
            sa.update(table)
            .where(
                table.c.tenant_id == sa.bindparam("key_tenant"),
                table.c.containment_id == sa.bindparam("key_containment"),
                table.c.detection_id == sa.bindparam("key_detection"),
                table.c.cleared_at.is_(None),
            )
            .values(cleared_at=now)
        )
        rows = [
            {"key_tenant": key[0], "key_containment": key[1], "key_detection": detection_id}
            for key, detection_id in cleared
        ]
        await connection.execute(statement, rows)


async def list_containments(
    connection: Connection,
    tenant_id: str,
    *,
    state: ContainmentState | None,
    user_id: str | None,
    before: str | None,
    limit: int,
) -> list[Containment]:
    """Return a page of containments, newest first."""
    table = containments
    query = sa.select(table).where(table.c.tenant_id == tenant_id)
    if state is not None:
        query = query.where(table.c.state == state.value)
    if user_id is not None:
        query = query.where(table.c.user_id == user_id)
    if before is not None:
        query = query.where(table.c.containment_id < before)
    query = query.order_by(table.c.containment_id.desc()).limit(limit)
    return [_containment(row) for row in await connection.execute(query)]


_CHANGEABLE: Final = (
    "state",
    "level",
    "actions",
    "reasons",
    "identifiers",
    "label",
    "round",
    "enforced_at",
    "closed_at",
)


def _containment_row(one: Containment) -> dict[str, Any]:
    return {
        "tenant_id": one.tenant_id,
        "containment_id": one.containment_id,
        "user_id": one.user_id,
        "state": one.state.value,
        "level": one.level,
        "trace_id": one.trace_id,
        "actions": sorted(one.actions),
        "reasons": list(one.reasons),
        "identifiers": [dict(identifier) for identifier in one.identifiers],
        "label": one.label,
        "round": one.round,
        "opened_at": one.opened_at,
        "signal_received_at": one.signal_received_at,
        "enforced_at": one.enforced_at,
        "closed_at": one.closed_at,
    }


def _containment_change(one: Containment) -> dict[str, Any]:
    row = _containment_row(one)
    return {"key_tenant": one.tenant_id, "key_id": one.containment_id} | {
        f"new_{name}": row[name] for name in _CHANGEABLE
    }


def _containment(row: sa.Row[Any]) -> Containment:
    return Containment(
        tenant_id=row.tenant_id,
        containment_id=row.containment_id,
        user_id=row.user_id,
        state=ContainmentState(row.state),
        level=row.level,
        trace_id=row.trace_id,
        actions=frozenset(row.actions),
        reasons=tuple(row.reasons),
        identifiers=tuple(row.identifiers),
        label=row.label,
        round=row.round,
        opened_at=row.opened_at,
        signal_received_at=row.signal_received_at,
        enforced_at=row.enforced_at,
        closed_at=row.closed_at,
    )


def _cause_row(key: Key, cause: Cause) -> dict[str, Any]:
    return {
        "tenant_id": key[0],
        "containment_id": key[1],
        "detection_id": cause.detection_id,
        "name": cause.name,
        "issuer": cause.issuer,
        "summary": cause.summary,
        "attached_at": cause.attached_at,
        "cleared_at": cause.cleared_at,
    }
