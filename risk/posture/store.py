"""Table and named queries: the reported posture of devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.posture.model import Reported
from risk.sql.store import IDS, TENANT, rows_of
from runtime.database import UTCDateTime, id_column, metadata, tenant_column
from runtime.statements import upserts

device_postures: Final = sa.Table(
    "device_postures",
    metadata,
    tenant_column(),
    id_column("device_id"),
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("value", sa.String(200), nullable=False),
    sa.Column("old", sa.String(200), nullable=False),
    sa.Column("first", sa.String(200), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
)

_COLUMNS: Final = tuple(column.name for column in device_postures.columns)
_OF_DEVICES: Final = (
    sa.select(device_postures)
    .where(device_postures.c.tenant_id == TENANT, device_postures.c.device_id.in_(IDS))
    .order_by(device_postures.c.device_id, device_postures.c.name)
)
_WRITE: Final = upserts(
    device_postures, ("tenant_id", "device_id", "name"), ("value", "old", "first", "at")
)


async def postures_of(
    connection: AsyncConnection, tenant_id: str, *, device_ids: Collection[str]
) -> dict[str, list[Reported]]:
    """Return what was reported of devices, by device id, in order of names."""
    found: dict[str, list[Reported]] = {}
    for row in await rows_of(connection, _OF_DEVICES, tenant_id, device_ids):
        each = Reported(**dict(zip(_COLUMNS, row, strict=True)))
        found.setdefault(each.device_id, []).append(each)
    return found


async def write_postures(connection: AsyncConnection, written: Sequence[Reported]) -> None:
    """Store values in place of those of the same device and name."""
    await _WRITE.run(
        connection, [{name: getattr(each, name) for name in _COLUMNS} for each in written]
    )
