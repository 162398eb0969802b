"""Table and named queries of the registry of providers."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from receivers.model import (
    HIGH_USERS_PER_HOUR_MAX,
    LEVELS,
    Provider,
    ProviderSettings,
    ProviderStatus,
)
from receivers.registry.settings import (
    CLIENT_ID_CHARS_MAX,
    ISSUER_CHARS_MAX,
    NAME_CHARS_MAX,
    URL_CHARS_MAX,
)
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    id_column,
    insert_new,
    metadata,
    tenant_column,
)
from runtime.errors import Conflict
from runtime.statements import Query

NAME_TAKEN: Final = "A provider of this name exists; change that one, or choose another name."

providers: Final = sa.Table(
    "providers",
    metadata,
    tenant_column(),
    id_column("provider_id"),
    sa.Column("name", sa.String(NAME_CHARS_MAX), nullable=False),
    sa.Column("issuer", sa.String(ISSUER_CHARS_MAX), nullable=False),
    sa.Column("jwks_uri", sa.String(URL_CHARS_MAX)),
    sa.Column("jwks", JSONDocument),
    sa.Column("audiences", JSONDocument, nullable=False),
    sa.Column("event_types", JSONDocument),
    sa.Column("subject_scope", JSONDocument),
    sa.Column("critical_subject_members", JSONDocument, nullable=False),
    sa.Column("algorithms", JSONDocument, nullable=False),
    sa.Column("authorization_header_sealed", sa.Text),
    sa.Column("level_cap", sa.String(16)),
    sa.Column("source_class", sa.String(32), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("legacy_subject", sa.Boolean, nullable=False),
    sa.Column("allow_missing_typ", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    # A deleted provider stays as a row: its waiting signals and its level cap still refer to it.
    sa.Column("deleted_at", UTCDateTime),
    # The OAuth client whose risk events are this provider's word.
    sa.Column("client_id", sa.String(CLIENT_ID_CHARS_MAX)),
    sa.Column("webhook", JSONDocument),
    # A sealed JSON array: the old and the new secret while a vendor changes over.
    sa.Column("webhook_secrets_sealed", sa.Text),
    sa.Column("may_revoke", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column(
        "high_users_per_hour_max",
        sa.Integer,
        nullable=False,
        server_default=str(HIGH_USERS_PER_HOUR_MAX),
    ),
    sa.Column("sets_per_s_max", sa.Integer),
)
IS_LISTED: Final = providers.c.deleted_at.is_(None)
sa.Index(
    "uq_providers_tenant_id_name",
    providers.c.tenant_id,
    providers.c.name,
    unique=True,
    sqlite_where=IS_LISTED,
    postgresql_where=IS_LISTED,
)

#: settings and columns have the same names
_SETTINGS: Final = tuple(field.name for field in fields(ProviderSettings))


async def add_provider(connection: AsyncConnection, provider: Provider) -> None:
    """Insert a provider. Raises Conflict when its name is taken in the tenant."""
    row = {
        "tenant_id": provider.tenant_id,
        "provider_id": provider.provider_id,
        "authorization_header_sealed": provider.authorization_header_sealed,
        "webhook_secrets_sealed": provider.webhook_secrets_sealed,
        "created_at": provider.created_at,
        "updated_at": provider.updated_at,
        **_settings_row(provider.settings),
    }
    await _check_client(connection, provider)
    if not await insert_new(connection, providers, [row], "provider_id"):
        raise Conflict(NAME_TAKEN)


async def get_provider(
    connection: AsyncConnection, tenant_id: str, provider_id: str
) -> Provider | None:
    """Return one provider, None when the tenant has none of this id."""
    result = await connection.execute(
        sa.select(providers).where(
            providers.c.tenant_id == tenant_id, providers.c.provider_id == provider_id, IS_LISTED
        )
    )
    row = result.mappings().one_or_none()
    return None if row is None else _provider(row)


async def list_providers(connection: AsyncConnection, tenant_id: str) -> list[Provider]:
    """Return all providers of a tenant by name; their number is bounded at registration."""
    result = await connection.execute(
        sa.select(providers)
        .where(providers.c.tenant_id == tenant_id, IS_LISTED)
        .order_by(providers.c.name)
    )
    return [_provider(row) for row in result.mappings()]


async def count_providers(connection: AsyncConnection, tenant_id: str) -> int:
    """Return how many providers a tenant has."""
    result = await connection.execute(
        sa.select(sa.func.count())
        .select_from(providers)
        .where(providers.c.tenant_id == tenant_id, IS_LISTED)
    )
    return result.scalar_one()


async def update_provider(connection: AsyncConnection, provider: Provider) -> bool:
    """Replace settings and secret; return False when the provider is gone. Raises Conflict."""
    if await _is_name_taken(connection, provider):
        raise Conflict(NAME_TAKEN)
    await _check_client(connection, provider)
    result = await connection.execute(
        _one(provider.tenant_id, provider.provider_id).values(
            authorization_header_sealed=provider.authorization_header_sealed,
            webhook_secrets_sealed=provider.webhook_secrets_sealed,
            updated_at=provider.updated_at,
            **_settings_row(provider.settings),
        )
    )
    return result.rowcount == 1


async def delete_provider(
    connection: AsyncConnection, tenant_id: str, provider_id: str, now: datetime
) -> bool:
    """Take a provider out of service for good and drop its secret; return False when it is gone."""
    result = await connection.execute(
        _one(tenant_id, provider_id).values(
            deleted_at=now,
            updated_at=now,
            authorization_header_sealed=None,
            webhook_secrets_sealed=None,
        )
    )
    return result.rowcount == 1


async def quarantine_issuer(
    connection: AsyncConnection, tenant_id: str, issuer: str, *, now: datetime
) -> list[str]:
    """Quarantine the active providers of an issuer; return their ids."""
    result = await connection.execute(
        providers.update()
        .where(
            providers.c.tenant_id == tenant_id,
            providers.c.issuer == issuer,
            providers.c.status == ProviderStatus.ACTIVE.value,
            IS_LISTED,
        )
        .values(status=ProviderStatus.QUARANTINED.value, updated_at=now)
        .returning(providers.c.provider_id)
    )
    return sorted(result.scalars())


async def harm_limits(connection: AsyncConnection, tenant_id: str) -> dict[str, int]:
    """Return by issuer how many users may become HIGH on its word within an hour."""
    rows = await connection.execute(
        sa.select(providers.c.issuer, sa.func.min(providers.c.high_users_per_hour_max))
        .where(providers.c.tenant_id == tenant_id, IS_LISTED)
        .group_by(providers.c.issuer)
    )
    return {issuer: int(limit) for issuer, limit in rows}


def _one(tenant_id: str, provider_id: str) -> sa.Update:
    return providers.update().where(
        providers.c.tenant_id == tenant_id, providers.c.provider_id == provider_id, IS_LISTED
    )


async def _is_name_taken(connection: AsyncConnection, provider: Provider) -> bool:
    result = await connection.execute(
        sa.select(providers.c.provider_id).where(
            providers.c.tenant_id == provider.tenant_id,
            providers.c.name == provider.settings.name,
            providers.c.provider_id != provider.provider_id,
            IS_LISTED,
        )
    )
    return result.first() is not None


async def _check_client(connection: AsyncConnection, provider: Provider) -> None:
    """Raise Conflict when another provider speaks by the same client already."""
    if provider.settings.client_id is None:
        return
    result = await connection.execute(
        sa.select(providers.c.provider_id).where(
            providers.c.tenant_id == provider.tenant_id,
            providers.c.client_id == provider.settings.client_id,
            providers.c.provider_id != provider.provider_id,
            IS_LISTED,
        )
    )
    if result.first() is not None:
        raise Conflict("Another provider is bound to this client.")


def _settings_row(settings: ProviderSettings) -> dict[str, Any]:
    """Return the columns; sets become sorted arrays."""
    columns: dict[str, Any] = msgspec.to_builtins(settings, order="deterministic")
    return columns


def _provider(row: sa.RowMapping) -> Provider:
    return Provider(
        tenant_id=row["tenant_id"],
        provider_id=row["provider_id"],
        authorization_header_sealed=row["authorization_header_sealed"],
        webhook_secrets_sealed=row["webhook_secrets_sealed"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        settings=msgspec.convert({name: row[name] for name in _SETTINGS}, ProviderSettings),
    )


async def level_caps(connection: AsyncConnection, tenant_id: str) -> dict[str, str | None]:
    """Return the highest level each capped issuer can lead to; None when its word does not count.

    A quarantined provider's does not count, what it said before included. Of several providers
    with one issuer the lowest cap counts. A deleted provider's cap goes on to hold for what it
    said, unless the issuer is registered anew.
    """
    rows = await _CAPS.rows(connection, tenant_id=tenant_id)
    registered = {issuer for issuer, _, is_listed, _ in rows if is_listed}
    caps: dict[str, str | None] = {}
    for issuer, cap, is_listed, status in rows:
        if status == ProviderStatus.QUARANTINED and is_listed:
            caps[issuer] = None
        elif cap is not None and (is_listed or issuer not in registered):
            before = caps.get(issuer, cap)
            caps[issuer] = None if before is None else min(before, cap, key=LEVELS.index)
    return caps


_CAPS: Final = Query(
    sa.select(providers.c.issuer, providers.c.level_cap, IS_LISTED, providers.c.status).where(
        providers.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String)
    ),
    scalars=["tenant_id"],
)
