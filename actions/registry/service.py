"""Use cases of the registry: one function per thing an admin does with apps and webhooks.

Each takes the connection of the caller's transaction, so that the caller's audit entry commits
together with the change. Every change wakes the caches of kind `apps`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from actions.model import App, Webhook
from actions.registry import store
from actions.registry.model import WantedApp, WantedWebhook, check_app, check_webhook
from actions.registry.store import Connection
from actions.webhook import render_secret
from runtime.errors import Conflict, NotFound
from runtime.feed import bump
from runtime.ids import new_id
from runtime.secrets import SecretBox

SECRET_BYTES: Final = 32
PAGE_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A webhook just made. secret: shown this once when we made it, else None."""

    webhook: Webhook
    secret: str | None = field(repr=False)


async def add_app(
    connection: Connection,
    wanted: WantedApp,
    *,
    tenant_id: str,
    box: SecretBox,
    now: datetime,
) -> App:
    """Register an app. Raises Invalid, or Conflict when the name is taken."""
    check_app(wanted)
    await _check_name(connection, tenant_id, wanted.name.strip(), app_id=None)
    app = store.new_app(wanted, tenant_id=tenant_id, app_id=new_id("app"), now=now)
    sealed = box.seal(wanted.scim_token) if wanted.scim_token else None
    await store.add_app(connection, app, scim_token_sealed=sealed)
    await bump(connection, tenant_id, "apps")
    return app


async def get_app(connection: Connection, tenant_id: str, app_id: str) -> App:
    """Return one app. Raises NotFound."""
    return (await _sealed_app(connection, tenant_id, app_id)).app


async def list_apps(
    connection: Connection, tenant_id: str, *, after: str = "", limit: int = 100
) -> list[App]:
    """Return a page of apps; `after` is the last id of the page before."""
    return await store.list_apps(connection, tenant_id, after=after, limit=min(limit, PAGE_MAX))


async def update_app(
    connection: Connection,
    app_id: str,
    wanted: WantedApp,
    *,
    tenant_id: str,
    box: SecretBox,
    now: datetime,
) -> App:
    """Replace an app's settings; a token that is not given is kept while SCIM is configured.

    Raises NotFound, Invalid, Conflict.
    """
    held = await _sealed_app(connection, tenant_id, app_id)
    check_app(wanted, has_scim_token=held.scim_token_sealed is not None)
    await _check_name(connection, tenant_id, wanted.name.strip(), app_id=app_id)
    sealed = box.seal(wanted.scim_token) if wanted.scim_token else held.scim_token_sealed
    sealed = sealed if wanted.scim else None
    app = replace(
        store.new_app(wanted, tenant_id=tenant_id, app_id=app_id, now=now),
        created_at=held.app.created_at,
        has_scim_token=sealed is not None,
    )
    await store.update_app(connection, app, scim_token_sealed=sealed)
    await bump(connection, tenant_id, "apps")
    return app


async def delete_app(connection: Connection, tenant_id: str, app_id: str) -> None:
    """Forget an app; tasks that still need it fail with that reason. Raises NotFound."""
    if not await store.delete_app(connection, tenant_id, app_id):
        raise NotFound("No such app.")
    await bump(connection, tenant_id, "apps")


async def add_webhook(
    connection: Connection,
    wanted: WantedWebhook,
    *,
    tenant_id: str,
    box: SecretBox,
    now: datetime,
) -> NewWebhook:
    """Register a webhook; makes a secret when none is given. Raises Invalid. Requirement WH-4."""
    check_webhook(wanted)
    secret = wanted.secret or render_secret(secrets.token_bytes(SECRET_BYTES))
    webhook = Webhook(
        tenant_id=tenant_id,
        webhook_id=new_id("whk"),
        url=wanted.url,
        events=wanted.events,
        status="active",
        created_at=now,
    )
    await store.add_webhook(connection, webhook, secret_sealed=box.seal(secret))
    await bump(connection, tenant_id, "apps")
    return NewWebhook(webhook=webhook, secret=None if wanted.secret else secret)


async def list_webhooks(
    connection: Connection, tenant_id: str, *, after: str = "", limit: int = 100
) -> list[Webhook]:
    """Return a page of webhooks; `after` is the last id of the page before."""
    return await store.list_webhooks(connection, tenant_id, after=after, limit=min(limit, PAGE_MAX))


async def delete_webhook(connection: Connection, tenant_id: str, webhook_id: str) -> None:
    """Forget a webhook. Raises NotFound."""
    if not await store.delete_webhook(connection, tenant_id, webhook_id):
        raise NotFound("No such webhook.")
    await bump(connection, tenant_id, "apps")


async def _sealed_app(connection: Connection, tenant_id: str, app_id: str) -> store.SealedApp:
    found = await store.sealed_apps(connection, [(tenant_id, app_id)])
    if not found:
        raise NotFound("No such app.")
    return found[tenant_id, app_id]


async def _check_name(
    connection: Connection, tenant_id: str, name: str, *, app_id: str | None
) -> None:
    taken = await store.app_named(connection, tenant_id, name)
    if taken not in {None, app_id}:
        raise Conflict("Another app has this name.")
