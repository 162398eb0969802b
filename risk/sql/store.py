"""Statements that are built once, and how they are run.

Building a statement costs more than running it, so the hot paths build theirs at import, with
TENANT and IDS as parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import chunks

IN_LIST_MAX: Final = 500

#: what services hand on: an open transaction
Connection: TypeAlias = AsyncConnection

TENANT: Final = sa.bindparam("tenant_id", type_=sa.String)
IDS: Final = sa.bindparam("ids", expanding=True, type_=sa.String)


async def rows_of(
    connection: AsyncConnection,
    statement: sa.Select[*tuple[Any, ...]],
    tenant_id: str,
    ids: Collection[str],
) -> list[Sequence[Any]]:
    """Run a statement made with TENANT and IDS for all ids, a bounded number at a time."""
    found: list[Sequence[Any]] = []
    for some in chunks(ids, IN_LIST_MAX):
        result = await connection.execute(statement, {"tenant_id": tenant_id, "ids": some})
        found.extend(result.all())
    return found


def upserts(
    table: sa.Table, keys: Sequence[str], columns: Sequence[str], *, newer: str | None = None
) -> Mapping[str, sa.Executable]:
    """Return, by dialect, "insert, or where the keys exist, overwrite these columns".

    newer: overwrite only where this column grows.
    """
    made: dict[str, sa.Executable] = {}
    for dialect, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert)):
        statement = insert(table)
        made[dialect] = statement.on_conflict_do_update(
            index_elements=list(keys),
            set_={name: statement.excluded[name] for name in columns},
            where=None if newer is None else statement.excluded[newer] > table.c[newer],
        )
    return made
