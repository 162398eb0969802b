"""SET-54 precisely: when a key is known, unknown, or undecided; and how often we ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from jwcrypto.jwk import JWK

from receivers.keys import (
    FAILED_FETCH_PAUSE,
    KEYS_FRESH,
    KEYS_USABLE,
    REFETCH_COOLDOWN,
    WAITING_MAX,
    IssuerKeys,
)
from receivers.model import Provider, ProviderProfile, ProviderSettings, build_profile
from runtime.clock import FixedClock
from runtime.errors import BodyTooLarge, ConnectFailed, Overloaded, TimedOut, Unavailable
from ssf.errors import SETError
from ssf.jose import JOSEHeader, VerificationKey
from ssf.jwks import JWKS_BYTES_MAX
from tests.receivers.vendor import JWKSHost, jwks

pytestmark = pytest.mark.requirement("SET-37", "SET-54", "EGW-82")


@pytest.fixture
def keys(jwks_host: JWKSHost) -> IssuerKeys:
    return IssuerKeys(jwks_host)


@pytest.fixture
def provider(settings: ProviderSettings, clock: FixedClock) -> ProviderProfile:
    return _profile(settings, clock)


def _profile(settings: ProviderSettings, clock: FixedClock) -> ProviderProfile:
    now = clock.now()
    stored = Provider(
        tenant_id="default",
        provider_id="prv_1",
        settings=settings,
        authorization_header_sealed=None,
        webhook_secrets_sealed=None,
        created_at=now,
        updated_at=now,
    )
    return build_profile(stored, authorization_header=None)


def _header(kid: str | None, alg: str = "RS256") -> JOSEHeader:
    return JOSEHeader(alg=alg, typ="secevent+jwt", kid=kid)


async def _outcomes(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, kids: list[str]
) -> list[VerificationKey | BaseException]:
    return await asyncio.gather(
        *(keys.key_for(provider, _header(kid), now=clock.now()) for kid in kids),
        return_exceptions=True,
    )


async def test_many_sets_at_a_cold_start_share_one_fetch(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    found = await _outcomes(keys, provider, clock, ["rsa-1"] * 50)

    assert all(isinstance(key, VerificationKey) and key.kid == "rsa-1" for key in found)
    assert len(jwks_host.requests) == 1
    assert jwks_host.requests[0].body_bytes_max == JWKS_BYTES_MAX


async def test_a_known_kid_never_fetches_again_while_the_keys_are_fresh(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    await keys.key_for(provider, _header("rsa-1"), now=clock.now())
    clock.advance(KEYS_FRESH.total_seconds() - 1)

    assert (await keys.key_for(provider, _header("ec-1", "ES256"), now=clock.now())).kid == "ec-1"
    assert len(jwks_host.requests) == 1


async def test_an_unknown_kid_is_refused_after_a_fetch_that_began_after_it_arrived(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock
) -> None:
    with pytest.raises(SETError) as refused:
        await keys.key_for(provider, _header("rsa-9"), now=clock.now())

    assert (refused.value.code, refused.value.requirement) == ("invalid_key", "SET-54")


async def test_a_kid_that_is_published_for_another_algorithm_is_unknown(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock
) -> None:
    with pytest.raises(SETError) as refused:
        await keys.key_for(provider, _header("rsa-1", "ES256"), now=clock.now())

    assert refused.value.code == "invalid_key"


async def test_a_flood_of_unknown_kids_fetches_once_per_cool_down(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    outcomes = []
    for _ in range(60):
        outcomes += await _outcomes(keys, provider, clock, [f"made-up-{n}" for n in range(20)])
        clock.advance(1)

    assert len(jwks_host.requests) == 60 / REFETCH_COOLDOWN.total_seconds()
    refused = [outcome for outcome in outcomes if isinstance(outcome, SETError)]
    undecided = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert len(refused) == len(jwks_host.requests)
    assert len(refused) + len(undecided) == len(outcomes)
    assert all(1 <= trouble.retry_after_s <= 30 for trouble in undecided)


async def test_a_set_that_joins_a_running_fetch_is_not_refused_by_it(
    keys: IssuerKeys,
    provider: ProviderProfile,
    clock: FixedClock,
    jwks_host: JWKSHost,
    rsa: JWK,
    next_rsa: JWK,
) -> None:
    """The document may have been read before the vendor published the key."""
    jwks_host.open.clear()
    first = asyncio.create_task(keys.key_for(provider, _header("rsa-1"), now=clock.now()))
    await _until(lambda: len(jwks_host.requests) == 1)
    late = asyncio.create_task(keys.key_for(provider, _header("rsa-2"), now=clock.now()))
    await asyncio.sleep(0)
    jwks_host.open.set()

    assert (await first).kid == "rsa-1"
    with pytest.raises(Unavailable) as undecided:
        await late

    jwks_host.publish(rsa, next_rsa)
    clock.advance(undecided.value.retry_after_s)
    assert (await keys.key_for(provider, _header("rsa-2"), now=clock.now())).kid == "rsa-2"


async def test_the_one_that_waited_out_the_cool_down_finds_the_rotated_key(
    keys: IssuerKeys,
    provider: ProviderProfile,
    clock: FixedClock,
    jwks_host: JWKSHost,
    next_rsa: JWK,
) -> None:
    await keys.key_for(provider, _header("rsa-1"), now=clock.now())
    jwks_host.publish(next_rsa)

    with pytest.raises(Unavailable) as undecided:
        await keys.key_for(provider, _header("rsa-2"), now=clock.now())
    clock.advance(undecided.value.retry_after_s)

    assert (await keys.key_for(provider, _header("rsa-2"), now=clock.now())).kid == "rsa-2"


@pytest.mark.parametrize(
    "failure", [TimedOut("slow"), ConnectFailed("refused"), BodyTooLarge("endless")]
)
async def test_a_failed_fetch_is_undecided_and_paused(
    keys: IssuerKeys,
    provider: ProviderProfile,
    clock: FixedClock,
    jwks_host: JWKSHost,
    failure: Unavailable,
) -> None:
    jwks_host.failure = failure

    outcomes = await _outcomes(keys, provider, clock, ["rsa-1"] * 5)
    outcomes += await _outcomes(keys, provider, clock, ["rsa-1"] * 5)

    assert all(type(outcome) is Unavailable for outcome in outcomes)
    assert len(jwks_host.requests) == 1
    jwks_host.failure = None
    clock.advance(FAILED_FETCH_PAUSE.total_seconds())
    assert (await keys.key_for(provider, _header("rsa-1"), now=clock.now())).kid == "rsa-1"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (302, b""),
        (404, b'{"keys": []}'),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"keys": {}}'),
        (200, json.dumps({"keys": [{}] * 101}).encode()),
    ],
)
async def test_an_answer_that_is_no_key_set_is_a_failed_fetch(
    keys: IssuerKeys,
    provider: ProviderProfile,
    clock: FixedClock,
    jwks_host: JWKSHost,
    status: int,
    body: bytes,
) -> None:
    jwks_host.status, jwks_host.body = status, body

    with pytest.raises(Unavailable):
        await keys.key_for(provider, _header("rsa-1"), now=clock.now())


async def test_known_keys_outlive_failed_fetches_for_a_day(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    await keys.key_for(provider, _header("rsa-1"), now=clock.now())
    jwks_host.failure = TimedOut("slow")
    clock.advance((KEYS_USABLE - timedelta(seconds=1)).total_seconds())
    assert (await keys.key_for(provider, _header("rsa-1"), now=clock.now())).kid == "rsa-1"

    clock.advance(FAILED_FETCH_PAUSE.total_seconds())
    with pytest.raises(Unavailable):
        await keys.key_for(provider, _header("rsa-1"), now=clock.now())


async def test_a_withdrawn_key_stops_working_when_the_keys_are_no_longer_fresh(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost, ec: JWK
) -> None:
    await keys.key_for(provider, _header("rsa-1"), now=clock.now())
    jwks_host.publish(ec)
    clock.advance(KEYS_FRESH.total_seconds())

    with pytest.raises(SETError) as refused:
        await keys.key_for(provider, _header("rsa-1"), now=clock.now())

    assert refused.value.code == "invalid_key"


async def test_while_stale_keys_are_fetched_again_others_go_on_with_the_old_ones(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    await keys.key_for(provider, _header("rsa-1"), now=clock.now())
    clock.advance(KEYS_FRESH.total_seconds())
    jwks_host.open.clear()
    fetching = asyncio.create_task(keys.key_for(provider, _header("rsa-1"), now=clock.now()))
    await _until(lambda: len(jwks_host.requests) == 2)

    assert (await keys.key_for(provider, _header("rsa-1"), now=clock.now())).kid == "rsa-1"

    jwks_host.open.set()
    await fetching


async def test_a_fetch_whose_asker_goes_away_leaves_nobody_waiting(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    jwks_host.open.clear()
    asker = asyncio.create_task(keys.key_for(provider, _header("rsa-1"), now=clock.now()))
    await _until(lambda: len(jwks_host.requests) == 1)
    waiting = asyncio.create_task(keys.key_for(provider, _header("rsa-1"), now=clock.now()))
    await asyncio.sleep(0)
    asker.cancel()

    with pytest.raises(Unavailable):
        await waiting
    jwks_host.open.set()
    clock.advance(FAILED_FETCH_PAUSE.total_seconds())
    assert (await keys.key_for(provider, _header("rsa-1"), now=clock.now())).kid == "rsa-1"


async def test_only_so_many_wait_for_a_slow_fetch(
    keys: IssuerKeys, provider: ProviderProfile, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    jwks_host.open.clear()
    waiting = [
        asyncio.create_task(keys.key_for(provider, _header("rsa-1"), now=clock.now()))
        for _ in range(WAITING_MAX + 1)
    ]
    await _until(lambda: len(jwks_host.requests) == 1)
    await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await keys.key_for(provider, _header("rsa-1"), now=clock.now())

    jwks_host.open.set()
    assert len(await asyncio.gather(*waiting)) == WAITING_MAX + 1


async def test_inline_keys_are_complete_by_definition(
    keys: IssuerKeys,
    settings: ProviderSettings,
    clock: FixedClock,
    jwks_host: JWKSHost,
    rsa: JWK,
) -> None:
    provider = _profile(replace(settings, jwks_uri=None, jwks=jwks(rsa)), clock)

    assert (await keys.key_for(provider, _header(None), now=clock.now())).kid == "rsa-1"
    with pytest.raises(SETError) as refused:
        await keys.key_for(provider, _header("rsa-2"), now=clock.now())
    assert refused.value.code == "invalid_key"
    assert jwks_host.requests == []


async def test_http_is_fetched_in_development_mode_only(
    settings: ProviderSettings, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    provider = _profile(replace(settings, jwks_uri="http://127.0.0.1:8080/jwks"), clock)

    with pytest.raises(Unavailable):
        await IssuerKeys(jwks_host).key_for(provider, _header("rsa-1"), now=clock.now())
    assert jwks_host.requests == []

    development = IssuerKeys(jwks_host, dev_insecure=True)
    assert (await development.key_for(provider, _header("rsa-1"), now=clock.now())).kid == "rsa-1"


async def test_a_changed_jwks_uri_starts_from_nothing(
    keys: IssuerKeys, settings: ProviderSettings, clock: FixedClock, jwks_host: JWKSHost, ec: JWK
) -> None:
    await keys.key_for(_profile(settings, clock), _header("rsa-1"), now=clock.now())
    jwks_host.publish(ec)
    moved = _profile(replace(settings, jwks_uri="https://new.vendor.example/jwks"), clock)

    with pytest.raises(SETError):
        await keys.key_for(moved, _header("rsa-1"), now=clock.now())


async def test_only_so_many_key_sets_are_remembered(
    settings: ProviderSettings, clock: FixedClock, jwks_host: JWKSHost
) -> None:
    small = IssuerKeys(jwks_host, issuers_max=2)
    places = [
        _profile(replace(settings, jwks_uri=f"https://{n}.example/jwks"), clock) for n in range(3)
    ]
    for provider in (*places, places[2], places[0]):
        await small.key_for(provider, _header("rsa-1"), now=clock.now())

    asked = [request.url for request in jwks_host.requests]
    assert asked == [provider.jwks_uri for provider in (*places, places[0])]


async def _until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition holds, at most a thousand turns."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")
