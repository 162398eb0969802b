"""Tables and named queries: ingest_errors, ingest_error_counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from receivers.refusals.model import (
    KEPT_PER_CODE,
    NAME_CHARS_MAX,
    TEXT_CHARS_MAX,
    ErrorFilter,
    IngestError,
    Refusal,
    RefusalBatch,
    RefusalCount,
)
from runtime.database import (
    UTCDateTime,
    delete_before,
    dialect_insert,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)
from runtime.writer import Operation

COUNTS_MAX: Final = 1_000

ingest_errors: Final = sa.Table(
    "ingest_errors",
    metadata,
    tenant_column(),
    id_column("error_id"),
    id_column("provider_id", primary_key=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("requirement", sa.String(64), nullable=False),
    sa.Column("reason", sa.String(TEXT_CHARS_MAX), nullable=False),
    sa.Column("jti", sa.String(NAME_CHARS_MAX)),
    sa.Column("event_type", sa.String(NAME_CHARS_MAX)),
    sa.Column("peer", sa.String(64), nullable=False),
    sa.Column("raw_sealed", sa.Text),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("tried_at", UTCDateTime),
    sa.Index("ix_ingest_errors_ring", "tenant_id", "provider_id", "code", "error_id"),
)
ingest_error_counts: Final = sa.Table(
    "ingest_error_counts",
    metadata,
    tenant_column(),
    id_column("provider_id"),
    sa.Column("code", sa.String(64), primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("first_at", UTCDateTime, nullable=False),
    sa.Column("last_at", UTCDateTime, nullable=False),
)


async def note_refusals(connection: AsyncConnection, batches: Sequence[RefusalBatch]) -> list[bool]:
    """Keep refused SETs, forgetting the oldest of their provider and code, and count all."""
    kept = [each for batch in batches for each in batch.kept]
    await insert_new(connection, ingest_errors, [_row(each) for each in kept], "error_id")
    for tenant_id, provider_id, code in sorted(
        {(each.tenant_id, each.provider_id, each.code) for each in kept}
    ):
        await _trim(connection, tenant_id, provider_id, code)
    for batch in batches:
        for count in batch.counts:
            await _count(connection, count)
    return [True for _ in batches]


NOTE_REFUSALS: Final = Operation(
    name="receivers.note_refusals",
    item=RefusalBatch,
    result=bool,
    handle=note_refusals,
    is_own=True,
)


def _row(refusal: Refusal) -> dict[str, Any]:
    return {**msgspec.structs.asdict(refusal), "state": "open", "attempts": 0, "tried_at": None}


async def _trim(connection: AsyncConnection, tenant_id: str, provider_id: str, code: str) -> None:
    ring = (
        ingest_errors.c.tenant_id == tenant_id,
        ingest_errors.c.provider_id == provider_id,
        ingest_errors.c.code == code,
    )
    newest = sa.select(ingest_errors.c.error_id).where(*ring)
    last = await connection.scalar(
        newest.order_by(ingest_errors.c.error_id.desc()).offset(KEPT_PER_CODE).limit(1)
    )
    if last is not None:
        await connection.execute(
            ingest_errors.delete().where(*ring, ingest_errors.c.error_id <= last)
        )


async def _count(connection: AsyncConnection, count: RefusalCount) -> None:
    row = {**msgspec.structs.asdict(count), "first_at": count.last_at}
    insert = dialect_insert(connection, ingest_error_counts).values(row)
    await connection.execute(
        insert.on_conflict_do_update(
            index_elements=["tenant_id", "provider_id", "code"],
            set_={
                "count": ingest_error_counts.c.count + insert.excluded["count"],
                "last_at": insert.excluded.last_at,
            },
        )
    )


async def list_errors(
    connection: AsyncConnection,
    tenant_id: str,
    wanted: ErrorFilter,
    *,
    before: str | None = None,
    limit: int,
) -> list[IngestError]:
    """Return refused SETs, newest first. before: the error_id where the last page ended."""
    statement = (
        sa.select(*_COLUMNS)
        .where(ingest_errors.c.tenant_id == tenant_id)
        .order_by(ingest_errors.c.error_id.desc())
        .limit(limit)
    )
    if wanted.provider_id is not None:
        statement = statement.where(ingest_errors.c.provider_id == wanted.provider_id)
    if wanted.code is not None:
        statement = statement.where(ingest_errors.c.code == wanted.code)
    if wanted.is_open:
        statement = statement.where(
            ingest_errors.c.state == "open", ingest_errors.c.raw_sealed.is_not(None)
        )
    if before is not None:
        statement = statement.where(ingest_errors.c.error_id < before)
    return [IngestError(**row) for row in (await connection.execute(statement)).mappings()]


async def find_error(
    connection: AsyncConnection, tenant_id: str, error_id: str
) -> IngestError | None:
    """Return one refused SET."""
    rows = await connection.execute(
        sa.select(*_COLUMNS).where(
            ingest_errors.c.tenant_id == tenant_id, ingest_errors.c.error_id == error_id
        )
    )
    row = rows.mappings().first()
    return None if row is None else IngestError(**row)


async def write_attempt(
    connection: AsyncConnection, tenant_id: str, tried: IngestError, *, at: datetime
) -> None:
    """Record what came of a replay."""
    await connection.execute(
        ingest_errors.update()
        .where(ingest_errors.c.tenant_id == tenant_id, ingest_errors.c.error_id == tried.error_id)
        .values(
            state=tried.state,
            requirement=tried.requirement,
            reason=tried.reason,
            attempts=ingest_errors.c.attempts + 1,
            tried_at=at,
        )
    )


async def list_counts(connection: AsyncConnection, tenant_id: str) -> list[dict[str, Any]]:
    """Return how often each provider was refused with each code, the latest first."""
    rows = await connection.execute(
        sa.select(
            ingest_error_counts.c.provider_id,
            ingest_error_counts.c.code,
            ingest_error_counts.c.count,
            ingest_error_counts.c.first_at,
            ingest_error_counts.c.last_at,
        )
        .where(ingest_error_counts.c.tenant_id == tenant_id)
        .order_by(ingest_error_counts.c.last_at.desc())
        .limit(COUNTS_MAX)
    )
    return [dict(row) for row in rows.mappings()]


async def system_purge_errors(connection: AsyncConnection, *, before: datetime) -> int:
    """Delete refused SETs that are too old, a few at once; return how many."""
    deleted = await delete_before(connection, ingest_errors.c.at, before)
    await connection.execute(
        ingest_error_counts.delete().where(ingest_error_counts.c.last_at < before)
    )
    return deleted


_COLUMNS: Final = tuple(ingest_errors.c[each.name] for each in fields(IngestError))
