"""Tables and named queries of upstreams."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from receivers.upstreams.model import (
    HEARD_EXACTNESS,
    STATE_LIFETIME,
    VERIFY_PATIENCE,
    Action,
    Change,
    Order,
    OrderState,
    Upstream,
    UpstreamSettings,
)
from receivers.upstreams.settings import NAME_CHARS_MAX, TEXT_CHARS_MAX, URL_CHARS_MAX
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)
from runtime.errors import Conflict
from ssf.stream import DESCRIPTION_CHARS_MAX, STREAM_ID_CHARS_MAX

Connection: TypeAlias = AsyncConnection

STATE_CHARS_MAX: Final = 64

upstreams: Final = sa.Table(
    "upstreams",
    metadata,
    tenant_column(),
    id_column("upstream_id"),
    id_column("provider_id", primary_key=False),
    sa.Column("name", sa.String(NAME_CHARS_MAX), nullable=False),
    sa.Column("bucket", sa.Integer, nullable=False),
    sa.Column("delivery", sa.String(8), nullable=False),
    sa.Column("metadata_url", sa.String(URL_CHARS_MAX)),
    sa.Column("events_requested", JSONDocument, nullable=False),
    sa.Column("description", sa.String(DESCRIPTION_CHARS_MAX)),
    sa.Column("endpoint_url", sa.String(URL_CHARS_MAX)),
    sa.Column("auth", sa.String(32), nullable=False),
    sa.Column("client_id", sa.String(TEXT_CHARS_MAX)),
    sa.Column("token_endpoint", sa.String(URL_CHARS_MAX)),
    sa.Column("scope", sa.String(TEXT_CHARS_MAX)),
    sa.Column("verify_every_s", sa.Integer),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("secret_sealed", sa.Text),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.Column("metadata", JSONDocument),
    sa.Column("stream", JSONDocument),
    sa.Column("stream_id", sa.String(STREAM_ID_CHARS_MAX)),
    sa.Column("stream_status", sa.String(16)),
    sa.Column("stream_reason", sa.Text),
    sa.Column("order_id", sa.String(64)),
    sa.Column("order_action", sa.String(16)),
    sa.Column("order_arguments", JSONDocument),
    sa.Column("order_state", sa.String(16)),
    sa.Column("order_attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("order_asked_at", UTCDateTime),
    sa.Column("order_due_at", UTCDateTime),
    sa.Column("order_settled_at", UTCDateTime),
    sa.Column("order_detail", sa.Text),
    sa.Column("acks", JSONDocument),
    sa.Column("set_errs", JSONDocument),
    sa.Column("poll_due_at", UTCDateTime),
    sa.Column("poll_failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("verify_due_at", UTCDateTime),
    sa.Column("status_due_at", UTCDateTime),
    sa.Column("awaiting_since", UTCDateTime),
    sa.Column("last_verified_at", UTCDateTime),
    sa.Column("last_set_at", UTCDateTime),
    sa.Column("failing_since", UTCDateTime),
    sa.Column("last_error", sa.Text),
    sa.Column("is_silent", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("tenant_id", "provider_id"),
)

#: what was asked for with which `state`; kept after the answer, because a SET may come again
upstream_states: Final = sa.Table(
    "upstream_states",
    metadata,
    tenant_column(),
    id_column("upstream_id"),
    sa.Column("state", sa.String(STATE_CHARS_MAX), primary_key=True),
    sa.Column("asked_at", UTCDateTime, nullable=False),
)

_SETTINGS: Final = tuple(field.name for field in fields(UpstreamSettings))
_PLAIN: Final = tuple(
    field.name for field in fields(Upstream) if field.name not in {"settings", "order", "acks"}
)


async def add_upstream(connection: Connection, upstream: Upstream) -> None:
    """Insert an upstream. Raises Conflict when its provider has one."""
    row = {
        "tenant_id": upstream.tenant_id,
        "upstream_id": upstream.upstream_id,
        "provider_id": upstream.provider_id,
        "bucket": upstream.bucket,
        "secret_sealed": upstream.secret_sealed,
        "created_at": upstream.created_at,
        "updated_at": upstream.updated_at,
        "poll_due_at": upstream.poll_due_at,
        **_settings_row(upstream.settings),
    }
    if not await insert_new(connection, upstreams, [row], "upstream_id"):
        raise Conflict("The provider has an upstream already.")


async def get_upstream(
    connection: Connection, tenant_id: str, upstream_id: str, *, lock: bool = False
) -> Upstream | None:
    """Return one upstream, None when the tenant has none of this id."""
    query = sa.select(upstreams).where(*_one(tenant_id, upstream_id))
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else read_upstream(row)


async def list_upstreams(
    connection: Connection, tenant_id: str, *, after: str, limit: int
) -> list[Upstream]:
    """Return upstreams by id, beginning behind `after`."""
    query = (
        sa.select(upstreams)
        .where(upstreams.c.tenant_id == tenant_id, upstreams.c.upstream_id > after)
        .order_by(upstreams.c.upstream_id)
        .limit(limit)
    )
    return [read_upstream(row) for row in (await connection.execute(query)).mappings()]


async def upstreams_by_provider(connection: Connection, tenant_id: str) -> dict[str, str]:
    """Return the ids of a tenant's upstreams by provider; as many as providers at most."""
    result = await connection.execute(
        sa.select(upstreams.c.provider_id, upstreams.c.upstream_id).where(
            upstreams.c.tenant_id == tenant_id
        )
    )
    return {row.provider_id: row.upstream_id for row in result}


async def is_stream_known(
    connection: Connection, tenant_id: str, *, stream_id: str, besides: str
) -> bool:
    """Tell whether another upstream of the tenant has a stream of this id."""
    result = await connection.execute(
        sa.select(upstreams.c.upstream_id).where(
            upstreams.c.tenant_id == tenant_id,
            upstreams.c.stream_id == stream_id,
            upstreams.c.upstream_id != besides,
        )
    )
    return result.first() is not None


async def update_settings(connection: Connection, upstream: Upstream) -> None:
    """Replace settings and secret."""
    await connection.execute(
        upstreams.update()
        .where(*_one(upstream.tenant_id, upstream.upstream_id))
        .values(
            secret_sealed=upstream.secret_sealed,
            updated_at=upstream.updated_at,
            poll_due_at=upstream.poll_due_at,
            verify_due_at=upstream.verify_due_at,
            **_settings_row(upstream.settings),
        )
    )


async def delete_upstream(connection: Connection, tenant_id: str, upstream_id: str) -> bool:
    """Delete an upstream with what it waits for; return whether there was one."""
    # The upstream first: whoever asks for a verification takes its row before the states.
    result = await connection.execute(upstreams.delete().where(*_one(tenant_id, upstream_id)))
    await connection.execute(
        upstream_states.delete().where(
            upstream_states.c.tenant_id == tenant_id,
            upstream_states.c.upstream_id == upstream_id,
        )
    )
    return bool(result.rowcount)


async def place_order(
    connection: Connection, tenant_id: str, upstream_id: str, order: Order
) -> None:
    """Make this the upstream's order, in place of the one before."""
    await connection.execute(
        upstreams.update()
        .where(*_one(tenant_id, upstream_id))
        .values(
            order_id=order.order_id,
            order_action=order.action.value,
            order_arguments=order.arguments,
            order_state=order.state.value,
            order_attempts=order.attempts,
            order_asked_at=order.asked_at,
            order_due_at=order.due_at,
            order_settled_at=order.settled_at,
            order_detail=order.detail,
        )
    )


async def change_upstream(
    connection: Connection,
    tenant_id: str,
    upstream_id: str,
    change: Change,
    *,
    order_id: str | None = None,
    awaited_since: datetime | None = None,
) -> bool:
    """Write a change; return False when the upstream is gone, or no longer as it was.

    order_id: its order must still be this one. awaited_since: it must still be silent since then.
    """
    where = _one(tenant_id, upstream_id)
    if order_id is not None:
        where = (*where, upstreams.c.order_id == order_id)
    if awaited_since is not None:
        where = (*where, upstreams.c.awaiting_since == awaited_since)
    values = change.columns()
    if not values:
        return True
    result = await connection.execute(upstreams.update().where(*where).values(values))
    return bool(result.rowcount)


async def add_state(
    connection: Connection, tenant_id: str, upstream_id: str, *, state: str, at: datetime
) -> None:
    """Note that a verification with this `state` is about to be asked for, and awaited.

    Written before the request: its SET may be here before the answer is.
    """
    await connection.execute(
        upstreams.update()
        .where(*_one(tenant_id, upstream_id))
        .values(
            awaiting_since=sa.func.coalesce(
                upstreams.c.awaiting_since, sa.literal(at, UTCDateTime)
            ),
            verify_due_at=at + VERIFY_PATIENCE,
        )
    )
    await connection.execute(
        upstream_states.delete().where(
            upstream_states.c.tenant_id == tenant_id,
            upstream_states.c.upstream_id == upstream_id,
            upstream_states.c.asked_at < at - STATE_LIFETIME,
        )
    )
    await connection.execute(
        upstream_states.insert().values(
            tenant_id=tenant_id, upstream_id=upstream_id, state=state, asked_at=at
        )
    )


async def is_state_known(
    connection: Connection, tenant_id: str, upstream_id: str, *, state: str, at: datetime
) -> bool:
    """Tell whether a verification with this `state` was asked for within its lifetime."""
    result = await connection.execute(
        sa.select(upstream_states.c.asked_at).where(
            upstream_states.c.tenant_id == tenant_id,
            upstream_states.c.upstream_id == upstream_id,
            upstream_states.c.state == state,
            upstream_states.c.asked_at >= at - STATE_LIFETIME,
        )
    )
    return result.first() is not None


async def note_heard(
    connection: Connection, tenant_id: str, upstream_id: str, *, at: datetime
) -> None:
    """Record that SETs of an upstream came in, to within HEARD_EXACTNESS."""
    await connection.execute(
        upstreams.update()
        .where(
            *_one(tenant_id, upstream_id),
            sa.or_(
                upstreams.c.last_set_at.is_(None),
                upstreams.c.last_set_at < at - HEARD_EXACTNESS,
            ),
        )
        .values(last_set_at=at)
    )


async def note_verified(connection: Connection, upstream: Upstream, at: datetime) -> None:
    """Record that a verification has arrived: the stream lives."""
    await connection.execute(
        upstreams.update()
        .where(*_one(upstream.tenant_id, upstream.upstream_id))
        .values(
            last_verified_at=at,
            awaiting_since=None,
            is_silent=False,
            failing_since=None,
            last_error=None,
            verify_due_at=upstream.next_verification(at),
        )
    )


def _one(tenant_id: str, upstream_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (upstreams.c.tenant_id == tenant_id, upstreams.c.upstream_id == upstream_id)


def _settings_row(settings: UpstreamSettings) -> dict[str, Any]:
    columns: dict[str, Any] = msgspec.to_builtins(settings)
    return columns


def read_upstream(row: sa.RowMapping) -> Upstream:
    """Return the upstream of a row of all columns. Raises nothing."""
    return Upstream(
        **{name: row[name] for name in _PLAIN},
        settings=msgspec.convert({name: row[name] for name in _SETTINGS}, UpstreamSettings),
        acks=tuple(row["acks"] or ()),
        order=None
        if row["order_id"] is None
        else Order(
            order_id=row["order_id"],
            action=Action(row["order_action"]),
            arguments=row["order_arguments"] or {},
            state=OrderState(row["order_state"]),
            attempts=row["order_attempts"],
            asked_at=row["order_asked_at"],
            due_at=row["order_due_at"],
            settled_at=row["order_settled_at"],
            detail=row["order_detail"],
        ),
    )
