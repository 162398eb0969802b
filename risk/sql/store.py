"""Statements that are built once, and how they are run.

Building a statement costs more than running it, so the hot paths build theirs at import, with
TENANT and IDS as parameters.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import chunks
from runtime.statements import Query, Row

IN_LIST_MAX: Final = 500

#: what services hand on: an open transaction
Connection: TypeAlias = AsyncConnection

TENANT: Final = sa.bindparam("tenant_id", type_=sa.String)
IDS: Final = sa.bindparam("ids", expanding=True, type_=sa.String)

_QUERIES: Final[dict[sa.Select[*tuple[Any, ...]], Query]] = {}


async def rows_of(
    connection: AsyncConnection,
    statement: sa.Select[*tuple[Any, ...]],
    tenant_id: str,
    ids: Collection[str],
) -> list[Row]:
    """Run a statement made with TENANT and IDS for all ids, a bounded number at a time.

    statement: a constant of its module; it is rendered once and kept.
    """
    query = _QUERIES.get(statement)
    if query is None:
        query = _QUERIES[statement] = Query(statement, scalars=["tenant_id"], lists=["ids"])
    found: list[Row] = []
    for some in chunks(ids, IN_LIST_MAX):
        found += await query.rows(connection, tenant_id=tenant_id, ids=some)
    return found
