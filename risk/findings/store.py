"""Tables and named queries: detections, clearances.

Detections are append-only: a change is a new revision, and `is_latest` marks the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.catalogue import finding_type
from risk.level import expires_at
from risk.levels.model import LEVELS_KIND
from risk.model import (
    Clearance,
    Detection,
    DetectionState,
    EntityKind,
    Level,
    Sighting,
    SignalMode,
)
from risk.sql.store import IDS, TENANT, rows_of
from runtime.changes import note_changes
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    metadata,
    tenant_column,
)
from runtime.ids import new_id
from runtime.statements import Write, inserts, upserts

detections: Final = sa.Table(
    "detections",
    metadata,
    tenant_column(),
    id_column("detection_id"),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("is_latest", sa.Boolean, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("source_class", sa.String(32), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("entity_kind", sa.String(16), nullable=False),
    id_column("entity_id", primary_key=False),
    sa.Column("related", JSONDocument, nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("issuer", sa.String(1024), nullable=False),
    sa.Column("occurred_at", UTCDateTime, nullable=False),
    sa.Column("detected_at", UTCDateTime, nullable=False),
    sa.Column("expires_at", UTCDateTime),
    sa.Column("reasons", JSONDocument, nullable=False),
    sa.Column("evidence", JSONDocument, nullable=False),
    sa.Column("clears_on", JSONDocument, nullable=False),
    sa.Column("mitre", JSONDocument, nullable=False),
    sa.Column("state", sa.String(24), nullable=False),
    sa.Column("state_at", UTCDateTime, nullable=False),
    sa.Column("state_by", sa.String(200), nullable=False),
    # When this revision was written; null in rows older than the column.
    sa.Column("recorded_at", UTCDateTime),
)
#: the same text in index and query, or SQLite would not use the partial index
IS_ACTIVE: Final = sa.text("is_latest AND state = 'active'")
sa.Index(
    "ix_detections_active",
    detections.c.tenant_id,
    detections.c.entity_id,
    sqlite_where=IS_ACTIVE,
    postgresql_where=IS_ACTIVE,
)
sa.Index(
    "ix_detections_entity_id",
    detections.c.tenant_id,
    detections.c.entity_id,
    detections.c.detection_id,
)

clearances: Final = sa.Table(
    "clearances",
    metadata,
    tenant_column(),
    id_column("clearance_id"),
    id_column("entity_id", primary_key=False),
    sa.Column("issuer", sa.String(1024), nullable=False),
    sa.Column("remedy", sa.String(96), nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("occurred_at", UTCDateTime, nullable=False),
    id_column("signal_id", primary_key=False),
    # Of each kind of word the newest says all that the older ones said.
    sa.UniqueConstraint("tenant_id", "entity_id", "remedy", "level", "mode", "issuer"),
)

# --- detections ---------------------------------------------------------------------------------

_NOT_READ: Final = frozenset(
    {"tenant_id", "is_latest", "occurred_at", "expires_at", "mitre", "recorded_at"}
)
#: what `detection` takes
DETECTION_COLUMNS: Final = tuple(
    column
    for column in detections.columns
    # What the others tell already is not read: it is stored for queries and for people.
    if column.name not in _NOT_READ
)


# Left alone, SQLite takes the index of all revisions, and a long past would slow the present. It
# can be told which index to take only in its own words.
_FROM_ACTIVE: Final = {
    "sqlite": sa.text("detections INDEXED BY ix_detections_active"),
    "postgresql": sa.text("detections"),
}
_ABOUT: Final = sa.text("tenant_id = :tenant_id AND entity_id IN :ids").bindparams(TENANT, IDS)


def _of_active(*columns: sa.Column[Any]) -> Mapping[str, sa.Select[*tuple[Any, ...]]]:
    """Return, by dialect, the statement that reads columns of active detections of entities."""
    return {
        dialect: sa.select(*(sa.literal_column(each.name, each.type) for each in columns))
        .select_from(source)
        .where(_ABOUT, IS_ACTIVE)
        for dialect, source in _FROM_ACTIVE.items()
    }


_ACTIVE: Final = _of_active(*DETECTION_COLUMNS)
_SUSPECTS: Final = _of_active(detections.c.entity_id)
_FOLLOWED: Final = (
    sa.update(detections)
    .where(
        detections.c.tenant_id == sa.bindparam("b_tenant_id"),
        detections.c.detection_id == sa.bindparam("b_id"),
        detections.c.revision == sa.bindparam("b_revision"),
    )
    .values(is_latest=False)
)
_UNFLAG: Final = Write(_FOLLOWED, ("b_tenant_id", "b_id", "b_revision"))
_APPEND: Final = inserts(detections)


async def active_detections(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> list[Detection]:
    """Return the latest revision of every active detection about the entities."""
    rows = await rows_of(connection, _ACTIVE[connection.dialect.name], tenant_id, entity_ids)
    return [detection(row, tenant_id) for row in rows]


async def suspects(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> set[str]:
    """Return those of the entities that have an active detection."""
    rows = await rows_of(connection, _SUSPECTS[connection.dialect.name], tenant_id, entity_ids)
    return {row[0] for row in rows}


async def entities_of_issuer(
    connection: AsyncConnection, tenant_id: str, *, issuer: str
) -> dict[str, EntityKind]:
    """Return what an issuer's active detections are about; reads all active ones: for rare use."""
    rows = await connection.execute(
        sa.select(detections.c.entity_id, detections.c.entity_kind)
        .where(detections.c.tenant_id == tenant_id, IS_ACTIVE, detections.c.issuer == issuer)
        .distinct()
    )
    return {row.entity_id: _KINDS[row.entity_kind] for row in rows}


async def write_detections(
    connection: AsyncConnection,
    written: Sequence[Detection],
    *,
    now: datetime,
    is_told: bool = False,
) -> None:
    """Append revisions; the one before each, if there is one, is the latest no more.

    Says in the change feed of which devices there is news, unless the caller does (is_told).
    """
    if not written:
        return
    followed = [
        {"b_tenant_id": each.tenant_id, "b_id": each.detection_id, "b_revision": each.revision - 1}
        for each in written
        if each.revision > 1
    ]
    await _UNFLAG.run(connection, followed)
    await _APPEND.run(connection, [_detection_row(each, now) for each in written])
    if not is_told:
        await note_changes(connection, LEVELS_KIND, sorted(devices_of(written)))


def devices_of(written: Iterable[Detection]) -> set[tuple[str, str]]:
    """Return the devices that detections are about, for the change feed. Raises nothing.

    The level of a device is kept nowhere: who holds it has to compute it again.
    """
    return {
        (each.tenant_id, each.entity_id)
        for each in written
        if each.entity_kind is EntityKind.DEVICE and each.mode is SignalMode.ENFORCE
    }


# A look-up costs a tenth of a call of the enumeration, and a batch needs hundreds.
_MODES: Final = {mode.value: mode for mode in SignalMode}
_KINDS: Final = {kind.value: kind for kind in EntityKind}
_STATES: Final = {state.value: state for state in DetectionState}


def detection(row: Sequence[Any], tenant_id: str) -> Detection:
    """Make a detection of the columns of `DETECTION_COLUMNS`."""
    (
        detection_id,
        revision,
        name,
        source_class,
        mode,
        entity_kind,
        entity_id,
        related,
        level,
        confidence,
        issuer,
        detected_at,
        reasons,
        evidence,
        clears_on,
        state,
        state_at,
        state_by,
    ) = row
    return Detection(
        tenant_id=tenant_id,
        detection_id=detection_id,
        revision=revision,
        name=name,
        source_class=source_class,
        mode=_MODES[mode],
        entity_kind=_KINDS[entity_kind],
        entity_id=entity_id,
        related=tuple(related),
        level=Level[level],
        confidence=confidence,
        issuer=issuer,
        sightings=tuple(
            Sighting(
                signal_id=seen["signal_id"],
                occurred_at=datetime.fromisoformat(seen["occurred_at"]),
            )
            for seen in evidence
        ),
        detected_at=detected_at,
        reasons=tuple(reasons),
        clears_on=tuple(clears_on),
        state=_STATES[state],
        state_at=state_at,
        state_by=state_by,
    )


def _detection_row(each: Detection, now: datetime) -> dict[str, Any]:
    return {
        "tenant_id": each.tenant_id,
        "detection_id": each.detection_id,
        "revision": each.revision,
        "is_latest": True,
        "name": each.name,
        "source_class": each.source_class,
        "mode": each.mode._value_,
        "entity_kind": each.entity_kind._value_,
        "entity_id": each.entity_id,
        "related": list(each.related),
        "level": each.level._name_,
        "confidence": each.confidence,
        "issuer": each.issuer,
        "occurred_at": each.occurred_at,
        "detected_at": each.detected_at,
        "expires_at": expires_at(each),
        "reasons": list(each.reasons),
        "evidence": [
            {"signal_id": seen.signal_id, "occurred_at": seen.occurred_at.isoformat()}
            for seen in each.sightings
        ],
        "clears_on": list(each.clears_on),
        "mitre": list(finding_type(each.name).mitre),
        "state": each.state._value_,
        "state_at": each.state_at,
        "state_by": each.state_by,
        "recorded_at": now,
    }


# --- clearances ---------------------------------------------------------------------------------


_CLEARANCES: Final = sa.select(
    clearances.c.entity_id,
    clearances.c.issuer,
    clearances.c.remedy,
    clearances.c.level,
    clearances.c.mode,
    clearances.c.occurred_at,
    clearances.c.signal_id,
).where(clearances.c.tenant_id == TENANT, clearances.c.entity_id.in_(IDS))
_WRITE_CLEARANCES: Final = upserts(
    clearances,
    ("tenant_id", "entity_id", "remedy", "level", "mode", "issuer"),
    ("occurred_at", "signal_id"),
    newer="occurred_at",
)


async def read_clearances(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str]
) -> list[Clearance]:
    """Return the newest word of each kind about the entities."""
    return [
        Clearance(
            tenant_id=tenant_id,
            entity_id=entity_id,
            issuer=issuer,
            remedy=remedy,
            level=Level[level] if level else None,
            mode=_MODES[mode],
            occurred_at=occurred_at,
            signal_id=signal_id,
        )
        for entity_id, issuer, remedy, level, mode, occurred_at, signal_id in await rows_of(
            connection, _CLEARANCES, tenant_id, entity_ids
        )
    ]


async def forget_clearances(
    connection: AsyncConnection, tenant_id: str, *, entity_ids: Collection[str], signal_id: str
) -> None:
    """Take back the words about these entities that one person's feedback brought."""
    await connection.execute(
        sa.delete(clearances).where(
            clearances.c.tenant_id == tenant_id,
            clearances.c.entity_id.in_(sorted(entity_ids)),
            clearances.c.signal_id == signal_id,
        )
    )


async def write_clearances(connection: AsyncConnection, written: Sequence[Clearance]) -> None:
    """Insert words, or move the known ones forward in time; never back."""
    if not written:
        return
    await _WRITE_CLEARANCES.run(
        connection,
        [
            {
                "tenant_id": each.tenant_id,
                "clearance_id": new_id("clr"),
                "entity_id": each.entity_id,
                "issuer": each.issuer,
                "remedy": each.remedy,
                "level": "" if each.level is None else each.level._name_,
                "mode": each.mode._value_,
                "occurred_at": each.occurred_at,
                "signal_id": each.signal_id,
            }
            for each in written
        ],
    )
