"""Who sent a webhook: the signature styles that vendors use. Pure, constant time.

Sources: Standard Webhooks (standards.md §21, WH-2 to WH-4, WH-10 to WH-14); HMAC over the body in
a header, as GitHub, Slack and most others do it; a fixed secret in a header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runtime.errors import Unauthorized

TOLERANCE_S: Final = 300
TOLERANCE_S_MAX: Final = 3_600
SECRETS_MAX: Final = 2
SECRET_CHARS_MIN: Final = 16
SECRET_CHARS_MAX: Final = 512
STANDARD_KEY_BYTES_MIN: Final = 24
STANDARD_KEY_BYTES_MAX: Final = 64
#: signatures of one message that are looked at: old and new keys of both sides are a handful
SIGNATURES_MAX: Final = 16
STANDARD_PREFIX: Final = "whsec_"
DEFAULT_HMAC_HEADER: Final = "X-Hub-Signature-256"

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
#: INVARIANT: no dot, or two readings of `<id>.<timestamp>.<body>` would have one signature
_MESSAGE_ID: Final = re.compile(r"[!-\-/-~]{1,255}")
_HASHES: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512, "sha1": hashlib.sha1}


class WebhookStyle(StrEnum):
    """How a vendor proves that a message is its own."""

    #: Standard Webhooks `v1`, also in Svix's spelling of the headers
    STANDARD = "standard"
    #: an HMAC of the body in a header
    HMAC = "hmac"
    #: `Authorization: Bearer <secret>`
    BEARER = "bearer"
    #: `Authorization: Basic` with `user:password` as the secret
    BASIC = "basic"
    #: the secret as the value of a header
    HEADER = "header"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSettings:
    """How a provider signs; see `settings` for the bounds.

    header: of the signature (hmac) or the secret (header). prefix: what stands before the digest,
    such as `sha256=`. timestamp_header, signed: for schemes that sign a time too, such as
    `v0:{timestamp}:{body}`; then the time is checked. tolerance_s: how far it may be off.
    """

    style: WebhookStyle
    header: str | None = None
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    timestamp_header: str | None = None
    signed: str = "{body}"
    tolerance_s: int = TOLERANCE_S


def verify(
    settings: SignatureSettings,
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: float,
) -> str | None:
    """Pass when one of the secrets signed the message; return its id, where the style has one.

    headers: looked up without regard to case. body: the octets as they came.
    Raises Unauthorized, without saying what was wrong (WH-13). Requirements WH-10, WH-11, WH-14.
    """
    match settings.style:
        case WebhookStyle.STANDARD:
            return _verify_standard(settings, secrets, headers, body, now_s)
        case WebhookStyle.HMAC:
            is_good = _is_hmac(settings, secrets, headers, body, now_s)
        case _:
            given = headers.get(settings.header or "authorization", "").encode("latin-1", "replace")
            is_good = _any_equal([(given, fixed_value(settings, each)) for each in secrets])
    if not is_good:
        raise _refusal()
    return None


def fixed_value(settings: SignatureSettings, secret: str) -> bytes:
    """Return the header value that a fixed secret makes. Raises nothing."""
    match settings.style:
        case WebhookStyle.BEARER:
            return b"Bearer " + secret.encode()
        case WebhookStyle.BASIC:
            return b"Basic " + base64.b64encode(secret.encode())
        case _:
            return secret.encode()


def standard_key(secret: str) -> bytes | None:
    """Return the HMAC key of `whsec_…`: its decoded octets (WH-4, EGW-76); None when it is none."""
    try:
        key = base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if STANDARD_KEY_BYTES_MIN <= len(key) <= STANDARD_KEY_BYTES_MAX else None


def _verify_standard(
    settings: SignatureSettings,
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    now_s: float,
) -> str:
    named = {
        part: headers.get(f"webhook-{part}") or headers.get(f"svix-{part}") or ""
        for part in ("id", "timestamp", "signature")
    }
    if not _MESSAGE_ID.fullmatch(named["id"]) or not _is_fresh(
        named["timestamp"], settings.tolerance_s, now_s
    ):
        raise _refusal()
    content = f"{named['id']}.{named['timestamp']}.".encode() + body
    keys = [key for secret in secrets if (key := standard_key(secret))]
    expected = [base64.b64encode(hmac.digest(key, content, "sha256")) for key in keys]
    # Other versions, and entries without a comma, are skipped (WH-10).
    given = [
        signature.encode("latin-1", "replace")
        for version, comma, signature in (
            entry.partition(",") for entry in named["signature"].split(" ")[:SIGNATURES_MAX]
        )
        if comma and version == "v1"
    ]
    if not _any_equal([(one, other) for one in given for other in expected]):
        raise _refusal()
    return named["id"]


def _is_hmac(
    settings: SignatureSettings,
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    now_s: float,
) -> bool:
    timestamp = ""
    if settings.timestamp_header is not None:
        timestamp = headers.get(settings.timestamp_header, "")
        if not _is_fresh(timestamp, settings.tolerance_s, now_s):
            return False
    before, _, after = settings.signed.replace("{timestamp}", timestamp).partition("{body}")
    content = before.encode() + body + after.encode()
    expected = [
        _encoded(hmac.new(secret.encode(), content, _HASHES[settings.algorithm]), settings)
        for secret in secrets
    ]
    value = headers.get(settings.header or DEFAULT_HMAC_HEADER, "")
    given = [
        _without_prefix(entry.strip(), settings).encode("latin-1", "replace")
        for entry in value.split(",")[:SIGNATURES_MAX]
        if entry.strip().startswith(settings.prefix)
    ]
    return _any_equal([(one, other) for one in given for other in expected])


def _without_prefix(entry: str, settings: SignatureSettings) -> str:
    digest = entry.removeprefix(settings.prefix)
    return digest.lower() if settings.encoding == "hex" else digest


def _encoded(digest: hmac.HMAC, settings: SignatureSettings) -> bytes:
    if settings.encoding == "hex":
        return digest.hexdigest().encode()
    return base64.b64encode(digest.digest())


def _is_fresh(timestamp: str, tolerance_s: int, now_s: float) -> bool:
    """Return whether a time is an integer and near enough, in both directions (WH-11)."""
    return bool(_TIMESTAMP.fullmatch(timestamp)) and abs(now_s - int(timestamp)) <= tolerance_s


def _any_equal(pairs: list[tuple[bytes, bytes]]) -> bool:
    # All pairs are compared: how long it takes does not tell which one fits.
    return sum(hmac.compare_digest(one, other) for one, other in pairs) > 0


def _refusal() -> Unauthorized:
    return Unauthorized("The message is not signed as it must be.")
