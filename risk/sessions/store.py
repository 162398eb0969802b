"""Table and named queries: sessions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.sessions.model import Session
from risk.sql.store import IDS, TENANT, rows_of
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    id_column,
    metadata,
    tenant_column,
)
from runtime.sharing import shared, shared_text
from runtime.statements import Query, among, rows_of_keys, upserts

IN_LIST_MAX: Final = 500
#: sessions of users that are locked together; as many as are ended together
LOCKED_MAX: Final = 50_000

sessions: Final = sa.Table(
    "sessions",
    metadata,
    tenant_column(),
    sa.Column("iss", sa.String(1024), primary_key=True),
    sa.Column("sid", sa.String(512), primary_key=True),
    id_column("session_id", primary_key=False),
    id_column("user_id", primary_key=False),
    sa.Column("device_id", sa.String(64)),
    sa.Column("app_id", sa.String(200)),
    sa.Column("client", sa.String(200)),
    sa.Column("amr", JSONDocument, nullable=False),
    sa.Column("acr", sa.String(200)),
    sa.Column("started_at", UTCDateTime, nullable=False),
    sa.Column("expires_at", UTCDateTime),
    sa.Column("ended_at", UTCDateTime),
    sa.Column("cookie_sha256", sa.String(64)),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.Column("auth_time", UTCDateTime),
    sa.Column("binding", JSONDocument),
)
sa.Index("ix_sessions_user_id", sessions.c.tenant_id, sessions.c.user_id, sessions.c.session_id)
sa.Index("ix_sessions_device_id", sessions.c.tenant_id, sessions.c.device_id, sessions.c.user_id)
sa.Index("ix_sessions_session_id", sessions.c.tenant_id, sessions.c.session_id)
sa.Index("ix_sessions_sid", sessions.c.tenant_id, sessions.c.sid)
sa.Index("ix_sessions_cookie_sha256", sessions.c.tenant_id, sessions.c.cookie_sha256)

_KEY: Final = ("tenant_id", "iss", "sid")
_COLUMNS: Final = tuple(column.name for column in sessions.columns)
#: texts that many sessions have in common, of which memory needs to hold one
_IN_MANY: Final = ("tenant_id", "iss", "app_id", "client", "acr")
_MARKS: Final = sa.select(
    sessions.c.session_id,
    sessions.c.updated_at,
    sessions.c.started_at,
    sessions.c.expires_at,
    sessions.c.ended_at,
    sessions.c.user_id,
    sessions.c.device_id,
).where(sessions.c.tenant_id == TENANT, sessions.c.session_id.in_(IDS))
_OWNERS: Final = sa.select(sessions.c.session_id, sessions.c.user_id).where(
    sessions.c.tenant_id == TENANT, sessions.c.session_id.in_(IDS)
)
_WRITE: Final = upserts(sessions, _KEY, [name for name in _COLUMNS if name not in _KEY])
_of_keys: Final = sa.select(sessions).where(
    sessions.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
    sessions.c.iss.in_(sa.bindparam("issuers", expanding=True, type_=sa.String)),
    sessions.c.sid.in_(sa.bindparam("sids", expanding=True, type_=sa.String)),
)
_OF_KEYS: Final = Query(_of_keys, scalars=["tenant_id"], lists=["issuers", "sids"])
#: Whoever locks sessions does so in this order, which never changes, and before their stands.
_ORDER: Final = (sessions.c.iss, sessions.c.sid)
_LOCK_KEYS: Final = Query(
    _of_keys.order_by(*_ORDER).with_for_update(),
    scalars=["tenant_id"],
    lists=["issuers", "sids"],
)
_LOCK_IDS: Final = among(
    sa.select(sessions).order_by(*_ORDER).with_for_update(), sessions, sessions.c.session_id
)
_USERS: Final = sa.bindparam("user_ids", expanding=True, type_=sa.String)
_IS_LIVE_OF: Final = sa.and_(sessions.c.user_id.in_(_USERS), sessions.c.ended_at.is_(None))
_LOCK_LIVE: Final = Query(
    sa.select(sessions.c.session_id)
    .where(sessions.c.tenant_id == TENANT, sa.or_(sessions.c.session_id.in_(IDS), _IS_LIVE_OF))
    .order_by(*_ORDER)
    .limit(LOCKED_MAX)
    .with_for_update(),
    scalars=["tenant_id"],
    lists=["ids", "user_ids"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From the first to the last moment of all sessions of a user on a device; None: not over."""

    device_id: str
    user_id: str
    since: datetime
    until: datetime | None


async def find_sessions(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    keys: Collection[tuple[str, str]],
    lock: bool = False,
) -> dict[tuple[str, str], Session]:
    """Return sessions by (iss, sid). lock: nobody else writes them until the transaction ends.

    INVARIANT: whoever writes a session back whole has locked it before; else what was written
    meanwhile, as its end, is undone.
    """
    query = _LOCK_KEYS if lock else _OF_KEYS
    found: dict[tuple[str, str], Session] = {}
    for some in chunks(sorted(keys) if lock else keys, IN_LIST_MAX):
        rows = await query.rows(
            connection,
            tenant_id=tenant_id,
            issuers={iss for iss, _ in some},
            sids={sid for _, sid in some},
        )
        found |= {
            (session.iss, session.sid): session
            for session in map(_session, rows)
            if (session.iss, session.sid) in keys
        }
    return found


async def lock_by_id(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    session_ids: Collection[str],
    user_ids: Collection[str] = (),
) -> dict[str, Session]:
    """Return sessions by id, locked; not those that began anew since, under another one.

    user_ids: at most 500 users whose sessions that are not over are locked together with them.
    """
    if user_ids:
        await _LOCK_LIVE.rows(connection, tenant_id=tenant_id, ids=session_ids, user_ids=user_ids)
    keys = {(tenant_id, session_id) for session_id in session_ids}
    rows = await rows_of_keys(connection, _LOCK_IDS, keys)
    return {session.session_id: session for session in map(_session, rows)}


async def marks_of(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, tuple[datetime | str | None, ...]]:
    """Return what tells whether sessions were written since: `Session.mark`, by session id."""
    rows = await rows_of(connection, _MARKS, tenant_id, session_ids)
    return {session_id: tuple(mark) for session_id, *mark in rows}


async def owners_of(
    connection: AsyncConnection, tenant_id: str, *, session_ids: Collection[str]
) -> dict[str, str]:
    """Return whose sessions these are, by session id; a session nobody knows is left out."""
    rows = await rows_of(connection, _OWNERS, tenant_id, session_ids)
    return {session_id: user_id for session_id, user_id in rows}  # noqa: C416 - rows are no pairs


async def find_by_sid(connection: AsyncConnection, tenant_id: str, *, sid: str) -> Session | None:
    """Return the session of that id, whoever issued it; None when there is none, or several."""
    rows = await connection.execute(
        sa.select(sessions)
        .where(sessions.c.tenant_id == tenant_id, sessions.c.sid == sid)
        .order_by(sessions.c.iss)
        .limit(2)
    )
    found = [_session(row) for row in rows]
    return found[0] if len(found) == 1 else None


async def find_by_cookie(
    connection: AsyncConnection, tenant_id: str, *, cookie_sha256: str
) -> Session | None:
    """Return the session with that cookie; of several one that was not ended, the newest first."""
    rows = await connection.execute(
        sa.select(sessions)
        .where(sessions.c.tenant_id == tenant_id, sessions.c.cookie_sha256 == cookie_sha256)
        .order_by(sessions.c.ended_at.isnot(None), sessions.c.session_id.desc())
        .limit(1)
    )
    return next(map(_session, rows), None)


async def live_sessions(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    user_ids: Collection[str],
    issuers: Collection[str],
) -> list[Session]:
    """Return the sessions of the users at the issuers that were not ended, locked."""
    found: list[Session] = []
    for ids in chunks(user_ids, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(sessions)
            .where(
                sessions.c.tenant_id == tenant_id,
                sessions.c.user_id.in_(ids),
                sessions.c.iss.in_(issuers),
                sessions.c.ended_at.is_(None),
            )
            .order_by(*_ORDER)
            .with_for_update()
        )
        found.extend(map(_session, rows))
    return found


async def live_of_users(
    connection: AsyncConnection, tenant_id: str, *, user_ids: Collection[str], limit: int
) -> list[Session]:
    """Return up to `limit` sessions of users, at any issuer, that were not ended, locked."""
    found: list[Session] = []
    for some in chunks(user_ids, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(sessions)
            .where(
                sessions.c.tenant_id == tenant_id,
                sessions.c.user_id.in_(some),
                sessions.c.ended_at.is_(None),
            )
            .order_by(*_ORDER)
            .limit(limit - len(found))
            .with_for_update()
        )
        found.extend(map(_session, rows))
    return found


async def recent_of_user(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    user_id: str,
    since: datetime,
    limit: int,
    before: datetime | None = None,
) -> list[Session]:
    """Return up to `limit` sessions of a user that were not ended by `since`, newest first.

    before: only those that began earlier.
    """
    rows = await connection.execute(
        sa.select(sessions)
        .where(
            sessions.c.tenant_id == tenant_id,
            sessions.c.user_id == user_id,
            sa.or_(sessions.c.ended_at.is_(None), sessions.c.ended_at >= since),
            sa.true() if before is None else sessions.c.started_at < before,
        )
        .order_by(sessions.c.session_id.desc())
        .limit(limit)
    )
    return [_session(row) for row in rows]


async def live_of_entities(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    entity_ids: Collection[str],
    now: datetime,
    limit: int,
) -> list[Session]:
    """Return up to `limit` sessions of users or on devices that are neither ended nor expired.

    The newest ones.
    """
    columns = (sessions.c.user_id, sessions.c.device_id)
    return await _live(connection, tenant_id, columns, entity_ids, now=now, limit=limit)


async def live_on_devices(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    device_ids: Collection[str],
    now: datetime,
    limit: int,
) -> list[Session]:
    """Return up to `limit` sessions on devices that are neither ended nor expired."""
    columns = (sessions.c.device_id,)
    return await _live(connection, tenant_id, columns, device_ids, now=now, limit=limit)


async def _live(
    connection: AsyncConnection,
    tenant_id: str,
    columns: Sequence[sa.Column[Any]],
    ids: Collection[str],
    *,
    now: datetime,
    limit: int,
) -> list[Session]:
    """Return live sessions that have one of the ids in one of the columns."""
    found: list[Session] = []
    for some in chunks(ids, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(sessions)
            .where(
                sessions.c.tenant_id == tenant_id,
                sa.or_(*(column.in_(some) for column in columns)),
                sessions.c.ended_at.is_(None),
                sa.or_(sessions.c.expires_at.is_(None), sessions.c.expires_at > now),
            )
            .order_by(sessions.c.session_id.desc())
            .limit(limit - len(found))
        )
        found.extend(map(_session, rows))
    return found


async def list_sessions(
    connection: AsyncConnection, tenant_id: str, *, user_id: str, after: str, limit: int
) -> list[Session]:
    """Return up to `limit` sessions of a user, newest first, with a session id below `after`."""
    statement = sa.select(sessions).where(
        sessions.c.tenant_id == tenant_id, sessions.c.user_id == user_id
    )
    if after:
        statement = statement.where(sessions.c.session_id < after)
    rows = await connection.execute(statement.order_by(sessions.c.session_id.desc()).limit(limit))
    return [_session(row) for row in rows]


async def sessions_after(
    connection: AsyncConnection, tenant_id: str, *, after: str, limit: int
) -> list[Session]:
    """Return up to `limit` sessions, over or not, with a session id above `after`, ascending."""
    rows = await connection.execute(
        sa.select(sessions)
        .where(sessions.c.tenant_id == tenant_id, sessions.c.session_id > after)
        .order_by(sessions.c.session_id)
        .limit(limit)
    )
    return [_session(row) for row in rows]


async def write_sessions(connection: AsyncConnection, written: Sequence[Session]) -> None:
    """Insert sessions, or replace the known ones."""
    await _WRITE.run(connection, map(_row, written))


async def spans(
    connection: AsyncConnection, tenant_id: str, *, pairs: Collection[tuple[str, str]]
) -> list[Span]:
    """Return the span of all sessions of each (device id, user id) pair that has any."""
    ends_at = sa.func.coalesce(sessions.c.ended_at, sessions.c.expires_at)
    found: list[Span] = []
    for some in chunks(pairs, IN_LIST_MAX):
        rows = await connection.execute(
            sa.select(
                sessions.c.device_id,
                sessions.c.user_id,
                sa.func.min(sessions.c.started_at),
                sa.func.max(ends_at),
                sa.func.count() - sa.func.count(ends_at),
            )
            .where(
                sessions.c.tenant_id == tenant_id,
                sessions.c.device_id.in_({device_id for device_id, _ in some}),
                sessions.c.user_id.in_({user_id for _, user_id in some}),
            )
            .group_by(sessions.c.device_id, sessions.c.user_id)
        )
        found.extend(
            Span(
                device_id=device_id,
                user_id=user_id,
                since=since,
                until=None if endless else until,
            )
            for device_id, user_id, since, until, endless in rows
            if (device_id, user_id) in pairs
        )
    return found


def _session(row: Sequence[Any]) -> Session:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["amr"] = shared(tuple(values["amr"]))
    for name in _IN_MANY:
        values[name] = shared_text(values[name])
    return Session(**values)


def _row(session: Session) -> dict[str, Any]:
    row = {name: getattr(session, name) for name in _COLUMNS}
    row["amr"] = list(session.amr)
    return row
