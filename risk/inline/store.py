"""Table and named queries: what was settled about the contexts of sessions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.inline.forks import TrailNote, render_switches, restore_switches
from risk.inline.model import KNOWN_STATES, Stand, StandMark, StandState
from risk.inline.orders import UsedApp
from risk.inline.proofs import Proof
from risk.sql.store import IDS, TENANT, rows_of
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    delete_before,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)
from runtime.statements import Query, inserts, upserts

#: contexts of one session that are read, of those that others are compared with and of those that
#: are not: the newest of each, and the first of each
STANDS_MAX: Final = 64
#: apps of one session that are known
APPS_MAX: Final = 64

stands: Final = sa.Table(
    "session_stands",
    metadata,
    tenant_column(),
    id_column("session_id"),
    sa.Column("context_key", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("reasons", JSONDocument, nullable=False),
    sa.Column("step_up_id", sa.String(64), nullable=False),
    sa.Column("acr", sa.String(200), nullable=False),
    sa.Column("trace_id", sa.String(1024), nullable=False),
    sa.Column("app_id", sa.String(200), nullable=False),
    sa.Column("context", JSONDocument, nullable=False),
    sa.Column("since", UTCDateTime, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("max_age", sa.Integer, nullable=False, server_default="0"),
    sa.Column("was_accepted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("proven_at", UTCDateTime),
    # Empty ones are null, as what the release before writes.
    sa.Column("amr_any_of", JSONDocument),
    sa.Column("shown_acr", JSONDocument),
    sa.Column("shown_amr", JSONDocument),
    # Purged for all tenants at once, by time.
    sa.Index("ix_session_stands_at", "at"),
)

proofs: Final = sa.Table(
    "session_proofs",
    metadata,
    tenant_column(),
    id_column("session_id"),
    id_column("proof_id"),
    sa.Column("context_key", sa.String(64), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_session_proofs_at", "at"),
)
session_apps: Final = sa.Table(
    "session_apps",
    metadata,
    tenant_column(),
    id_column("session_id"),
    sa.Column("app_id", sa.String(200), primary_key=True),
    sa.Column("at", UTCDateTime, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_session_apps_at", "at"),
)
_ADD_APPS: Final = inserts(session_apps, or_nothing=True)
_FIRST_APPS: Final = (
    sa.select(
        session_apps.c.session_id,
        session_apps.c.app_id,
        sa.func.row_number()
        .over(
            partition_by=session_apps.c.session_id,
            order_by=(session_apps.c.at, session_apps.c.app_id),
        )
        .label("place"),
    )
    .where(session_apps.c.tenant_id == TENANT, session_apps.c.session_id.in_(IDS))
    .subquery()
)
_APPS: Final = sa.select(_FIRST_APPS.c.session_id, _FIRST_APPS.c.app_id).where(
    _FIRST_APPS.c.place <= APPS_MAX
)
trails: Final = sa.Table(
    "session_trails",
    metadata,
    tenant_column(),
    id_column("session_id"),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("switches", JSONDocument, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_session_trails_at", "at"),
)
_TRAILS: Final = sa.select(trails.c.session_id, trails.c.level, trails.c.switches).where(
    trails.c.tenant_id == TENANT, trails.c.session_id.in_(IDS)
)
_WRITE_TRAILS: Final = upserts(trails, ("tenant_id", "session_id"), ("level", "switches", "at"))
_PROVEN: Final = Query(
    sa.select(proofs.c.context_key, sa.func.max(proofs.c.at))
    .where(
        proofs.c.tenant_id == TENANT,
        proofs.c.session_id == sa.bindparam("session_id", type_=sa.String),
    )
    .group_by(proofs.c.context_key)
    .limit(STANDS_MAX),
    scalars=["tenant_id", "session_id"],
)

_COLUMNS: Final = tuple(column.name for column in stands.columns)
_LISTS: Final = ("amr_any_of", "shown_acr", "shown_amr")
_KEY: Final = ("tenant_id", "session_id", "context_key")
#: Looked for is each of these sessions with each of these contexts: more at once are more work.
PAIRS_AT_ONCE: Final = 16
_AT: Final = Query(
    sa.select(stands).where(
        stands.c.tenant_id == TENANT,
        stands.c.session_id.in_(IDS),
        stands.c.context_key.in_(sa.bindparam("keys", expanding=True, type_=sa.String)),
    ),
    scalars=["tenant_id"],
    lists=["ids", "keys"],
)
_ASKED: Final = Query(
    sa.select(stands)
    .where(
        stands.c.tenant_id == TENANT,
        stands.c.session_id == sa.bindparam("session_id", type_=sa.String),
        stands.c.step_up_id == sa.bindparam("step_up_id", type_=sa.String),
    )
    .limit(1),
    scalars=["tenant_id", "session_id", "step_up_id"],
)
#: A session may be asked about from any number of strange contexts: they take no room from those
#: that it is compared with.
_IS_KNOWN: Final = sa.or_(stands.c.was_accepted, *(stands.c.state == each for each in KNOWN_STATES))
_BEGINNINGS: Final = (
    sa.select(
        stands.c.session_id,
        sa.func.max(sa.case((_IS_KNOWN, 1), else_=0)),
        sa.func.min(sa.case((sa.cast(stands.c.context, sa.String) != "{}", stands.c.since))),
    )
    .where(stands.c.tenant_id == TENANT, stands.c.session_id.in_(IDS))
    .group_by(stands.c.session_id)
)
_RANKED: Final = (
    sa.select(
        stands,
        sa.func.row_number()
        .over(partition_by=(stands.c.session_id, _IS_KNOWN), order_by=stands.c.at.desc())
        .label("place"),
        sa.func.row_number()
        .over(
            partition_by=(stands.c.session_id, _IS_KNOWN),
            order_by=(stands.c.since, stands.c.context_key),
        )
        .label("age"),
    )
    .where(stands.c.tenant_id == TENANT, stands.c.session_id.in_(IDS))
    .subquery()
)
_IS_READ: Final = sa.or_(_RANKED.c.place <= STANDS_MAX, _RANKED.c.age == 1)
_NEWEST: Final = (
    sa.select(*(_RANKED.c[name] for name in _COLUMNS))
    .where(_IS_READ)
    .order_by(_RANKED.c.session_id, _RANKED.c.at.desc())
)
_RANKED_ASKED: Final = (
    sa.select(
        stands,
        sa.func.row_number()
        .over(partition_by=stands.c.session_id, order_by=stands.c.at.desc())
        .label("place"),
    )
    .where(
        stands.c.tenant_id == TENANT,
        stands.c.session_id.in_(IDS),
        stands.c.state == StandState.ASKED.value,
    )
    .subquery()
)
_NEWEST_ASKED: Final = sa.select(*(_RANKED_ASKED.c[name] for name in _COLUMNS)).where(
    _RANKED_ASKED.c.place <= STANDS_MAX
)
_MARKS: Final = sa.select(
    *(_RANKED.c[name] for name in ("session_id", "context_key", "state", "level", "at"))
).where(_IS_READ)
_WRITE: Final = upserts(
    stands, _KEY, [column.name for column in stands.columns if not column.primary_key]
)


async def newest_stands(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, list[Stand]]:
    """Return the stands of each session that are looked at, newest first; without any: left out.

    Known ones and others are bounded apart: STANDS_MAX of each, and the first of each.
    """
    return _by_session(await rows_of(connection, _NEWEST, tenant_id, session_ids))


async def stand_marks_of(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, dict[str, StandMark]]:
    """Return what tells whether the stands of sessions that are looked at are others now.

    By session id and context key; without any: left out.
    """
    found: dict[str, dict[str, StandMark]] = {}
    for session_id, key, state, level, at in await rows_of(
        connection, _MARKS, tenant_id, session_ids
    ):
        found.setdefault(session_id, {})[key] = (state, level, at)
    return found


async def stands_at(
    connection: AsyncConnection, tenant_id: str, *, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Stand]:
    """Return stands by (session id, context key), of those wanted."""
    found: dict[tuple[str, str], Stand] = {}
    for some in chunks(sorted(keys), PAIRS_AT_ONCE):
        rows = await _AT.rows(
            connection,
            tenant_id=tenant_id,
            ids={session_id for session_id, _ in some},
            keys={context_key for _, context_key in some},
        )
        read = {(each.session_id, each.context_key): each for each in map(_stand, rows)}
        found |= {key: read[key] for key in some if key in read}
    return found


async def stand_asked(
    connection: AsyncConnection, tenant_id: str, *, session_id: str, step_up_id: str
) -> Stand | None:
    """Return the stand of a session that a step-up was asked for with; None: there is none."""
    rows = await _ASKED.rows(
        connection, tenant_id=tenant_id, session_id=session_id, step_up_id=step_up_id
    )
    return next(map(_stand, rows), None)


async def stands_asked(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, list[Stand]]:
    """Return the stands of each session that wait for a step-up, the newest STANDS_MAX of each.

    By session id; without any: left out.
    """
    return _by_session(await rows_of(connection, _NEWEST_ASKED, tenant_id, session_ids))


async def beginnings_of(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, tuple[bool, datetime | None]]:
    """Return whether sessions have a known context, and since when they were seen, by session id.

    None: never, as far as anybody said where. Without any stand: left out.
    """
    rows = await rows_of(connection, _BEGINNINGS, tenant_id, session_ids)
    return {session_id: (bool(is_known), since) for session_id, is_known, since in rows}


async def write_stands(connection: AsyncConnection, written: Iterable[Stand]) -> None:
    """Store stands in place of those of the same session and context."""
    await _WRITE.run(connection, [_row(each) for each in written])


async def system_purge_stands(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget stands that were settled before a moment, a bounded number; return how many."""
    return await delete_before(connection, stands.c.at, before)


async def add_apps(connection: AsyncConnection, used: Sequence[UsedApp]) -> None:
    """Note what sessions are used for; what is known already stays as it is."""
    await _ADD_APPS.run(connection, [msgspec.structs.asdict(each) for each in used])


async def apps_of(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, set[str]]:
    """Return the apps that sessions are used for, the first APPS_MAX of each; none: left out."""
    found: dict[str, set[str]] = {}
    for session_id, app_id in await rows_of(connection, _APPS, tenant_id, session_ids):
        found.setdefault(session_id, set()).add(app_id)
    return found


async def system_purge_apps(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget apps that were noted before a moment, a bounded number; return how many."""
    return await delete_before(connection, session_apps.c.at, before)


async def add_proofs(connection: AsyncConnection, shown: Sequence[Proof]) -> set[str]:
    """Note proofs; return the ids of those that were never shown before."""
    rows = [msgspec.structs.asdict(each) for each in shown]
    return await insert_new(connection, proofs, rows, "proof_id")


async def proven_at(
    connection: AsyncConnection, tenant_id: str, *, session_id: str
) -> dict[str, datetime]:
    """Return when the key of a session was last shown, by context key."""
    rows = await _PROVEN.rows(connection, tenant_id=tenant_id, session_id=session_id)
    return dict(rows)


async def system_purge_proofs(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget proofs from before a moment, a bounded number; return how many."""
    return await delete_before(connection, proofs.c.at, before)


async def trails_of(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, TrailNote]:
    """Return how sessions were used, by session id; without a switch: left out."""
    rows = await rows_of(connection, _TRAILS, tenant_id, session_ids)
    return {
        session_id: TrailNote(
            tenant_id=tenant_id,
            session_id=session_id,
            level=level,
            switches=restore_switches(switches),
        )
        for session_id, level, switches in rows
    }


async def write_trails(connection: AsyncConnection, written: Iterable[TrailNote]) -> None:
    """Store how sessions were used in place of what was stored of them."""
    await _WRITE_TRAILS.run(
        connection,
        [
            {
                "tenant_id": each.tenant_id,
                "session_id": each.session_id,
                "level": each.level,
                "switches": render_switches(each.switches),
                "at": each.at,
            }
            for each in written
        ],
    )


async def system_purge_trails(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget how sessions were used before a moment, a bounded number; return how many."""
    return await delete_before(connection, trails.c.at, before)


def _by_session(rows: Iterable[Sequence[Any]]) -> dict[str, list[Stand]]:
    found: dict[str, list[Stand]] = {}
    for stand in map(_stand, rows):
        found.setdefault(stand.session_id, []).append(stand)
    return found


def _stand(row: Sequence[Any]) -> Stand:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["reasons"] = tuple(values["reasons"])
    for name in _LISTS:
        values[name] = tuple(values[name] or ())
    values["was_accepted"] = bool(values["was_accepted"])
    return Stand(**values)


def _row(stand: Stand) -> dict[str, Any]:
    row = {name: getattr(stand, name) for name in _COLUMNS}
    row["reasons"] = list(stand.reasons)
    for name in _LISTS:
        row[name] = list(row[name]) or None
    return row
