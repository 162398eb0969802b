"""Clients: parties that call the API with a bearer token."""

from __future__ import annotations

from typing import Final

import sqlalchemy.exc
from pydantic import Field

import actions.registry.service as apps_service
from hub import store
from hub.admin.bodies import Body, Name
from hub.admin.kinds import Admin, Document, Kind, Listing
from hub.auth import SCOPES, token_hash
from hub.bootstrap import TOKEN_PREFIX
from hub.store import Client
from runtime import ids
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump


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
)
