"""How SETs of a stream look: for receivers of old drafts, and encrypted for one receiver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from ssf.encryption import parse_encryption_key
from ssf.errors import StreamError
from ssf.jose import split_jws
from ssf.stream import StreamConfiguration, parse_patch, render_configuration
from tests.transmitters.conftest import (
    ISSUER,
    NOW_S,
    PAYROLL,
    SESSION_REVOKED,
    WIKI,
    World,
    event,
)
from transmitters import management, store
from transmitters.deps import StreamDefaults

pytestmark = pytest.mark.anyio

OLD_PUSH = "https://schemas.openid.net/secevent/risc/delivery-method/push"
OLD_POLL = "https://schemas.openid.net/secevent/risc/delivery-method/poll"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
FEED = "https://federation.receiver.example/feeds/1"
RECEIVER_RSA = JWK.generate(kty="RSA", size=2048, kid="theirs")
RECEIVER_EC = JWK.generate(kty="EC", crv="P-256", kid="theirs")


async def old_stream(world: World, **body: Any) -> StreamConfiguration:
    """Create a stream as the receivers of old drafts ask for one."""
    formats = ("email", "iss_sub")
    world.stream_defaults["app_payroll"] = StreamDefaults(subject_formats=formats, profile="sse")
    values = {"aud": [FEED], "iss": "whatever", "delivery": {"method": OLD_POLL}, **body}
    return await world.stream(**values)


async def encrypt_for(world: World, stream_id: str, key: JWK) -> None:
    text = parse_encryption_key(key.export_public(as_dict=True))
    stream = await world.stored_stream(stream_id)
    async with world.db.transaction() as connection:
        await store.change_stream(
            connection, replace(stream, encryption_key=text), now=world.clock.now()
        )


def decrypt(raw: str, key: JWK) -> bytes:
    opened = JWE()
    opened.deserialize(raw, key=key)
    payload: bytes = opened.payload
    return payload


@pytest.mark.requirement("OLD-1", "OLD-2", "SET-10", "SSF-VER-5")
async def test_a_receiver_of_an_old_draft_gets_stream_and_sets_in_its_form(world: World) -> None:
    stream = await old_stream(world, format="iss_sub")
    shown = render_configuration(stream)
    assert shown["aud"] == [FEED]
    assert shown["iss"] == ISSUER
    assert shown["format"] == "iss_sub"
    assert shown["delivery"]["method"] == OLD_POLL  # type: ignore[index]  # an object
    # It is verified before anybody asked: such receivers do not ask.
    ((jti, raw),) = (await world.poll(stream.stream_id)).sets.items()
    _, first = await world.opened(raw)
    assert first["events"] == {VERIFICATION: {}}
    assert first["sub_id"] == {"format": "opaque", "id": stream.stream_id}
    await world.poll(stream.stream_id, ack=(jti,), max_events=0)

    await world.publish(event(payload={"event_timestamp": NOW_S}))
    (raw,) = (await world.poll(stream.stream_id)).sets.values()
    jws, claims = await world.opened(raw)
    user = {"format": "iss_sub", "iss": "https://login.green.example", "sub": "u-20417"}
    assert claims["events"] == {
        SESSION_REVOKED: {"event_timestamp": NOW_S, "subject": {"user": user}}
    }
    assert (claims["aud"], claims["iss"]) == (FEED, ISSUER)
    assert "sub_id" not in claims
    assert jws.header.typ == "secevent+jwt"


@pytest.mark.requirement("OLD-2", "SSF-OP-21", "SSF-DEL-5")
async def test_an_old_stream_is_changed_in_its_own_words(world: World) -> None:
    stream = await old_stream(world)
    push = {"method": OLD_PUSH, "endpoint_url": "https://receiver.example/feed"}
    body = {"stream_id": stream.stream_id, "delivery": push, "iss": "x", "aud": ["other"]}
    change = parse_patch(msgspec.json.encode(body))
    changed = await management.change_stream(change, caller=PAYROLL, deps=world.deps)
    assert render_configuration(changed)["delivery"] == push
    # Whom its SETs are for stays what it was.
    assert changed.aud == (FEED,)
    # The profile is the admin's to give: another client's stream is of SSF 1.0.
    other = await world.stream(WIKI)
    change = parse_patch(msgspec.json.encode({"stream_id": other.stream_id, "delivery": push}))
    with pytest.raises(StreamError, match="not supported"):
        await management.change_stream(change, caller=WIKI, deps=world.deps)


@pytest.mark.requirement("OLD-1", "SSF-OP-4", "SUB-24", "SET-14")
async def test_what_an_old_draft_lets_a_receiver_choose_is_closed_to_others(world: World) -> None:
    for body in (
        {"aud": [FEED]},
        {"iss": "https://other.example"},
        {"delivery": {"method": OLD_POLL}},
    ):
        with pytest.raises(StreamError):
            await world.stream(WIKI, **body)
    # A format the admin did not give the app tells the receiver nothing it should not know.
    stream = await old_stream(world, format="phone_number")
    assert render_configuration(stream)["format"] == "email"
    with pytest.raises(StreamError, match="aud"):
        await old_stream(world, aud=[FEED] * 6)
    unnamed = await old_stream(world, aud=None)
    assert unnamed.aud == (PAYROLL.client_id,)
    # SSF 1.0 knows no `format`; it is ignored there.
    plain = await world.stream(WIKI, format="email")
    assert "format" not in render_configuration(plain)


@pytest.mark.requirement("SET-21", "SET-30", "SET-5")
@pytest.mark.parametrize("key", [RECEIVER_RSA, RECEIVER_EC], ids=["RSA", "EC"])
async def test_a_polled_set_is_a_signed_one_that_only_its_receiver_can_open(
    world: World, key: JWK
) -> None:
    stream = await world.stream()
    plain = await world.stream(WIKI)
    await encrypt_for(world, stream.stream_id, key)
    await world.publish(event())
    ((jti, raw),) = (await world.poll(stream.stream_id)).sets.items()
    assert "rosa" not in raw
    assert raw.count(".") == 4
    jws, claims = await world.opened(decrypt(raw, key))
    assert (jws.header.typ, claims["jti"]) == ("secevent+jwt", jti)
    assert claims["sub_id"] == {"format": "email", "email": "rosa.lind@green.example"}
    # Another stream is as it was.
    (raw,) = (await world.poll(plain.stream_id, WIKI)).sets.values()
    assert split_jws(raw.encode()).header.alg == "RS256"
    # The receipt names the key inside, which is the one that a receiver has to find.
    assert {row.kid for row in (await world.rows()).values()} == {"set-1"}
