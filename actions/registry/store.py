"""Tables and named queries of apps and webhooks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from actions.fronting import ForwardAuthSetting
from actions.model import App, AppKind, LogoutSetting, SCIMSetting, Webhook
from actions.registry.model import WantedApp
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    chunks,
    id_column,
    metadata,
    tenant_column,
)
from runtime.statements import LIST_MAX, Query

#: what services pass through without knowing it
Connection: TypeAlias = AsyncConnection

apps: Final = sa.Table(
    "apps",
    metadata,
    tenant_column(),
    id_column("app_id"),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("sensitivity", sa.SmallInteger, nullable=False),
    sa.Column("subject_formats", JSONDocument, nullable=False),
    sa.Column("subject_issuer", sa.String(2000)),
    sa.Column("logout", JSONDocument, nullable=False),
    sa.Column("client_id_at_app", sa.String(512)),
    sa.Column("issuer", sa.String(2000)),
    sa.Column("scim", JSONDocument),
    sa.Column("scim_token_sealed", sa.Text),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.Column("stream_profile", sa.String(16), nullable=False, server_default="final"),
    sa.Column("forward_auth", JSONDocument),
    sa.UniqueConstraint("tenant_id", "name"),
)

webhooks: Final = sa.Table(
    "webhooks",
    metadata,
    tenant_column(),
    id_column("webhook_id"),
    sa.Column("url", sa.String(2000), nullable=False),
    sa.Column("secret_sealed", sa.Text, nullable=False),
    sa.Column("events", JSONDocument),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedApp:
    """An app with its sealed SCIM token, for the call that needs it."""

    app: App
    scim_token_sealed: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedWebhook:
    """A webhook with its sealed secret, for the call that needs it."""

    webhook: Webhook
    secret_sealed: str


async def add_app(connection: AsyncConnection, app: App, *, scim_token_sealed: str | None) -> None:
    """Store a new app."""
    row = _app_row(app) | {
        "tenant_id": app.tenant_id,
        "app_id": app.app_id,
        "scim_token_sealed": scim_token_sealed,
        "created_at": app.created_at,
    }
    await connection.execute(sa.insert(apps).values(row))


async def update_app(
    connection: AsyncConnection, app: App, *, scim_token_sealed: str | None
) -> None:
    """Replace the settings of an app and its sealed token."""
    await connection.execute(
        sa.update(apps)
        .where(apps.c.tenant_id == app.tenant_id, apps.c.app_id == app.app_id)
        .values(_app_row(app) | {"scim_token_sealed": scim_token_sealed})
    )


async def delete_app(connection: AsyncConnection, tenant_id: str, app_id: str) -> bool:
    """Delete an app; return whether it existed."""
    result = await connection.execute(
        sa.delete(apps).where(apps.c.tenant_id == tenant_id, apps.c.app_id == app_id)
    )
    return result.rowcount > 0


async def app_named(connection: AsyncConnection, tenant_id: str, name: str) -> str | None:
    """Return the id of the app with this name, or None."""
    found: str | None = await connection.scalar(
        sa.select(apps.c.app_id).where(apps.c.tenant_id == tenant_id, apps.c.name == name)
    )
    return found


async def list_apps(
    connection: AsyncConnection, tenant_id: str, *, after: str = "", limit: int = 100
) -> list[App]:
    """Return a page of apps in the order of their ids."""
    query = (
        sa.select(apps)
        .where(apps.c.tenant_id == tenant_id, apps.c.app_id > after)
        .order_by(apps.c.app_id)
        .limit(limit)
    )
    return [_app(row) for row in await connection.execute(query)]


async def system_apps_of(connection: AsyncConnection, tenant_ids: Collection[str]) -> list[App]:
    """Return the active apps of some tenants, for planning one batch. System query."""
    query = (
        sa.select(apps)
        .where(apps.c.tenant_id.in_(list(tenant_ids)), apps.c.status == "active")
        .order_by(apps.c.tenant_id, apps.c.app_id)
    )
    return [_app(row) for row in await connection.execute(query)]


_REGISTERED: Final = Query(
    sa.select(apps.c.app_id).where(
        apps.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        apps.c.app_id.in_(sa.bindparam("ids", expanding=True, type_=sa.String)),
    ),
    scalars=["tenant_id"],
    lists=["ids"],
)
_ISSUERS: Final = Query(
    sa.select(apps.c.app_id, apps.c.issuer).where(
        apps.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        apps.c.status == "active",
        apps.c.issuer.is_not(None),
    ),
    scalars=["tenant_id"],
)


async def registered(
    connection: AsyncConnection, tenant_id: str, *, app_ids: Collection[str]
) -> set[str]:
    """Return those of the ids that are apps of the tenant."""
    found: set[str] = set()
    for some in chunks(app_ids, LIST_MAX):
        rows = await _REGISTERED.rows(connection, tenant_id=tenant_id, ids=some)
        found |= {app_id for (app_id,) in rows}
    return found


async def app_issuers(connection: AsyncConnection, tenant_id: str) -> dict[str, str]:
    """Return app to issuer, of the tenant's active apps that have one."""
    rows = await _ISSUERS.rows(connection, tenant_id=tenant_id)
    return {app_id: issuer for app_id, issuer in rows if issuer}


async def sealed_apps(
    connection: AsyncConnection, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], SealedApp]:
    """Return apps with their sealed tokens by (tenant_id, app_id)."""
    if not keys:
        return {}
    query = sa.select(apps).where(sa.tuple_(apps.c.tenant_id, apps.c.app_id).in_(list(keys)))
    return {
        (row.tenant_id, row.app_id): SealedApp(
            app=_app(row), scim_token_sealed=row.scim_token_sealed
        )
        for row in await connection.execute(query)
    }


async def add_webhook(connection: AsyncConnection, webhook: Webhook, *, secret_sealed: str) -> None:
    """Store a new webhook."""
    await connection.execute(
        sa.insert(webhooks).values(
            tenant_id=webhook.tenant_id,
            webhook_id=webhook.webhook_id,
            url=webhook.url,
            secret_sealed=secret_sealed,
            events=list(webhook.events) if webhook.events is not None else None,
            status=webhook.status,
            created_at=webhook.created_at,
        )
    )


async def list_webhooks(
    connection: AsyncConnection, tenant_id: str, *, after: str = "", limit: int = 100
) -> list[Webhook]:
    """Return a page of webhooks in the order of their ids."""
    query = (
        sa.select(webhooks)
        .where(webhooks.c.tenant_id == tenant_id, webhooks.c.webhook_id > after)
        .order_by(webhooks.c.webhook_id)
        .limit(limit)
    )
    return [_webhook(row) for row in await connection.execute(query)]


async def system_webhooks_of(
    connection: AsyncConnection, tenant_ids: Collection[str]
) -> list[Webhook]:
    """Return the active webhooks of some tenants, for planning one batch. System query."""
    query = (
        sa.select(webhooks)
        .where(webhooks.c.tenant_id.in_(list(tenant_ids)), webhooks.c.status == "active")
        .order_by(webhooks.c.tenant_id, webhooks.c.webhook_id)
    )
    return [_webhook(row) for row in await connection.execute(query)]


async def sealed_webhooks(
    connection: AsyncConnection, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], SealedWebhook]:
    """Return webhooks with their sealed secrets by (tenant_id, webhook_id)."""
    if not keys:
        return {}
    query = sa.select(webhooks).where(
        sa.tuple_(webhooks.c.tenant_id, webhooks.c.webhook_id).in_(list(keys))
    )
    return {
        (row.tenant_id, row.webhook_id): SealedWebhook(
            webhook=_webhook(row), secret_sealed=row.secret_sealed
        )
        for row in await connection.execute(query)
    }


async def delete_webhook(connection: AsyncConnection, tenant_id: str, webhook_id: str) -> bool:
    """Delete a webhook; return whether it existed."""
    result = await connection.execute(
        sa.delete(webhooks).where(
            webhooks.c.tenant_id == tenant_id, webhooks.c.webhook_id == webhook_id
        )
    )
    return result.rowcount > 0


async def switch_webhooks_off(
    connection: AsyncConnection, keys: Collection[tuple[str, str]]
) -> None:
    """Make webhooks inactive: (tenant_id, webhook_id). Requirement WH-7 (410)."""
    if keys:
        await connection.execute(
            sa.update(webhooks)
            .where(sa.tuple_(webhooks.c.tenant_id, webhooks.c.webhook_id).in_(list(keys)))
            .values(status="inactive")
        )


def new_app(wanted: WantedApp, *, tenant_id: str, app_id: str, now: datetime) -> App:
    """Return the app that a wanted one becomes."""
    return App(
        tenant_id=tenant_id,
        app_id=app_id,
        name=wanted.name.strip(),
        kind=wanted.kind,
        sensitivity=wanted.sensitivity,
        subject_formats=wanted.subject_formats,
        subject_issuer=wanted.subject_issuer,
        logout=wanted.logout,
        client_id_at_app=wanted.client_id_at_app,
        issuer=wanted.issuer,
        scim=wanted.scim,
        has_scim_token=wanted.scim_token is not None,
        status=wanted.status,
        stream_profile=wanted.stream_profile,
        forward_auth=wanted.forward_auth,
        created_at=now,
        updated_at=now,
    )


def _app_row(app: App) -> dict[str, Any]:
    return {
        "name": app.name,
        "kind": app.kind.value,
        "sensitivity": app.sensitivity,
        "subject_formats": list(app.subject_formats),
        "subject_issuer": app.subject_issuer,
        "logout": msgspec.to_builtins(list(app.logout)),
        "client_id_at_app": app.client_id_at_app,
        "issuer": app.issuer,
        "scim": msgspec.to_builtins(app.scim) if app.scim else None,
        "status": app.status,
        "stream_profile": app.stream_profile,
        "forward_auth": msgspec.to_builtins(app.forward_auth) if app.forward_auth else None,
        "updated_at": app.updated_at,
    }


def _app(row: sa.Row[Any]) -> App:
    return App(
        tenant_id=row.tenant_id,
        app_id=row.app_id,
        name=row.name,
        kind=AppKind(row.kind),
        sensitivity=row.sensitivity,
        subject_formats=tuple(row.subject_formats),
        subject_issuer=row.subject_issuer,
        logout=msgspec.convert(row.logout, tuple[LogoutSetting, ...]),
        client_id_at_app=row.client_id_at_app,
        issuer=row.issuer,
        scim=msgspec.convert(row.scim, SCIMSetting) if row.scim is not None else None,
        has_scim_token=row.scim_token_sealed is not None,
        status=row.status,
        stream_profile=row.stream_profile,
        forward_auth=(
            msgspec.convert(row.forward_auth, ForwardAuthSetting)
            if row.forward_auth is not None
            else None
        ),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _webhook(row: sa.Row[Any]) -> Webhook:
    return Webhook(
        tenant_id=row.tenant_id,
        webhook_id=row.webhook_id,
        url=row.url,
        events=tuple(row.events) if row.events is not None else None,
        status=row.status,
        created_at=row.created_at,
    )
