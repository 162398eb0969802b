"""The SETs we send as a transmitter: sound ones, and one for every way of being unsound."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from jwcrypto.jwk import JWK

from conformance.peers.shapes import Emit, VendorKey, build_token
from ssf.events.caep import CAEP_BASE
from ssf.events.risc import RISC_BASE
from ssf.events.ssf import StreamUpdated, Verification

#: the subject of the OpenID suite's events (CRC-10)
SUBJECT: Final[Mapping[str, Any]] = {"format": "opaque", "id": "valid"}
SESSION_REVOKED: Final = CAEP_BASE + "session-revoked"
MILLISECONDS: Final = 1000
#: payloads that the types' definitions ask for; the OpenID suite sends milliseconds (CR-20)
PAYLOADS: Final[Mapping[str, Mapping[str, Any]]] = {
    CAEP_BASE + "session-revoked": {},
    CAEP_BASE + "token-claims-change": {"claims": {"role": "ro-admin"}},
    CAEP_BASE + "credential-change": {"credential_type": "password", "change_type": "update"},
    CAEP_BASE + "assurance-level-change": {
        "namespace": "NIST-AAL",
        "current_level": "nist-aal2",
        "previous_level": "nist-aal1",
        "change_direction": "increase",
    },
    CAEP_BASE + "device-compliance-change": {
        "previous_status": "compliant",
        "current_status": "not-compliant",
    },
    CAEP_BASE + "session-established": {},
    CAEP_BASE + "session-presented": {},
    CAEP_BASE + "risk-level-change": {"principal": "USER", "current_level": "LOW"},
    RISC_BASE + "account-credential-change-required": {},
    RISC_BASE + "account-purged": {},
    RISC_BASE + "account-disabled": {"reason": "hijacking"},
    RISC_BASE + "account-enabled": {},
    RISC_BASE + "identifier-changed": {"new-value": "new@example.com"},
    RISC_BASE + "identifier-recycled": {},
    RISC_BASE + "credential-compromise": {"credential_type": "password"},
    RISC_BASE + "opt-in": {},
    RISC_BASE + "opt-out-initiated": {},
    RISC_BASE + "opt-out-cancelled": {},
    RISC_BASE + "opt-out-effective": {},
    RISC_BASE + "recovery-activated": {},
    RISC_BASE + "recovery-information-changed": {},
    RISC_BASE + "sessions-revoked": {},
}
CAEP_TYPES: Final = tuple(uri for uri in PAYLOADS if uri.startswith(CAEP_BASE))
STREAM_TYPES: Final = (Verification.type_uri, StreamUpdated.type_uri)


def _es256(kid: str) -> VendorKey:
    jwk = JWK.generate(kty="EC", crv="P-256", kid=kid, use="sig", alg="ES256")
    return VendorKey(jwk.export_private(as_dict=True))


@dataclass(slots=True)
class Signer:
    """Our keys as a transmitter (CRC-9), and who we say we are."""

    issuer: str
    audience: str
    rs256: VendorKey = field(default_factory=lambda: VendorKey.generate("suite-rs256"))
    es256: VendorKey = field(default_factory=lambda: _es256("suite-es256"))
    #: never published, but under the kid of the published one
    foreign: VendorKey = field(default_factory=lambda: VendorKey.generate("suite-rs256"))

    def claims(
        self,
        event_type: str = SESSION_REVOKED,
        event: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Return sound claims with changes; None removes a claim."""
        if event is None:
            now_ms = int(time.time() * MILLISECONDS)  # noqa: TID251 - a transmitter's own clock
            event = {"event_timestamp": now_ms, **PAYLOADS.get(event_type, {})}
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": int(time.time()),  # noqa: TID251 - a transmitter's own clock
            "jti": secrets.token_hex(16),
            "sub_id": dict(SUBJECT),
            "events": {event_type: dict(event)},
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(
        self,
        claims: Mapping[str, Any],
        *,
        key: VendorKey | None = None,
        trick: str = "own",
        header: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Sign claims. trick, header: how to bend the signature and the header, as `Emit` knows."""
        order = msgspec.convert({"shape": "raw", "key": trick, "header": dict(header or {})}, Emit)
        return build_token(order, claims, own=key or self.rs256, foreign=self.foreign)

    def good(self, event_type: str = SESSION_REVOKED, **changes: Any) -> tuple[str, bytes]:
        """Return jti and a sound SET."""
        claims = self.claims(event_type, **changes)
        return claims["jti"], self.sign(claims)

    def verification(self, stream_id: str, state: str | None) -> tuple[str, bytes]:
        """Return jti and a verification SET."""
        claims = self.claims(
            Verification.type_uri,
            {} if state is None else {"state": state},
            sub_id={"format": "opaque", "id": stream_id},
        )
        return claims["jti"], self.sign(claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSET:
    """One unsound SET. codes: the `err` values that fit; ids: the rules it breaks."""

    name: str
    build: Callable[[Signer], bytes]
    codes: frozenset[str]
    ids: tuple[str, ...]


def _bad(name: str, codes: str, ids: str, build: Callable[[Signer], bytes]) -> BadSET:
    return BadSET(name=name, codes=frozenset(codes.split()), ids=tuple(ids.split()), build=build)


def _claims(name: str, codes: str, ids: str, **changes: Any) -> BadSET:
    return _bad(name, codes, ids, lambda s: s.sign(s.claims(**changes)))


#: what has to be refused, each with the code of RFC 8935 for it
BAD_SETS: Final = (
    _bad("no JWT", "invalid_request", "SET-51 PUSH-30", lambda _: b"hello"),
    _bad(
        "a cut JWT",
        "invalid_request authentication_failed",
        "SET-51 PUSH-30",
        lambda s: s.sign(s.claims()).rpartition(b".")[0],
    ),
    _bad(
        "typ JWT",
        "invalid_request",
        "SET-31 SET-52",
        lambda s: s.sign(s.claims(), header={"typ": "JWT"}),
    ),
    _bad(
        "typ missing",
        "invalid_request",
        "SET-31 SET-52",
        lambda s: s.sign(s.claims(), header={"typ": None}),
    ),
    _bad(
        "alg none",
        "invalid_key invalid_request",
        "SET-33 PUSH-31",
        lambda s: s.sign(s.claims(), trick="none"),
    ),
    _bad(
        "the public key as HMAC secret",
        "invalid_key invalid_request",
        "SET-33 PUSH-31",
        lambda s: s.sign(s.claims(), trick="public_as_hmac"),
    ),
    _bad(
        "a foreign key under our kid",
        "authentication_failed invalid_key invalid_request",
        "SET-55",
        lambda s: s.sign(s.claims(), trick="foreign"),
    ),
    _claims(
        "a foreign issuer", "invalid_issuer", "SET-53 PUSH-32 SET-12", iss="https://evil.example"
    ),
    _claims(
        "a foreign audience", "invalid_audience", "SET-57 PUSH-33", aud="https://other.example"
    ),
    _claims("no audience", "invalid_audience invalid_request", "SET-57 PUSH-33", aud=None),
    _claims("exp", "invalid_request", "SET-43 SET-58", exp=4_102_444_800),
    _claims("exp in the past", "invalid_request", "SET-43 SET-58", exp=1_000_000_000),
    _claims("sub", "invalid_request", "SET-43 SET-58", sub="somebody"),
    _claims("no jti", "invalid_request", "SET-58", jti=None),
    _claims("no iat", "invalid_request", "SET-56", iat=None),
    _claims("iat far in the future", "invalid_request", "SET-56", iat=4_102_444_800),
    _claims("iat as text", "invalid_request", "SET-56", iat="now"),
    _claims("no events", "invalid_request", "SET-58 PUSH-30", events={}),
    _claims("events as array", "invalid_request", "SET-58 PUSH-30", events=[SESSION_REVOKED]),
    _claims("a null event", "invalid_request", "SET-58 PUSH-30", events={SESSION_REVOKED: None}),
    _claims("no subject", "invalid_request", "SET-59", sub_id=None),
    _claims(
        "a subject without its member", "invalid_request", "SET-59", sub_id={"format": "email"}
    ),
)
