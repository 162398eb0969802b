"""Rotation of signing keys, as a receiver sees it that keeps our key set for as long as it may."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime import rotation, store
from runtime.clock import FixedClock, from_epoch_s
from runtime.database import Database, metadata
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import ConfigFeed
from runtime.keyring import Keyring, make_keys
from runtime.notify import Notifier
from runtime.rotation import PUBLISHED_AFTER, PUBLISHED_FIRST
from runtime.secrets import SecretBox
from runtime.store import StoredKey
from ssf.jose import check_header, sign, signing_key, split_jws, verification_key, verify

NOW = from_epoch_s(1_767_225_600)
TENANT = "default"


class World:
    """A tenant's keys, and the operations on them."""

    def __init__(self, database: Database) -> None:
        self.database, self.box = database, SecretBox("a secret key of the tests, long enough")
        self.clock = FixedClock(NOW)
        self.feed = ConfigFeed(database, Notifier())
        self.keyring = Keyring(database, self.feed, self.box)

    async def prepare(self, purpose: str = "set", *, alg: str = "RS256") -> StoredKey:
        return await self._do(
            lambda connection: rotation.prepare_key(
                connection, TENANT, purpose, box=self.box, clock=self.clock, alg=alg
            )
        )

    async def activate(self, kid: str, *, at_once: bool = False) -> StoredKey:
        return await self._do(
            lambda connection: rotation.activate_key(
                connection, TENANT, kid, now=self.clock.now(), at_once=at_once
            )
        )

    async def withdraw(self, kid: str, *, at_once: bool = False) -> StoredKey:
        return await self._do(
            lambda connection: rotation.withdraw_key(
                connection, TENANT, kid, now=self.clock.now(), at_once=at_once
            )
        )

    async def _do(self, change: Callable[[AsyncConnection], Awaitable[StoredKey]]) -> StoredKey:
        async with self.database.transaction() as connection:
            changed = await change(connection)
        await self.feed.refresh()
        return changed

    async def published(self) -> set[str]:
        return {key["kid"] for key in await self.keyring.published(TENANT)}

    async def signing(self, purpose: str = "set") -> Any:
        return (await self.keyring.current(TENANT, purpose))["kid"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    opened = Database.connect(f"sqlite:///{tmp_path}/hub.db")
    async with opened.transaction() as connection:
        await connection.run_sync(
            metadata.create_all, tables=[store.config_versions, store.signing_keys]
        )
    made = World(opened)
    await make_keys(opened, made.box, made.clock, TENANT)
    await made.feed.refresh()
    yield made
    await opened.close()


@pytest.mark.requirement("SET-35")
async def test_whatever_signs_was_published_for_as_long_as_a_receiver_may_keep_our_keys(
    world: World,
) -> None:
    first = await world.signing()
    kept = [await world.published()]  # what a receiver has that fetched an hour ago, and later

    following = (await world.prepare()).kid
    assert await world.signing() == first in await world.published()
    kept.append(await world.published())

    world.clock.advance(PUBLISHED_FIRST.total_seconds())
    await world.activate(following)
    assert await world.signing() == following in kept[-1]
    # A receiver that fetches only now still verifies what was signed before.
    assert first in await world.published()

    world.clock.advance(PUBLISHED_AFTER.total_seconds())
    await world.withdraw(first)
    assert await world.published() & {first, following} == {following}
    assert await world.keyring.by_kid(TENANT, first) is None


async def test_a_key_does_not_sign_before_receivers_had_time_to_fetch_it(world: World) -> None:
    following = (await world.prepare()).kid
    world.clock.advance(PUBLISHED_FIRST.total_seconds() - 1)
    with pytest.raises(Conflict, match="possible from 2026-01-01T01:00:00Z"):
        await world.activate(following)
    assert await world.signing() != following


async def test_a_retired_key_stays_while_what_it_signed_may_be_under_way(world: World) -> None:
    first = await world.signing()
    following = (await world.prepare()).kid
    await world.activate(following, at_once=True)
    world.clock.advance(PUBLISHED_AFTER.total_seconds() - 1)
    with pytest.raises(Conflict, match="may be under way"):
        await world.withdraw(first)
    assert first in await world.published()


async def test_a_stolen_key_is_out_of_use_in_three_steps_without_waiting(world: World) -> None:
    stolen = await world.signing()
    following = (await world.prepare()).kid
    await world.activate(following, at_once=True)
    await world.withdraw(stolen, at_once=True)
    assert await world.signing() == following
    assert stolen not in await world.published()


async def test_the_key_that_signs_is_never_withdrawn(world: World) -> None:
    with pytest.raises(Conflict, match="another must be activated first"):
        await world.withdraw(await world.signing(), at_once=True)


async def test_sets_may_be_signed_with_es256(world: World) -> None:
    following = await world.prepare(alg="ES256")
    await world.activate(following.kid, at_once=True)
    jwk = await world.keyring.current(TENANT, "set")
    signed = sign(b'{"jti":"1"}', signing_key(jwk), typ="secevent+jwt")
    (public,) = (key for key in await world.keyring.published(TENANT) if key["kid"] == jwk["kid"])
    assert (public["alg"], public["crv"], "d" in public) == ("ES256", "P-256", False)
    jws = split_jws(signed)
    check_header(jws.header)
    verify(jws, verification_key(public))


async def test_each_purpose_rotates_for_itself(world: World) -> None:
    before = {purpose: await world.signing(purpose) for purpose in ("set", "logout", "gtr")}
    following = (await world.prepare("logout")).kid
    await world.activate(following, at_once=True)
    assert await world.signing("logout") == following
    assert {await world.signing("set"), await world.signing("gtr")} == {
        before["set"],
        before["gtr"],
    }


async def test_what_makes_no_sense_is_refused_and_changes_nothing(world: World) -> None:
    first = await world.signing()
    following = (await world.prepare()).kid
    before = await world.published()
    with pytest.raises(Conflict, match="a next key for set already"):
        await world.prepare()
    with pytest.raises(Invalid):
        await world.prepare("tea")
    for purpose, alg in (("set", "HS256"), ("set", "none"), ("logout", "ES256")):
        with pytest.raises(Invalid) as refused:
            await world.prepare(purpose, alg=alg)
        assert refused.value.pointers[0][0] == "/alg"
    with pytest.raises(NotFound):
        await world.activate("set-nobody")
    with pytest.raises(Conflict, match="current, not next"):
        await world.activate(first)
    assert await world.published() == before
    await world.withdraw(following)
    with pytest.raises(Conflict, match="withdrawn"):
        await world.withdraw(following)
    assert await world.signing() == first
