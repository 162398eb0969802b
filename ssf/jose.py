"""Sign and verify compact JWS, and the header rules that make a JWS the envelope of a SET.

Keys are parsed once, with jwcrypto; the two hot functions `verify` and `sign` then use the parsed
`cryptography` keys directly. Property tests hold both against jwcrypto.
"""

import binascii
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from ssf.errors import LocalProtocolError, SETError
from ssf.strict_json import parse_object

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

DEFAULT_ALGORITHMS: Final = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
SECEVENT_TYP: Final = "secevent+jwt"

SET_BYTES_MAX: Final = 64 * 1024
HEADER_BYTES_MAX: Final = 4 * 1024
HEADERS_REMEMBERED_MAX: Final = 512
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192  # Above, one verification costs too much of a core.
KID_CHARS_MAX: Final = 512
P256_COORDINATE_BYTES: Final = 32

_PKCS1V15: Final = padding.PKCS1v15()
_SHA256: Final = hashes.SHA256()
# RFC 7518 §3.5: the salt has the size of the hash output.
_PSS: Final = padding.PSS(mgf=padding.MGF1(_SHA256), salt_length=_SHA256.digest_size)
_ECDSA: Final = ec.ECDSA(_SHA256)

PUBLIC_JWK_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
)
# What the library is seen to raise for members of wrong type, shape or curve.
_JWK_FAILURES: Final = (
    JWException,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    UnsupportedAlgorithm,
)
PRIVATE_JWK_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class JOSEHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The header members we act on.

    All others are ignored: `jku`, `x5u`, `x5c` and `jwk` are never followed (SET-37).
    """

    alg: str
    typ: str | None = None
    kid: str | None = None
    crit: Any = msgspec.UNSET


class CompactJWS(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A compact JWS taken apart; nothing in it is verified yet."""

    header: JOSEHeader
    payload: bytes
    signing_input: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key and the algorithms it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key of ours, with the one algorithm and the `kid` it is published under."""

    kid: str
    alg: str
    private: PrivateKey


def split_jws(raw: bytes) -> CompactJWS:
    """Take a compact JWS apart without verifying it.

    raw: at most SET_BYTES_MAX bytes. Header and payload must be JSON objects without duplicate
    member names; all three parts must be canonical, unpadded base64url, so that one signed text has
    one spelling. Raises SETError invalid_request.
    Source: RFC 7515 §7.1, RFC 8417 §2; requirement SET-51.
    """
    if len(raw) > SET_BYTES_MAX:
        raise _not_a_set(f"more than {SET_BYTES_MAX} bytes")
    parts = raw.split(b".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise _not_a_set("not a compact JWS of three parts")
    header_part, payload_part, signature_part = parts
    payload = _decode_base64url(payload_part)
    parse_object(payload, bytes_max=SET_BYTES_MAX, error=_not_a_set)
    return CompactJWS(
        header=_parse_header(header_part),
        payload=payload,
        signing_input=raw[: len(header_part) + 1 + len(payload_part)],
        signature=_decode_base64url(signature_part),
    )


def check_header(
    header: JOSEHeader,
    *,
    typ: str = SECEVENT_TYP,
    algorithms: AbstractSet[str] = DEFAULT_ALGORITHMS,
    allow_missing_typ: bool = False,
) -> None:
    """Check type, algorithm and critical members before any cryptography.

    algorithms: the allow-list of this upstream; symmetric ones and `none` are never in it.
    Raises SETError invalid_request (typ, crit) or invalid_key (alg).
    Source: RFC 8417 §2.3, RFC 8725 §3.1; requirements SET-31, SET-33, SET-37, SET-52.
    """
    if header.typ is None:
        if not allow_missing_typ:
            raise SETError("invalid_request", "typ is missing", requirement="SET-31")
    elif header.typ.lower().removeprefix("application/") != typ:
        raise SETError("invalid_request", f"typ is not {typ}", requirement="SET-31")
    if header.alg not in algorithms or header.alg not in DEFAULT_ALGORITHMS:
        raise SETError("invalid_key", "alg is not accepted here", requirement="SET-33")
    if header.crit is not msgspec.UNSET:
        # RFC 7515 §4.1.11: a critical extension that is not understood invalidates the JWS;
        # we understand none.
        raise SETError("invalid_request", "crit is not supported", requirement="SET-37")


def verification_key(jwk: Mapping[str, object]) -> VerificationKey:
    """Parse a public JWK.

    Refuses symmetric and private keys, keys for another use, RSA keys outside
    RSA_BITS_MIN..RSA_BITS_MAX and curves other than P-256 and Ed25519.
    Raises SETError invalid_key. Source: RFC 7517 §4; requirements SET-33, SET-35.
    """
    if jwk.get("kty") == "oct" or PRIVATE_JWK_MEMBERS & jwk.keys():
        raise _bad_key("a symmetric or private key is no verification key")
    if jwk.get("use", "sig") != "sig":
        raise _bad_key("the key is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _bad_key("the key is not for verification")
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= KID_CHARS_MAX):
        raise _bad_key("kid is not an acceptable string")
    public = _load_public(jwk)
    fitting = _algorithms_of(public)
    alg = jwk.get("alg")
    algorithms = frozenset(name for name in fitting if alg is None or name == alg)
    if not algorithms:
        raise _bad_key("the key fits no accepted algorithm")
    return VerificationKey(kid=kid, algorithms=algorithms, public=public)


def signing_key(jwk: Mapping[str, object]) -> SigningKey:
    """Parse a private JWK of ours that carries `kid` and `alg`.

    Raises LocalProtocolError. Requirements SET-34, SET-36.
    """
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not kid or not isinstance(alg, str):
        raise LocalProtocolError("unusable_key", "a signing key needs kid and alg")
    try:
        private = JWK(**jwk).get_op_key("sign")
    except _JWK_FAILURES as cause:
        raise LocalProtocolError("unusable_key", "not a private JWK") from cause
    if not isinstance(
        private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    ):
        raise LocalProtocolError("unusable_key", "not an RSA, P-256 or Ed25519 key")
    if alg not in _algorithms_of(private.public_key()):
        raise LocalProtocolError("unusable_key", f"the key does not fit alg {alg}")
    return SigningKey(kid=kid, alg=alg, private=private)


def verify(jws: CompactJWS, key: VerificationKey) -> None:
    """Check the signature.

    The algorithm must be one the key was published for, so a header cannot choose another.
    Raises SETError authentication_failed. Source: RFC 7515 §5.2, RFC 7518 §3; requirement SET-55.
    """
    alg = jws.header.alg
    if alg not in key.algorithms:
        raise _signature_error("alg is not one of the key's")
    public, signature = key.public, jws.signature
    try:
        if isinstance(public, rsa.RSAPublicKey):
            scheme = _PKCS1V15 if alg == "RS256" else _PSS
            public.verify(signature, jws.signing_input, scheme, _SHA256)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(_es256_to_der(signature), jws.signing_input, _ECDSA)
        else:
            public.verify(signature, jws.signing_input)
    except InvalidSignature:
        raise _signature_error("the signature does not verify") from None


def sign(payload: bytes, key: SigningKey, *, typ: str) -> bytes:
    """Make a compact JWS with the header members alg, typ and kid, and no others.

    Raises nothing. Source: RFC 7515 §5.1; requirements SET-30, SET-32, SET-36.
    """
    signing_input = _protected_header(key.alg, typ, key.kid) + b"." + _encode_base64url(payload)
    private = key.private
    if isinstance(private, rsa.RSAPrivateKey):
        scheme = _PKCS1V15 if key.alg == "RS256" else _PSS
        signature = private.sign(signing_input, scheme, _SHA256)
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        signature = _der_to_es256(private.sign(signing_input, _ECDSA))
    else:
        signature = private.sign(signing_input)
    return signing_input + b"." + _encode_base64url(signature)


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _protected_header(alg: str, typ: str, kid: str) -> bytes:
    return _encode_base64url(msgspec.json.encode({"alg": alg, "typ": typ, "kid": kid}))


_decode_header: Final = msgspec.json.Decoder(JOSEHeader).decode


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _parse_header(part: bytes) -> JOSEHeader:
    """Parse a header; pure, and remembered because one key signs many SETs with one header."""
    text = _decode_base64url(part)
    parse_object(text, bytes_max=HEADER_BYTES_MAX, error=_not_a_set)
    try:
        return _decode_header(text)
    except msgspec.ValidationError:
        raise _not_a_set("a header member has the wrong type, or alg is missing") from None


def _load_public(jwk: Mapping[str, object]) -> PublicKey:
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in PUBLIC_JWK_MEMBERS:
        raise _bad_key("kty is not one of RSA, EC, OKP")
    # Only these members reach the library: its constructor gives others a meaning ("generate").
    members = {name: jwk.get(name) for name in PUBLIC_JWK_MEMBERS[kty]}
    try:
        public = JWK(kty=kty, **members).get_op_key("verify")
    except _JWK_FAILURES:
        raise _bad_key("not a usable JWK") from None
    if isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return public
    raise _bad_key("not an RSA, P-256 or Ed25519 key")


def _algorithms_of(public: PublicKey) -> frozenset[str]:
    if isinstance(public, rsa.RSAPublicKey):
        fits = RSA_BITS_MIN <= public.key_size <= RSA_BITS_MAX
        return frozenset({"RS256", "PS256"}) if fits else frozenset()
    if isinstance(public, ec.EllipticCurvePublicKey):
        fits = isinstance(public.curve, ec.SECP256R1)
        return frozenset({"ES256"}) if fits else frozenset()
    return frozenset({"EdDSA"})


def _es256_to_der(signature: bytes) -> bytes:
    """JWS holds r and s side by side (RFC 7518 §3.4); the library wants them in DER."""
    if len(signature) != 2 * P256_COORDINATE_BYTES:
        raise InvalidSignature
    return encode_dss_signature(
        int.from_bytes(signature[:P256_COORDINATE_BYTES]),
        int.from_bytes(signature[P256_COORDINATE_BYTES:]),
    )


def _der_to_es256(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(P256_COORDINATE_BYTES) + s.to_bytes(P256_COORDINATE_BYTES)


# Standard letters for the URL-safe ones; "+", "/" and "=" become a character that no alphabet has.
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/***")
_TO_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_PADDING: Final = (b"", b"", b"==", b"=")
# The last letter carries 4 (of 2) or 2 (of 3) unused bits, and canonical text has them zero.
_CANONICAL_LAST: Final = (None, b"", b"AQgw", b"AEIMQUYcgkosw048")


def _encode_base64url(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL_SAFE).rstrip(b"=")


def _decode_base64url(part: bytes) -> bytes:
    """Decode only canonical, unpadded base64url: what _encode_base64url would have written."""
    remainder = len(part) % 4
    last = _CANONICAL_LAST[remainder]
    if last is not None and part[-1] not in last:
        raise _not_a_set("not canonical base64url")
    try:
        return binascii.a2b_base64(
            part.translate(_FROM_URL_SAFE) + _PADDING[remainder], strict_mode=True
        )
    except binascii.Error:
        raise _not_a_set("not base64url") from None


def _not_a_set(description: str) -> SETError:
    return SETError("invalid_request", description, requirement="SET-51")


def _bad_key(description: str) -> SETError:
    return SETError("invalid_key", description, requirement="SET-33")


def _signature_error(description: str) -> SETError:
    return SETError("authentication_failed", description, requirement="SET-55")
