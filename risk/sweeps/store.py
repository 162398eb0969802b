"""Table and named queries: the last sweep of each kind, and how far it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.levels.store import levels
from risk.model import Level
from risk.sweeps.model import Sweep, SweepKind, SweepState
from runtime.database import UTCDateTime, id_column, metadata, tenant_column
from runtime.statements import Query, upserts

sweeps: Final = sa.Table(
    "sweeps",
    metadata,
    tenant_column(),
    sa.Column("kind", sa.String(16), primary_key=True),
    id_column("sweep_id", primary_key=False),
    sa.Column("cause", sa.String(200), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("requested_at", UTCDateTime, nullable=False),
    sa.Column("worked_at", UTCDateTime, nullable=False),
    sa.Column("after", sa.String(64), nullable=False),
    sa.Column("looked", sa.Integer, nullable=False),
    sa.Column("acted", sa.Integer, nullable=False),
    sa.Column("would_have", sa.Integer, nullable=False),
    sa.Column("done_at", UTCDateTime),
    # Worked off for all tenants at once, whoever waited longest first.
    sa.Index("ix_sweeps_state", "state", "worked_at"),
)

_COLUMNS: Final = tuple(column.name for column in sweeps.columns)
_KEY: Final = ("tenant_id", "kind")
_WRITE: Final = upserts(
    sweeps, _KEY, [column.name for column in sweeps.columns if not column.primary_key]
)
_NEXT: Final = Query(
    sa.select(sweeps)
    .where(sweeps.c.state == SweepState.RUNNING.value)
    .order_by(sweeps.c.worked_at, sweeps.c.tenant_id, sweeps.c.kind)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["at_most"],
)


async def write_sweep(connection: AsyncConnection, sweep: Sweep) -> None:
    """Store a sweep in place of the last one of its kind."""
    row = {name: getattr(sweep, name) for name in _COLUMNS}
    row |= {"kind": sweep.kind.value, "state": sweep.state.value}
    await _WRITE.run(connection, [row])


async def system_running(connection: AsyncConnection, *, limit: int) -> list[Sweep]:
    """Return running sweeps of all tenants, whoever waited longest first. System query."""
    return [_sweep(row) for row in await _NEXT.rows(connection, at_most=limit)]


async def list_sweeps(connection: AsyncConnection, tenant_id: str) -> list[Sweep]:
    """Return the last sweep of each kind."""
    rows = await connection.execute(
        sa.select(sweeps).where(sweeps.c.tenant_id == tenant_id).order_by(sweeps.c.kind)
    )
    return [_sweep(row) for row in rows]


async def lock_sweep(
    connection: AsyncConnection, tenant_id: str, kind: SweepKind, sweep_id: str
) -> Sweep | None:
    """Return a sweep, held until the transaction ends; None when a newer one took its place."""
    found = await connection.execute(
        sa.select(sweeps)
        .where(
            sweeps.c.tenant_id == tenant_id,
            sweeps.c.kind == kind.value,
            sweeps.c.sweep_id == sweep_id,
        )
        .with_for_update()
    )
    row = found.first()
    return None if row is None else _sweep(row)


async def count(
    connection: AsyncConnection,
    tenant_id: str,
    sweep_id: str,
    *,
    acted: int,
    would_have: int,
) -> None:
    """Add to what a sweep counted; one that was begun anew counts for itself."""
    await connection.execute(
        sa.update(sweeps)
        .where(sweeps.c.tenant_id == tenant_id, sweeps.c.sweep_id == sweep_id)
        .values(acted=sweeps.c.acted + acted, would_have=sweeps.c.would_have + would_have)
    )


async def raised_after(
    connection: AsyncConnection, tenant_id: str, *, after: str, limit: int
) -> list[str]:
    """Return up to `limit` users above LOW with an id above `after`, ascending."""
    found: set[str] = set()
    for level in (Level.MEDIUM, Level.HIGH):
        # One range of the index each.
        rows = await connection.execute(
            sa.select(levels.c.entity_id)
            .where(
                levels.c.tenant_id == tenant_id,
                levels.c.level == level.name,
                levels.c.entity_id > after,
            )
            .order_by(levels.c.entity_id)
            .limit(limit)
        )
        found.update(entity_id for (entity_id,) in rows)
    return sorted(found)[:limit]


def _sweep(row: Sequence[Any]) -> Sweep:
    values = dict(zip(_COLUMNS, row, strict=True))
    values |= {"kind": SweepKind(values["kind"]), "state": SweepState(values["state"])}
    return Sweep(**values)
