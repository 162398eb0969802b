"""Signing keys: one of each purpose, private halves sealed, public halves published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from jwcrypto.jwk import JWK

from runtime import store
from runtime.clock import FixedClock, from_epoch_s
from runtime.database import Database, metadata, serialize
from runtime.errors import NotFound
from runtime.feed import ConfigFeed, bump
from runtime.keyring import PURPOSES, Keyring, make_keys, new_key
from runtime.notify import Notifier
from runtime.secrets import SecretBox
from tests.postgresql import until_it_waits

NOW = from_epoch_s(1_767_225_600)
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi"}


@pytest.fixture(scope="module")
def box() -> SecretBox:
    return SecretBox("a secret key of the tests, long enough")


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.connect(f"sqlite:///{tmp_path}/hub.db")
    async with opened.transaction() as connection:
        await connection.run_sync(
            metadata.create_all, tables=[store.config_versions, store.signing_keys]
        )
    yield opened
    await opened.close()


class World:
    """A tenant's keyring and what stands behind it."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self.database, self.box = database, box
        self.clock = FixedClock(NOW)
        self.feed = ConfigFeed(database, Notifier())
        self.keyring = Keyring(database, self.feed, box)

    async def make(self, tenant_id: str = "default") -> list[str]:
        made = await make_keys(self.database, self.box, self.clock, tenant_id)
        await self.feed.refresh()
        return made

    async def move(self, kid: str, state: str) -> None:
        async with self.database.transaction() as connection:
            await store.set_key_state(connection, "default", kid, state=state, now=NOW)
            await bump(connection, "default", "keys")
        await self.feed.refresh()

    async def current_kid(self, purpose: str) -> Any:
        return (await self.keyring.current("default", purpose))["kid"]


@pytest.fixture
def world(local: Database, box: SecretBox) -> World:
    return World(local, box)


@pytest.mark.requirement("SET-34")
async def test_each_purpose_gets_an_rs256_key_of_2048_bits(world: World) -> None:
    kids = await world.make()
    assert len(set(kids)) == len(PURPOSES)
    for purpose in PURPOSES:
        key = await world.keyring.current("default", purpose)
        assert (key["kty"], key["alg"], key["use"]) == ("RSA", "RS256", "sig")
        assert JWK(**key).get_op_key("sign").key_size == 2048
        assert key["kid"] in kids


async def test_keys_are_made_once(world: World) -> None:
    await world.make()
    assert await world.make() == []


async def test_a_purpose_without_a_current_key_gets_a_new_one(world: World) -> None:
    await world.make()
    retired = await world.current_kid("set")
    await world.move(retired, "retired")
    (made,) = await world.make()
    assert await world.current_kid("set") == made != retired


async def test_tenants_have_keys_of_their_own(world: World) -> None:
    await world.make("default")
    await world.make("acme")
    published = [await world.keyring.published(tenant) for tenant in ("default", "acme")]
    assert not {key["kid"] for key in published[0]} & {key["kid"] for key in published[1]}
    assert await world.keyring.by_kid("acme", published[0][0]["kid"]) is None


async def test_without_keys_there_is_nothing_to_sign_with(world: World) -> None:
    with pytest.raises(NotFound):
        await world.keyring.current("default", "set")
    assert await world.keyring.published("default") == []


async def test_what_is_published_holds_no_private_member(world: World) -> None:
    await world.make()
    published = await world.keyring.published("default", purposes=PURPOSES)
    assert len(published) == len(PURPOSES)
    assert len(await world.keyring.published("default")) == len(PURPOSES) - 1
    assert not any(PRIVATE_MEMBERS & key.keys() for key in published)
    for key in published:
        private = await world.keyring.by_kid("default", key["kid"])
        assert private is not None
        assert private["n"] == key["n"]


async def test_private_halves_are_sealed_in_the_table(world: World) -> None:
    await world.make()
    private = await world.keyring.current("default", "set")
    async with world.database.snapshot() as connection:
        rows = (await connection.execute(sa.select(store.signing_keys))).all()
    text = repr(rows)
    assert all(private[member] not in text for member in PRIVATE_MEMBERS)


async def test_another_secret_key_opens_nothing(world: World) -> None:
    await world.make()
    stranger = Keyring(world.database, world.feed, SecretBox("x" * 32))
    with pytest.raises(ValueError, match="SECRET_KEY"):
        await stranger.current("default", "set")


@pytest.mark.parametrize(
    ("state", "times_published"), [("next", 1), ("retired", 1), ("withdrawn", 0)]
)
async def test_a_key_is_published_before_it_signs_and_until_nothing_waits_for_it(
    world: World, state: str, times_published: int
) -> None:
    await world.make()
    kid = await world.current_kid("set")
    await world.move(kid, state)
    kids = [key["kid"] for key in await world.keyring.published("default")]
    assert kids.count(kid) == times_published
    assert (await world.keyring.by_kid("default", kid) is not None) == bool(times_published)


async def test_of_two_current_keys_the_newer_signs(world: World) -> None:
    await world.make()
    older = await world.current_kid("set")
    await world.move(older, "retired")
    world.clock.advance(timedelta(days=1).total_seconds())
    (newer,) = await world.make()
    await world.move(older, "current")
    assert await world.current_kid("set") == newer


async def test_a_caller_cannot_change_what_the_next_one_gets(world: World) -> None:
    await world.make()
    (await world.keyring.current("default", "set")).clear()
    assert await world.current_kid("set")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_of_two_nodes_that_start_at_once_one_makes_the_keys(
    database: Database, box: SecretBox
) -> None:
    """Regression: each made its own, and a purpose had two current keys."""
    world = World(database, box)
    async with asyncio.timeout(20):
        async with database.transaction() as connection:
            # As the other node does.
            await serialize(connection, "keys", "default")
            await store.add_key(connection, new_key(box, world.clock, "default", PURPOSES[0]))
            making = asyncio.create_task(world.make())
            await until_it_waits(database, making)
        assert len(await making) == len(PURPOSES) - 1
    async with database.snapshot() as connection:
        keys = await store.list_keys(connection, "default")
    assert sorted(key.purpose for key in keys) == sorted(PURPOSES)
