"""Authorization servers of others, whose access tokens a tenant takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import sqlalchemy.exc
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.admin.bodies import URL, Body, Name
from hub.admin.kinds import Admin, Document, Kind, Listing
from hub.oauth import store
from hub.oauth.external import KIND
from hub.oauth.store import AuthorizationServer
from receivers.registry.settings import key_set_problems, url_problems
from runtime import ids
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump

SERVERS_MAX: Final = 20
AUDIENCES_MAX: Final = 20
ISSUER_CHARACTERS_MAX: Final = 700


class ServerChange(Body):
    """What of an authorization server is to change."""

    name: Name | None = None
    audiences: list[URL] | None = Field(default=None, max_length=AUDIENCES_MAX)
    jwks_uri: URL | None = None
    jwks: dict[str, Any] | None = None
    introspection_url: URL | None = None
    introspection_client_id: Name | None = None
    introspection_secret: str | None = Field(default=None, min_length=1, max_length=1000)


class ServerBody(ServerChange):
    """A server whose access tokens are taken: JWTs by its keys, or any token by introspection.

    audiences: further `aud` values that are meant for this hub, besides its own resources.
    """

    name: Name
    issuer: str = Field(min_length=1, max_length=ISSUER_CHARACTERS_MAX)


async def create_server(admin: Admin, body: ServerBody) -> Document:
    """Trust an authorization server; its clients get in once a client of ours names them."""
    server = AuthorizationServer(
        tenant_id=admin.tenant_id,
        server_id=ids.new_id("aus"),
        name=body.name,
        issuer=body.issuer,
        audiences=tuple(body.audiences or ()),
        jwks_uri=body.jwks_uri,
        jwks=body.jwks,
        introspection_url=body.introspection_url,
        introspection_client_id=body.introspection_client_id,
        introspection_secret_sealed=_sealed(admin, body.introspection_secret),
        created_at=admin.now,
        updated_at=admin.now,
    )
    async with _writing(admin) as connection:
        others = await store.list_servers(connection, admin.tenant_id)
        if len(others) >= SERVERS_MAX:
            raise Conflict(f"A tenant has at most {SERVERS_MAX} authorization servers.")
        _check(admin, server, others)
        await store.add_server(connection, server)
    return _server(server)


async def change_server(admin: Admin, server_id: str, body: ServerChange) -> Document:
    """Change how the tokens of a server are verified; its issuer stays what it is."""
    members = {name: getattr(body, name) for name in body.model_fields_set}
    for name in {"name", "audiences"} & members.keys():
        if members[name] is None:
            raise Invalid("The server is not acceptable.", pointers=((f"/{name}", "not null"),))
    if "audiences" in members:
        members["audiences"] = tuple(members["audiences"])
    if "introspection_secret" in members:
        members["introspection_secret_sealed"] = _sealed(admin, members.pop("introspection_secret"))
    async with _writing(admin) as connection:
        servers = await store.list_servers(connection, admin.tenant_id)
        changed = replace(_find(servers, server_id), **members, updated_at=admin.now)
        _check(admin, changed, [one for one in servers if one.server_id != server_id])
        await store.replace_server(connection, changed)
    return _server(changed)


async def list_servers(admin: Admin, listing: Listing) -> list[Document]:
    """Return authorization servers by id."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_servers(connection, admin.tenant_id)
    return [_server(one) for one in found if one.server_id > listing.after][: listing.limit]


async def read_server(admin: Admin, server_id: str) -> Document:
    """Return one authorization server, without its secret."""
    async with admin.node.database.snapshot() as connection:
        return _server(_find(await store.list_servers(connection, admin.tenant_id), server_id))


async def delete_server(admin: Admin, server_id: str) -> None:
    """Trust a server no more: its tokens are worth nothing within a second."""
    async with _writing(admin) as connection:
        if not await store.delete_server(connection, admin.tenant_id, server_id):
            raise NotFound("No such authorization server.")


@asynccontextmanager
async def _writing(admin: Admin) -> AsyncIterator[AsyncConnection]:
    """Yield a transaction that changes servers. Raises Conflict for what exists already."""
    try:
        async with admin.node.database.transaction() as connection:
            yield connection
            await bump(connection, admin.tenant_id, KIND)
    except sqlalchemy.exc.IntegrityError as error:
        raise Conflict("Another authorization server has this name or issuer.") from error


def _check(
    admin: Admin, server: AuthorizationServer, others: Sequence[AuthorizationServer]
) -> None:
    problems = [*_problems(admin, server), *_introspection_problems(admin, server, others)]
    if problems:
        raise Invalid("The server is not acceptable.", pointers=tuple(problems))


def _problems(admin: Admin, server: AuthorizationServer) -> Iterator[tuple[str, str]]:
    dev_insecure = admin.node.config.dev_insecure
    yield from url_problems("/issuer", server.issuer, dev_insecure=dev_insecure)
    if server.issuer == admin.base:
        yield "/issuer", "that is this tenant itself"
    ways = (server.jwks_uri, server.jwks, server.introspection_url)
    if sum(way is not None for way in ways) != 1:
        yield "/jwks_uri", "exactly one of jwks_uri, jwks and introspection_url is needed"
    if server.jwks is not None:
        yield from key_set_problems(server.jwks)
    if server.jwks_uri is not None:
        yield from url_problems("/jwks_uri", server.jwks_uri, dev_insecure=dev_insecure)


def _introspection_problems(
    admin: Admin, server: AuthorizationServer, others: Sequence[AuthorizationServer]
) -> Iterator[tuple[str, str]]:
    credentials = (server.introspection_client_id, server.introspection_secret_sealed)
    wanted = server.introspection_url is not None
    if any((one is not None) != wanted for one in credentials):
        yield (
            "/introspection_client_id",
            "introspection_url, introspection_client_id and introspection_secret go together",
        )
    if server.introspection_url is None:
        return
    yield from url_problems(
        "/introspection_url",
        server.introspection_url,
        dev_insecure=admin.node.config.dev_insecure,
    )
    if any(one.introspection_url is not None for one in others):
        # Which of two a token is from cannot be seen, and one must not be shown the other's.
        yield "/introspection_url", "another server of this tenant is asked already"


def _sealed(admin: Admin, secret: str | None) -> str | None:
    return None if secret is None else admin.node.box.seal(secret)


def _find(servers: Sequence[AuthorizationServer], server_id: str) -> AuthorizationServer:
    for server in servers:
        if server.server_id == server_id:
            return server
    raise NotFound("No such authorization server.")


def _server(server: AuthorizationServer) -> Document:
    return {
        "id": server.server_id,
        "name": server.name,
        "issuer": server.issuer,
        "audiences": list(server.audiences),
        "jwks_uri": server.jwks_uri,
        "jwks": server.jwks,
        "introspection_url": server.introspection_url,
        "introspection_client_id": server.introspection_client_id,
        "has_introspection_secret": server.introspection_secret_sealed is not None,
        "created_at": server.created_at,
        "updated_at": server.updated_at,
    }


KINDS: Final = (
    Kind(
        name="authorization-servers",
        item="authorization_server",
        summary="authorization servers of others, whose access tokens are taken",
        list_page=list_servers,
        read=read_server,
        create=create_server,
        create_body=ServerBody,
        change=change_server,
        change_body=ServerChange,
        delete=delete_server,
        example={
            "name": "corporate login",
            "issuer": "https://login.customer.example",
            "audiences": ["https://hub.customer.example"],
            "jwks_uri": "https://login.customer.example/jwks.json",
        },
    ),
)
