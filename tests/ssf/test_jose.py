"""Tests of ssf.jose, with jwcrypto as the second opinion."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from ssf.errors import LocalProtocolError, RemoteProtocolError, SETError
from ssf.jose import (
    DEFAULT_ALGORITHMS,
    SET_BYTES_MAX,
    CompactJWS,
    JOSEHeader,
    check_header,
    sign,
    signing_key,
    split_jws,
    verification_key,
    verify,
)
from tests.ssf.kit import KeyPairs, Vector

ALGORITHMS = sorted(DEFAULT_ALGORITHMS)
PAYLOAD = b'{"iss":"https://vendor.example","jti":"1"}'


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def compact(header: bytes, payload: bytes = PAYLOAD, signature: bytes = b"s") -> bytes:
    return b".".join([b64(header), b64(payload), b64(signature)])


def refusal(raw: bytes) -> SETError:
    with pytest.raises(SETError) as caught:
        split_jws(raw)
    return caught.value


def accepted_by_jwcrypto(raw: bytes, public: dict[str, object]) -> bool:
    second = JWS()
    second.allowed_algs = ALGORITHMS
    try:
        second.deserialize(raw.decode("latin-1"), JWK(**public))
    except (JWException, ValueError):
        return False
    return True


def accepted_by_us(raw: bytes, public: dict[str, object]) -> bool:
    try:
        jws = split_jws(raw)
        check_header(jws.header)
        verify(jws, verification_key(public))
    except SETError:
        return False
    return True


# --- taking apart


@pytest.mark.requirement("SET-51")
def test_a_compact_jws_comes_apart_into_what_was_put_in() -> None:
    raw = compact(b'{"alg":"RS256","typ":"secevent+jwt","kid":"k"}', PAYLOAD, b"sig")
    assert split_jws(raw) == CompactJWS(
        header=JOSEHeader(alg="RS256", typ="secevent+jwt", kid="k"),
        payload=PAYLOAD,
        signing_input=raw.rpartition(b".")[0],
        signature=b"sig",
    )


@pytest.mark.requirement("SET-51")
@pytest.mark.parametrize("raw", [b"", b"a.b", b"a.b.c.d.e", b"...", b"{}"])
def test_a_set_has_three_parts(raw: bytes) -> None:
    error = refusal(raw)
    assert (error.code, error.requirement) == ("invalid_request", "SET-51")


@pytest.mark.requirement("SET-51")
@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"alg":"RS256","alg":"none"}',
        b"{}",
        b'{"alg":1}',
        b'{"alg":"RS256","kid":7}',
        b'{"alg":"RS256","typ":["secevent+jwt"]}',
        b'{"alg":"RS256","x":"' + b"y" * 5000 + b'"}',
    ],
)
def test_a_broken_header_is_refused(header: bytes) -> None:
    assert refusal(compact(header)).code == "invalid_request"


@pytest.mark.requirement("SET-51")
@pytest.mark.parametrize("payload", [b"[]", b"", b'{"jti":"1","jti":"2"}', b"\xff"])
def test_a_payload_that_is_no_unambiguous_object_is_refused(payload: bytes) -> None:
    assert refusal(compact(b'{"alg":"RS256"}', payload)).requirement == "SET-51"


@pytest.mark.requirement("SET-51")
def test_an_oversized_set_is_refused_before_it_is_read() -> None:
    assert "bytes" in refusal(b"." * (SET_BYTES_MAX + 1)).description


@pytest.mark.requirement("SET-51")
@pytest.mark.parametrize("spoil", [b"%s=", b"%s\n", b" %s", b"%s+", b"%s/"])
def test_base64url_with_padding_blanks_or_foreign_letters_is_refused(spoil: bytes) -> None:
    header, payload, signature = compact(b'{"alg":"RS256"}').split(b".")
    assert refusal(b".".join([header, payload, spoil % signature])).requirement == "SET-51"
    assert refusal(b".".join([header, spoil % payload, signature])).requirement == "SET-51"
    assert refusal(b".".join([spoil % header, payload, signature])).requirement == "SET-51"


@pytest.mark.requirement("SET-51")
@given(st.binary(min_size=1, max_size=40), st.data())
def test_only_the_canonical_spelling_of_a_signature_is_read(
    signature: bytes, data: st.DataObject
) -> None:
    raw = compact(b'{"alg":"RS256"}', signature=signature)
    assert split_jws(raw).signature == signature
    other_last = data.draw(
        st.sampled_from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    )
    changed = raw[:-1] + bytes([other_last])
    with suppress(SETError):
        assert b64(split_jws(changed).signature) == changed.rpartition(b".")[2]


@given(
    st.binary(max_size=200)
    | st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(
        lambda parts: b".".join(b64(part) for part in parts)
    )
)
def test_splitting_arbitrary_bytes_raises_only_protocol_errors(raw: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert isinstance(split_jws(raw), CompactJWS)


# --- header rules


def header(**members: Any) -> JOSEHeader:
    return JOSEHeader(**{"alg": "RS256", "typ": "secevent+jwt"} | members)


@pytest.mark.requirement("SET-30", "SET-36")
def test_the_header_of_the_example_passes(vector: Vector) -> None:
    jws = split_jws(compact(json.dumps(vector(1)).encode()))
    check_header(jws.header)
    assert jws.header.kid == vector(1)["kid"]


@pytest.mark.requirement("SET-31", "SET-52")
@pytest.mark.parametrize(
    "typ", ["SecEvent+JWT", "application/secevent+jwt", "APPLICATION/SECEVENT+JWT"]
)
def test_the_type_compares_as_a_media_type(typ: str) -> None:
    check_header(header(typ=typ))


@pytest.mark.requirement("SET-31", "SET-52", "SET-40")
@pytest.mark.parametrize("typ", [None, "", "JWT", "at+jwt", "logout+jwt", "text/secevent+jwt"])
def test_another_type_or_none_is_refused(typ: str | None) -> None:
    with pytest.raises(SETError) as caught:
        check_header(header(typ=typ))
    assert (caught.value.code, caught.value.requirement) == ("invalid_request", "SET-31")


@pytest.mark.requirement("SET-31")
def test_a_legacy_feed_may_leave_the_type_out_but_not_have_another() -> None:
    check_header(header(typ=None), allow_missing_typ=True)
    with pytest.raises(SETError):
        check_header(header(typ="JWT"), allow_missing_typ=True)


def test_another_profile_can_ask_for_its_own_type() -> None:
    check_header(header(typ="logout+jwt"), typ="logout+jwt")


@pytest.mark.requirement("SET-33", "SET-52")
@pytest.mark.parametrize("alg", ["none", "None", "HS256", "HS512", "RS1", "RS512", "", "rs256"])
def test_an_algorithm_outside_the_allow_list_is_refused(alg: str) -> None:
    with pytest.raises(SETError) as caught:
        check_header(header(alg=alg))
    assert (caught.value.code, caught.value.requirement) == ("invalid_key", "SET-33")


@pytest.mark.requirement("SET-33")
def test_an_upstream_can_allow_fewer_algorithms_but_never_symmetric_ones() -> None:
    with pytest.raises(SETError):
        check_header(header(alg="RS256"), algorithms={"ES256"})
    with pytest.raises(SETError):
        check_header(header(alg="HS256"), algorithms={"HS256"})


@pytest.mark.requirement("SET-37", "SET-52")
@pytest.mark.parametrize("crit", ["[]", '["exp"]', "null", "7"])
def test_critical_extensions_are_refused(crit: str) -> None:
    raw = compact(f'{{"alg":"RS256","typ":"secevent+jwt","crit":{crit}}}'.encode())
    with pytest.raises(SETError) as caught:
        check_header(split_jws(raw).header)
    assert caught.value.requirement == "SET-37"


@pytest.mark.requirement("SET-37")
def test_key_material_in_the_header_is_ignored() -> None:
    raw = compact(
        b'{"alg":"RS256","typ":"secevent+jwt","jku":"https://evil.example","jwk":{"kty":"oct"}}'
    )
    check_header(split_jws(raw).header)


# --- keys


@pytest.mark.requirement("SET-33", "SET-35")
@pytest.mark.parametrize(
    "spoil",
    [
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "unknown"},
        {"kty": ["RSA"]},
        {"kty": None},
        {"d": "AQAB"},
        {"k": "AQAB"},
        {"use": "enc"},
        {"use": None},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kid": 7},
        {"kid": ""},
        {"kid": "k" * 600},
        {"alg": "RS512"},
        {"alg": "ES256"},
        {"alg": ["RS256"]},
        {"n": "!!"},
        {"n": 5},
        {"n": None},
        {"n": "AQAB"},
        {"e": "AA"},
    ],
)
def test_a_jwk_that_cannot_verify_sets_is_refused(
    spoil: dict[str, object], key_pairs: KeyPairs
) -> None:
    with pytest.raises(SETError) as caught:
        verification_key(key_pairs["RS256"].public | spoil)
    assert caught.value.code == "invalid_key"


@pytest.mark.requirement("SET-34", "SET-33")
@pytest.mark.parametrize(
    "kind",
    [
        {"kty": "RSA", "size": 1024},
        {"kty": "EC", "crv": "P-384"},
        {"kty": "EC", "crv": "secp256k1"},
        {"kty": "OKP", "crv": "X25519"},
        {"kty": "OKP", "crv": "Ed448"},
    ],
)
def test_weak_keys_and_other_curves_are_refused(kind: dict[str, Any]) -> None:
    public = json.loads(JWK.generate(**kind).export_public())
    with pytest.raises(SETError):
        verification_key(public)


@pytest.mark.requirement("SET-33")
def test_members_that_instruct_the_library_never_reach_it(key_pairs: KeyPairs) -> None:
    with pytest.raises(SETError):
        verification_key({"generate": "RSA", "size": 2048})
    verification_key(key_pairs["RS256"].public | {"generate": "oct", "self": 1})


def test_a_key_without_alg_fits_every_algorithm_of_its_kind(key_pairs: KeyPairs) -> None:
    for alg, fitting in [("RS256", {"RS256", "PS256"}), ("ES256", {"ES256"}), ("EdDSA", {"EdDSA"})]:
        public = {name: value for name, value in key_pairs[alg].public.items() if name != "alg"}
        assert verification_key(public).algorithms == fitting


def test_a_key_for_verification_operations_is_usable(key_pairs: KeyPairs) -> None:
    key = verification_key(key_pairs["ES256"].public | {"key_ops": ["verify"]})
    assert (key.kid, key.algorithms) == ("key-ES256", frozenset({"ES256"}))


@pytest.mark.requirement("SET-36")
@pytest.mark.parametrize(
    "spoil",
    [{"kid": None}, {"kid": ""}, {"alg": None}, {"alg": "ES256"}, {"d": None}, {"kty": "oct"}],
)
def test_an_unusable_signing_key_is_our_own_fault(
    spoil: dict[str, object], key_pairs: KeyPairs
) -> None:
    jwk = {k: v for k, v in (key_pairs["RS256"].private | spoil).items() if v is not None}
    with pytest.raises(LocalProtocolError):
        signing_key(jwk)


def test_a_private_key_for_agreement_cannot_sign() -> None:
    private = json.loads(JWK.generate(kty="OKP", crv="X25519").export_private())
    with pytest.raises(LocalProtocolError):
        signing_key(private | {"kid": "a", "alg": "EdDSA"})
    symmetric = json.loads(JWK.generate(kty="oct", size=256).export())
    with pytest.raises(LocalProtocolError):
        signing_key(symmetric | {"kid": "a", "alg": "HS256"})


# --- signatures


@pytest.mark.requirement("SET-30", "SET-32", "SET-36")
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_what_we_sign_has_three_header_members_and_verifies_by_both(
    alg: str, key_pairs: KeyPairs
) -> None:
    pair = key_pairs[alg]
    raw = sign(PAYLOAD, signing_key(pair.private), typ="secevent+jwt")
    head, payload, _ = raw.split(b".")
    assert json.loads(base64.urlsafe_b64decode(head + b"==")) == {
        "alg": alg,
        "typ": "secevent+jwt",
        "kid": f"key-{alg}",
    }
    assert payload == b64(PAYLOAD)
    assert accepted_by_us(raw, pair.public)
    assert accepted_by_jwcrypto(raw, pair.public)


@pytest.mark.requirement("SET-55")
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_what_jwcrypto_signs_verifies(alg: str, key_pairs: KeyPairs) -> None:
    jws = JWS(PAYLOAD)
    protected = json.dumps({"alg": alg, "typ": "secevent+jwt"})
    jws.add_signature(JWK(**key_pairs[alg].private), alg=alg, protected=protected)
    assert accepted_by_us(jws.serialize(compact=True).encode(), key_pairs[alg].public)


@pytest.mark.requirement("SET-55")
@given(alg=st.sampled_from(ALGORITHMS), data=st.data())
def test_no_changed_byte_is_accepted_and_jwcrypto_agrees(
    key_pairs: KeyPairs, alg: str, data: st.DataObject
) -> None:
    pair = key_pairs[alg]
    raw = sign(PAYLOAD, signing_key(pair.private), typ="secevent+jwt")
    position = data.draw(st.integers(0, len(raw) - 1))
    letter = data.draw(st.integers(0, 255).filter(lambda value: value != raw[position]))
    changed = raw[:position] + bytes([letter]) + raw[position + 1 :]
    assert not accepted_by_us(changed, pair.public)
    if accepted_by_jwcrypto(changed, pair.public):
        # The library reads sloppy base64url: the same bytes in another spelling. We do not.
        same = [base64.urlsafe_b64decode(part + b"==") for part in raw.split(b".")]
        assert [base64.urlsafe_b64decode(part + b"==") for part in changed.split(b".")] == same


@pytest.mark.requirement("SET-33", "SET-55")
@pytest.mark.parametrize("claimed", ALGORITHMS)
@pytest.mark.parametrize("actual", ALGORITHMS)
def test_a_header_cannot_choose_another_algorithm_than_the_key_was_published_for(
    claimed: str, actual: str, key_pairs: KeyPairs
) -> None:
    raw = sign(PAYLOAD, signing_key(key_pairs[actual].private), typ="secevent+jwt")
    _, payload, signature = raw.split(b".")
    forged = b".".join(
        [b64(json.dumps({"alg": claimed, "typ": "secevent+jwt"}).encode()), payload, signature]
    )
    assert not accepted_by_us(forged, key_pairs[actual].public)
    with pytest.raises(SETError) as caught:
        verify(split_jws(forged), verification_key(key_pairs[actual].public))
    assert (caught.value.code, caught.value.requirement) == ("authentication_failed", "SET-55")


@pytest.mark.requirement("SET-33")
@pytest.mark.parametrize("alg", ["none", "HS256"])
def test_unsigned_and_symmetric_forgeries_are_refused(alg: str, key_pairs: KeyPairs) -> None:
    public = key_pairs["RS256"].public
    secret = JWK(kty="oct", k=b64(JWK(**public).export_to_pem()).decode())
    jws = JWS(PAYLOAD)
    protected = json.dumps({"alg": "HS256", "typ": "secevent+jwt"})
    jws.add_signature(secret, alg="HS256", protected=protected)
    raw = jws.serialize(compact=True).encode()
    if alg == "none":
        raw = b64(b'{"alg":"none","typ":"secevent+jwt"}') + b"." + b64(PAYLOAD) + b"."
    assert not accepted_by_us(raw, public)


@pytest.mark.requirement("SET-55")
@pytest.mark.parametrize("signature", [b"", b"x" * 63, b"x" * 65, b"\0" * 64, b"\xff" * 64])
def test_an_ecdsa_signature_of_wrong_size_or_content_fails(
    signature: bytes, key_pairs: KeyPairs
) -> None:
    raw = compact(b'{"alg":"ES256"}', signature=signature)
    with pytest.raises(SETError) as caught:
        verify(split_jws(raw), verification_key(key_pairs["ES256"].public))
    assert caught.value.code == "authentication_failed"


@pytest.mark.requirement("SET-55")
def test_another_key_of_the_same_kind_does_not_verify(key_pairs: KeyPairs) -> None:
    raw = sign(PAYLOAD, signing_key(key_pairs["RS256"].private), typ="secevent+jwt")
    other = key_pairs["PS256"].public | {"alg": "RS256"}
    assert not accepted_by_us(raw, other)
