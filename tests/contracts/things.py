"""A table of the contract suites' own, with every column type that `runtime` gives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import Database, JSONDocument, UTCDateTime

#: metadata of its own: the tables of the hub stay what they are
metadata = sa.MetaData()
things = sa.Table(
    "things",
    metadata,
    sa.Column("tenant_id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("label", sa.String(64)),
    sa.Column("at", UTCDateTime),
    sa.Column("document", JSONDocument),
    sa.UniqueConstraint("tenant_id", "label"),
)


def row(name: str, **members: Any) -> dict[str, Any]:
    """Return one row of tenant `default`."""
    filled = {"label": None, "at": None, "document": None, **members}
    return {"tenant_id": "default", "name": name, **filled}


async def create(database: Database) -> None:
    """Create the table."""
    async with database.transaction() as connection:
        await connection.run_sync(metadata.create_all)


async def add(database: Database, *rows: dict[str, Any]) -> None:
    """Commit rows."""
    async with database.transaction() as connection:
        await connection.execute(sa.insert(things), list(rows))


async def names(database: Database) -> list[str]:
    """Return the committed names in order."""
    async with database.snapshot() as connection:
        return list(await connection.scalars(sa.select(things.c.name).order_by(things.c.name)))


async def read(connection: AsyncConnection, name: str) -> tuple[datetime | None, Any]:
    """Return time and document of one row."""
    found = (
        await connection.execute(
            sa.select(things.c.at, things.c.document).where(
                things.c.tenant_id == "default", things.c.name == name
            )
        )
    ).one()
    return found.at, found.document
