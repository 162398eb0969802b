"""Use cases of the feeds of a hub: list, read, store, delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from risk.networks import store
from risk.networks.feeds import Feed, check_feed
from risk.networks.model import SOURCES_MAX
from risk.sql.store import Connection
from runtime.database import Database
from runtime.errors import Conflict, NotFound
from runtime.feed import bump

KIND: Final = "feeds"


async def read_all(database: Database, tenant_id: str) -> Sequence[Feed]:
    """Return the feeds. Raises database errors."""
    async with database.snapshot() as connection:
        return await store.list_feeds(connection, tenant_id)


async def get(connection: Connection, tenant_id: str, feed_id: str) -> Feed:
    """Return one feed. Raises NotFound."""
    for feed in await store.list_feeds(connection, tenant_id):
        if feed.feed_id == feed_id:
            return feed
    raise NotFound("No such feed.")


async def put(connection: Connection, tenant_id: str, feed: Feed, *, now: datetime) -> Feed:
    """Store a feed, new or changed. Raises Invalid, Conflict."""
    check_feed(feed)
    present = await store.list_feeds(connection, tenant_id)
    others = [each for each in present if each.feed_id != feed.feed_id]
    if any(each.name == feed.name for each in others):
        raise Conflict("Another feed has this name.")
    if len(others) >= SOURCES_MAX:
        raise Conflict(f"A hub has at most {SOURCES_MAX} feeds.")
    await store.write_feed(connection, tenant_id, feed, now=now)
    await bump(connection, tenant_id, KIND)
    return feed


async def delete(connection: Connection, tenant_id: str, feed_id: str) -> None:
    """Delete a feed; its tables go with the next compilation. Raises NotFound."""
    await get(connection, tenant_id, feed_id)
    await store.delete_feed(connection, tenant_id, feed_id)
    await bump(connection, tenant_id, KIND)
