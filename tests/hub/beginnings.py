"""What a story is when it begins, kept so that the next test does not have to make it again.

Making it takes some forty requests. They are made on each engine once a minute by each test
process; until then a new hub gets the rows that they left, and the time that it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from runtime.database import metadata
from runtime.keyring import PURPOSES

if TYPE_CHECKING:
    from tests.hub.conftest import Hub
    from tests.hub.story import Story

#: name of a table -> number of its rows, of a hub that was opened and not yet used
NEW: Final = {"tenants": 1, "signing_keys": len(PURPOSES), "config_versions": 2}
#: older ones are made anew: some tests open a second process, whose clock is the machine's
FRESH: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A story that has been made. rows: of its whole database, by table; at: when it was."""

    at: datetime
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    ids: Mapping[str, str]
    tokens: Mapping[str, str]
    events_url: str


_kept: dict[str, Beginning] = {}
_COUNTED: Final = sa.union_all(
    *(
        sa.select(sa.literal(name), sa.func.count()).select_from(table)
        for name, table in metadata.tables.items()
    )
)


async def is_new(hub: Hub) -> bool:
    """Return whether nothing has happened to a hub since it was opened."""
    async with hub.database.snapshot() as connection:
        result = await connection.execute(_COUNTED)
        counted = {name: count for name, count in result if count}
    return counted == NEW and hub.clock.now() == hub.opened_at and not hub.outside.requests


def find(hub: Hub) -> Beginning | None:
    """Return what was kept on the engine of a hub, if it was so a moment ago."""
    known = _kept.get(hub.database.engine.dialect.name)
    return known if known is not None and hub.opened_at - known.at < FRESH else None


async def keep(story: Story) -> None:
    """Keep a story that was just made."""
    rows = {}
    async with story.hub.database.snapshot() as connection:
        for name, table in metadata.tables.items():
            if found := (await connection.execute(sa.select(table))).mappings().all():
                rows[name] = [dict(row) for row in found]
    _kept[story.hub.database.engine.dialect.name] = Beginning(
        at=story.hub.clock.now(),
        rows=rows,
        ids=dict(story.ids),
        tokens=dict(story.tokens),
        events_url=story.events_url,
    )


async def restore(known: Beginning, hub: Hub) -> None:
    """Make the database of a new hub what it was, and its time."""
    async with hub.database.transaction() as connection:
        for name, rows in known.rows.items():
            table = metadata.tables[name]
            if name in NEW:
                await connection.execute(table.delete())
            await connection.execute(table.insert(), rows)
    hub.clock.at = known.at
    await hub.node.feed.refresh()
    # What is told of these rows belongs to them, not to the test.
    await hub.node.changes.refresh()
