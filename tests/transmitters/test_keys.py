"""Signing keys: parsed once, the right one for each SET."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import runtime.store
from runtime.errors import NotFound
from runtime.feed import bump
from runtime.keyring import Keyring
from ssf.errors import SharedSignalsError
from ssf.jose import split_jws
from tests.transmitters.conftest import ONE_ENGINE, ROSA, SESSION_REVOKED, TENANT, World
from transmitters.keys import SIGNING_CHUNK, SignedSET, SigningKeys
from transmitters.model import Addressing, PendingSET, StoredEvent

pytestmark = [pytest.mark.anyio, ONE_ENGINE]

ADDRESSING = Addressing(iss="https://hub.example", aud=("cli_1",), subject_format="email")


def pending(jti: str = "J", **changes: Any) -> PendingSET:
    content = StoredEvent(
        event_type=SESSION_REVOKED,
        payload={},
        subjects=[dict(subject) for subject in changes.get("subjects", ROSA)],
        txn="t",
        toe=None,
    )
    return PendingSET(jti=jti, iat=1, kid=changes.get("kid"), attempts=0, event=content)


async def kids(world: World, *sets: PendingSET) -> list[str]:
    signed = await world.keys.sign(TENANT, sets, ADDRESSING)
    return [one.description if isinstance(one, SharedSignalsError) else one.kid for one in signed]


@pytest.mark.requirement("SET-36")
async def test_a_set_is_signed_by_its_own_key_while_that_is_published(world: World) -> None:
    await world.rotate()
    assert await kids(world, pending(), pending(kid="set-1")) == ["set-2", "set-1"]
    async with world.db.transaction() as connection:
        await runtime.store.set_key_state(
            connection, TENANT, "set-1", state="gone", now=world.clock.now()
        )
        await bump(connection, TENANT, "keys")
    await world.feed.refresh()
    assert await kids(world, pending(kid="set-1"), pending(kid="unknown")) == ["set-2", "set-2"]


async def test_an_algorithm_may_be_used_on_the_spot_without_threads(world: World) -> None:
    keys = SigningKeys(Keyring(world.db, world.feed, world.box), on_the_spot=True)
    keys.close()
    (signed,) = await keys.sign(TENANT, [pending()], ADDRESSING)
    assert isinstance(signed, SignedSET)
    assert (await world.opened(signed.raw))[1]["jti"] == "J"


async def test_many_sets_are_signed_in_order_and_a_broken_one_stops_none(world: World) -> None:
    sets = [pending(str(number)) for number in range(3 * SIGNING_CHUNK)]
    sets[5] = pending("5", subjects=[{"format": "opaque", "id": "x"}])
    signed = await world.keys.sign(TENANT, sets, ADDRESSING)
    jtis = [
        None if isinstance(one, SharedSignalsError) else (await world.opened(one.raw))[1]["jti"]
        for one in signed
    ]
    assert jtis == [None if number == 5 else str(number) for number in range(3 * SIGNING_CHUNK)]


@pytest.mark.requirement("SET-30")
async def test_every_header_holds_alg_typ_and_kid(world: World) -> None:
    (signed,) = await world.keys.sign(TENANT, [pending()], ADDRESSING)
    assert not isinstance(signed, SharedSignalsError)
    header = split_jws(signed.raw).header
    assert (header.alg, header.typ, header.kid) == ("RS256", "secevent+jwt", "set-1")


async def test_a_tenant_without_a_key_signs_nothing(world: World) -> None:
    with pytest.raises(NotFound):
        await world.keys.current_kid("keyless")


async def test_callers_that_sign_at_the_same_time_each_get_their_own_sets(world: World) -> None:
    """What is asked for in one turn of the loop shares threads, but never answers."""
    callers = [[pending(f"{caller}-{one}") for one in range(3)] for caller in range(SIGNING_CHUNK)]
    answers = await asyncio.gather(
        *(world.keys.sign(TENANT, sets, ADDRESSING) for sets in callers),
        world.keys.sign(TENANT, [pending("x", subjects=[])], ADDRESSING),
    )
    *good, (broken,) = answers
    assert isinstance(broken, SharedSignalsError)
    for sets, signed in zip(callers, good, strict=True):
        jtis = []
        for one in signed:
            assert not isinstance(one, SharedSignalsError)
            jtis.append((await world.opened(one.raw))[1]["jti"])
        assert jtis == [one.jti for one in sets]
