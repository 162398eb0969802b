"""Apps that users are logged out of, and webhooks that are told about it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final, Literal

from pydantic import Field

import actions.registry.service as apps_service
from actions.fronting import Fallback, ForwardAuthSetting, SessionHeader, UnknownSession
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
from hub.admin.bodies import URL, Body, Name
from hub.admin.kinds import Admin, Document, Kind, Listing
from runtime.errors import Invalid


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


class ForwardAuthBody(Body):
    """How the app is guarded at a gateway; what is left out has its default."""

    cookies: list[str] = Field(default_factory=list)
    origins: list[str] = Field(default_factory=list)
    sign_in_url: URL | None = None
    sign_out_url: URL | None = None
    step_up_url: URL | None = None
    return_parameter: str = "return_to"
    unknown_session: UnknownSession = UnknownSession.DENY
    fallback: Fallback = Fallback.DENY
    session_header: SessionHeader = SessionHeader.IGNORED
    clears_cookie: bool = True
    cookie_domain: str | None = None
    tells_user: bool = False


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
    stream_profile: Literal["final", "sse"] | None = None
    forward_auth: ForwardAuthBody | None = None


class AppBody(AppChange):
    """A party we log users out of; an identity provider is an app of kind `idp`."""

    name: Name


async def create_app(admin: Admin, body: AppBody) -> Document:
    """Register an app or identity provider."""
    _check_urls(admin, _called(body))
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
    _check_urls(admin, _called(body))
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


async def replace_app(admin: Admin, app_id: str, body: AppBody) -> Document:
    """Replace an app's settings; what is left out falls back to its default, a token is kept."""
    _check_urls(admin, _called(body))
    async with admin.node.database.transaction() as connection:
        app = await apps_service.update_app(
            connection,
            app_id,
            WantedApp(**_app_members(body)),
            tenant_id=admin.tenant_id,
            box=admin.node.box,
            now=admin.now,
        )
    return _app(app)


async def delete_app(admin: Admin, app_id: str) -> None:
    """Forget an app."""
    async with admin.node.database.transaction() as connection:
        await apps_service.delete_app(connection, admin.tenant_id, app_id)


def _called(body: AppChange) -> dict[str, str]:
    """Return the URLs that the hub is to call, by where they stand in the body."""
    urls = {
        f"/logout/{index}/endpoint_url": one.endpoint_url
        for index, one in enumerate(body.logout or ())
        if one.endpoint_url is not None
    }
    if body.scim is not None:
        urls["/scim/base_url"] = body.scim.base_url
    return urls


def _check_urls(admin: Admin, urls: dict[str, str]) -> None:
    """Raise Invalid for http in production, which would fail at each call and nowhere before."""
    if admin.node.config.dev_insecure:
        return
    wrong = [pointer for pointer, url in urls.items() if url.lower().startswith("http:")]
    if wrong:
        rule = "an https URL is needed: the hub calls it"
        raise Invalid(
            "The hub calls https URLs only.", pointers=tuple((each, rule) for each in wrong)
        )


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
    if members.get("forward_auth") is not None:
        setting: ForwardAuthBody = members["forward_auth"]
        members["forward_auth"] = ForwardAuthSetting(
            **{
                **dict(setting),
                "cookies": tuple(setting.cookies),
                "origins": tuple(setting.origins),
            }
        )
    optional = {"subject_issuer", "client_id_at_app", "issuer", "scim", "forward_auth"}
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
        "stream_profile": app.stream_profile,
        "forward_auth": None if app.forward_auth is None else asdict(app.forward_auth),
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
    _check_urls(admin, {"/url": body.url})
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


KINDS: Final = (
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
        replace=replace_app,
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
)
