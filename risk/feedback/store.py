"""Tables and named queries: feedback, and what it says about single findings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.feedback.model import Feedback, Label, Word
from risk.model import Detection, EntityKind, Level
from risk.ranking import Reliability
from runtime.database import JSONDocument, UTCDateTime, id_column, metadata, tenant_column

feedback: Final = sa.Table(
    "feedback",
    metadata,
    tenant_column(),
    id_column("feedback_id"),
    sa.Column("entity_kind", sa.String(16), nullable=False),
    id_column("entity_id", primary_key=False),
    sa.Column("detection_id", sa.String(64)),
    sa.Column("touches", JSONDocument, nullable=False),
    sa.Column("word", sa.String(24), nullable=False),
    sa.Column("level", sa.String(8)),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("said_by", sa.String(200), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("until", UTCDateTime),
    sa.Column("undone_at", UTCDateTime),
    sa.Column("undone_by", sa.String(200)),
)
sa.Index(
    "ix_feedback_entity_id", feedback.c.tenant_id, feedback.c.entity_id, feedback.c.feedback_id
)

labels: Final = sa.Table(
    "labels",
    metadata,
    tenant_column(),
    id_column("feedback_id"),
    id_column("detection_id"),
    sa.Column("issuer", sa.String(1024), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("label", sa.String(16), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
)
_COLUMNS: Final = tuple(column for column in feedback.columns if column.name != "tenant_id")


async def add(connection: AsyncConnection, said: Feedback) -> None:
    """Insert one word."""
    await connection.execute(
        sa.insert(feedback).values(
            tenant_id=said.tenant_id,
            feedback_id=said.feedback_id,
            entity_kind=said.entity_kind.value,
            entity_id=said.entity_id,
            detection_id=said.detection_id,
            touches=list(said.touches),
            word=said.word.value,
            level=None if said.level is None else said.level.name,
            reason=said.reason,
            said_by=said.by,
            at=said.at,
            until=said.until,
        )
    )


async def add_labels(
    connection: AsyncConnection, said: Feedback, labelled: Collection[Detection], label: Label
) -> None:
    """Keep what the word says about single findings."""
    if not labelled:
        return
    await connection.execute(
        sa.insert(labels),
        [
            {
                "tenant_id": said.tenant_id,
                "feedback_id": said.feedback_id,
                "detection_id": each.detection_id,
                "issuer": each.issuer,
                "name": each.name,
                "label": label.value,
                "at": said.at,
            }
            for each in labelled
        ],
    )


async def undo(connection: AsyncConnection, said: Feedback, *, by: str, now: datetime) -> None:
    """Mark a word as taken back, and forget what it said about findings."""
    await connection.execute(
        sa.update(feedback)
        .where(feedback.c.tenant_id == said.tenant_id, feedback.c.feedback_id == said.feedback_id)
        .values(undone_at=now, undone_by=by)
    )
    await connection.execute(
        sa.delete(labels).where(
            labels.c.tenant_id == said.tenant_id, labels.c.feedback_id == said.feedback_id
        )
    )


async def list_of(
    connection: AsyncConnection,
    tenant_id: str,
    entity_id: str,
    *,
    limit: int,
    words: Collection[Word] = tuple(Word),
    until: datetime | None = None,
) -> list[Feedback]:
    """Return the newest words about an entity, newest first. until: said by then."""
    statement = sa.select(*_COLUMNS).where(
        feedback.c.tenant_id == tenant_id,
        feedback.c.entity_id == entity_id,
        feedback.c.word.in_(sorted(words)),
    )
    if until is not None:
        statement = statement.where(feedback.c.at <= until)
    rows = await connection.execute(statement.order_by(feedback.c.feedback_id.desc()).limit(limit))
    return [_said(row, tenant_id) for row in rows]


async def reliability(connection: AsyncConnection, tenant_id: str) -> dict[str, Reliability]:
    """Return what people said of each issuer's findings; by issuer, those that were judged."""
    is_right = labels.c.label == Label.TRUE_POSITIVE.value
    rows = await connection.execute(
        sa.select(
            labels.c.issuer,
            sa.func.sum(sa.case((is_right, 1), else_=0)),
            sa.func.count(),
        )
        .where(labels.c.tenant_id == tenant_id)
        .group_by(labels.c.issuer)
    )
    return {
        issuer: Reliability(confirmed=int(confirmed), false=int(count) - int(confirmed))
        for issuer, confirmed, count in rows
    }


def _said(row: Sequence[Any], tenant_id: str) -> Feedback:
    (
        feedback_id,
        entity_kind,
        entity_id,
        detection_id,
        touches,
        word,
        level,
        reason,
        by,
        at,
        until,
        undone_at,
        undone_by,
    ) = row
    return Feedback(
        tenant_id=tenant_id,
        feedback_id=feedback_id,
        entity_kind=EntityKind(entity_kind),
        entity_id=entity_id,
        detection_id=detection_id,
        touches=tuple(touches),
        word=Word(word),
        level=None if level is None else Level[level],
        reason=reason,
        by=by,
        at=at,
        until=until,
        undone_at=undone_at,
        undone_by=undone_by,
    )
