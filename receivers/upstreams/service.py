"""Administer upstreams: settings, and orders that a delivery process carries out later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import structlog

from receivers.registry.service import KIND as PROVIDERS
from receivers.registry.store import get_provider
from receivers.upstreams import store
from receivers.upstreams.model import (
    NEEDS_STREAM,
    OPEN_STATES,
    Action,
    Auth,
    Delivery,
    Order,
    OrderState,
    Upstream,
    UpstreamSettings,
)
from receivers.upstreams.settings import check_settings
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump
from runtime.ids import new_id
from runtime.queue import bucket_of
from runtime.secrets import SecretBox

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamDeps:
    """What the administration of upstreams runs on. dev_insecure: take http addresses too."""

    database: Database
    secrets: SecretBox
    clock: Clock
    dev_insecure: bool = False


async def add_upstream(
    deps: UpstreamDeps,
    settings: UpstreamSettings,
    *,
    tenant_id: str,
    provider_id: str,
    secret: str | None = None,
) -> Upstream:
    """Bind an upstream to a provider. Nothing is called; polls begin when it has an endpoint_url.

    secret: the whole Authorization value, or the client secret. Raises Invalid with pointers,
    NotFound for the provider, Conflict when the provider has an upstream.
    """
    check_settings(
        settings, secret=secret, has_secret=secret is not None, dev_insecure=deps.dev_insecure
    )
    now = deps.clock.now()
    upstream_id = new_id("ups")
    upstream = Upstream(
        tenant_id=tenant_id,
        upstream_id=upstream_id,
        provider_id=provider_id,
        bucket=bucket_of(tenant_id, upstream_id),
        settings=settings,
        secret_sealed=None if secret is None else deps.secrets.seal(secret),
        created_at=now,
        updated_at=now,
        poll_due_at=now if settings.delivery is Delivery.POLL else None,
    )
    async with deps.database.transaction() as connection:
        if await get_provider(connection, tenant_id, provider_id) is None:
            raise Invalid("No such provider.", pointers=(("/provider_id", "no such provider"),))
        await store.add_upstream(connection, upstream)
        await bump(connection, tenant_id, PROVIDERS)
    log.info("upstream.added", tenant_id=tenant_id, upstream_id=upstream_id)
    return upstream


async def get_upstream(deps: UpstreamDeps, tenant_id: str, upstream_id: str) -> Upstream:
    """Return one upstream. Raises NotFound."""
    async with deps.database.snapshot() as connection:
        return _found(await store.get_upstream(connection, tenant_id, upstream_id))


async def change_upstream(
    deps: UpstreamDeps,
    changes: dict[str, Any],
    *,
    tenant_id: str,
    upstream_id: str,
    secret: str | None = None,
) -> Upstream:
    """Change some settings, and the secret when one is given. Polls are due at once.

    changes: by names of UpstreamSettings. Raises Invalid with pointers, NotFound.
    """
    now = deps.clock.now()
    async with deps.database.transaction() as connection:
        current = _found(await store.get_upstream(connection, tenant_id, upstream_id, lock=True))
        settings = replace(current.settings, **changes)
        sealed = current.secret_sealed if secret is None else deps.secrets.seal(secret)
        if settings.auth is Auth.NONE:
            sealed = None
        check_settings(
            settings,
            secret=secret,
            has_secret=sealed is not None,
            dev_insecure=deps.dev_insecure,
        )
        changed = replace(
            current,
            settings=settings,
            secret_sealed=sealed,
            updated_at=now,
            poll_due_at=now if settings.delivery is Delivery.POLL else None,
        )
        changed = replace(changed, verify_due_at=changed.next_verification(now))
        await store.update_settings(connection, changed)
        # Tokens and the like that processes remember are known by the time of the change.
        await bump(connection, tenant_id, PROVIDERS)
    log.info("upstream.changed", tenant_id=tenant_id, upstream_id=upstream_id)
    return changed


async def delete_upstream(deps: UpstreamDeps, tenant_id: str, upstream_id: str) -> None:
    """Forget an upstream. Its stream, if there is one, stays at the vendor: delete it first.

    Raises NotFound.
    """
    async with deps.database.transaction() as connection:
        if not await store.delete_upstream(connection, tenant_id, upstream_id):
            raise NotFound("No such upstream.")
        await bump(connection, tenant_id, PROVIDERS)
    log.info("upstream.deleted", tenant_id=tenant_id, upstream_id=upstream_id)


async def place_order(
    deps: UpstreamDeps,
    action: Action,
    *,
    tenant_id: str,
    upstream_id: str,
    arguments: dict[str, Any] | None = None,
) -> Upstream:
    """Order one exchange with the upstream; a delivery process carries it out at once.

    Raises NotFound; Conflict while another order is open, and when the action does not fit: what
    needs a stream without one, and creating one when there is one (CRC-5).
    """
    now = deps.clock.now()
    order = Order(
        order_id=new_id("ord"),
        action=action,
        arguments=arguments or {},
        state=OrderState.WAITING,
        attempts=0,
        asked_at=now,
        due_at=now,
    )
    async with deps.database.transaction() as connection:
        current = _found(await store.get_upstream(connection, tenant_id, upstream_id, lock=True))
        if current.order is not None and current.order.state in OPEN_STATES:
            raise Conflict(f"The order to {current.order.action.value} is not done yet.")
        if not current.settings.is_active:
            raise Conflict("The upstream is switched off.")
        if action in NEEDS_STREAM and current.stream_id is None:
            raise Conflict("There is no stream yet: order create-stream first.")
        if action is Action.CREATE and current.stream_id is not None:
            raise Conflict("There is a stream already: order read-stream, or delete-stream first.")
        await store.place_order(connection, tenant_id, upstream_id, order)
    log.info("upstream.ordered", tenant_id=tenant_id, upstream_id=upstream_id, action=action.value)
    return replace(current, order=order)


def _found(upstream: Upstream | None) -> Upstream:
    if upstream is None:
        raise NotFound("No such upstream.")
    return upstream
