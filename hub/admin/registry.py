"""What an admin configures: clients, providers, apps, webhooks, the entity risk policy."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Final, Literal

import sqlalchemy.exc
from pydantic import Field

import actions.registry.service as apps_service
import receivers.registry.service as providers_service
import risk.policies.service as policies_service
from actions.model import (
    App,
    AppKind,
    LogoutMethod,
    LogoutSetting,
    SCIMDialect,
    SCIMSetting,
    Webhook,
)
from actions.registry.model import WantedApp, WantedWebhook, wanted_of
from hub import store
from hub.admin.kinds import Action, Admin, Body, Document, Kind, Listing
from hub.auth import SCOPES, token_hash
from hub.bootstrap import TOKEN_PREFIX
from hub.store import Client
from receivers.model import (
    Provider,
    ProviderMode,
    ProviderSettings,
    ProviderStatus,
    SubjectScope,
)
from receivers.registry.service import RegistryDeps
from risk.policy import PolicyMode, render_policy
from runtime import ids
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump

Name = Annotated[str, Field(min_length=1, max_length=200)]
URL = Annotated[str, Field(min_length=1, max_length=2000)]
POLICY_ID: Final = "entity-risk"

# Clients.


class ClientBody(Body):
    """A party that calls the API with a bearer token."""

    name: Name
    scopes: list[str] = Field(min_length=1, max_length=20)
    app_id: str | None = None


async def create_client(admin: Admin, body: ClientBody) -> Document:
    """Make a client; its token is in this answer and nowhere else."""
    unknown = sorted(set(body.scopes) - SCOPES)
    if unknown:
        known = ", ".join(sorted(SCOPES))
        raise Invalid("Unknown scope.", pointers=(("/scopes", f"some of {known}"),))
    token = ids.new_token(TOKEN_PREFIX)
    client = Client(
        tenant_id=admin.tenant_id,
        client_id=ids.new_id("cli"),
        name=body.name,
        token_hash=token_hash(token),
        scopes=tuple(sorted(set(body.scopes))),
        app_id=body.app_id,
        created_at=admin.now,
    )
    try:
        async with admin.node.database.transaction() as connection:
            if body.app_id is not None:
                await apps_service.get_app(connection, admin.tenant_id, body.app_id)
            await store.add_client(connection, client)
            await bump(connection, admin.tenant_id, "clients")
    except NotFound as error:
        raise Invalid("No such app.", pointers=(("/app_id", "unknown"),)) from error
    except sqlalchemy.exc.IntegrityError as error:
        raise Conflict("Another client has this name.") from error
    return {**_client(client), "token": token}


async def list_clients(admin: Admin, listing: Listing) -> list[Document]:
    """Return clients by id."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_clients(connection, admin.tenant_id)
    return [_client(one) for one in found if one.client_id > listing.after][: listing.limit]


async def read_client(admin: Admin, client_id: str) -> Document:
    """Return one client, without its token."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_clients(connection, admin.tenant_id)
    for client in found:
        if client.client_id == client_id:
            return _client(client)
    raise NotFound("No such client.")


async def delete_client(admin: Admin, client_id: str) -> None:
    """Delete a client; its token stops working at once."""
    if client_id == admin.caller.client_id:
        raise Conflict("A client cannot delete itself: use another admin's token.")
    async with admin.node.database.transaction() as connection:
        if not await store.delete_client(connection, admin.tenant_id, client_id):
            raise NotFound("No such client.")
        await bump(connection, admin.tenant_id, "clients")


def _client(client: Client) -> Document:
    return {
        "id": client.client_id,
        "name": client.name,
        "scopes": list(client.scopes),
        "app_id": client.app_id,
        "created_at": client.created_at,
    }


# Providers.


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


class ProviderBody(ProviderChange):
    """A provider: who sends SETs to us, with which keys, and what its word is worth."""

    name: Name
    issuer: URL
    audiences: list[str]


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
    optional = {"jwks_uri", "jwks", "event_types", "subject_scope", "level_cap"}
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
        "has_authorization_header": provider.authorization_header_sealed is not None,
        "events_url": f"{admin.base}/receivers/{provider.provider_id}/events",
        "created_at": provider.created_at,
        "updated_at": provider.updated_at,
    }


# Apps.


class LogoutBody(Body):
    """One way to log users out. endpoint_url is absent for `ssf`, which uses the app's stream."""

    method: LogoutMethod
    endpoint_url: URL | None = None


class SCIMBody(Body):
    """How to reach the IdP's group of quarantined users."""

    base_url: URL
    quarantine_group_id: str
    token: str | None = None
    dialect: SCIMDialect = SCIMDialect.FILTER
    user_attribute: str = "userName"


class AppChange(Body):
    """What can be changed of an app; members that are left out stay."""

    name: Name | None = None
    kind: AppKind | None = None
    sensitivity: int | None = None
    subject_formats: list[str] | None = None
    subject_issuer: str | None = None
    logout: list[LogoutBody] | None = None
    client_id_at_app: str | None = None
    issuer: str | None = None
    scim: SCIMBody | None = None
    status: Literal["active", "inactive"] | None = None


class AppBody(AppChange):
    """A party we log users out of; an identity provider is an app of kind `idp`."""

    name: Name


async def create_app(admin: Admin, body: AppBody) -> Document:
    """Register an app or identity provider."""
    wanted = WantedApp(**_app_members(body))
    async with admin.node.database.transaction() as connection:
        app = await apps_service.add_app(
            connection, wanted, tenant_id=admin.tenant_id, box=admin.node.box, now=admin.now
        )
    return _app(app)


async def list_apps(admin: Admin, listing: Listing) -> list[Document]:
    """Return apps by id."""
    async with admin.node.database.snapshot() as connection:
        found = await apps_service.list_apps(
            connection, admin.tenant_id, after=listing.after, limit=listing.limit
        )
    return [_app(app) for app in found]


async def read_app(admin: Admin, app_id: str) -> Document:
    """Return one app, without its token."""
    async with admin.node.database.snapshot() as connection:
        return _app(await apps_service.get_app(connection, admin.tenant_id, app_id))


async def change_app(admin: Admin, app_id: str, body: AppChange) -> Document:
    """Change some settings of an app."""
    async with admin.node.database.transaction() as connection:
        current = wanted_of(await apps_service.get_app(connection, admin.tenant_id, app_id))
        app = await apps_service.update_app(
            connection,
            app_id,
            replace(current, **_app_members(body)),
            tenant_id=admin.tenant_id,
            box=admin.node.box,
            now=admin.now,
        )
    return _app(app)


async def delete_app(admin: Admin, app_id: str) -> None:
    """Forget an app."""
    async with admin.node.database.transaction() as connection:
        await apps_service.delete_app(connection, admin.tenant_id, app_id)


def _app_members(body: AppChange) -> dict[str, Any]:
    members = {name: getattr(body, name) for name in body.model_fields_set}
    if members.get("logout") is not None:
        members["logout"] = tuple(
            LogoutSetting(method=one.method, endpoint_url=one.endpoint_url)
            for one in members["logout"]
        )
    if members.get("subject_formats") is not None:
        members["subject_formats"] = tuple(members["subject_formats"])
    if members.get("scim") is not None:
        scim: SCIMBody = members["scim"]
        members["scim"] = SCIMSetting(
            base_url=scim.base_url,
            quarantine_group_id=scim.quarantine_group_id,
            dialect=scim.dialect,
            user_attribute=scim.user_attribute,
        )
        members["scim_token"] = scim.token
    optional = {"subject_issuer", "client_id_at_app", "issuer", "scim"}
    return {name: value for name, value in members.items() if value is not None or name in optional}


def _app(app: App) -> Document:
    return {
        "id": app.app_id,
        "name": app.name,
        "kind": app.kind.value,
        "sensitivity": app.sensitivity,
        "subject_formats": list(app.subject_formats),
        "subject_issuer": app.subject_issuer,
        "logout": [
            {"method": one.method.value, "endpoint_url": one.endpoint_url} for one in app.logout
        ],
        "client_id_at_app": app.client_id_at_app,
        "issuer": app.issuer,
        "scim": None if app.scim is None else {**asdict(app.scim), "has_token": app.has_scim_token},
        "status": app.status,
        "created_at": app.created_at,
        "updated_at": app.updated_at,
    }


# Webhooks.


class WebhookBody(Body):
    """An endpoint that is told about containments. events: all when left out."""

    url: URL
    events: list[str] | None = None
    secret: str | None = None


async def create_webhook(admin: Admin, body: WebhookBody) -> Document:
    """Register a webhook; a secret we made is in this answer and nowhere else."""
    wanted = WantedWebhook(
        url=body.url,
        events=None if body.events is None else tuple(body.events),
        secret=body.secret,
    )
    async with admin.node.database.transaction() as connection:
        made = await apps_service.add_webhook(
            connection, wanted, tenant_id=admin.tenant_id, box=admin.node.box, now=admin.now
        )
    return {**_webhook(made.webhook), **({"secret": made.secret} if made.secret else {})}


async def list_webhooks(admin: Admin, listing: Listing) -> list[Document]:
    """Return webhooks by id."""
    async with admin.node.database.snapshot() as connection:
        found = await apps_service.list_webhooks(
            connection, admin.tenant_id, after=listing.after, limit=listing.limit
        )
    return [_webhook(one) for one in found]


async def delete_webhook(admin: Admin, webhook_id: str) -> None:
    """Forget a webhook."""
    async with admin.node.database.transaction() as connection:
        await apps_service.delete_webhook(connection, admin.tenant_id, webhook_id)


def _webhook(webhook: Webhook) -> Document:
    return {
        "id": webhook.webhook_id,
        "url": webhook.url,
        "events": None if webhook.events is None else list(webhook.events),
        "status": webhook.status,
        "created_at": webhook.created_at,
    }


# The entity risk policy: one per tenant, with ordered rules.


class PolicyChange(Body):
    """The whole policy anew: its mode and all its rules, the catch-all is ours."""

    mode: str
    rules: list[dict[str, Any]] = Field(max_length=100)


class PresetBody(Body):
    """Which preset, and whether it acts or only says what it would have done."""

    name: str = "standard"
    mode: PolicyMode = PolicyMode.MONITOR


async def list_policies(admin: Admin, listing: Listing) -> list[Document]:
    """Return the policies: there is one."""
    return [] if listing.after >= POLICY_ID else [await read_policy(admin, POLICY_ID)]


async def read_policy(admin: Admin, policy_id: str) -> Document:
    """Return the entity risk policy."""
    if policy_id != POLICY_ID:
        raise NotFound("No such policy.")
    async with admin.node.database.snapshot() as connection:
        stored = await policies_service.get_policy(connection, admin.tenant_id)
    return _policy(stored)


async def change_policy(admin: Admin, policy_id: str, body: PolicyChange) -> Document:
    """Replace the rules; they apply from the next assessment on."""
    if policy_id != POLICY_ID:
        raise NotFound("No such policy.")
    async with admin.node.database.transaction() as connection:
        stored = await policies_service.set_policy(
            connection, admin.tenant_id, body.model_dump(), now=admin.now
        )
    return _policy(stored)


async def apply_preset(admin: Admin, _id: str, body: PresetBody) -> Document:
    """Replace the rules by a preset."""
    async with admin.node.database.transaction() as connection:
        stored = await policies_service.apply_preset(
            connection, admin.tenant_id, body.name, mode=body.mode, now=admin.now
        )
    return _policy(stored)


def _policy(stored: Any) -> Document:
    return {
        "id": POLICY_ID,
        **render_policy(stored.policy),
        "version": stored.version,
        "skipped": list(stored.skipped),
    }


KINDS: Final = (
    Kind(
        name="clients",
        item="client",
        summary="parties that call the API with a bearer token",
        list_page=list_clients,
        read=read_client,
        create=create_client,
        create_body=ClientBody,
        delete=delete_client,
        example={"name": "payroll stream", "scopes": ["ssf.read", "ssf.manage"]},
        secret_once=("token",),
    ),
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
    Kind(
        name="apps",
        item="app",
        summary="parties that users are logged out of; an IdP is an app of kind idp",
        list_page=list_apps,
        read=read_app,
        create=create_app,
        create_body=AppBody,
        change=change_app,
        change_body=AppChange,
        delete=delete_app,
        example={
            "name": "payroll",
            "kind": "rp",
            "sensitivity": 80,
            "subject_formats": ["email"],
            "logout": [
                {
                    "method": "gtr",
                    "endpoint_url": "https://payroll.customer.example/global-token-revocation",
                }
            ],
        },
    ),
    Kind(
        name="webhooks",
        item="webhook",
        summary="endpoints that are told about containments (Standard Webhooks)",
        list_page=list_webhooks,
        create=create_webhook,
        create_body=WebhookBody,
        delete=delete_webhook,
        example={
            "url": "https://soc.customer.example/hooks/signalhub",
            "events": ["containment.opened", "containment.closed"],
        },
        secret_once=("secret",),
    ),
    Kind(
        name="policies",
        item="policy",
        summary="the entity risk policy: ordered rules, the first match decides",
        list_page=list_policies,
        read=read_policy,
        change=change_policy,
        change_body=PolicyChange,
        actions=(
            Action(
                name="preset",
                summary="Replace the rules by a preset.",
                perform=apply_preset,
                body=PresetBody,
                on_kind=True,
                example={"name": "standard", "mode": "enforce"},
            ),
        ),
    ),
)
