"""Providers: vendors that push Security Event Tokens to the hub."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

from pydantic import Field

import receivers.registry.service as providers_service
from hub.admin.bodies import URL, Body, Name
from hub.admin.kinds import Admin, Document, Kind, Listing
from receivers.model import (
    Provider,
    ProviderMode,
    ProviderSettings,
    ProviderStatus,
    SubjectScope,
)
from receivers.registry.service import RegistryDeps


class ScopeBody(Body):
    """About whom a provider may speak."""

    domains: list[str] = Field(default_factory=list)
    issuers: list[str] = Field(default_factory=list)


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
    authorization_header: str | None = None
    client_id: Name | None = None


class ProviderBody(ProviderChange):
    """A provider: who sends SETs to us, with which keys, and what its word is worth."""

    name: Name
    issuer: URL
    audiences: list[str] = Field(default_factory=list)


_AS_SET: Final = frozenset({"event_types", "critical_subject_members", "algorithms"})


async def create_provider(admin: Admin, body: ProviderBody) -> Document:
    """Register a provider; `events_url` is where it pushes to."""
    provider = await providers_service.add_provider(
        _registry(admin),
        ProviderSettings(**_provider_members(body)),
        tenant_id=admin.tenant_id,
        authorization_header=body.authorization_header,
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
    members = _provider_members(body)
    if "jwks" in members and "jwks_uri" not in members:
        members["jwks_uri"] = None
    if "jwks_uri" in members and "jwks" not in members:
        members["jwks"] = None
    changed = await providers_service.update_provider(
        deps,
        replace(current.settings, **members),
        tenant_id=admin.tenant_id,
        provider_id=provider_id,
    )
    if "authorization_header" in body.model_fields_set:
        changed = await providers_service.set_authorization_header(
            deps,
            body.authorization_header,
            tenant_id=admin.tenant_id,
            provider_id=provider_id,
        )
    return _provider(admin, changed)


async def replace_provider(admin: Admin, provider_id: str, body: ProviderBody) -> Document:
    """Replace all of a provider's settings; what is left out falls back to its default."""
    deps = _registry(admin)
    await providers_service.update_provider(
        deps,
        ProviderSettings(**_provider_members(body)),
        tenant_id=admin.tenant_id,
        provider_id=provider_id,
    )
    replaced = await providers_service.set_authorization_header(
        deps, body.authorization_header, tenant_id=admin.tenant_id, provider_id=provider_id
    )
    return _provider(admin, replaced)


async def delete_provider(admin: Admin, provider_id: str) -> None:
    """Take a provider out of service; what it said stays."""
    await providers_service.delete_provider(_registry(admin), admin.tenant_id, provider_id)


def _registry(admin: Admin) -> RegistryDeps:
    return RegistryDeps(
        database=admin.node.database,
        secrets=admin.node.box,
        clock=admin.node.clock,
        dev_insecure=admin.node.config.dev_insecure,
    )


def _provider_members(body: ProviderChange) -> dict[str, Any]:
    """Return the given members in the registry's own types."""
    members = {
        name: getattr(body, name)
        for name in body.model_fields_set
        if name != "authorization_header"
    }
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
    optional = {"jwks_uri", "jwks", "event_types", "subject_scope", "level_cap", "client_id"}
    return {name: value for name, value in members.items() if value is not None or name in optional}


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
        "client_id": settings.client_id,
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
