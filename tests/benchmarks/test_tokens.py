"""Tokens signed ahead are SETs the hub would accept, 1 KB each, each with its own jti."""

import json

import pytest
from jwcrypto.jwk import JWKSet
from jwcrypto.jws import JWS

from benchmarks.tokens import (
    TOKEN_BYTES,
    Subjects,
    TokenPlan,
    public_jwks,
    read_tokens,
    signed_tokens,
)


@pytest.fixture(scope="module", params=list(Subjects))
def tokens(request: pytest.FixtureRequest) -> list[bytes]:
    plan = TokenPlan(
        issuer="https://vendor.example",
        audience="https://hub.example",
        count=30,
        label="test",
        subject_count=10,
        subjects=request.param,
    )
    return list(read_tokens(signed_tokens(plan), first=0, count=30))


def test_every_token_verifies_with_the_published_key(tokens: list[bytes]) -> None:
    keys = JWKSet.from_json(public_jwks())
    for token in tokens:
        parsed = JWS.from_jose_token(token.decode())
        parsed.verify(keys)
        assert parsed.jose_header["typ"] == "secevent+jwt"


def test_tokens_are_one_kilobyte_with_distinct_jti_and_take_subjects_in_turn(
    tokens: list[bytes],
) -> None:
    claims = []
    for token in tokens:
        assert TOKEN_BYTES - 8 <= len(token) <= TOKEN_BYTES + 8
        parsed = JWS.from_jose_token(token.decode())
        parsed.verify(JWKSet.from_json(public_jwks()))
        claims.append(json.loads(parsed.payload))
    assert len({claim["jti"] for claim in claims}) == 30
    assert len({json.dumps(claim["sub_id"]) for claim in claims}) == 10
    assert all({"exp", "sub"}.isdisjoint(claim) for claim in claims)


def test_asking_for_more_tokens_than_were_signed_is_an_error() -> None:
    plan = TokenPlan(issuer="i", audience="a", count=3, label="few")
    with pytest.raises(ValueError, match="3 tokens, 4 are wanted"):
        read_tokens(signed_tokens(plan), first=1, count=3)
