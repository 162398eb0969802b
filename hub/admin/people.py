"""Users, devices, service accounts: whom signals are about; for sessions: `/v1/sessions`."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

import receivers.inbox.store
import risk.entities.service as entities
from hub.admin.bodies import Body
from hub.admin.kinds import Admin, Document, Kind, Listing
from hub.pipeline import lock_tenants
from risk.entities.model import EntityView
from risk.entities.service import EntityFacts
from risk.model import EntityKind
from risk.recall import schedule_users
from risk.reviews.moves import note_groups

Identifier = dict[str, Any]


class EntityBody(Body):
    """Names and facts. The same names again add to what is known."""

    identifiers: list[Identifier] = Field(min_length=1, max_length=50)
    label: str | None = None
    external_id: str | None = None


class UserBody(EntityBody):
    """A person, by RFC 9493 subject identifiers."""

    groups: list[str] | None = None


class DeviceBody(EntityBody):
    """A device. owner: `usr_…`, `email:…`, `ext:…` or `iss_sub:iss|sub`."""

    owner: str | None = None


async def create_user(admin: Admin, body: UserBody) -> Document:
    """Add a user; signals that waited for one of the names are assessed now."""
    return await _create(admin, EntityKind.USER, body, groups=body.groups)


async def create_device(admin: Admin, body: DeviceBody) -> Document:
    """Add a device and say who owns it."""
    return await _create(admin, EntityKind.DEVICE, body, owner=body.owner)


async def create_service_account(admin: Admin, body: EntityBody) -> Document:
    """Add a service account, or an agent that acts by itself."""
    return await _create(admin, EntityKind.SERVICE_ACCOUNT, body)


async def _create(
    admin: Admin,
    kind: EntityKind,
    body: EntityBody,
    *,
    groups: list[str] | None = None,
    owner: str | None = None,
) -> Document:
    facts = EntityFacts(
        identifiers=body.identifiers,
        label=body.label,
        external_id=body.external_id,
        groups=groups,
    )
    async with admin.node.database.transaction() as connection:
        # No batch of the pipeline may find the user unknown and mark it so after we have looked.
        await lock_tenants(connection, {admin.tenant_id})
        added = await entities.add_entity(
            connection, admin.tenant_id, kind=kind, facts=facts, now=admin.now
        )
        if owner is not None:
            await entities.state_owner(
                connection,
                admin.tenant_id,
                device_id=added.entity_id,
                user_id=await entities.resolve(connection, admin.tenant_id, owner),
                now=admin.now,
            )
        if added.is_regrouped:
            # Policies ask for groups: what the user has open is judged by the new ones.
            user_id = added.entity_id
            await note_groups(connection, admin.tenant_id, user_id, now=admin.now)
            await schedule_users(connection, admin.tenant_id, [user_id], now=admin.now)
        await receivers.inbox.store.requeue_unmatched(
            connection, admin.tenant_id, added.new_alias_keys
        )
        view = await entities.view(connection, admin.tenant_id, added.entity_id)
    admin.node.notifier.wake("signals")
    return _entity(view)


async def list_users(admin: Admin, listing: Listing) -> list[Document]:
    """Return users by id."""
    return await _list(admin, EntityKind.USER, listing)


async def list_devices(admin: Admin, listing: Listing) -> list[Document]:
    """Return devices by id."""
    return await _list(admin, EntityKind.DEVICE, listing)


async def list_service_accounts(admin: Admin, listing: Listing) -> list[Document]:
    """Return service accounts by id."""
    return await _list(admin, EntityKind.SERVICE_ACCOUNT, listing)


async def _list(admin: Admin, kind: EntityKind, listing: Listing) -> list[Document]:
    async with admin.node.database.snapshot() as connection:
        found = await entities.list_views(
            connection, admin.tenant_id, kind=kind, after=listing.after, limit=listing.limit
        )
    return [_entity(view) for view in found]


async def read_user(admin: Admin, reference: str) -> Document:
    """Return one user, by id or any name."""
    return await _read(admin, EntityKind.USER, reference)


async def read_device(admin: Admin, reference: str) -> Document:
    """Return one device."""
    return await _read(admin, EntityKind.DEVICE, reference)


async def read_service_account(admin: Admin, reference: str) -> Document:
    """Return one service account."""
    return await _read(admin, EntityKind.SERVICE_ACCOUNT, reference)


async def _read(admin: Admin, kind: EntityKind, reference: str) -> Document:
    async with admin.node.database.snapshot() as connection:
        entity_id = await entities.resolve(connection, admin.tenant_id, reference, kind=kind)
        return _entity(await entities.view(connection, admin.tenant_id, entity_id))


def _entity(view: EntityView) -> Document:
    entity = view.entity
    document: Document = {
        "id": entity.entity_id,
        "label": entity.label,
        "external_id": entity.external_id,
        "identifiers": list(view.identifiers),
        "created_at": entity.created_at,
    }
    if entity.kind is EntityKind.USER:
        document["groups"] = list(entity.groups)
    return document


KINDS: Final = (
    Kind(
        name="users",
        item="user",
        summary="people, by their subject identifiers",
        list_page=list_users,
        read=read_user,
        id_parameter="{id:path}",
        create=create_user,
        create_body=UserBody,
        example={
            "label": "Rosa Lind",
            "external_id": "u-20417",
            "identifiers": [
                {"format": "email", "email": "rosa.lind@customer.example"},
                {"format": "iss_sub", "iss": "https://login.customer.example", "sub": "u-20417"},
            ],
            "groups": ["sales"],
        },
    ),
    Kind(
        name="devices",
        item="device",
        summary="devices, and who owns them",
        list_page=list_devices,
        read=read_device,
        id_parameter="{id:path}",
        create=create_device,
        create_body=DeviceBody,
        example={
            "label": "Rosa's laptop",
            "identifiers": [{"format": "opaque", "id": "LT-0091-77"}],
        },
    ),
    Kind(
        name="service-accounts",
        item="service account",
        summary="service accounts and agents: what signs in and is no person",
        list_page=list_service_accounts,
        read=read_service_account,
        id_parameter="{id:path}",
        create=create_service_account,
        create_body=EntityBody,
        example={
            "label": "Nightly export",
            "external_id": "svc-export",
            "identifiers": [{"format": "opaque", "id": "svc-export"}],
        },
    ),
)
