"""SETs that only their receiver can read: a signed SET inside a JWE (RFC 7516, RFC 7519 §5.2)."""

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from jwcrypto.common import JWException, json_encode
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from ssf.errors import StreamError
from ssf.jose import KID_CHARS_MAX, PRIVATE_JWK_MEMBERS, PUBLIC_JWK_MEMBERS, RSA_BITS_MIN

CONTENT_ENCRYPTION: Final = "A256GCM"
#: how the content key reaches the receiver, by type of its key
KEY_ALGORITHMS: Final[Mapping[str, str]] = MappingProxyType(
    {"RSA": "RSA-OAEP-256", "EC": "ECDH-ES"}
)
CURVE: Final = "P-256"
#: above, an encryption costs too much of a core
RSA_BITS_MAX: Final = 4096
#: base64url of RSA_BITS_MAX bits, and room for one that is written carelessly
MEMBER_CHARS_MAX: Final = 1024
PARSED_KEYS_MAX: Final = 1_000


def parse_encryption_key(jwk: Mapping[str, Any]) -> str:
    """Check a receiver's public key, and return it as the text that `encrypt` takes.

    RSA of 2048 to 4096 bits for RSA-OAEP-256, or EC P-256 for ECDH-ES; `alg` and `use` may be left
    out. What the text does not need is dropped. Raises StreamError for anything else: a private or
    symmetric key, another algorithm (`none`, RSA1_5 …), a point that is not on the curve.
    Source: RFC 7517 §4, RFC 7518 §4.1; requirement SET-21.
    """
    if not PRIVATE_JWK_MEMBERS.isdisjoint(jwk):
        raise _unusable("it holds private members; make a new key, this one is not secret any more")
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in KEY_ALGORITHMS:
        raise _unusable("kty is neither RSA nor EC")
    alg = KEY_ALGORITHMS[kty]
    if jwk.get("alg", alg) != alg:
        raise _unusable(f"alg of this kind of key is {alg}")
    if jwk.get("use", "enc") != "enc":
        raise _unusable("use is not enc")
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= KID_CHARS_MAX):
        raise _unusable("kid is no acceptable string")
    if kty == "EC" and jwk.get("crv") != CURVE:
        raise _unusable(f"crv is not {CURVE}")
    public = {name: jwk.get(name) for name in PUBLIC_JWK_MEMBERS[kty]}
    if not all(isinstance(text, str) and len(text) <= MEMBER_CHARS_MAX for text in public.values()):
        raise _unusable(f"{', '.join(public)} are needed, as text")
    named = {} if kid is None else {"kid": kid}
    text = json.dumps({"kty": kty, "alg": alg, "use": "enc", **public, **named})
    _try_out(text, is_rsa=kty == "RSA")
    return text


def encrypt(signed: bytes, key: str) -> bytes:
    """Put a signed SET into a compact JWE for the holder of the key.

    key: of `parse_encryption_key`. Raises nothing for one. Requirement SET-21.
    """
    jwk, header = _parsed(key)
    token = JWE(signed, protected=header)
    token.add_recipient(jwk)
    return str(token.serialize(compact=True)).encode()


@lru_cache(maxsize=PARSED_KEYS_MAX)
def _parsed(key: str) -> tuple[JWK, str]:
    jwk = JWK.from_json(key)
    members = json.loads(key)
    header = {"alg": members["alg"], "enc": CONTENT_ENCRYPTION, "cty": "JWT"}
    # RFC 7519 §5.2: "In the case that nested signing or encryption operations are employed, this
    # Header Parameter MUST be present; in this case, the value MUST be "JWT"".
    return jwk, json_encode(header | ({"kid": members["kid"]} if "kid" in members else {}))


def _try_out(text: str, *, is_rsa: bool) -> None:
    """Use the key once: what does not work must be said now, not when an event is due."""
    try:
        jwk = JWK.from_json(text)
        if is_rsa and not RSA_BITS_MIN <= jwk.get_op_key("wrapKey").key_size <= RSA_BITS_MAX:
            raise _unusable(f"an RSA key has {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
        encrypt(b"{}", text)
    except (JWException, ValueError, TypeError, AttributeError) as cause:
        raise _unusable("nothing can be encrypted with it") from cause


def _unusable(description: str) -> StreamError:
    return StreamError("invalid_request", f"the key: {description}", requirement="SET-21")
