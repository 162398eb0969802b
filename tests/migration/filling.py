"""A row in every table, made from the columns alone: no application code has to know them all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from migrations.tables import metadata
from runtime.database import Database, UTCDateTime

NOW = datetime(2026, 3, 2, 16, 35, tzinfo=UTC)


async def fill(database: Database) -> None:
    """Put one row into every declared table."""
    async with database.transaction() as connection:
        for table in metadata.sorted_tables:
            row = {column.name: value_for(column) for column in table.columns}
            await connection.execute(sa.insert(table).values(row))


async def read_all(database: Database) -> dict[str, int]:
    """Return the number of rows of every declared table that is there."""
    async with database.snapshot() as connection:
        present = await connection.run_sync(lambda sync: set(sa.inspect(sync).get_table_names()))
        return {
            table.name: int(
                await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            )
            for table in metadata.sorted_tables
            if table.name in present
        }


def value_for(column: sa.Column[Any]) -> Any:
    """Return some value that fits the column."""
    kind = column.type
    if isinstance(kind, UTCDateTime):
        return NOW
    if isinstance(kind, sa.JSON):
        return {"a": [1, "b", None]}
    if isinstance(kind, sa.Boolean):
        return True
    if isinstance(kind, sa.Integer | sa.Float | sa.Numeric):
        return 1
    if isinstance(kind, sa.LargeBinary):
        return b"x"
    return "x"
