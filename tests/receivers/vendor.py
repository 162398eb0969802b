"""A vendor for tests: real keys, SETs signed by another library than ours, a JWKS document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from runtime.errors import Unavailable
from runtime.outbound import OutboundAnswer, OutboundRequest

ISSUER = "https://mdm.vendor.example"
AUDIENCE = "https://hub.example/receivers"
JWKS_URI = "https://mdm.vendor.example/jwks"
DEVICE_COMPLIANCE_CHANGE = (
    "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"
)
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
NOW_S = 1_774_000_300


def rsa_key(kid: str) -> JWK:
    return JWK.generate(kty="RSA", size=2048, kid=kid, alg="RS256", use="sig")


def ec_key(kid: str) -> JWK:
    return JWK.generate(kty="EC", crv="P-256", kid=kid, alg="ES256", use="sig")


def jwks(*keys: JWK) -> dict[str, Any]:
    return {"keys": [json.loads(key.export_public()) for key in keys]}


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good SET; a change to None leaves the claim out."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": NOW_S - 2,
        "jti": "jti-1",
        "txn": "txn-1",
        "sub_id": {
            "format": "complex",
            "user": {"format": "email", "email": "rosa.lind@green.example"},
            "device": {"format": "opaque", "id": "LT-0091-77"},
        },
        "events": {
            DEVICE_COMPLIANCE_CHANGE: {
                "previous_status": "compliant",
                "current_status": "not-compliant",
                "event_timestamp": NOW_S - 10,
            }
        },
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(
    payload: Mapping[str, Any] | bytes, key: JWK, *, header: Mapping[str, Any] | None = None
) -> bytes:
    """Sign with jwcrypto. header: replaces members of the usual one; None leaves a member out."""
    alg = key.get("alg")
    usual = {"alg": alg, "typ": "secevent+jwt", "kid": key.get("kid")}
    protected = {k: v for k, v in (usual | dict(header or {})).items() if v is not None}
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    jws = JWS(text)
    jws.allowed_algs = [protected["alg"]]
    jws.add_signature(key, None, json.dumps(protected))
    compact: str = jws.serialize(compact=True)
    return compact.encode()


class JWKSHost:
    """Answers for the vendor's jwks_uri, and counts; an `Outbound` without a network."""

    def __init__(self, *keys: JWK) -> None:
        self.requests: list[OutboundRequest] = []
        self.status = 200
        self.body = b""
        self.failure: Unavailable | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.publish(*keys)

    def publish(self, *keys: JWK) -> None:
        self.body = json.dumps(jwks(*keys)).encode()

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        self.requests.append(request)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return OutboundAnswer(status=self.status, headers={}, body=self.body, duration_ms=1.0)
