"""Use cases of sending SETs again: what was given up, and what was delivered before."""

from __future__ import annotations

from datetime import datetime

import structlog

from runtime.errors import Conflict, NotFound
from ssf.stream import StreamStatus
from transmitters.health import store as health
from transmitters.model import DeliveryState
from transmitters.receipts import store
from transmitters.receipts.model import LOOKED_AT_MAX, SENT_AGAIN_MAX, SentAgain, Wanted
from transmitters.store import Connection, get_stream

log = structlog.get_logger()


async def send_again(
    connection: Connection, tenant_id: str, *, stream_id: str, wanted: Wanted, now: datetime
) -> SentAgain:
    """Queue SETs of a stream again, unchanged: `jti`, `iat` and `kid` stay.

    One call sends at most SENT_AGAIN_MAX and looks at no more than LOOKED_AT_MAX; then it says
    behind which jti to go on. After the commit the caller wakes `deliveries` and `polls`.
    Raises NotFound without such a stream or, when a jti was named, without such a SET; Conflict
    for a disabled stream, over which nothing is sent.
    Requirements SET-5, PUSH-17, SSF-STAT-6.
    """
    stream = await get_stream(connection, tenant_id, stream_id=stream_id, lock=True)
    if stream is None:
        raise NotFound("No such stream.")
    if stream.status is StreamStatus.DISABLED:
        raise Conflict("The stream is disabled: nothing is sent over it. Enable it first.")
    found = await store.look_at(
        connection, tenant_id, stream_id=stream_id, wanted=wanted, limit=LOOKED_AT_MAX + 1
    )
    chosen: list[str] = []
    after: str | None = None
    for place, one in enumerate(found):
        if place == LOOKED_AT_MAX or len(chosen) == SENT_AGAIN_MAX:
            after = found[place - 1].jti
            break
        if wanted.takes(one):
            chosen.append(one.jti)
    count = await store.queue_again(
        connection, tenant_id, stream_id=stream_id, jtis=chosen, state=wanted.state, now=now
    )
    if wanted.jti is not None and not count:
        raise NotFound("No such SET in that state on the stream.")
    if count:
        # Whoever sends again believes that the receiver is well: it is called at once.
        await health.forget_failures(connection, tenant_id, stream_id=stream_id)
    redrives = wanted.state is DeliveryState.DEAD
    event = "stream.redriven" if redrives else "stream.replayed"
    log.info(event, tenant_id=tenant_id, stream_id=stream_id, count=count, more=after is not None)
    return SentAgain(count=count, after=after)
