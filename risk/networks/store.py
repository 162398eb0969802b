"""Table and named queries: feeds. They belong to the tenant that runs the hub."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.networks.feeds import NAME_CHARS_MAX, Feed
from risk.networks.model import SOURCES_MAX
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)

log = structlog.get_logger()

feeds: Final = sa.Table(
    "feeds",
    metadata,
    tenant_column(),
    id_column("feed_id"),
    sa.Column("name", sa.String(NAME_CHARS_MAX), nullable=False),
    sa.Column("document", JSONDocument, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("tenant_id", "name"),
)


async def list_feeds(connection: AsyncConnection, tenant_id: str) -> list[Feed]:
    """Return the feeds by id: all, they are few."""
    rows = await connection.execute(
        sa.select(feeds.c.feed_id, feeds.c.document)
        .where(feeds.c.tenant_id == tenant_id)
        .order_by(feeds.c.feed_id)
        .limit(SOURCES_MAX)
    )
    found = (_readable(row.feed_id, row.document) for row in rows)
    return [feed for feed in found if feed is not None]


async def write_feed(
    connection: AsyncConnection, tenant_id: str, feed: Feed, *, now: datetime
) -> None:
    """Store a feed, new or changed; its name is no other feed's."""
    statement = dialect_insert(connection, feeds).values(
        tenant_id=tenant_id,
        feed_id=feed.feed_id,
        name=feed.name,
        document=msgspec.to_builtins(feed),
        updated_at=now,
    )
    newer = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "feed_id"],
            set_={"name": newer.name, "document": newer.document, "updated_at": newer.updated_at},
        )
    )


async def delete_feed(connection: AsyncConnection, tenant_id: str, feed_id: str) -> None:
    """Delete a feed."""
    await connection.execute(
        feeds.delete().where(feeds.c.tenant_id == tenant_id, feeds.c.feed_id == feed_id)
    )


def _readable(feed_id: str, document: Any) -> Feed | None:
    """Return a stored feed; None, and an error in the log, when a later release broke it."""
    try:
        return msgspec.convert(document, Feed)
    except msgspec.ValidationError as error:
        log.error("feed.skipped", feed_id=feed_id, detail=str(error))  # noqa: TRY400 - no bug of ours
        return None
