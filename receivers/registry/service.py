"""Administer providers: one function per decision an admin takes, and the profiles for intake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import structlog

from receivers.model import Provider, ProviderProfile, ProviderSettings, build_profile
from receivers.registry import store
from receivers.registry.settings import (
    PROVIDERS_MAX,
    check_authorization_header,
    check_settings,
    check_webhook_secrets,
)
from receivers.upstreams.store import upstreams_by_provider
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import Conflict, NotFound
from runtime.feed import ConfigCache, ConfigFeed, bump
from runtime.ids import new_secret_id
from runtime.secrets import SecretBox

#: configuration kind in the change feed
KIND = "providers"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryDeps:
    """What the registry runs on. dev_insecure: take http addresses too."""

    database: Database
    secrets: SecretBox
    clock: Clock
    dev_insecure: bool = False


async def add_provider(
    deps: RegistryDeps,
    settings: ProviderSettings,
    *,
    tenant_id: str,
    authorization_header: str | None = None,
    webhook_secrets: Sequence[str] = (),
) -> Provider:
    """Register a provider; its id is unguessable, because it is part of the intake URL (PUSH-20).

    authorization_header: the whole value the provider will send, scheme included (PUSH-5).
    webhook_secrets: one or two, when the settings have a webhook.
    Raises Invalid with pointers, Conflict when the name is taken or the tenant has too many.
    """
    check_settings(settings, dev_insecure=deps.dev_insecure)
    check_authorization_header(authorization_header)
    check_webhook_secrets(settings, webhook_secrets)
    now = deps.clock.now()
    provider = Provider(
        tenant_id=tenant_id,
        provider_id=new_secret_id("prv"),
        settings=settings,
        authorization_header_sealed=_seal(deps, authorization_header),
        webhook_secrets_sealed=_seal_list(deps, webhook_secrets),
        created_at=now,
        updated_at=now,
    )
    async with deps.database.transaction() as connection:
        if await store.count_providers(connection, tenant_id) >= PROVIDERS_MAX:
            raise Conflict(f"A tenant has at most {PROVIDERS_MAX} providers.")
        await store.add_provider(connection, provider)
        await bump(connection, tenant_id, KIND)
    log.info("provider.added", tenant_id=tenant_id, provider_id=provider.provider_id)
    return provider


async def list_providers(deps: RegistryDeps, tenant_id: str) -> list[Provider]:
    """Return the providers of a tenant by name, at most PROVIDERS_MAX."""
    async with deps.database.snapshot() as connection:
        return await store.list_providers(connection, tenant_id)


async def get_provider(deps: RegistryDeps, tenant_id: str, provider_id: str) -> Provider:
    """Return one provider. Raises NotFound."""
    async with deps.database.snapshot() as connection:
        provider = await store.get_provider(connection, tenant_id, provider_id)
    if provider is None:
        raise NotFound("No such provider.")
    return provider


async def update_provider(
    deps: RegistryDeps,
    settings: ProviderSettings,
    *,
    tenant_id: str,
    provider_id: str,
    webhook_secrets: Sequence[str] | None = None,
) -> Provider:
    """Replace all settings of a provider; its Authorization header stays.

    webhook_secrets: None keeps those there are. Without a webhook they are dropped.

    For a partial change pass `dataclasses.replace(current.settings, ...)`.
    Raises Invalid with pointers, NotFound, Conflict when the name is taken.
    """
    current = await get_provider(deps, tenant_id, provider_id)
    check_settings(settings, dev_insecure=deps.dev_insecure, before=current.settings)
    if webhook_secrets is None and settings.webhook is not None:
        webhook_secrets = open_list(deps.secrets, current.webhook_secrets_sealed)
    check_webhook_secrets(settings, webhook_secrets or ())
    changed = await _change(
        deps,
        tenant_id,
        provider_id,
        settings=settings,
        webhook_secrets_sealed=_seal_list(deps, webhook_secrets or ()),
    )
    log.info("provider.updated", tenant_id=tenant_id, provider_id=provider_id)
    return changed


async def set_authorization_header(
    deps: RegistryDeps, value: str | None, *, tenant_id: str, provider_id: str
) -> Provider:
    """Replace the Authorization value that the provider must send; None asks for none.

    Raises Invalid, NotFound.
    """
    check_authorization_header(value)
    sealed = _seal(deps, value)
    changed = await _change(deps, tenant_id, provider_id, authorization_header_sealed=sealed)
    log.info("provider.header_replaced", tenant_id=tenant_id, provider_id=provider_id)
    return changed


async def delete_provider(deps: RegistryDeps, tenant_id: str, provider_id: str) -> None:
    """Take a provider out of service for good; what it said stays. Raises NotFound."""
    async with deps.database.transaction() as connection:
        now = deps.clock.now()
        if not await store.delete_provider(connection, tenant_id, provider_id, now):
            raise NotFound("No such provider.")
        await bump(connection, tenant_id, KIND)
    log.info("provider.deleted", tenant_id=tenant_id, provider_id=provider_id)


async def load_profiles(
    database: Database, secrets: SecretBox, tenant_id: str
) -> Mapping[str, ProviderProfile]:
    """Read a tenant's providers and make them ready for intake, by provider_id.

    Raises ValueError when a stored secret was sealed with another SECRET_KEY.
    """
    async with database.snapshot() as connection:
        providers = await store.list_providers(connection, tenant_id)
        upstreams = await upstreams_by_provider(connection, tenant_id)
    return {
        provider.provider_id: build_profile(
            provider,
            authorization_header=None
            if provider.authorization_header_sealed is None
            else secrets.open(provider.authorization_header_sealed),
            upstream_id=upstreams.get(provider.provider_id),
            webhook_secrets=open_list(secrets, provider.webhook_secrets_sealed),
        )
        for provider in providers
    }


def profile_cache(
    feed: ConfigFeed, database: Database, secrets: SecretBox
) -> ConfigCache[Mapping[str, ProviderProfile]]:
    """Return the profiles of all tenants, in memory, reloaded when an admin changes something."""
    return ConfigCache(feed, KIND, partial(load_profiles, database, secrets))


async def _change(
    deps: RegistryDeps, tenant_id: str, provider_id: str, **changes: object
) -> Provider:
    async with deps.database.transaction() as connection:
        current = await store.get_provider(connection, tenant_id, provider_id)
        if current is None:
            raise NotFound("No such provider.")
        changed = replace(current, updated_at=deps.clock.now(), **changes)  # type: ignore[arg-type]
        await store.update_provider(connection, changed)
        await bump(connection, tenant_id, KIND)
    return changed


def open_list(secrets: SecretBox, sealed: str | None) -> list[str]:
    """Return the secrets of a webhook, none for None. Raises ValueError for another SECRET_KEY."""
    return [] if sealed is None else msgspec.json.decode(secrets.open(sealed), type=list[str])


def _seal_list(deps: RegistryDeps, texts: Sequence[str]) -> str | None:
    return deps.secrets.seal(msgspec.json.encode(texts).decode()) if texts else None


def _seal(deps: RegistryDeps, text: str | None) -> str | None:
    return None if text is None else deps.secrets.seal(text)
