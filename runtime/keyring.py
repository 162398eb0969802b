"""The signing keys of a tenant, by purpose. Private halves are sealed at rest.

Each purpose has its own keys and `kid`s, so that a token of one kind can never be taken for
another (contracts §8). Rotation: a key is published as `next` before it signs, and stays
published as `retired` until nothing signed with it is waiting.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
from jwcrypto.jwk import JWK
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime import ids, store
from runtime.clock import Clock
from runtime.database import Database, serialize
from runtime.errors import NotFound
from runtime.feed import ConfigCache, ConfigFeed, bump
from runtime.secrets import SecretBox
from runtime.store import StoredKey

ACCESS_TOKEN: Final = "access_token"  # noqa: S105 - a purpose, no secret
#: what others verify as signed by the hub; access tokens have a key set of their own
SIGNATURE_PURPOSES: Final = ("set", "logout", "gtr")
PURPOSES: Final = (*SIGNATURE_PURPOSES, ACCESS_TOKEN)
RSA_BITS: Final = 2048
RS256: Final = "RS256"
#: algorithm to what makes a key for it
_KEY_KINDS: Final[dict[str, dict[str, Any]]] = {
    RS256: {"kty": "RSA", "size": RSA_BITS},
    "ES256": {"kty": "EC", "crv": "P-256"},
}
ALGORITHMS: Final = tuple(_KEY_KINDS)
_PUBLISHED_STATES: Final = frozenset({"next", "current", "retired"})


class Keyring:
    """Hands out signing keys; reads the database only when they changed."""

    def __init__(self, database: Database, feed: ConfigFeed, box: SecretBox) -> None:
        self._database = database
        self._box = box
        self._keys: ConfigCache[tuple[StoredKey, ...]] = ConfigCache(feed, "keys", self._load)

    async def _load(self, tenant_id: str) -> tuple[StoredKey, ...]:
        async with self._database.snapshot() as connection:
            return tuple(await store.list_keys(connection, tenant_id))

    async def current(self, tenant_id: str, purpose: str) -> dict[str, Any]:
        """Return the private JWK (with kid, alg) that signs now; NotFound when there is none."""
        return self._private(await self._current(tenant_id, purpose))

    async def current_kid(self, tenant_id: str, purpose: str) -> str:
        """Return the kid of the key that signs now, without opening it; NotFound without one."""
        return (await self._current(tenant_id, purpose)).kid

    async def is_published(self, tenant_id: str, kid: str) -> bool:
        """Return whether what `kid` signed still verifies at those who read our keys."""
        return any(
            key.kid == kid and key.state in _PUBLISHED_STATES
            for key in await self._keys.get(tenant_id)
        )

    async def _current(self, tenant_id: str, purpose: str) -> StoredKey:
        for key in reversed(await self._keys.get(tenant_id)):
            if key.purpose == purpose and key.state == "current":
                return key
        raise NotFound(f"Tenant {tenant_id} has no current key for {purpose}.")

    async def by_kid(self, tenant_id: str, kid: str) -> dict[str, Any] | None:
        """Return the private JWK of `kid` while it is published, else None."""
        for key in await self._keys.get(tenant_id):
            if key.kid == kid and key.state in _PUBLISHED_STATES:
                return self._private(key)
        return None

    async def published(
        self, tenant_id: str, *, purposes: Collection[str] = SIGNATURE_PURPOSES
    ) -> list[dict[str, Any]]:
        """Return the public JWKs of these purposes; by default those of `jwks.json`."""
        return [
            key.public_jwk
            for key in await self._keys.get(tenant_id)
            if key.purpose in purposes and key.state in _PUBLISHED_STATES
        ]

    async def public(self, tenant_id: str, kid: str, purpose: str) -> dict[str, Any]:
        """Return the public JWK of a published key of one purpose. Raises NotFound."""
        for key in await self._keys.get(tenant_id):
            if key.kid == kid and key.purpose == purpose and key.state in _PUBLISHED_STATES:
                return key.public_jwk
        raise NotFound("No such key.")

    def _private(self, key: StoredKey) -> dict[str, Any]:
        opened: dict[str, Any] = msgspec.json.decode(self._box.open(key.private_jwk_sealed))
        return opened


async def make_keys(database: Database, box: SecretBox, clock: Clock, tenant_id: str) -> list[str]:
    """Make a current RS256 key for each purpose that lacks one; return the new kids.

    RSA 2048 by SET-34. Takes about a tenth of a second per key.
    """
    async with database.snapshot() as connection:
        present = await _purposes(connection, tenant_id)
    made = [
        new_key(box, clock, tenant_id, purpose) for purpose in PURPOSES if purpose not in present
    ]
    if made:
        async with database.transaction() as connection:
            # Another node may have made them meanwhile; a purpose has one current key.
            await serialize(connection, "keys", tenant_id)
            present = await _purposes(connection, tenant_id)
            made = [key for key in made if key.purpose not in present]
            for key in made:
                await store.add_key(connection, key)
            await bump(connection, tenant_id, "keys")
    return [key.kid for key in made]


async def _purposes(connection: AsyncConnection, tenant_id: str) -> set[str]:
    """Return the purposes that have a current key."""
    keys = await store.list_keys(connection, tenant_id)
    return {key.purpose for key in keys if key.state == "current"}


def new_key(
    box: SecretBox,
    clock: Clock,
    tenant_id: str,
    purpose: str,
    *,
    alg: str = RS256,
    state: str = "current",
) -> StoredKey:
    """Make a key that is not stored yet. An RSA one takes about a tenth of a second."""
    kid = f"{purpose.replace('_', '-')}-{ids.new_ulid().lower()}"
    key = JWK.generate(**_KEY_KINDS[alg], kid=kid, use="sig", alg=alg)
    now = clock.now()
    return StoredKey(
        tenant_id=tenant_id,
        kid=kid,
        purpose=purpose,
        alg=alg,
        state=state,
        public_jwk=key.export_public(as_dict=True),
        private_jwk_sealed=box.seal(key.export_private()),
        created_at=now,
        changed_at=now,
    )
