"""Named queries of the health of push streams. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Final

import sqlalchemy as sa

from runtime.database import chunks
from runtime.statements import Query
from transmitters.delivery.model import StreamHealth
from transmitters.store import Connection, of_stream, streams

IN_LIST_MAX: Final = 500


async def stream_health(
    connection: Connection, tenant_id: str, *, stream_ids: Collection[str]
) -> dict[str, StreamHealth]:
    """Return stream id to health, of those that still exist."""
    found: dict[str, StreamHealth] = {}
    for some in chunks(sorted(stream_ids), IN_LIST_MAX):
        for stream_id, failures, failing_since, backoff_until, refused in await _HEALTH.rows(
            connection, tenant_id=tenant_id, stream_ids=some
        ):
            found[stream_id] = StreamHealth(
                failures=failures,
                failing_since=failing_since,
                backoff_until=backoff_until,
                refused_in_row=refused,
            )
    return found


_HEALTH: Final = Query(
    sa.select(
        streams.c.stream_id,
        streams.c.failures,
        streams.c.failing_since,
        streams.c.backoff_until,
        streams.c.refused_in_row,
    ).where(
        streams.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        streams.c.stream_id.in_(sa.bindparam("stream_ids", expanding=True, type_=sa.String)),
    ),
    scalars=["tenant_id"],
    lists=["stream_ids"],
)


async def delivery_epochs(
    connection: Connection, tenant_id: str, *, stream_ids: Collection[str]
) -> dict[str, int]:
    """Return stream id to delivery epoch, of those that still exist, and hold them.

    In the order of ids, as all that hold several streams: none waits for the other then.
    """
    found: dict[str, int] = {}
    for some in chunks(sorted(stream_ids), IN_LIST_MAX):
        rows = await _EPOCHS.rows(connection, tenant_id=tenant_id, stream_ids=some)
        found |= {row[0]: row[1] for row in rows}
    return found


_EPOCHS: Final = Query(
    sa.select(streams.c.stream_id, streams.c.delivery_epoch)
    .where(
        streams.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        streams.c.stream_id.in_(sa.bindparam("stream_ids", expanding=True, type_=sa.String)),
    )
    .order_by(streams.c.stream_id)
    # As an update of the health does; it does not keep publishers waiting.
    .with_for_update(key_share=True),
    scalars=["tenant_id"],
    lists=["stream_ids"],
)


async def set_stream_health(
    connection: Connection, tenant_id: str, *, stream_id: str, health: StreamHealth
) -> None:
    """Record how a push stream does."""
    await connection.execute(
        sa.update(streams).where(of_stream(streams, tenant_id, stream_id)).values(asdict(health))
    )


async def forget_failures(connection: Connection, tenant_id: str, *, stream_id: str) -> None:
    """Let a push stream be called at once: its receiver has another address, or says it is back."""
    await connection.execute(
        sa.update(streams)
        .where(of_stream(streams, tenant_id, stream_id))
        .values(failures=0, failing_since=None, backoff_until=None, refused_in_row=0)
    )
