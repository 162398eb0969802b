"""Tables and named queries of containments and their causes. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from actions.held import store as held_store
from actions.model import SESSION_PREFIX, Cause, Containment, ContainmentState
from actions.registry import store as registry_store
from actions.tasks import store as task_store
from actions.tasks.store import Connection, Key
from actions.tasks.tables.store import tasks
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    metadata,
    tenant_column,
)
from runtime.ids import ulid_from_ms
from runtime.statements import Write, among, inserts, rows_of_keys, upserts

#: importing this module declares every table of the package
__all__ = ["Connection", "Key", "held_store", "registry_store", "task_store"]

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
sa.Index("ix_containments_user_id", containments.c.tenant_id, containments.c.user_id)
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


_ANY: Final = sa.select(containments)
_NOT_CLOSED: Final = _ANY.where(containments.c.state != sa.literal_column("'closed'"))
_IN_ORDER: Final = _ANY.order_by(containments.c.containment_id)
_CURRENT: Final = among(_NOT_CLOSED, containments, containments.c.user_id)
_LOCK_CURRENT: Final = among(
    _NOT_CLOSED.order_by(containments.c.containment_id).with_for_update(),
    containments,
    containments.c.user_id,
)
_LOCK: Final = among(_IN_ORDER.with_for_update(), containments, containments.c.containment_id)
_LOCK_FREE: Final = among(
    _IN_ORDER.with_for_update(skip_locked=True), containments, containments.c.containment_id
)
_BY_ID: Final = among(_ANY, containments, containments.c.containment_id)
_OF_USERS: Final = among(_ANY, containments, containments.c.user_id)
_CAUSES: Final = among(
    sa.select(containment_causes).order_by(
        containment_causes.c.attached_at, containment_causes.c.detection_id
    ),
    containment_causes,
    containment_causes.c.containment_id,
)


async def lock_current(connection: Connection, users: Collection[Key]) -> dict[Key, Containment]:
    """Return the containments that are not closed, by (tenant_id, user_id), locked in id order.

    INVARIANT: containments are locked tenant by tenant, so that transactions about several tenants
    never wait for each other.
    """
    found = [_containment(row) for row in await rows_of_keys(connection, _LOCK_CURRENT, users)]
    return {(one.tenant_id, one.user_id): one for one in found}


async def current_of(connection: Connection, users: Collection[Key]) -> dict[Key, Containment]:
    """Return the containments that are not closed, by (tenant_id, user_id)."""
    found = [_containment(row) for row in await rows_of_keys(connection, _CURRENT, users)]
    return {(one.tenant_id, one.user_id): one for one in found}


async def current_in(connection: Connection, tenant_id: str) -> list[Containment]:
    """Return all containments of a tenant that are not closed."""
    table = containments
    query = sa.select(table).where(table.c.tenant_id == tenant_id, table.c.state != "closed")
    return [_containment(row) for row in await connection.execute(query)]


async def lock_containments(
    connection: Connection, keys: Collection[Key], *, skip_locked: bool = False
) -> dict[Key, Containment]:
    """Return containments by (tenant_id, containment_id), locked in order of tenant and id.

    skip_locked: leave out those that another transaction holds, instead of waiting.
    """
    query = _LOCK_FREE if skip_locked else _LOCK
    found = [_containment(row) for row in await rows_of_keys(connection, query, keys)]
    return {(one.tenant_id, one.containment_id): one for one in found}


async def containments_of(connection: Connection, users: Collection[Key]) -> list[Containment]:
    """Return all containments of users, by (tenant_id, user_id), those that are over as well."""
    return [_containment(row) for row in await rows_of_keys(connection, _OF_USERS, users)]


async def containments_by_key(
    connection: Connection, keys: Collection[Key]
) -> dict[Key, Containment]:
    """Return containments by (tenant_id, containment_id)."""
    found = [_containment(row) for row in await rows_of_keys(connection, _BY_ID, keys)]
    return {(one.tenant_id, one.containment_id): one for one in found}


async def users_touched(connection: Connection, tenant_id: str, *, since: datetime) -> set[str]:
    """Return from whom something was taken away since then: all that they have, or a session."""
    contained = sa.select(containments.c.user_id).where(
        containments.c.tenant_id == tenant_id, containments.c.enforced_at > since
    )
    since_id = f"tsk_{ulid_from_ms(int(since.timestamp() * 1000))}"
    logged_out = sa.select(tasks.c.user_id).where(
        tasks.c.tenant_id == tenant_id,
        tasks.c.task_id > since_id,
        tasks.c.containment_id.startswith(SESSION_PREFIX, autoescape=True),
    )
    return set((await connection.execute(contained.union(logged_out))).scalars())


async def causes_of(connection: Connection, keys: Collection[Key]) -> dict[Key, list[Cause]]:
    """Return the causes of containments, in the order they were attached."""
    grouped: dict[Key, list[Cause]] = {key: [] for key in keys}
    for tenant_id, containment_id, *about in await rows_of_keys(connection, _CAUSES, keys):
        detection_id, name, issuer, summary, attached_at, cleared_at = about
        grouped[tenant_id, containment_id].append(
            Cause(
                detection_id=detection_id,
                name=name,
                issuer=issuer,
                summary=summary,
                attached_at=attached_at,
                cleared_at=cleared_at,
            )
        )
    return grouped


async def write_containments(
    connection: Connection, changed: Sequence[Containment], *, known: Collection[Key]
) -> None:
    """Insert new containments and update known ones ((tenant_id, containment_id))."""
    new = [one for one in changed if (one.tenant_id, one.containment_id) not in known]
    old = [one for one in changed if (one.tenant_id, one.containment_id) in known]
    await _OPEN.run(connection, [_containment_row(one) for one in new])
    await _CHANGE.run(connection, [_containment_change(one) for one in old])


async def write_causes(
    connection: Connection,
    *,
    attached: Sequence[tuple[Key, Cause]],
    cleared: Sequence[tuple[Key, str]],
    now: datetime,
) -> None:
    """Attach causes (or make them active again) and clear others, by containment key."""
    await _ATTACH.run(connection, [_cause_row(key, cause) for key, cause in attached])
    rows = [
        {"key_tenant": key[0], "key_containment": key[1], "key_detection": detection, "at": now}
        for key, detection in cleared
    ]
    await _CLEAR.run(connection, rows)


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


_ABOUT_CAUSE: Final = ("name", "issuer", "summary", "attached_at", "cleared_at")
_OPEN: Final = inserts(containments)
_CHANGE: Final = Write(
    sa.update(containments)
    .where(
        containments.c.tenant_id == sa.bindparam("key_tenant"),
        containments.c.containment_id == sa.bindparam("key_id"),
    )
    .values({name: sa.bindparam(f"new_{name}") for name in _CHANGEABLE}),
    ("key_tenant", "key_id", *(f"new_{name}" for name in _CHANGEABLE)),
)
_ATTACH: Final = upserts(
    containment_causes, ("tenant_id", "containment_id", "detection_id"), _ABOUT_CAUSE
)
_CLEAR: Final = Write(
    sa.update(containment_causes)
    .where(
        containment_causes.c.tenant_id == sa.bindparam("key_tenant"),
        containment_causes.c.containment_id == sa.bindparam("key_containment"),
        containment_causes.c.detection_id == sa.bindparam("key_detection"),
        containment_causes.c.cleared_at.is_(None),
    )
    .values(cleared_at=sa.bindparam("at")),
    ("key_tenant", "key_containment", "key_detection", "at"),
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


_COLUMNS: Final = tuple(containments.columns.keys())
_STATES: Final = {state.value: state for state in ContainmentState}


def _containment(row: Sequence[Any]) -> Containment:
    """Make a containment of all columns of the table, in their order."""
    values = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = _STATES[values["state"]]
    values["actions"] = frozenset(values["actions"])
    values["reasons"] = tuple(values["reasons"])
    values["identifiers"] = tuple(values["identifiers"])
    return Containment(**values)


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
