"""Use cases of reviews: note them with the signal behind them, forget them when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from risk.reviews import store
from risk.reviews.model import Review, ReviewDone
from risk.sql.store import Connection
from runtime.writer import Operation

#: whom to wake when reviews were noted
TOPIC: Final = "reviews"
#: a session that nobody could judge for so long is judged with its next request
LIFE: Final = timedelta(hours=1)


async def note(connection: Connection, reviews: Sequence[Review]) -> None:
    """Note reviews, in the transaction of what leads to them."""
    await store.add_reviews(connection, reviews)


async def finish(connection: Connection, items: Sequence[ReviewDone]) -> list[bool]:
    """Forget reviews that were made; one that is gone already is no trouble."""
    for tenant_id in sorted({item.tenant_id for item in items}):
        mine = {item.review_id for item in items if item.tenant_id == tenant_id}
        await store.delete_reviews(connection, tenant_id, review_ids=mine)
    return [True] * len(items)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget reviews nobody made in time, a bounded number; return how many."""
    return await store.system_purge_reviews(connection, before=now - LIFE)


FINISH_REVIEW: Final = Operation(
    name="risk.finish_review", item=ReviewDone, result=bool, handle=finish
)
