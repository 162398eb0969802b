"""Table and named queries: sessions that have to be judged without a request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.reviews.model import EDITS, Review, ReviewCause, ReviewPutOff
from risk.sql.store import IN_LIST_MAX
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    delete_before,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import Query, Row, Write, inserts

session_reviews: Final = sa.Table(
    "session_reviews",
    metadata,
    tenant_column(),
    id_column("review_id"),
    id_column("session_id", primary_key=False),
    sa.Column("iss", sa.String(1024), nullable=False),
    sa.Column("sid", sa.String(512), nullable=False),
    sa.Column("cause", sa.String(32), nullable=False),
    sa.Column("trace_id", sa.String(1024), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("old", JSONDocument, nullable=False),
    sa.Column("new", JSONDocument, nullable=False),
    sa.Column("context", JSONDocument, nullable=False),
    sa.Column("told_by", sa.String(1024), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", UTCDateTime),
    # Worked off and purged for all tenants at once, by time.
    sa.Index("ix_session_reviews_at", "at"),
)

_COLUMNS: Final = tuple(column.name for column in session_reviews.columns)
_ADD: Final = inserts(session_reviews)
_PUT_OFF: Final = Write(
    session_reviews.update()
    .where(
        session_reviews.c.tenant_id == sa.bindparam("of_tenant_id"),
        session_reviews.c.review_id == sa.bindparam("of_review_id"),
    )
    .values(attempts=sa.bindparam("made"), due_at=sa.bindparam("again_at")),
    ("of_tenant_id", "of_review_id", "made", "again_at"),
)
_IS_OF_EDIT: Final = session_reviews.c.cause.in_(sorted(each.value for each in EDITS))
_IS_OF_DEVICE: Final = session_reviews.c.cause == ReviewCause.DEVICE.value
_IS_OF_PRESENCE: Final = session_reviews.c.cause == ReviewCause.PRESENTED.value
_IS_DUE: Final = sa.or_(
    session_reviews.c.due_at.is_(None),
    session_reviews.c.due_at <= sa.bindparam("now", type_=UTCDateTime()),
)


def _due(which: sa.ColumnElement[bool]) -> Query:
    return Query(
        sa.select(session_reviews)
        .where(which, _IS_DUE)
        .order_by(session_reviews.c.at, session_reviews.c.review_id)
        .limit(sa.bindparam("at_most", type_=sa.Integer)),
        scalars=["now", "at_most"],
    )


#: What is judged first. A provider may tell of devices, and of sessions that are presented, as
#: often as it likes: no level that moved waits behind that.
_IN_TURN: Final = (
    _due(sa.not_(sa.or_(_IS_OF_EDIT, _IS_OF_DEVICE, _IS_OF_PRESENCE))),
    _due(_IS_OF_DEVICE),
    _due(_IS_OF_PRESENCE),
    _due(_IS_OF_EDIT),
)
_WAITING: Final = Query(
    sa.select(sa.func.count()).select_from(
        sa.select(session_reviews.c.review_id)
        .limit(sa.bindparam("at_most", type_=sa.Integer))
        .subquery()
    ),
    scalars=["at_most"],
)


async def add_reviews(connection: AsyncConnection, added: Sequence[Review]) -> None:
    """Note reviews."""
    await _ADD.run(
        connection,
        [
            {name: getattr(each, name) for name in _COLUMNS}
            | {
                "cause": each.cause.value,
                "old": dict(each.old),
                "new": dict(each.new),
                "context": dict(each.context),
            }
            for each in added
        ],
    )


async def system_due_reviews(
    connection: AsyncConnection, *, now: datetime, limit: int
) -> list[Review]:
    """Return the oldest due reviews of all tenants. System query.

    Levels first, then what providers tell of devices, then sessions they saw in use, then edits.
    """
    rows: list[Row] = []
    for query in _IN_TURN:
        if len(rows) < limit:
            rows += await query.rows(connection, now=now, at_most=limit - len(rows))
    return [_review(row) for row in rows]


async def system_count_reviews(connection: AsyncConnection, *, at_most: int) -> int:
    """Return how many reviews wait, up to a number. System query."""
    ((count,),) = await _WAITING.rows(connection, at_most=at_most)
    return int(count)


async def put_off_reviews(connection: AsyncConnection, items: Sequence[ReviewPutOff]) -> None:
    """Note when reviews that failed are tried again; one that is gone stays so."""
    await _PUT_OFF.run(
        connection,
        [
            {
                "of_tenant_id": each.tenant_id,
                "of_review_id": each.review_id,
                "made": each.attempts,
                "again_at": each.due_at,
            }
            for each in items
        ],
    )


async def delete_reviews(
    connection: AsyncConnection, tenant_id: str, *, review_ids: Collection[str]
) -> None:
    """Forget reviews that were made."""
    for some in chunks(review_ids, IN_LIST_MAX):
        await connection.execute(
            sa.delete(session_reviews).where(
                session_reviews.c.tenant_id == tenant_id, session_reviews.c.review_id.in_(some)
            )
        )


async def system_purge_reviews(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget reviews nobody made in time, a bounded number; return how many."""
    return await delete_before(connection, session_reviews.c.at, before)


def _review(row: Sequence[Any]) -> Review:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["cause"] = ReviewCause(values["cause"])
    return Review(**values)
