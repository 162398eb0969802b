"""Table and named queries of the subjects of streams. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)
from ssf.subject import parse_subject
from transmitters.subjects.model import SubjectRule, name_keys, rendered, subject_key

Connection: TypeAlias = AsyncConnection
IN_LIST_MAX: Final = 400

#: one row per subject and name in it, so that it is found by each of its names
stream_subjects: Final = sa.Table(
    "stream_subjects",
    metadata,
    tenant_column(),
    id_column("stream_id"),
    sa.Column("subject_key", sa.String(64), primary_key=True),
    sa.Column("name_key", sa.String(640), primary_key=True),
    sa.Column("is_excluded", sa.Boolean, nullable=False),
    sa.Column("subject", JSONDocument, nullable=False),
    sa.Column("is_verified", sa.Boolean, nullable=False),
    sa.Column("since", UTCDateTime, nullable=False),
    sa.Column("until", UTCDateTime),
    sa.Index("ix_stream_subjects_name_key", "tenant_id", "name_key"),
)


async def put_rule(connection: Connection, rule: SubjectRule) -> None:
    """Write a rule; the one that this stream had about the same subject is replaced."""
    rows = [
        {
            "tenant_id": rule.tenant_id,
            "stream_id": rule.stream_id,
            "subject_key": subject_key(rule.subject),
            "name_key": name,
            "is_excluded": rule.is_excluded,
            "subject": rendered(rule.subject),
            "is_verified": rule.is_verified,
            "since": rule.since,
            "until": rule.until,
        }
        for name in sorted(name_keys(rule.subject))
    ]
    insert = dialect_insert(connection, stream_subjects)
    fresh = ("is_excluded", "subject", "is_verified", "since", "until")
    upsert = insert.on_conflict_do_update(
        index_elements=["tenant_id", "stream_id", "subject_key", "name_key"],
        set_={name: insert.excluded[name] for name in fresh},
    )
    await connection.execute(upsert, rows)


async def get_rule(
    connection: Connection, tenant_id: str, *, stream_id: str, key: str
) -> SubjectRule | None:
    """Return the rule of a stream about one subject, or None. key: of `subject_key`."""
    query = sa.select(stream_subjects).where(_about(tenant_id, stream_id, key)).limit(1)
    row = (await connection.execute(query)).first()
    return None if row is None else _rule_of(row)


async def delete_rule(connection: Connection, tenant_id: str, *, stream_id: str, key: str) -> None:
    """Forget the rule of a stream about one subject."""
    await connection.execute(sa.delete(stream_subjects).where(_about(tenant_id, stream_id, key)))


async def delete_subjects(connection: Connection, tenant_id: str, *, stream_id: str) -> None:
    """Forget all subjects of a stream."""
    await connection.execute(
        sa.delete(stream_subjects).where(
            stream_subjects.c.tenant_id == tenant_id, stream_subjects.c.stream_id == stream_id
        )
    )


async def rules_naming(
    connection: Connection, tenant_id: str, *, names: Collection[str], now: datetime
) -> list[tuple[str, SubjectRule]]:
    """Return (name key, rule) of all streams' rules that count now and hold one of the names.

    Costs one index probe per name, however many subjects the streams have.
    """
    found: list[tuple[str, SubjectRule]] = []
    table = stream_subjects
    for some in chunks(sorted(names), IN_LIST_MAX):
        query = sa.select(table).where(
            table.c.tenant_id == tenant_id,
            table.c.name_key.in_(some),
            table.c.since <= now,
            sa.or_(table.c.until.is_(None), table.c.until > now),
        )
        found += [(row.name_key, _rule_of(row)) for row in await connection.execute(query)]
    return found


def _about(tenant_id: str, stream_id: str, key: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        stream_subjects.c.tenant_id == tenant_id,
        stream_subjects.c.stream_id == stream_id,
        stream_subjects.c.subject_key == key,
    )


def _rule_of(row: sa.Row[Any]) -> SubjectRule:
    return SubjectRule(
        tenant_id=row.tenant_id,
        stream_id=row.stream_id,
        is_excluded=row.is_excluded,
        subject=parse_subject(row.subject),
        is_verified=row.is_verified,
        since=row.since,
        until=row.until,
    )
