"""Tables and named queries of what is said about IP addresses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.ips.model import IP_CHARS_MAX, MESSAGE_CHARS_MAX, IPClaim
from runtime.database import (
    UTCDateTime,
    delete_before,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import Query

#: sources whose claims about one address are looked at
CLAIMS_PER_IP_MAX: Final = 100

ip_claims: Final = sa.Table(
    "ip_claims",
    metadata,
    tenant_column(),
    sa.Column("ip", sa.String(IP_CHARS_MAX), primary_key=True),
    id_column("source"),
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("message", sa.String(MESSAGE_CHARS_MAX), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("reported_at", UTCDateTime, nullable=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
    # Purged for all tenants at once, by time.
    sa.Index("ix_ip_claims_expires_at", "expires_at"),
)

ip_report_windows: Final = sa.Table(
    "ip_report_windows",
    metadata,
    tenant_column(),
    id_column("client_id"),
    sa.Column("started_at", UTCDateTime, nullable=False),
    sa.Column("calls", sa.Integer, nullable=False),
)

_VALUES: Final = ("level", "message", "mode", "reported_at", "expires_at")


async def write_claims(
    connection: AsyncConnection, tenant_id: str, claims: Sequence[IPClaim]
) -> None:
    """Store claims; the newest word of a source about an address stands, of equal ones the worse.

    Order of arrival never matters (contracts §6).
    """
    if not claims:
        return
    statement = dialect_insert(connection, ip_claims)
    newer = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "ip", "source"],
        set_={name: newer[name] for name in _VALUES},
        where=sa.or_(
            newer.reported_at > ip_claims.c.reported_at,
            sa.and_(newer.reported_at == ip_claims.c.reported_at, newer.level >= ip_claims.c.level),
        ),
    )
    # In one order everywhere, so that two writers cannot wait for each other.
    ordered = sorted(claims, key=lambda claim: (claim.ip, claim.source, claim.reported_at))
    rows = [
        {
            "tenant_id": tenant_id,
            "ip": claim.ip,
            "source": claim.source,
            **{name: getattr(claim, name) for name in _VALUES},
        }
        for claim in ordered
    ]
    await connection.execute(statement, rows)


async def claims_of(connection: AsyncConnection, tenant_id: str, ip: str) -> tuple[IPClaim, ...]:
    """Return what is said of an address, the worst first, expired claims included."""
    rows = await _CLAIMS_OF.rows(connection, tenant_id=tenant_id, ip=ip, at_most=CLAIMS_PER_IP_MAX)
    return tuple(IPClaim(**dict(zip(_COLUMNS, row, strict=True))) for row in rows)


_COLUMNS: Final = ("ip", "source", *_VALUES)
_CLAIMS_OF: Final = Query(
    sa.select(*(ip_claims.c[name] for name in _COLUMNS))
    .where(
        ip_claims.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        ip_claims.c.ip == sa.bindparam("ip", type_=sa.String),
    )
    .order_by(ip_claims.c.level.desc(), ip_claims.c.source)
    .limit(sa.bindparam("at_most", type_=sa.Integer)),
    scalars=["tenant_id", "ip", "at_most"],
)


async def lock_windows(
    connection: AsyncConnection, tenant_id: str, client_ids: Collection[str], *, now: datetime
) -> dict[str, tuple[datetime, int]]:
    """Return (start, calls) of the clients' windows, held until the transaction ends."""
    table = ip_report_windows
    fresh = [
        {"tenant_id": tenant_id, "client_id": client_id, "started_at": now, "calls": 0}
        for client_id in sorted(client_ids)
    ]
    await connection.execute(dialect_insert(connection, table).on_conflict_do_nothing(), fresh)
    found = await connection.execute(
        sa.select(table.c.client_id, table.c.started_at, table.c.calls)
        .where(table.c.tenant_id == tenant_id, table.c.client_id.in_(sorted(client_ids)))
        .order_by(table.c.client_id)
        .with_for_update()
    )
    return {row.client_id: (row.started_at, row.calls) for row in found}


async def write_window(
    connection: AsyncConnection, tenant_id: str, client_id: str, window: tuple[datetime, int]
) -> None:
    """Store how often a client has called since when."""
    table = ip_report_windows
    await connection.execute(
        sa.update(table)
        .where(table.c.tenant_id == tenant_id, table.c.client_id == client_id)
        .values(started_at=window[0], calls=window[1])
    )


async def system_purge_claims(connection: AsyncConnection, *, before: datetime) -> int:
    """Forget claims that expired before a moment, a bounded number; return how many."""
    return await delete_before(connection, ip_claims.c.expires_at, before)
