"""The SETs a vendor sends: orders of POST /control/emit become signed, or purposely bad, JWTs.

The vendor-private shapes are reconstructed from the public documentation of products that accept
them; they are not recordings. Source: developer.okta.com, "SSF Security Event Tokens" reference,
read 2026-03.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwcrypto.jwk import JWK

from ssf.events.caep import CAEP_BASE
from ssf.events.registry import OKTA_BASE
from ssf.events.risc import RISC_BASE
from ssf.jose import SigningKey, sign, signing_key

RSA_BITS = 2048
ALGORITHM = "RS256"
SET_TYP = "secevent+jwt"

Shape = Literal[
    "device-risk-change",
    "user-risk-change",
    "device-compliance-change",
    "risk-level-change",
    "session-revoked",
    "credential-compromise",
    "raw",
]
SubjectRef = str | dict[str, Any]

EVENT_TYPE_OF_SHAPE: Mapping[str, str] = MappingProxyType(
    {
        "device-risk-change": OKTA_BASE + "device-risk-change",
        "user-risk-change": OKTA_BASE + "user-risk-change",
        "device-compliance-change": CAEP_BASE + "device-compliance-change",
        "risk-level-change": CAEP_BASE + "risk-level-change",
        "session-revoked": CAEP_BASE + "session-revoked",
        "credential-compromise": RISC_BASE + "credential-compromise",
    }
)
LEGACY_SHAPES = frozenset({"device-risk-change", "user-risk-change"})


class Emit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order to emit one SET.

    user, device, session: a subject identifier, or a text (a mail address, else an opaque id).
    level, previous_level, status, previous_status: as the shape spells them.
    event_timestamp, iat: seconds since 1970; now if left out. jti: made up if left out.
    event: members merged into the event; claims, header: merged into those; null removes a member.
    payload_text, header_text: the exact text to sign instead. body, body_base64: the exact body to
    send instead of a SET. key: what signs. content_type, authorization, push_url: for this SET.
    over_stream: over the stream that the hub created, by push or poll.
    deliver: false returns the SET without sending it. wait: answer when it is settled (at most
    wait_s), else at once. attempts_max: give up after so many.
    """

    shape: Shape
    user: SubjectRef | None = None
    device: SubjectRef | None = None
    session: SubjectRef | None = None
    level: str | None = None
    previous_level: str | None = None
    status: str | None = None
    previous_status: str | None = None
    principal: str = "DEVICE"
    credential_type: str = "password"
    reason: str | None = None
    initiating_entity: str = "policy"
    event_timestamp: int | float | None = None
    iat: int | None = None
    jti: str | None = None
    txn: str | None = None
    event: dict[str, Any] = {}
    claims: dict[str, Any] = {}
    header: dict[str, Any] = {}
    payload_text: str | None = None
    header_text: str | None = None
    key: Literal["own", "foreign", "none", "public_as_hmac"] = "own"
    body: str | None = None
    body_base64: str | None = None
    content_type: str = "application/secevent+jwt"
    authorization: str | msgspec.UnsetType | None = msgspec.UNSET
    push_url: str | None = None
    over_stream: bool = False
    deliver: bool = True
    wait: bool = True
    wait_s: float = 30.0
    attempts_max: int | None = None


class VendorKey:
    """A signing key with its published half."""

    def __init__(self, private_jwk: Mapping[str, object]) -> None:
        """Take a private JWK with kid and alg. Raises ssf's LocalProtocolError."""
        self.signing: SigningKey = signing_key(private_jwk)
        self._jwk = JWK(**private_jwk)
        self.public_jwk: dict[str, object] = self._jwk.export_public(as_dict=True)

    @classmethod
    def generate(cls, kid: str) -> "VendorKey":
        """Make an RSA key of 2048 bits (SET-34)."""
        jwk = JWK.generate(kty="RSA", size=RSA_BITS, kid=kid, use="sig", alg=ALGORITHM)
        return cls(jwk.export_private(as_dict=True))

    @property
    def public_pem(self) -> bytes:
        """The published half as PEM, which an attacker would use as an HMAC secret."""
        pem: bytes = self._jwk.export_to_pem()
        return pem


def build_claims(
    order: Emit, *, issuer: str, audience: str, jti: str, now_s: float
) -> dict[str, Any]:
    """Build the claims of a SET in the ordered shape.

    The old shapes carry the subject inside the event and have no `sub_id`; the others have a
    top-level `sub_id` (SET-9, SUB-30). Raises nothing.
    """
    claims: dict[str, Any] = {}
    if order.shape != "raw":
        event = _merge(_event(order, now_s), order.event)
        claims = {
            "iss": issuer,
            "aud": audience,
            "iat": int(now_s) if order.iat is None else order.iat,
            "jti": jti,
            "txn": order.txn,
            "sub_id": None if order.shape in LEGACY_SHAPES else _sub_id(order),
            "events": {EVENT_TYPE_OF_SHAPE[order.shape]: event},
        }
    return _merge({}, {**claims, **order.claims})


def build_token(
    order: Emit, claims: Mapping[str, Any], *, own: VendorKey, foreign: VendorKey
) -> bytes:
    """Build the request body: a signed SET, or what the order spells out instead.

    Raises ValueError for a body_base64 that is none.
    """
    if order.body is not None:
        return order.body.encode()
    if order.body_base64 is not None:
        try:
            return base64.b64decode(order.body_base64, validate=True)
        except binascii.Error as cause:
            raise ValueError("body_base64 is no base64") from cause
    key = foreign if order.key == "foreign" else own
    payload = msgspec.json.encode(claims)
    if order.payload_text is not None:
        payload = order.payload_text.encode()
    if not order.header and order.header_text is None and order.key in {"own", "foreign"}:
        return sign(payload, key.signing, typ=SET_TYP)
    return _bent_token(order, payload, key=key, own=own)


def _bent_token(order: Emit, payload: bytes, *, key: VendorKey, own: VendorKey) -> bytes:
    """Build a JWS whose header or signature a well-behaved library refuses to make."""
    algorithm = {"none": "none", "public_as_hmac": "HS256"}.get(order.key, ALGORITHM)
    header = _merge({"alg": algorithm, "typ": SET_TYP, "kid": own.signing.kid}, order.header)
    header_text = msgspec.json.encode(header)
    if order.header_text is not None:
        header_text = order.header_text.encode()
    signing_input = _base64url(header_text) + b"." + _base64url(payload)
    if order.key == "none":
        return signing_input + b"."
    if order.key == "public_as_hmac":
        signature = hmac.digest(own.public_pem, signing_input, "sha256")
        return signing_input + b"." + _base64url(signature)
    return signing_input + b"." + _base64url(_rs256(signing_input, key))


def _rs256(signing_input: bytes, key: VendorKey) -> bytes:
    private = key.signing.private
    if not isinstance(private, rsa.RSAPrivateKey):
        raise ValueError("a bent header needs an RSA key")  # noqa: TRY004 - answered 400
    return private.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())


def _event(order: Emit, now_s: float) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event_timestamp": int(now_s) if order.event_timestamp is None else order.event_timestamp,
        "initiating_entity": order.initiating_entity,
        "reason_admin": {"en": order.reason or _default_reason(order)},
    }
    return {**event, **_event_members(order)}


def _event_members(order: Emit) -> dict[str, Any]:
    if order.shape in LEGACY_SHAPES:
        return {
            "subject": _members(order),
            "current_level": order.level or "high",
            "previous_level": order.previous_level or "low",
        }
    if order.shape == "device-compliance-change":
        current = order.status or "not-compliant"
        other = "compliant" if current == "not-compliant" else "not-compliant"
        return {"current_status": current, "previous_status": order.previous_status or other}
    if order.shape == "risk-level-change":
        return {
            "principal": order.principal,
            "current_level": order.level or "HIGH",
            "previous_level": order.previous_level,
            "risk_reason": order.reason,
        }
    if order.shape == "credential-compromise":
        return {"credential_type": order.credential_type}
    return {}


def _default_reason(order: Emit) -> str:
    return f"{order.shape}: {order.level or order.status or 'reported'}"


def _members(order: Emit) -> dict[str, Any]:
    named = {"user": order.user, "device": order.device, "session": order.session}
    return {name: _subject(ref) for name, ref in named.items() if ref is not None}


def _sub_id(order: Emit) -> dict[str, Any]:
    """One member alone is a simple subject, several are a complex one."""
    members = _members(order)
    if set(members) == {"user"}:
        user: dict[str, Any] = members["user"]
        return user
    return {"format": "complex", **members}


def _subject(ref: SubjectRef) -> dict[str, Any]:
    if isinstance(ref, dict):
        return ref
    return {"format": "email", "email": ref} if "@" in ref else {"format": "opaque", "id": ref}


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge members; a member that is None is left out."""
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
