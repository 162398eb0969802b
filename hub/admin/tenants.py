"""Tenants: issuers of their own under one hub. At the root issuer alone, for an owner."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from pydantic import Field

from hub import store
from hub.admin.bodies import Body, Name
from hub.admin.kinds import Admin, Document, Kind, Listing
from hub.auth import ADMIN_CLIENT, SCOPES, TOKEN_PREFIX, token_hash
from hub.store import Client, Tenant
from hub.tenancy import DEFAULT_TENANT, TENANT_PATTERN
from runtime import ids, keyring
from runtime import store as runtime_store
from runtime.audit import AuditNote
from runtime.errors import Conflict, NotFound
from runtime.feed import bump

TENANTS_MAX: Final = 10_000

TenantId = Annotated[str, Field(pattern=f"^{TENANT_PATTERN.pattern}$", max_length=63)]
DefaultSubjects = Literal["ALL", "NONE"]


class TenantBody(Body):
    """A tenant: `id` is the part of its issuer behind `/t/`, for good.

    default_subjects: whether new streams are about everybody, or about nobody until a subject is
    added. reset_on_universal_logout: Okta's way: a user who was logged out everywhere is at LOW.
    """

    id: TenantId
    name: Name
    default_subjects: DefaultSubjects = "ALL"
    reset_on_universal_logout: bool = False


class TenantChange(Body):
    """What of a tenant is to change. suspended: all its addresses answer 404."""

    name: Name | None = None
    status: Literal["active", "suspended"] | None = None
    default_subjects: DefaultSubjects | None = None
    reset_on_universal_logout: bool | None = None


async def create_tenant(admin: Admin, body: TenantBody) -> Document:
    """Make a tenant with signing keys and a first admin, whose token is in this answer only."""
    tenant = Tenant(
        tenant_id=body.id,
        name=body.name,
        status="active",
        created_at=admin.now,
        default_subjects=body.default_subjects,
        reset_on_universal_logout=body.reset_on_universal_logout,
    )
    token = ids.new_token(TOKEN_PREFIX)
    client = Client(
        tenant_id=body.id,
        client_id=ids.new_id("cli"),
        name=ADMIN_CLIENT,
        token_hash=token_hash(token),
        scopes=tuple(sorted(SCOPES)),
        app_id=None,
        created_at=admin.now,
    )
    note = AuditNote(
        tenant_id=body.id,
        actor=admin.caller.client_id,
        action="client.create",
        ref=client.client_id,
        detail={"name": client.name, "scopes": list(client.scopes)},
    )
    async with admin.node.database.transaction() as connection:
        if len(await store.system_list_tenants(connection)) >= TENANTS_MAX:
            raise Conflict(f"A hub has at most {TENANTS_MAX} tenants.")
        if not await store.add_tenant(connection, tenant):
            raise Conflict("There is a tenant of this id.")
        for purpose in keyring.PURPOSES:
            key = await asyncio.to_thread(
                keyring.new_key, admin.node.box, admin.node.clock, body.id, purpose
            )
            await runtime_store.add_key(connection, key)
        await store.add_client(connection, client)
        await store.add_audit(connection, note, now=admin.now)
        await bump(connection, "*", "tenants")
        for kind in ("keys", "clients"):
            await bump(connection, body.id, kind)
    return {**_tenant(admin, tenant), "admin_token": token}


async def list_tenants(admin: Admin, listing: Listing) -> list[Document]:
    """Return tenants by id."""
    async with admin.node.database.snapshot() as connection:
        found = await store.system_list_tenants(connection)
    page = [one for one in found if one.tenant_id > listing.after][: listing.limit]
    return [_tenant(admin, one) for one in page]


async def read_tenant(admin: Admin, tenant_id: str) -> Document:
    """Return one tenant."""
    async with admin.node.database.snapshot() as connection:
        found = await store.get_tenant(connection, tenant_id)
    if found is None:
        raise NotFound("No such tenant.")
    return _tenant(admin, found)


async def change_tenant(admin: Admin, tenant_id: str, body: TenantChange) -> Document:
    """Rename, suspend or resume a tenant, or change what its new streams are about."""
    if body.status == "suspended" and tenant_id == DEFAULT_TENANT:
        raise Conflict("The tenant at the root cannot be suspended: it administers the others.")
    values = {
        name: value for name in body.model_fields_set if (value := getattr(body, name)) is not None
    }
    async with admin.node.database.transaction() as connection:
        if not await store.change_tenant(connection, tenant_id, values):
            raise NotFound("No such tenant.")
        await bump(connection, "*", "tenants")
    return await read_tenant(admin, tenant_id)


def _tenant(admin: Admin, tenant: Tenant) -> Document:
    return {
        "id": tenant.tenant_id,
        "name": tenant.name,
        "issuer": admin.state.issuer(tenant.tenant_id),
        "status": tenant.status,
        "default_subjects": tenant.default_subjects,
        "reset_on_universal_logout": tenant.reset_on_universal_logout,
        "created_at": tenant.created_at,
    }


KINDS: Final = (
    Kind(
        name="tenants",
        item="tenant",
        summary="issuers of their own, each with all it owns; at the root issuer",
        list_page=list_tenants,
        read=read_tenant,
        create=create_tenant,
        create_body=TenantBody,
        change=change_tenant,
        change_body=TenantChange,
        secret_once=("admin_token",),
        is_owners=True,
        example={"id": "green", "name": "Green GmbH", "default_subjects": "ALL"},
    ),
)
