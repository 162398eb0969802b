"""Tables and named queries of the guards."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.guard.model import (
    HARM_WINDOW,
    QUARANTINE_WINDOW,
    REASON_CHARS_MAX,
    BreakGlass,
    Harm,
    Marked,
    Quarantine,
)
from receivers.registry.settings import ISSUER_CHARS_MAX
from risk.entities.model import REFERENCE_CHARS_MAX
from runtime.database import (
    UTCDateTime,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import upserts

TOLD_AT_ONCE_MAX: Final = 64

provider_harms: Final = sa.Table(
    "provider_harms",
    metadata,
    tenant_column(),
    sa.Column("iss", sa.String(ISSUER_CHARS_MAX), primary_key=True),
    id_column("user_id"),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Index("ix_provider_harms_at", "tenant_id", "iss", "at"),
)
provider_quarantines: Final = sa.Table(
    "provider_quarantines",
    metadata,
    tenant_column(),
    id_column("quarantine_id"),
    id_column("provider_id", primary_key=False),
    sa.Column("iss", sa.String(ISSUER_CHARS_MAX), nullable=False),
    sa.Column("marked", sa.Integer, nullable=False),
    sa.Column("users", sa.Integer, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("told_at", UTCDateTime),
)
break_glass: Final = sa.Table(
    "break_glass",
    metadata,
    tenant_column(),
    id_column("entry_id"),
    sa.Column("user", sa.String(REFERENCE_CHARS_MAX), nullable=False),
    sa.Column("reason", sa.String(REASON_CHARS_MAX), nullable=False),
    sa.Column("added_at", UTCDateTime, nullable=False),
)

_ADD_HARMS: Final = upserts(provider_harms, ("tenant_id", "iss", "user_id"), ("at",))


async def add_harms(connection: AsyncConnection, harms: Sequence[Harm]) -> None:
    """Remember who became HIGH on whose word; of one user and issuer the last time counts."""
    await _ADD_HARMS.run(connection, [asdict(harm) for harm in harms])


async def marked_by(
    connection: AsyncConnection, tenant_id: str, *, issuers: Collection[str], now: datetime
) -> dict[str, Marked]:
    """Return by issuer how many users became HIGH on its word."""
    table = provider_harms
    lately = sa.func.sum(sa.case((table.c.at > now - QUARANTINE_WINDOW, 1), else_=0))
    rows = await connection.execute(
        sa.select(table.c.iss, lately.label("lately"), sa.func.count().label("hourly"))
        .where(
            table.c.tenant_id == tenant_id,
            table.c.iss.in_(sorted(issuers)),
            table.c.at > now - HARM_WINDOW,
        )
        .group_by(table.c.iss)
    )
    return {row.iss: Marked(lately=int(row.lately), hourly=int(row.hourly)) for row in rows}


async def forget_harms(connection: AsyncConnection, tenant_id: str, *, iss: str) -> None:
    """Begin to count anew for an issuer."""
    await connection.execute(
        sa.delete(provider_harms).where(
            provider_harms.c.tenant_id == tenant_id, provider_harms.c.iss == iss
        )
    )


async def add_quarantines(connection: AsyncConnection, added: Sequence[Quarantine]) -> None:
    """Store quarantines that nobody has been told of yet."""
    if added:
        await connection.execute(sa.insert(provider_quarantines), [asdict(one) for one in added])


async def system_untold(connection: AsyncConnection) -> list[Quarantine]:
    """Return quarantines to tell of, of all tenants: there are never many."""
    table = provider_quarantines
    rows = await connection.execute(
        sa.select(table)
        .where(table.c.told_at.is_(None))
        .order_by(table.c.tenant_id, table.c.quarantine_id)
        .limit(TOLD_AT_ONCE_MAX)
    )
    return [Quarantine(**{str(n): v for n, v in row.items()}) for row in rows.mappings()]


async def mark_told(connection: AsyncConnection, quarantine: Quarantine, *, now: datetime) -> bool:
    """Note that a quarantine was told of; return whether this is new."""
    table = provider_quarantines
    result = await connection.execute(
        sa.update(table)
        .where(
            table.c.tenant_id == quarantine.tenant_id,
            table.c.quarantine_id == quarantine.quarantine_id,
            table.c.told_at.is_(None),
        )
        .values(told_at=now)
    )
    return bool(result.rowcount)


async def add_break_glass(connection: AsyncConnection, entry: BreakGlass) -> None:
    """Put a user on the list."""
    await connection.execute(sa.insert(break_glass).values(asdict(entry)))


async def delete_break_glass(connection: AsyncConnection, tenant_id: str, entry_id: str) -> bool:
    """Take an entry off the list; return whether there was one."""
    result = await connection.execute(
        sa.delete(break_glass).where(
            break_glass.c.tenant_id == tenant_id, break_glass.c.entry_id == entry_id
        )
    )
    return bool(result.rowcount)


async def list_break_glass(connection: AsyncConnection, tenant_id: str) -> list[BreakGlass]:
    """Return the list of a tenant by id; at most BREAK_GLASS_MAX."""
    rows = await connection.execute(
        sa.select(break_glass)
        .where(break_glass.c.tenant_id == tenant_id)
        .order_by(break_glass.c.entry_id)
    )
    return [BreakGlass(**{str(n): v for n, v in row.items()}) for row in rows.mappings()]
