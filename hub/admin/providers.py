"""Providers: vendors that push Security Event Tokens to the hub."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final, Literal

from pydantic import Field

import hub.guard.service as guard_service
import receivers.registry.service as providers_service
from hub.admin.bodies import URL, Body, Name
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from hub.pipeline import lock_tenants
from hub.store import list_clients
from receivers.model import (
    Provider,
    ProviderMode,
    ProviderSettings,
    ProviderStatus,
    SubjectScope,
)
from receivers.registry.service import RegistryDeps
from receivers.webhooks import profiles
from receivers.webhooks.model import WebhookSettings
from receivers.webhooks.signatures import WebhookStyle
from risk import recall
from runtime.errors import Conflict, Invalid


class ScopeBody(Body):
    """About whom a provider may speak."""

    domains: list[str] = Field(default_factory=list)
    issuers: list[str] = Field(default_factory=list)


class WebhookBody(Body):
    """How a provider's webhooks are signed, and a mapping of one's own; see `profile`."""

    style: Literal["standard", "hmac", "bearer", "basic", "header"] | None = None
    header: str | None = None
    algorithm: Literal["sha256", "sha512", "sha1"] | None = None
    encoding: Literal["hex", "base64"] | None = None
    prefix: str | None = None
    timestamp_header: str | None = None
    signed: str | None = None
    tolerance_s: int | None = None
    mapping: dict[str, Any] | None = None


class ProviderChange(Body):
    """What can be changed of a provider; members that are left out stay."""

    name: Name | None = None
    issuer: URL | None = None
    audiences: list[str] | None = None
    jwks_uri: URL | None = None
    jwks: dict[str, Any] | None = None
    event_types: list[str] | None = None
    subject_scope: ScopeBody | None = None
    critical_subject_members: list[str] | None = None
    algorithms: list[str] | None = None
    level_cap: Literal["LOW", "MEDIUM", "HIGH"] | None = None
    source_class: str | None = None
    mode: ProviderMode | None = None
    legacy_subject: bool | None = None
    allow_missing_typ: bool | None = None
    status: ProviderStatus | None = None
    high_users_per_hour_max: int | None = None
    sets_per_s_max: int | None = None
    authorization_header: str | None = None
    client_id: Name | None = None
    may_revoke: bool | None = None
    profile: Name | None = None
    webhook: WebhookBody | None = None
    webhook_secrets: list[str] | None = Field(default=None, max_length=2)


class ProviderBody(ProviderChange):
    """A provider: who sends SETs to us, with which keys, and what its word is worth."""

    name: Name
    issuer: URL
    audiences: list[str] = Field(default_factory=list)


class LiftBody(Body):
    """Whether what the provider said before the quarantine is to be forgotten."""

    discard: bool = False


_NOT_SETTINGS: Final = frozenset({"authorization_header", "profile", "webhook", "webhook_secrets"})
_AS_SET: Final = frozenset({"event_types", "critical_subject_members", "algorithms"})


async def create_provider(admin: Admin, body: ProviderBody) -> Document:
    """Register a provider; `events_url` is where it pushes to."""
    await _check_client(admin, body.client_id)
    provider = await providers_service.add_provider(
        _registry(admin),
        ProviderSettings(**_provider_members(body)),
        tenant_id=admin.tenant_id,
        authorization_header=body.authorization_header,
        webhook_secrets=body.webhook_secrets or (),
    )
    return _provider(admin, provider)


async def list_providers(admin: Admin, listing: Listing) -> list[Document]:
    """Return providers by id."""
    found = await providers_service.list_providers(_registry(admin), admin.tenant_id)
    ordered = sorted(found, key=lambda one: one.provider_id)
    page = [one for one in ordered if one.provider_id > listing.after][: listing.limit]
    return [_provider(admin, one) for one in page]


async def read_provider(admin: Admin, provider_id: str) -> Document:
    """Return one provider, without its Authorization value."""
    deps = _registry(admin)
    return _provider(
        admin, await providers_service.get_provider(deps, admin.tenant_id, provider_id)
    )


async def change_provider(admin: Admin, provider_id: str, body: ProviderChange) -> Document:
    """Change some settings of a provider."""
    deps = _registry(admin)
    current = await providers_service.get_provider(deps, admin.tenant_id, provider_id)
    if body.client_id != current.settings.client_id:
        await _check_client(admin, body.client_id)
    members = _provider_members(body, current.settings.webhook)
    if "jwks" in members and "jwks_uri" not in members:
        members["jwks_uri"] = None
    if "jwks_uri" in members and "jwks" not in members:
        members["jwks"] = None
    changed = await providers_service.update_provider(
        deps,
        replace(current.settings, **members),
        tenant_id=admin.tenant_id,
        provider_id=provider_id,
        webhook_secrets=body.webhook_secrets,
    )
    if "authorization_header" in body.model_fields_set:
        changed = await providers_service.set_authorization_header(
            deps,
            body.authorization_header,
            tenant_id=admin.tenant_id,
            provider_id=provider_id,
        )
    await _status_changed(admin, current, changed)
    return _provider(admin, changed)


async def replace_provider(admin: Admin, provider_id: str, body: ProviderBody) -> Document:
    """Replace all of a provider's settings; what is left out falls back to its default."""
    deps = _registry(admin)
    current = await providers_service.get_provider(deps, admin.tenant_id, provider_id)
    if body.client_id != current.settings.client_id:
        await _check_client(admin, body.client_id)
    await providers_service.update_provider(
        deps,
        ProviderSettings(**_provider_members(body)),
        tenant_id=admin.tenant_id,
        provider_id=provider_id,
        webhook_secrets=body.webhook_secrets or (),
    )
    replaced = await providers_service.set_authorization_header(
        deps, body.authorization_header, tenant_id=admin.tenant_id, provider_id=provider_id
    )
    await _status_changed(admin, current, replaced)
    return _provider(admin, replaced)


async def delete_provider(admin: Admin, provider_id: str) -> None:
    """Take a provider out of service; what it said stays."""
    await providers_service.delete_provider(_registry(admin), admin.tenant_id, provider_id)


async def quarantine_provider(admin: Admin, provider_id: str, _body: None) -> Document:
    """Stop believing a provider: what it said does not count, and what it led to is undone."""
    return await change_provider(
        admin, provider_id, ProviderChange(status=ProviderStatus.QUARANTINED)
    )


async def lift_quarantine(admin: Admin, provider_id: str, body: LiftBody) -> Document:
    """Believe a provider again. What it said before counts again, unless it is discarded."""
    deps = _registry(admin)
    current = await providers_service.get_provider(deps, admin.tenant_id, provider_id)
    if current.settings.status is not ProviderStatus.QUARANTINED:
        raise Conflict(f"The provider is {current.settings.status.value}, not quarantined.")
    if body.discard:
        async with admin.node.database.transaction() as connection:
            await lock_tenants(connection, {admin.tenant_id})
            await recall.dismiss_issuer(
                connection,
                admin.tenant_id,
                current.settings.issuer,
                by=admin.caller.client_id,
                now=admin.now,
            )
    return await change_provider(admin, provider_id, ProviderChange(status=ProviderStatus.ACTIVE))


async def _check_client(admin: Admin, client_id: str | None) -> None:
    """Raise Invalid for a client that does not exist: nobody could ever speak as the provider."""
    if client_id is None:
        return
    async with admin.node.database.snapshot() as connection:
        clients = await list_clients(connection, admin.tenant_id)
    if all(client.client_id != client_id for client in clients):
        raise Invalid("No such client.", pointers=(("/client_id", "no such client"),))


async def _status_changed(admin: Admin, before: Provider, after: Provider) -> None:
    """Let it have its effect when a provider is believed no longer, or again."""
    quarantined = ProviderStatus.QUARANTINED
    was, is_now = before.settings.status, after.settings.status
    if was is is_now or quarantined not in {was, is_now}:
        return
    async with admin.node.database.transaction() as connection:
        await lock_tenants(connection, {admin.tenant_id})
        await guard_service.status_changed(
            connection, admin.tenant_id, after.settings.issuer, now=admin.now
        )


def _registry(admin: Admin) -> RegistryDeps:
    return RegistryDeps(
        database=admin.node.database,
        secrets=admin.node.box,
        clock=admin.node.clock,
        dev_insecure=admin.node.config.dev_insecure,
    )


def _provider_members(
    body: ProviderChange, webhook: WebhookSettings | None = None
) -> dict[str, Any]:
    """Return the given members in the registry's own types. webhook: as it is at present."""
    members = {name: getattr(body, name) for name in body.model_fields_set - _NOT_SETTINGS}
    if {"profile", "webhook"} & body.model_fields_set:
        members["webhook"] = _webhook_settings(body, webhook)
        if body.profile is not None and webhook is None:
            members.setdefault("source_class", profiles.find(body.profile).source_class)
    for name in _AS_SET & members.keys():
        members[name] = None if members[name] is None else frozenset(members[name])
    if members.get("audiences") is not None:
        members["audiences"] = tuple(members["audiences"])
    if members.get("subject_scope") is not None:
        scope: ScopeBody = members["subject_scope"]
        members["subject_scope"] = SubjectScope(
            domains=frozenset(scope.domains), issuers=frozenset(scope.issuers)
        )
    # A null for what has no "none" means: leave it as it is.
    optional = {
        "jwks_uri",
        "jwks",
        "event_types",
        "subject_scope",
        "level_cap",
        "client_id",
        "webhook",
        "sets_per_s_max",
    }
    return {name: value for name, value in members.items() if value is not None or name in optional}


def _webhook_settings(
    body: ProviderChange, present: WebhookSettings | None
) -> WebhookSettings | None:
    """Return the webhook after a change: what is given, over the profile's own, over the present.

    Raises Invalid for an unknown profile.
    """
    is_dropped = "webhook" in body.model_fields_set and body.webhook is None
    if body.profile is None and body.webhook is None and (is_dropped or present is None):
        return None
    members: dict[str, Any] = {"style": WebhookStyle.STANDARD}
    if body.profile is not None:
        members |= {**profiles.find(body.profile).signature, "profile": body.profile}
    if present is not None and body.profile in {None, present.profile}:
        members = asdict(present)
    given = body.webhook.model_dump(exclude_none=True) if body.webhook else {}
    if "mapping" in given or (body.profile is None and "profile" in body.model_fields_set):
        members["profile"] = None
    members |= given
    return WebhookSettings(**members | {"style": WebhookStyle(members["style"])})


def _provider(admin: Admin, provider: Provider) -> Document:
    settings = provider.settings
    scope = settings.subject_scope
    return {
        "id": provider.provider_id,
        "name": settings.name,
        "issuer": settings.issuer,
        "audiences": list(settings.audiences),
        "jwks_uri": settings.jwks_uri,
        "jwks": settings.jwks,
        "event_types": sorted(settings.event_types) if settings.event_types is not None else None,
        "subject_scope": None
        if scope is None
        else {"domains": sorted(scope.domains), "issuers": sorted(scope.issuers)},
        "critical_subject_members": sorted(settings.critical_subject_members),
        "algorithms": sorted(settings.algorithms),
        "level_cap": settings.level_cap,
        "source_class": settings.source_class,
        "mode": settings.mode.value,
        "legacy_subject": settings.legacy_subject,
        "allow_missing_typ": settings.allow_missing_typ,
        "status": settings.status.value,
        "high_users_per_hour_max": settings.high_users_per_hour_max,
        "sets_per_s_max": settings.sets_per_s_max,
        "client_id": settings.client_id,
        "may_revoke": settings.may_revoke,
        "profile": settings.webhook.profile if settings.webhook else None,
        "webhook": None
        if settings.webhook is None
        else {name: value for name, value in asdict(settings.webhook).items() if name != "profile"},
        "has_webhook_secrets": provider.webhook_secrets_sealed is not None,
        "webhook_url": f"{admin.base}/v1/signals/webhook/{provider.provider_id}"
        if settings.webhook
        else None,
        "has_authorization_header": provider.authorization_header_sealed is not None,
        "events_url": f"{admin.base}/receivers/{provider.provider_id}/events",
        "created_at": provider.created_at,
        "updated_at": provider.updated_at,
    }


KINDS: Final = (
    Kind(
        name="providers",
        item="provider",
        summary="vendors that push Security Event Tokens to the hub",
        list_page=list_providers,
        read=read_provider,
        create=create_provider,
        create_body=ProviderBody,
        change=change_provider,
        change_body=ProviderChange,
        replace=replace_provider,
        delete=delete_provider,
        actions=(
            Action(
                name="quarantine",
                summary="Stop believing a provider, and undo what only its word led to.",
                perform=quarantine_provider,
            ),
            Action(
                name="lift",
                summary="Believe a quarantined provider again.",
                perform=lift_quarantine,
                body=LiftBody,
                example={"discard": True},
            ),
        ),
        example={
            "name": "Example MDM",
            "issuer": "https://mdm.vendor.example",
            "jwks_uri": "https://mdm.vendor.example/jwks.json",
            "audiences": ["https://hub.customer.example"],
            "authorization_header": "Bearer a-secret-of-both-sides",
            "level_cap": "HIGH",
            "subject_scope": {"domains": ["customer.example"], "issuers": []},
        },
    ),
)
