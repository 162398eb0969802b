"""Upstreams: vendors' transmitters that the hub polls, and whose streams it manages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any, Final

from pydantic import Field

import receivers.registry.service as providers_service
import receivers.upstreams.service as upstreams_service
from hub.admin.bodies import URL, Body, Name
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from receivers.model import ProviderSettings
from receivers.registry.service import RegistryDeps
from receivers.upstreams import model, store
from receivers.upstreams.model import VERIFY_EVERY_S, Auth, Delivery, Upstream, UpstreamSettings
from receivers.upstreams.service import UpstreamDeps
from runtime.errors import Invalid
from runtime.ids import new_token
from ssf.stream import StreamStatus
from ssf.stream_requests import REASON_CHARS_MAX


class UpstreamChange(Body):
    """What can be changed of an upstream; members that are left out stay."""

    name: Name | None = None
    delivery: Delivery | None = None
    metadata_url: URL | None = None
    events_requested: list[str] | None = None
    description: str | None = None
    endpoint_url: URL | None = None
    auth: Auth | None = None
    client_id: str | None = None
    secret: str | None = None
    token_endpoint: URL | None = None
    scope: str | None = None
    verify_every_s: int | None = None
    is_active: bool | None = None


class UpstreamBody(UpstreamChange):
    """An upstream: how we reach the transmitter of a provider.

    provider_id: of a provider that is there; else issuer, audiences and jwks_uri make one of this
    name. authorization_header: what the vendor is to send when it pushes; made up when left out.
    secret: the whole Authorization value, or the client secret. Neither is shown again.
    """

    name: Name
    provider_id: str | None = None
    issuer: URL | None = None
    audiences: list[str] | None = None
    jwks_uri: URL | None = None
    authorization_header: str | None = None


class StatusBody(Body):
    """The status our stream is to have at the upstream, and why."""

    status: StreamStatus
    reason: str | None = Field(default=None, max_length=REASON_CHARS_MAX)


_SETTINGS: Final = frozenset(field.name for field in fields(UpstreamSettings))
#: a null here means "none"; of all other members it means "as it is"
_NULLABLE: Final = frozenset(
    {
        "metadata_url",
        "description",
        "endpoint_url",
        "client_id",
        "token_endpoint",
        "scope",
        "verify_every_s",
    }
)


async def create_upstream(admin: Admin, body: UpstreamBody) -> Document:
    """Bind an upstream to a provider; nothing is called until something is ordered or polled."""
    provider_id = body.provider_id or await _add_provider(admin, body)
    upstream = await upstreams_service.add_upstream(
        _deps(admin),
        UpstreamSettings(**_members(body)),
        tenant_id=admin.tenant_id,
        provider_id=provider_id,
        secret=body.secret,
    )
    return _upstream(admin, upstream)


async def _add_provider(admin: Admin, body: UpstreamBody) -> str:
    """Register the provider that the upstream brings along. Raises Invalid, Conflict."""
    missing = [
        (f"/{name}", "needed without provider_id")
        for name in ("issuer", "audiences", "jwks_uri")
        if getattr(body, name) is None
    ]
    if missing:
        raise Invalid("Name a provider, or what makes one.", pointers=tuple(missing))
    header = body.authorization_header
    if header is None and body.delivery is Delivery.PUSH:
        header = f"Bearer {new_token('shp')}"
    provider = await providers_service.add_provider(
        RegistryDeps(
            database=admin.node.database,
            secrets=admin.node.box,
            clock=admin.node.clock,
            dev_insecure=admin.node.config.dev_insecure,
        ),
        ProviderSettings(
            name=body.name,
            issuer=body.issuer or "",
            audiences=tuple(body.audiences or ()),
            jwks_uri=body.jwks_uri,
        ),
        tenant_id=admin.tenant_id,
        authorization_header=header,
    )
    return provider.provider_id


async def list_upstreams(admin: Admin, listing: Listing) -> list[Document]:
    """Return upstreams by id."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_upstreams(
            connection, admin.tenant_id, after=listing.after, limit=listing.limit
        )
    return [_upstream(admin, one) for one in found]


async def read_upstream(admin: Admin, upstream_id: str) -> Document:
    """Return one upstream with its health, its stream and its last order."""
    found = await upstreams_service.get_upstream(_deps(admin), admin.tenant_id, upstream_id)
    return _upstream(admin, found)


async def change_upstream(admin: Admin, upstream_id: str, body: UpstreamChange) -> Document:
    """Change some settings of an upstream."""
    changed = await upstreams_service.change_upstream(
        _deps(admin),
        _members(body),
        tenant_id=admin.tenant_id,
        upstream_id=upstream_id,
        secret=body.secret,
    )
    return _upstream(admin, changed)


async def delete_upstream(admin: Admin, upstream_id: str) -> None:
    """Forget an upstream; its stream at the vendor stays unless it was deleted before."""
    await upstreams_service.delete_upstream(_deps(admin), admin.tenant_id, upstream_id)


def _orders(action: model.Action) -> Callable[[Admin, str, Any], Awaitable[Document]]:
    async def perform(admin: Admin, upstream_id: str, body: StatusBody | None) -> Document:
        arguments = {} if body is None else body.model_dump(mode="json", exclude_none=True)
        ordered = await upstreams_service.place_order(
            _deps(admin),
            action,
            tenant_id=admin.tenant_id,
            upstream_id=upstream_id,
            arguments=arguments,
        )
        return _upstream(admin, ordered)

    return perform


def _deps(admin: Admin) -> UpstreamDeps:
    return UpstreamDeps(
        database=admin.node.database,
        secrets=admin.node.box,
        clock=admin.node.clock,
        dev_insecure=admin.node.config.dev_insecure,
    )


def _members(body: UpstreamChange) -> dict[str, Any]:
    """Return the given members in the types of UpstreamSettings."""
    members = {
        name: getattr(body, name)
        for name in body.model_fields_set & _SETTINGS
        if name in _NULLABLE or getattr(body, name) is not None
    }
    if "events_requested" in members:
        members["events_requested"] = tuple(dict.fromkeys(members["events_requested"]))
    return members


def _upstream(admin: Admin, upstream: Upstream) -> Document:
    settings, order = upstream.settings, upstream.order
    return {
        "id": upstream.upstream_id,
        "name": settings.name,
        "provider_id": upstream.provider_id,
        "delivery": settings.delivery.value,
        "metadata_url": settings.metadata_url,
        "events_requested": list(settings.events_requested),
        "description": upstream.description,
        "endpoint_url": settings.endpoint_url,
        "events_url": f"{admin.base}/receivers/{upstream.provider_id}/events",
        "auth": settings.auth.value,
        "client_id": settings.client_id,
        "has_secret": upstream.secret_sealed is not None,
        "token_endpoint": settings.token_endpoint,
        "scope": settings.scope,
        "verify_every_s": settings.verify_every_s,
        "is_active": settings.is_active,
        "health": upstream.health.value,
        "last_verified_at": upstream.last_verified_at,
        "last_set_at": upstream.last_set_at,
        "failing_since": upstream.failing_since,
        "last_error": upstream.last_error,
        "stream_id": upstream.stream_id,
        "status": upstream.stream_status,
        "reason": upstream.stream_reason,
        "stream": upstream.stream,
        "metadata": upstream.metadata,
        "order": None
        if order is None
        else {
            "action": order.action.value,
            "state": order.state.value,
            "attempts": order.attempts,
            "detail": order.detail,
            "asked_at": order.asked_at,
            "settled_at": order.settled_at,
        },
        "created_at": upstream.created_at,
        "updated_at": upstream.updated_at,
    }


_SUMMARIES: Final = {
    model.Action.DISCOVER: "Order: fetch the transmitter's metadata.",
    model.Action.CREATE: "Order: create our stream at the transmitter.",
    model.Action.READ: "Order: read our stream's configuration there.",
    model.Action.UPDATE: "Order: update our stream there to these settings (PATCH).",
    model.Action.REPLACE: "Order: replace our stream's configuration there (PUT).",
    model.Action.READ_STATUS: "Order: read our stream's status there.",
    model.Action.SET_STATUS: "Order: set our stream's status there.",
    model.Action.VERIFY: "Order: ask for a verification event with a random state.",
    model.Action.DELETE: "Order: delete our stream at the transmitter.",
}


KINDS: Final = (
    Kind(
        name="upstreams",
        item="upstream",
        summary="transmitters that the hub polls, and whose streams it manages",
        list_page=list_upstreams,
        read=read_upstream,
        create=create_upstream,
        create_body=UpstreamBody,
        change=change_upstream,
        change_body=UpstreamChange,
        delete=delete_upstream,
        actions=tuple(
            Action(
                name=action.value,
                summary=summary,
                perform=_orders(action),
                body=StatusBody if action is model.Action.SET_STATUS else None,
                example={"status": "paused", "reason": "maintenance"}
                if action is model.Action.SET_STATUS
                else None,
            )
            for action, summary in _SUMMARIES.items()
        ),
        example={
            "name": "Example EDR",
            "issuer": "https://edr.vendor.example",
            "audiences": ["https://hub.customer.example"],
            "jwks_uri": "https://edr.vendor.example/jwks.json",
            "delivery": "poll",
            "events_requested": [
                "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
                "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change",
            ],
            "auth": "client_secret_basic",
            "client_id": "signalhub",
            "secret": "a-secret-of-both-sides",
            "verify_every_s": VERIFY_EVERY_S,
        },
    ),
)
