"""JSON Web Key Sets: reading those of others, publishing ours, and the life of one of our keys.

::

    NEXT (published) --> CURRENT (signs) --> RETIRED (still published) --> GONE
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ssf.errors import LocalProtocolError, RemoteProtocolError, SETError
from ssf.jose import PUBLIC_JWK_MEMBERS, VerificationKey, verification_key
from ssf.strict_json import parse_object

KEYS_MAX: Final = 100
JWKS_BYTES_MAX: Final = 1024 * 1024


class KeyState(StrEnum):
    """Where one of our signing keys stands in its rotation (SET-36)."""

    NEXT = "next"
    CURRENT = "current"
    RETIRED = "retired"
    GONE = "gone"


KEY_TRANSITIONS: Final[Mapping[KeyState, frozenset[KeyState]]] = MappingProxyType(
    {
        # Published before it signs, or withdrawn unused.
        KeyState.NEXT: frozenset({KeyState.CURRENT, KeyState.GONE}),
        # Straight to GONE only for a compromised key: what it signed must stop verifying.
        KeyState.CURRENT: frozenset({KeyState.RETIRED, KeyState.GONE}),
        # Stays published until nothing undelivered or retained carries its signature.
        KeyState.RETIRED: frozenset({KeyState.GONE}),
        KeyState.GONE: frozenset(),
    }
)


def check_transition(current: KeyState, wanted: KeyState) -> None:
    """Allow a step of a key's life.

    Raises LocalProtocolError for any step not in KEY_TRANSITIONS. Requirement SET-36.
    """
    if wanted not in KEY_TRANSITIONS[current]:
        raise LocalProtocolError("key_transition", f"a {current} key cannot become {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JWKSet:
    """The keys of one issuer that we can use, in the order of the document."""

    keys: tuple[VerificationKey, ...]

    def find(self, kid: str | None, alg: str) -> VerificationKey | None:
        """Find the key for a JWS header, or None.

        Without a kid the answer is a key only if exactly one fits the algorithm: guessing between
        several would try keys until one works. Raises nothing. Requirement SET-54.
        """
        fitting = [
            key for key in self.keys if alg in key.algorithms and (kid is None or key.kid == kid)
        ]
        if not fitting or (kid is None and len(fitting) > 1):
            return None
        return fitting[0]


def parse_jwks(document: Mapping[str, object] | bytes) -> JWKSet:
    """Read a JWK Set; keys that we cannot use are left out.

    document: at most JWKS_BYTES_MAX bytes and KEYS_MAX keys, or the parsed object.
    Raises RemoteProtocolError when it is no JWK Set. Source: RFC 7517 §5: unknown key types are
    ignored; requirement SET-54.
    """
    if isinstance(document, bytes):
        document = parse_object(document, bytes_max=JWKS_BYTES_MAX, error=_not_jwks)
    members = document.get("keys")
    if not isinstance(members, list):
        raise _not_jwks("keys is not an array")
    if len(members) > KEYS_MAX:
        raise _not_jwks(f"more than {KEYS_MAX} keys")
    usable = (_usable_key(member) for member in members)
    return JWKSet(keys=tuple(key for key in usable if key is not None))


def render_jwks(jwks: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Render our public keys for `jwks_uri`.

    Each key comes with kid, kty and alg; it goes out with exactly its public members, kid, kty,
    use "sig" and alg. Raises LocalProtocolError for a private or symmetric key, a missing member,
    or a repeated kid. Source: SSF 1.0 §4.1.4; requirement SET-35.
    """
    keys = [_render_key(jwk) for jwk in jwks]
    if len({key["kid"] for key in keys}) != len(keys):
        raise LocalProtocolError("unpublishable_key", "two keys share a kid")
    return {"keys": keys}


def _render_key(jwk: Mapping[str, object]) -> dict[str, object]:
    try:
        key = verification_key(jwk)
    except SETError as cause:
        raise LocalProtocolError("unpublishable_key", cause.description) from cause
    if key.kid is None or len(key.algorithms) != 1:
        raise LocalProtocolError("unpublishable_key", "a published key needs kid and alg")
    kty = str(jwk["kty"])
    public = {name: jwk[name] for name in PUBLIC_JWK_MEMBERS[kty]}
    return {"kty": kty, "kid": key.kid, "use": "sig", "alg": jwk["alg"], **public}


def _usable_key(member: object) -> VerificationKey | None:
    if not isinstance(member, dict):
        return None
    try:
        return verification_key(member)
    except SETError:
        return None


def _not_jwks(description: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        "invalid_jwks", f"the JWK Set is unusable: {description}", requirement="SET-54"
    )
