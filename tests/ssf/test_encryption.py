"""SETs inside a JWE: what a receiver's key must be, and that its holder can read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from ssf.encryption import encrypt, parse_encryption_key
from ssf.errors import StreamError

RSA = JWK.generate(kty="RSA", size=2048, kid="enc-1")
EC = JWK.generate(kty="EC", crv="P-256")


def public(key: JWK, **changes: Any) -> dict[str, Any]:
    members: dict[str, Any] = {**key.export_public(as_dict=True), **changes}
    return {name: value for name, value in members.items() if value is not None}


@pytest.mark.requirement("SET-21")
@pytest.mark.parametrize(
    ("key", "alg"), [(RSA, "RSA-OAEP-256"), (EC, "ECDH-ES")], ids=["RSA", "EC"]
)
def test_the_holder_of_the_key_reads_it_and_nobody_else(key: JWK, alg: str) -> None:
    text = parse_encryption_key(public(key, alg=alg, use="enc", x5t="dropped"))
    raw = encrypt(b"a.b.c", text)
    assert raw.count(b".") == 4
    opened = JWE()
    opened.deserialize(raw.decode(), key=key)
    assert opened.payload == b"a.b.c"
    header = json.loads(opened.objects["protected"])
    assert (header["alg"], header["enc"], header["cty"]) == (alg, "A256GCM", "JWT")
    assert header.get("kid") == public(key).get("kid")
    assert "x5t" not in text
    stranger = JWK.generate(kty=key["kty"], **({"size": 2048} if key is RSA else {"crv": "P-256"}))
    with pytest.raises(Exception, match=r"(?i)fail|invalid|decrypt"):
        JWE().deserialize(raw.decode(), key=stranger)


@pytest.mark.requirement("SET-21")
@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        (RSA.export(as_dict=True), "private"),
        (EC.export(as_dict=True), "private"),
        (public(RSA, d="AQAB"), "private"),
        (JWK.generate(kty="oct", size=256).export(as_dict=True), "private"),
        ({"kty": "oct"}, "kty"),
        ({}, "kty"),
        (public(RSA, kty=["RSA"]), "kty"),
        (public(RSA, kty="EC"), "crv"),
        (JWK.generate(kty="OKP", crv="X25519").export_public(as_dict=True), "kty"),
        (public(RSA, alg="none"), "alg"),
        (public(RSA, alg="RSA1_5"), "alg"),
        (public(RSA, alg="RSA-OAEP"), "alg"),
        (public(EC, alg="RSA-OAEP-256"), "alg"),
        (public(RSA, alg={"x": 1}), "alg"),
        (public(RSA, use="sig"), "use"),
        (public(RSA, kid=""), "kid"),
        (public(RSA, kid=7), "kid"),
        (public(RSA, kid="k" * 600), "kid"),
        (public(JWK.generate(kty="EC", crv="P-384")), "crv"),
        (public(EC, crv="secp256k1"), "crv"),
        (public(RSA, n=None), "needed"),
        (public(RSA, n=12), "needed"),
        (public(RSA, n="A" * 2000), "needed"),
        (public(JWK.generate(kty="RSA", size=1024)), "2048"),
        (public(RSA, n="!!!"), "encrypted"),
        (public(RSA, e="AA"), "encrypted"),
        (public(EC, x=EC.export_public(as_dict=True)["y"]), "encrypted"),
        (public(EC, x=""), "encrypted"),
    ],
)
def test_a_key_that_cannot_or_must_not_be_used_is_refused(jwk: dict[str, Any], reason: str) -> None:
    with pytest.raises(StreamError, match=reason) as caught:
        parse_encryption_key(jwk)
    # What is private is not repeated.
    assert all(
        str(value) not in str(caught.value) for value in jwk.values() if len(str(value)) > 20
    )
