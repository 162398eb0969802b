"""Clients: parties that call the API with a bearer token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Literal

import sqlalchemy.exc
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.registry.service as apps_service
from hub import store
from hub.admin.bodies import URL, Body, Name
from hub.admin.kinds import Admin, Document, Kind, Listing
from hub.admin.roles import ROLE_SCOPES, Role, check_grant
from hub.auth import SCOPES, TOKEN_PREFIX, token_hash
from hub.oauth.certificates import canonical_subject
from hub.oauth.store import list_servers
from hub.store import Client
from receivers.registry.settings import key_set_problems, url_problems
from runtime import ids
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump

AuthMethod = Literal["client_secret", "private_key_jwt", "tls_client_auth", "external"]


class ClientBody(Body):
    """A party that calls the API, and how it proves itself.

    auth_method: `client_secret` (its token, as bearer token or as secret for access tokens),
    `private_key_jwt` (assertions signed with one of `jwks`, or of what `jwks_uri` serves),
    `tls_client_auth` (a certificate that names `tls_subject`: `dns:…`, `uri:…` or a distinguished
    name), or `external` (tokens of an authorization server that calls it `external_client_id`).
    """

    name: Name
    scopes: list[str] = Field(default=[], max_length=20)
    app_id: str | None = None
    role: Role | None = None
    auth_method: AuthMethod = "client_secret"
    jwks: dict[str, Any] | None = None
    jwks_uri: URL | None = None
    tls_subject: URL | None = None
    authorization_server_id: Name | None = None
    external_client_id: Name | None = None


class ClientChange(Body):
    """What of a client is to change."""

    name: Name | None = None
    scopes: list[str] | None = Field(default=None, min_length=1, max_length=20)
    jwks: dict[str, Any] | None = None
    jwks_uri: URL | None = None
    tls_subject: URL | None = None
    external_client_id: Name | None = None
    role: Role | None = None


#: what a role bounds; other scopes are about other things
ADMIN_SCOPES: Final = frozenset({"admin.read", "admin.write", "risk.write"})


async def create_client(admin: Admin, body: ClientBody) -> Document:
    """Make a client; its token, if it has one, is in this answer and nowhere else."""
    token = ids.new_token(TOKEN_PREFIX)
    client = Client(
        tenant_id=admin.tenant_id,
        client_id=ids.new_id("cli"),
        name=body.name,
        # Of a client without a secret: the hash of what nobody was told.
        token_hash=token_hash(token),
        scopes=tuple(sorted(set(body.scopes) or _scopes_of(body.role))),
        app_id=body.app_id,
        role=body.role,
        created_at=admin.now,
        auth_method=body.auth_method,
        jwks=body.jwks,
        jwks_uri=body.jwks_uri,
        tls_subject=_canonical(body.tls_subject),
        authorization_server_id=body.authorization_server_id,
        external_client_id=body.external_client_id,
    )
    _check(admin, client)
    try:
        async with _writing(admin) as connection:
            if body.app_id is not None:
                await apps_service.get_app(connection, admin.tenant_id, body.app_id)
            await _check_server(connection, client)
            await store.add_client(connection, client)
    except NotFound as error:
        raise Invalid("No such app.", pointers=(("/app_id", "unknown"),)) from error
    has_secret = client.auth_method == "client_secret"
    return {**_client(client), "token": token if has_secret else None}


async def change_client(admin: Admin, client_id: str, body: ClientChange) -> Document:
    """Change a client: what was taken from it is gone from its tokens within a second."""
    members = {name: getattr(body, name) for name in body.model_fields_set}
    if "scopes" in members:
        members["scopes"] = tuple(sorted(set(body.scopes or ())))
    if "jwks" in members and "jwks_uri" not in members:
        members["jwks_uri"] = None
    if "jwks_uri" in members and "jwks" not in members:
        members["jwks"] = None
    if "name" in members and body.name is None:
        del members["name"]
    if "tls_subject" in members:
        members["tls_subject"] = _canonical(body.tls_subject)
    async with _writing(admin) as connection:
        found = await store.list_clients(connection, admin.tenant_id)
        current = _find(found, client_id)
        check_grant(admin.caller, current.role, frozenset(current.scopes))
        changed = replace(current, **members)
        _check(admin, changed)
        await store.replace_client(connection, changed)
    return _client(changed)


@asynccontextmanager
async def _writing(admin: Admin) -> AsyncIterator[AsyncConnection]:
    """Yield a transaction that changes clients. Raises Conflict for what exists already."""
    try:
        async with admin.node.database.transaction() as connection:
            yield connection
            await bump(connection, admin.tenant_id, "clients")
    except sqlalchemy.exc.IntegrityError as error:
        raise Conflict("Another client has this name or external id.") from error


def _check(admin: Admin, client: Client) -> None:
    """Pass when the client can be stored. Raises Invalid with a JSON pointer per problem."""
    check_grant(admin.caller, client.role, frozenset(client.scopes))
    problems = [
        *_scope_problems(client),
        *_key_problems(admin, client),
        *_name_problems(client),
    ]
    if problems:
        raise Invalid("The client is not acceptable.", pointers=tuple(problems))


def _scope_problems(client: Client) -> Iterator[tuple[str, str]]:
    if not client.scopes or not set(client.scopes) <= SCOPES:
        yield "/scopes", f"some of {', '.join(sorted(SCOPES))}"
    elif client.role and not set(client.scopes) & ADMIN_SCOPES <= ROLE_SCOPES[client.role]:
        yield "/scopes", f"the role {client.role} has at most {_told(ROLE_SCOPES[client.role])}"


def _scopes_of(role: str | None) -> frozenset[str]:
    return ROLE_SCOPES[role] if role else frozenset()


def _told(scopes: frozenset[str]) -> str:
    return ", ".join(sorted(scopes))


def _name_problems(client: Client) -> Iterator[tuple[str, str]]:
    """Return what is wrong with how others name the client: its certificate, its server."""
    if (client.tls_subject is not None) != (client.auth_method == "tls_client_auth"):
        yield "/tls_subject", "needed for tls_client_auth, and only there"
    is_external = client.auth_method == "external"
    for name in ("authorization_server_id", "external_client_id"):
        if (getattr(client, name) is not None) != is_external:
            yield f"/{name}", "needed for external, and only there"


def _canonical(subject: str | None) -> str | None:
    try:
        return None if subject is None else canonical_subject(subject)
    except ValueError as error:
        pointers = (("/tls_subject", "dns:…, uri:… or a distinguished name (RFC 4514)"),)
        raise Invalid("The client is not acceptable.", pointers=pointers) from error


async def _check_server(connection: AsyncConnection, client: Client) -> None:
    wanted = client.authorization_server_id
    servers = await list_servers(connection, client.tenant_id) if wanted else []
    if wanted and wanted not in {server.server_id for server in servers}:
        pointers = (("/authorization_server_id", "unknown"),)
        raise Invalid("No such authorization server.", pointers=pointers)


def _key_problems(admin: Admin, client: Client) -> Iterator[tuple[str, str]]:
    with_key = client.auth_method == "private_key_jwt"
    given = (client.jwks is not None) + (client.jwks_uri is not None)
    if given != with_key:
        yield "/jwks_uri", "exactly one of jwks and jwks_uri, and only for private_key_jwt"
    if client.jwks is not None:
        yield from key_set_problems(client.jwks)
    if client.jwks_uri is not None:
        yield from url_problems(
            "/jwks_uri", client.jwks_uri, dev_insecure=admin.node.config.dev_insecure
        )


async def list_clients(admin: Admin, listing: Listing) -> list[Document]:
    """Return clients by id."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_clients(connection, admin.tenant_id)
    return [_client(one) for one in found if one.client_id > listing.after][: listing.limit]


async def read_client(admin: Admin, client_id: str) -> Document:
    """Return one client, without its token."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_clients(connection, admin.tenant_id)
    return _client(_find(found, client_id))


def _find(clients: Sequence[Client], client_id: str) -> Client:
    for client in clients:
        if client.client_id == client_id:
            return client
    raise NotFound("No such client.")


async def delete_client(admin: Admin, client_id: str) -> None:
    """Delete a client; its token stops working at once."""
    if client_id == admin.caller.client_id:
        raise Conflict("A client cannot delete itself: use another admin's token.")
    async with _writing(admin) as connection:
        current = _find(await store.list_clients(connection, admin.tenant_id), client_id)
        check_grant(admin.caller, current.role, frozenset(current.scopes))
        await store.delete_client(connection, admin.tenant_id, client_id)


def _client(client: Client) -> Document:
    return {
        "id": client.client_id,
        "name": client.name,
        "scopes": list(client.scopes),
        "app_id": client.app_id,
        "role": client.role,
        "auth_method": client.auth_method,
        "jwks": client.jwks,
        "jwks_uri": client.jwks_uri,
        "tls_subject": client.tls_subject,
        "authorization_server_id": client.authorization_server_id,
        "external_client_id": client.external_client_id,
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
        change=change_client,
        change_body=ClientChange,
        delete=delete_client,
        example={"name": "payroll stream", "scopes": ["ssf.read", "ssf.manage"]},
        secret_once=("token",),
    ),
)
