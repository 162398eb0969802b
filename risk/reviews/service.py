"""Use cases of reviews: note them with the signal behind them, forget them when they are made.

What failed is put off and tried again, a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from risk.reviews import store
from risk.reviews.model import Review, ReviewDone, ReviewPutOff
from risk.sql.store import Connection
from risk.sweeps import store as sweeps_store
from runtime.writer import Operation

log = structlog.get_logger()

#: whom to wake when reviews were noted
TOPIC: Final = "reviews"
#: a session that nobody could judge for so long is judged with its next request
LIFE: Final = timedelta(hours=1)


async def note(connection: Connection, reviews: Sequence[Review]) -> None:
    """Note reviews, in the transaction of what leads to them."""
    await store.add_reviews(connection, reviews)


async def finish(connection: Connection, items: Sequence[ReviewDone]) -> list[bool]:
    """Forget reviews that were made, and let sweeps count them; one that is gone is no trouble."""
    for tenant_id in sorted({item.tenant_id for item in items}):
        mine = {item.review_id for item in items if item.tenant_id == tenant_id}
        await store.delete_reviews(connection, tenant_id, review_ids=mine)
    for key in sorted({(item.tenant_id, item.sweep_id) for item in items if item.sweep_id}):
        of_sweep = [item for item in items if (item.tenant_id, item.sweep_id) == key]
        await sweeps_store.count(
            connection,
            *key,
            acted=sum(item.acted for item in of_sweep),
            would_have=sum(item.would_have for item in of_sweep),
        )
    return [True] * len(items)


async def put_off(connection: Connection, items: Sequence[ReviewPutOff]) -> list[bool]:
    """Let reviews that failed wait until they are tried again."""
    await store.put_off_reviews(connection, items)
    return [True] * len(items)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget reviews nobody made in time, a bounded number; return how many."""
    count = await store.system_purge_reviews(connection, before=now - LIFE)
    if count:
        log.error("session.reviews_expired", count=count)
    return count


FINISH_REVIEW: Final = Operation(
    name="risk.finish_review", item=ReviewDone, result=bool, handle=finish, is_own=True
)
PUT_OFF_REVIEW: Final = Operation(
    name="risk.put_off_review", item=ReviewPutOff, result=bool, handle=put_off
)
