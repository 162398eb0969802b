"""Tests of ssf.jwks."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from ssf.errors import LocalProtocolError, RemoteProtocolError
from ssf.jwks import (
    KEY_TRANSITIONS,
    KEYS_MAX,
    JWKSet,
    KeyState,
    check_transition,
    parse_jwks,
    render_jwks,
)
from tests.ssf.kit import JSON_VALUES, KeyPairs, Vector


def all_keys(key_pairs: KeyPairs) -> JWKSet:
    return parse_jwks({"keys": [pair.public for pair in key_pairs.values()]})


@pytest.mark.requirement("SET-54")
def test_a_key_is_found_by_kid_and_algorithm_together(key_pairs: KeyPairs) -> None:
    keys = all_keys(key_pairs)
    found = keys.find("key-ES256", "ES256")
    assert found is not None
    assert found.kid == "key-ES256"
    assert keys.find("key-ES256", "RS256") is None
    assert keys.find("unheard-of", "ES256") is None


@pytest.mark.requirement("SET-54")
def test_without_a_kid_only_a_single_fitting_key_is_found(key_pairs: KeyPairs) -> None:
    assert all_keys(key_pairs).find(None, "EdDSA") is not None
    twice = [key_pairs["EdDSA"].public, key_pairs["EdDSA"].public | {"kid": "other"}]
    assert parse_jwks({"keys": twice}).find(None, "EdDSA") is None
    assert parse_jwks({"keys": []}).find(None, "EdDSA") is None


@pytest.mark.requirement("SET-54", "SET-33")
def test_keys_we_cannot_use_are_ignored(key_pairs: KeyPairs) -> None:
    usable = key_pairs["RS256"].public
    strange = [
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"},
        {"kty": "oct", "k": "AA"},
        usable | {"use": "enc"},
        key_pairs["RS256"].private,
        "no object",
        None,
    ]
    keys = parse_jwks(json.dumps({"keys": [*strange, usable], "extra": 1}).encode())
    assert [key.kid for key in keys.keys] == ["key-RS256"]


@pytest.mark.requirement("SET-54")
@pytest.mark.parametrize(
    "document",
    [b"[]", b"{}", b'{"keys":{}}', b"<html>", {"keys": None}, {"keys": [{}] * (KEYS_MAX + 1)}],
)
def test_what_is_no_jwk_set_is_refused(document: bytes | dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_jwks(document)
    assert (caught.value.code, caught.value.requirement) == ("invalid_jwks", "SET-54")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["kty", "n", "e", "crv", "x", "y", "alg", "kid", "use", "key_ops"]),
            JSON_VALUES | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB"]),
            max_size=6,
        ),
        max_size=3,
    )
)
def test_no_key_however_odd_breaks_the_set(members: list[dict[str, object]]) -> None:
    assert isinstance(parse_jwks({"keys": members}), JWKSet)


@given(st.binary())
def test_arbitrary_bytes_raise_only_protocol_errors(raw: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert isinstance(parse_jwks(raw), JWKSet)


@pytest.mark.requirement("SET-35", "INT-5")
def test_the_rendered_set_holds_exactly_public_members(key_pairs: KeyPairs) -> None:
    rendered = render_jwks(pair.public | {"x5c": ["..."], "exp": 5} for pair in key_pairs.values())
    members = {key["alg"]: set(key) for key in rendered["keys"]}  # type: ignore[attr-defined,]  # a list
    common = {"kty", "kid", "use", "alg"}
    assert members == {
        "RS256": common | {"n", "e"},
        "PS256": common | {"n", "e"},
        "ES256": common | {"crv", "x", "y"},
        "EdDSA": common | {"crv", "x"},
    }
    assert len(parse_jwks(rendered).keys) == 4


@pytest.mark.requirement("SET-35")
def test_the_example_set_reads_and_renders_to_itself(vector: Vector) -> None:
    assert render_jwks(vector(3)["keys"]) == vector(3)
    assert parse_jwks(vector(3)).find("hub-2026-03-a", "RS256") is not None


@pytest.mark.requirement("SET-35")
@pytest.mark.parametrize(
    "spoil", [{"kid": None}, {"alg": None}, {"d": "AQAB"}, {"kty": "oct", "k": "AA"}]
)
def test_a_key_that_must_not_be_published_is_our_own_fault(
    spoil: dict[str, object], key_pairs: KeyPairs
) -> None:
    jwk = {k: v for k, v in (key_pairs["RS256"].public | spoil).items() if v is not None}
    with pytest.raises(LocalProtocolError) as caught:
        render_jwks([jwk])
    assert caught.value.code == "unpublishable_key"


@pytest.mark.requirement("SET-35")
def test_two_keys_must_not_share_a_kid(key_pairs: KeyPairs) -> None:
    with pytest.raises(LocalProtocolError, match="share a kid"):
        render_jwks([key_pairs["ES256"].public, key_pairs["ES256"].public])


@pytest.mark.requirement("SET-34", "INT-15")
def test_an_rsa_key_below_2048_bits_is_not_published() -> None:
    small = json.loads(JWK.generate(kty="RSA", size=1024).export_public())
    with pytest.raises(LocalProtocolError):
        render_jwks([small | {"kid": "a", "alg": "RS256"}])


@pytest.mark.requirement("SET-36")
def test_a_key_lives_from_next_over_current_and_retired_to_gone() -> None:
    life = [KeyState.NEXT, KeyState.CURRENT, KeyState.RETIRED, KeyState.GONE]
    for current, wanted in pairwise(life):
        check_transition(current, wanted)
    assert set(KEY_TRANSITIONS) == set(KeyState)


@pytest.mark.requirement("SET-36")
@pytest.mark.parametrize("current", list(KeyState))
@pytest.mark.parametrize("wanted", list(KeyState))
def test_every_other_step_is_our_own_fault(current: KeyState, wanted: KeyState) -> None:
    if wanted in KEY_TRANSITIONS[current]:
        check_transition(current, wanted)
        return
    with pytest.raises(LocalProtocolError) as caught:
        check_transition(current, wanted)
    assert caught.value.code == "key_transition"
