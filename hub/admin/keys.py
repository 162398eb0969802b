"""Signing keys: what is published, and their rotation."""

from __future__ import annotations

from typing import Final

import runtime.rotation
from hub.admin.bodies import Body, Name
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from runtime import store
from runtime.keyring import RS256
from runtime.store import StoredKey


class PrepareBody(Body):
    """Which keys get a next one: `set`, `logout`, `gtr` or `access_token`.

    alg: `RS256`; for SETs also `ES256`, which signs faster but is outside the CAEP
    Interoperability Profile.
    """

    purpose: Name
    alg: Name = RS256


class MomentBody(Body):
    """Whether to leave out the wait; for a key that fell into other hands."""

    at_once: bool = False


async def list_keys(admin: Admin, listing: Listing) -> list[Document]:
    """Return the tenant's signing keys: public halves and states."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_keys(connection, admin.tenant_id)
    page = sorted((key for key in found if key.kid > listing.after), key=lambda key: key.kid)
    return [_key(key) for key in page[: listing.limit]]


async def prepare_key(admin: Admin, _kind: str, body: PrepareBody) -> Document:
    """Make the next key of a purpose and publish it."""
    async with admin.node.database.transaction() as connection:
        made = await runtime.rotation.prepare_key(
            connection,
            admin.tenant_id,
            body.purpose,
            alg=body.alg,
            box=admin.node.box,
            clock=admin.node.clock,
        )
    return _key(made)


async def activate_key(admin: Admin, kid: str, body: MomentBody) -> Document:
    """Let a next key sign from now on."""
    async with admin.node.database.transaction() as connection:
        key = await runtime.rotation.activate_key(
            connection, admin.tenant_id, kid, now=admin.now, at_once=body.at_once
        )
    return _key(key)


async def withdraw_key(admin: Admin, kid: str, body: MomentBody) -> Document:
    """Publish a key no more."""
    async with admin.node.database.transaction() as connection:
        key = await runtime.rotation.withdraw_key(
            connection, admin.tenant_id, kid, now=admin.now, at_once=body.at_once
        )
    return _key(key)


def _key(key: StoredKey) -> Document:
    return {
        "id": key.kid,
        "purpose": key.purpose,
        "alg": key.alg,
        "state": key.state,
        "public_jwk": key.public_jwk,
        "created_at": key.created_at,
        "changed_at": key.changed_at,
    }


KINDS: Final = (
    Kind(
        name="keys",
        item="key",
        summary="signing keys and their states",
        list_page=list_keys,
        actions=(
            Action(
                name="prepare",
                summary="Make and publish the next key of a purpose; it does not sign yet.",
                perform=prepare_key,
                body=PrepareBody,
                on_kind=True,
                example={"purpose": "set"},
            ),
            Action(
                name="activate",
                summary="Let a next key sign; the one before is retired and stays published.",
                perform=activate_key,
                body=MomentBody,
                example={"at_once": True},
            ),
            Action(
                name="withdraw",
                summary="Publish a retired or next key no more.",
                perform=withdraw_key,
                body=MomentBody,
                example={"at_once": True},
            ),
        ),
    ),
)
