"""Fixtures of the protocol tests: the spec vectors, and one key of each kind."""

import json
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from tests.ssf.kit import KeyPair, KeyPairs, Vector, read_vector

ID_CHARS_MAX = 80


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name oversized parameters by their size; all others as usual."""
    if isinstance(val, str | bytes) and len(val) > ID_CHARS_MAX:
        return f"{type(val).__name__}-of-{len(val)}"
    return None


@pytest.fixture(scope="session")
def vector() -> Vector:
    """Return a reader of examples by their number."""
    return read_vector


@pytest.fixture(scope="session")
def key_pairs() -> KeyPairs:
    """Return one key pair for each accepted algorithm, with kid and alg."""
    kinds: dict[str, dict[str, Any]] = {
        "RS256": {"kty": "RSA", "size": 2048},
        "PS256": {"kty": "RSA", "size": 2048},
        "ES256": {"kty": "EC", "crv": "P-256"},
        "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    }
    return {alg: _pair(alg, JWK.generate(**kind)) for alg, kind in kinds.items()}


def _pair(alg: str, jwk: JWK) -> KeyPair:
    names: dict[str, object] = {"kid": f"key-{alg}", "alg": alg}
    return KeyPair(
        private=json.loads(jwk.export_private()) | names,
        public=json.loads(jwk.export_public()) | names | {"use": "sig"},
    )
