"""Which upstreams have something to do.

Polls and everything else are looked up apart, as they have lanes of their own: a poll is due as
long as it is under way, so that among many the oldest are always the same. What is to be managed
comes before them, however many there are.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from receivers.upstreams.model import OPEN_STATES, Delivery, Upstream
from receivers.upstreams.store import read_upstream, upstreams
from runtime.database import UTCDateTime
from runtime.statements import Query

#: rows of each kind in one look; above what one process has under way, or that hid the others
DUE_MAX: Final = 500

_NOW: Final = sa.bindparam("now", type_=UTCDateTime)
_ORDER: Final = sa.and_(
    upstreams.c.order_state.in_(sorted(OPEN_STATES)), upstreams.c.order_due_at <= _NOW
)
_VERIFY: Final = upstreams.c.verify_due_at <= _NOW
_STATUS: Final = upstreams.c.status_due_at <= _NOW
_MANAGE: Final = sa.or_(_ORDER, _VERIFY, _STATUS)
#: as Upstream.may_poll: what is not polled would be due for ever
_POLL: Final = sa.and_(
    upstreams.c.delivery == Delivery.POLL.value,
    upstreams.c.endpoint_url.is_not(None),
    sa.func.coalesce(upstreams.c.stream_status, "") != "disabled",
    upstreams.c.poll_due_at <= _NOW,
)
#: in the order in which worker.jobs_of takes them
_MANAGE_SINCE: Final = sa.case(
    (_ORDER, upstreams.c.order_due_at),
    (_VERIFY, upstreams.c.verify_due_at),
    else_=upstreams.c.status_due_at,
)

_ANY_DUE: Final = Query(
    sa.select(upstreams.c.upstream_id)
    .where(upstreams.c.is_active, sa.or_(_MANAGE, _POLL))
    .limit(1),
    scalars=["now"],
)


async def system_due_upstreams(
    connection: AsyncConnection,
    buckets: Collection[int],
    now: datetime,
    *,
    suspended: Collection[str] = (),
) -> list[Upstream]:
    """Return active upstreams of these buckets with something to do.

    At most DUE_MAX to manage, then at most DUE_MAX to poll; of each those that wait longest first.
    Spans tenants, but for the suspended. They are few: at most one per provider. Most looks find
    nothing, several a second in each process: those cost one short statement.
    """
    if not await _ANY_DUE.rows(connection, now=now):
        return []
    found: dict[tuple[str, str], Upstream] = {}
    for is_due, since in ((_MANAGE, _MANAGE_SINCE), (_POLL, upstreams.c.poll_due_at)):
        query = (
            sa.select(upstreams)
            .where(
                upstreams.c.bucket.in_(sorted(buckets)),
                upstreams.c.is_active,
                upstreams.c.tenant_id.not_in(sorted(suspended)),
                is_due,
            )
            .order_by(since, upstreams.c.upstream_id)
            .limit(DUE_MAX)
        )
        for row in (await connection.execute(query, {"now": now})).mappings():
            found.setdefault((row["tenant_id"], row["upstream_id"]), read_upstream(row))
    return list(found.values())
