"""The queue of a stream, lane by lane: what may go out of it, however long its lanes are.

A lane is what is pending of one ordering key of one stream. Of a lane something may go out if and
only if its oldest SET is due. A search that reads SETs in order of age finds the oldest ones, but
passes all that wait behind one SET; a walk finds its way with an index probe per step:

    ('', '') ─▶ oldest SET of the lane, if due ─▶ the next ones while due ─▶ next lane, '' ─▶ …
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from runtime.database import UTCDateTime
from transmitters.store import deliveries, is_pending, of_stream

_NOW: Final = sa.bindparam("now", type_=UTCDateTime)
_ONE: Final[sa.ColumnElement[int]] = sa.literal_column("1")
_START: Final = sa.cast(sa.literal_column("''"), sa.Text)


def is_due(delivery: Any) -> sa.ColumnElement[bool]:
    """It may be sent, or handed out, at the parameter `now`."""
    due: sa.ColumnElement[bool] = delivery.c.due_at <= _NOW
    return due


def is_head(delivery: Any) -> sa.ColumnElement[bool]:
    """Nothing older of the same stream and ordering key is pending; it is itself."""
    older = deliveries.alias("older")
    oldest = (
        sa.select(older.c.jti)
        .where(
            older.c.tenant_id == delivery.c.tenant_id,
            older.c.stream_id == delivery.c.stream_id,
            older.c.ordering_key >= delivery.c.ordering_key,
            is_pending(older),
        )
        # As below: no index but that of the lanes has this order.
        .order_by(older.c.ordering_key, older.c.jti)
        .limit(_ONE)
        .correlate(delivery)
    )
    is_oldest: sa.ColumnElement[bool] = delivery.c.jti == oldest.scalar_subquery()
    return is_oldest


def pending_behind(tenant_id: Any, stream_id: Any, *, count: int) -> sa.Select[tuple[str]]:
    """The jti of what is pending on a stream behind its `count` oldest SETs, if anything is."""
    pending = deliveries.alias("counted")
    return (
        sa.select(pending.c.jti)
        .where(
            pending.c.tenant_id == tenant_id,
            pending.c.stream_id.between(stream_id, stream_id),
            is_pending(pending),
        )
        .order_by(pending.c.stream_id, pending.c.jti)
        .limit(_ONE)
        .offset(sa.literal_column(str(count)))
    )


def next_stream(tenant_id: Any, stream_id: Any, *, found: sa.CTE) -> sa.ScalarSelect[str]:
    """The first stream of a tenant behind another one that something is pending for, or NULL.

    found: what finds one stream from the one before it: databases do not skip through an index
    alone.
    """
    beside = deliveries.alias("beside")
    return (
        sa.select(sa.func.min(beside.c.stream_id))
        .where(is_pending(beside), beside.c.tenant_id == tenant_id, beside.c.stream_id > stream_id)
        .correlate(found)
        .scalar_subquery()
    )


def oldest_pending(name: str, *, whose: tuple[Any, Any], limit: int) -> sa.CTE:
    """The oldest SETs that are pending on a stream, for a search in the order of age.

    whose: tenant and stream, parameters or columns. limit: of rows.
    """
    pending = deliveries.alias(f"{name}_pending")
    tenant_id, stream_id = whose
    return (
        sa.select(pending.c.jti, pending.c.ordering_key, pending.c.due_at)
        # Said so that only an index of the stream has this order: PostgreSQL would rather read what
        # is pending, or was, in the whole tenant.
        .where(
            pending.c.tenant_id == tenant_id,
            pending.c.stream_id.between(stream_id, stream_id),
            is_pending(pending),
        )
        .order_by(pending.c.stream_id, pending.c.jti)
        .limit(sa.literal_column(str(limit)))
        .cte(name)
    )


def due_of_lanes(
    name: str, *, whose: tuple[Any, Any], limit: Any, heads: bool, when: Any = None
) -> sa.CTE:
    """Walk over the lanes of a stream; rows with a jti other than NULL and '' may go out.

    whose: tenant and stream, parameters or columns. limit: of those rows. heads: only the oldest
    SET of each lane, else also those behind it up to the first that is not due. when: the walk
    finds nothing unless this is true. Costs two probes per lane that has something due, or rests,
    and one per SET found.
    """
    start: sa.Select[*tuple[Any, ...]] = sa.select(
        _START.label("ordering_key"), _START.label("jti"), sa.literal_column("0").label("taken")
    )
    walk = (start if when is None else start.where(when)).cte(name, recursive=True)
    behind = deliveries.alias(f"{name}_behind")
    # In this order only the index of the lanes can be read, so that PostgreSQL never looks for the
    # lane in that of the whole tenant.
    following = (
        sa.select(
            sa.case(
                (
                    sa.and_(behind.c.ordering_key == walk.c.ordering_key, is_due(behind)),
                    sa.cast(behind.c.jti, sa.Text),
                )
            )
        )
        .where(
            of_stream(behind, *whose),
            is_pending(behind),
            sa.tuple_(behind.c.ordering_key, behind.c.jti)
            > sa.tuple_(walk.c.ordering_key, walk.c.jti),
        )
        .order_by(behind.c.ordering_key, behind.c.jti)
        .limit(_ONE)
        .correlate(walk)
        .scalar_subquery()
    )
    beside = deliveries.alias(f"{name}_beside")
    next_lane = (
        sa.select(sa.cast(sa.func.min(beside.c.ordering_key), sa.Text))
        .where(
            of_stream(beside, *whose),
            is_pending(beside),
            beside.c.ordering_key > walk.c.ordering_key,
        )
        .correlate(walk)
        .scalar_subquery()
    )
    stays = walk.c.jti == _EMPTY if heads else walk.c.jti.is_not(None)
    taken = walk.c.taken + sa.case((walk.c.jti > _EMPTY, _ONE), else_=sa.literal_column("0"))
    step = sa.select(
        sa.case((stays, walk.c.ordering_key), else_=next_lane),
        sa.case((stays, following), else_=_START),
        taken,
    ).where(walk.c.ordering_key.is_not(None), taken < limit)
    return walk.union_all(step)


_EMPTY: Final[sa.ColumnElement[str]] = sa.literal_column("''")


def found_by(walk: sa.CTE) -> sa.ColumnElement[bool]:
    """The row of the walk names a SET that may go out."""
    found: sa.ColumnElement[bool] = walk.c.jti > _EMPTY
    return found
