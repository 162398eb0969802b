"""Secrets at rest: sealed with AES-256-GCM in a JWE, opened only where they are used."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from jwcrypto.common import base64url_encode, json_encode
from jwcrypto.jwe import JWE, InvalidJWEData
from jwcrypto.jwk import JWK

SECRET_KEY_CHARACTERS_MIN: Final = 32
_OPENED_MAX: Final = 4096
#: stands before every text: the JWE library takes an empty one for a failure
_LEAD: Final = "="


class SecretBox:
    """Seals and opens short texts with one key. Source: RFC 7516, alg `dir`, enc `A256GCM`."""

    def __init__(self, secret_key: str) -> None:
        """secret_key: at least 32 characters; raises ValueError when shorter."""
        if len(secret_key) < SECRET_KEY_CHARACTERS_MIN:
            raise ValueError(
                f"SECRET_KEY: at least {SECRET_KEY_CHARACTERS_MIN} characters are needed"
            )
        digest = hashlib.sha256(b"signalhub secrets v1\0" + secret_key.encode()).digest()
        self._kid = hashlib.sha256(digest).hexdigest()[:16]
        self._key = JWK(kty="oct", k=base64url_encode(digest), kid=self._kid)
        self._open_cached = lru_cache(maxsize=_OPENED_MAX)(self._open)

    def seal(self, text: str) -> str:
        """Return `text` sealed, different every time. Raises nothing."""
        header = json_encode({"alg": "dir", "enc": "A256GCM", "kid": self._kid})
        token = JWE((_LEAD + text).encode(), protected=header)
        token.add_recipient(self._key)
        sealed: str = token.serialize(compact=True)
        return sealed

    def open(self, sealed: str) -> str:
        """Return the text of `sealed`; raises ValueError when it was sealed with another key."""
        return self._open_cached(sealed)

    def _open(self, sealed: str) -> str:
        token = JWE(algs=["dir", "A256GCM"])
        try:
            token.deserialize(sealed, self._key)
        except InvalidJWEData as error:
            raise ValueError(
                "a stored secret does not open: SECRET_KEY is not the one it was sealed with"
            ) from error
        payload: bytes = token.payload
        return payload.decode().removeprefix(_LEAD)
