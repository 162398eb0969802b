"""Sign many SETs before a measurement, so that signing costs nothing while it runs.

RS256 signs about 4,400 tokens a second and core; all cores are used and the result is kept in the
temporary folder, one token a line, so that the next run with the same plan starts at once. Every
`jti` is fresh within a plan, so a database must not outlive the run that used it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwcrypto.common import base64url_encode
from jwcrypto.jwk import JWK, JWKSet

from runtime.clock import SystemClock, epoch_s

SIGNED_IN_ONE_STEP: Final = 500
KID: Final = "benchmark-1"
#: a compact token of about 1 KB; the shortest device SET below fits with a reason of its own
TOKEN_BYTES: Final = 1152
SIGNATURE_BYTES: Final = 342
REASON: Final = "Disk encryption is off. " * 40
CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type"


class Subjects(StrEnum):
    """Whom the SETs are about."""

    USER = "user"
    """`sub_id` is a user's email address."""

    DEVICE = "device"
    """`sub_id` is complex: an email address and an opaque device id."""


class TokenPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's SETs say: sender, receiver, and subjects taken in turn.

    label: keeps apart the tokens of plans that are otherwise alike (part of every `jti`).
    """

    issuer: str
    audience: str
    count: int
    label: str
    subject_count: int = 1_000
    subject_domain: str = "load.example"
    subjects: Subjects = Subjects.DEVICE


def email_of(plan: TokenPlan, number: int) -> str:
    """Return the address of the plan's subject `number`."""
    return f"user{number:06d}@{plan.subject_domain}"


def device_of(plan: TokenPlan, number: int) -> str:
    """Return the opaque device id of the plan's subject `number`."""
    return f"device-{number:06d}.{plan.subject_domain}"


def signing_jwk() -> JWK:
    """Return the RSA key of all benchmark runs of this user, made on first use."""
    path = _cache_folder() / "signing-key.json"
    if not path.exists():
        made = JWK.generate(kty="RSA", size=2048, kid=KID, use="sig", alg="RS256")
        _write_once(path, made.export_private().encode())
    return JWK.from_json(path.read_text())


def public_jwks() -> str:
    """Return the JWK Set, as JSON, that verifies what `signed_tokens` signs."""
    keys = JWKSet()
    keys.add(signing_jwk())
    published: str = keys.export(private_keys=False)
    return published


def signed_tokens(plan: TokenPlan) -> Path:
    """Return a file with `plan.count` signed SETs, one compact token a line."""
    key = signing_jwk()
    # The sample claims change the name when this module writes tokens differently.
    identity = msgspec.json.encode([plan, key.thumbprint(), _claims(plan, 0, 0)])
    path = _cache_folder() / f"tokens-{hashlib.sha256(identity).hexdigest()[:24]}.txt"
    if path.exists():
        return path
    issued_at = epoch_s(SystemClock().now())
    pem: bytes = key.export_to_pem(private_key=True, password=None)
    starts = range(0, plan.count, SIGNED_IN_ONE_STEP)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        steps = [pool.submit(_sign, plan, pem, start, issued_at) for start in starts]
        _write_once(path, b"".join(step.result() for step in steps))
    return path


def _sign(plan: TokenPlan, pem: bytes, start: int, issued_at: int) -> bytes:
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    header = _segment(msgspec.json.encode({"alg": "RS256", "typ": "secevent+jwt", "kid": KID}))
    lines = []
    for number in range(start, min(start + SIGNED_IN_ONE_STEP, plan.count)):
        signing_input = header + b"." + _segment(_claims(plan, number, issued_at))
        signature = key.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())
        lines.append(signing_input + b"." + _segment(signature) + b"\n")
    return b"".join(lines)


def _claims(plan: TokenPlan, number: int, issued_at: int) -> bytes:
    subject = number % plan.subject_count
    reason = {"en": ""}
    event = {
        "event_timestamp": issued_at,
        "initiating_entity": "system",
        "reason_admin": reason,
        "previous_status": "compliant",
        "current_status": "not-compliant",
    }
    claims = {
        "iss": plan.issuer,
        "aud": plan.audience,
        "iat": issued_at,
        "jti": f"{plan.label}-{number:08d}",
        "txn": f"txn-{plan.label}-{number:08d}",
        "sub_id": _subject(plan, subject),
        "events": {_event_type(plan): event},
    }
    # The reason is as long as it takes to make the compact token TOKEN_BYTES long.
    spare = _claims_bytes_wanted() - len(msgspec.json.encode(claims))
    reason["en"] = REASON[: max(spare, 1)]
    return msgspec.json.encode(claims)


def _claims_bytes_wanted() -> int:
    header_bytes = len(_segment(b'{"alg":"RS256","typ":"secevent+jwt","kid":"benchmark-1"}'))
    return (TOKEN_BYTES - SIGNATURE_BYTES - header_bytes - 2) * 3 // 4


def _event_type(plan: TokenPlan) -> str:
    kind = "device-compliance-change" if plan.subjects is Subjects.DEVICE else "session-revoked"
    return f"{CAEP}/{kind}"


def _subject(plan: TokenPlan, number: int) -> dict[str, object]:
    user = {"format": "email", "email": email_of(plan, number)}
    if plan.subjects is Subjects.USER:
        return dict(user)
    return {
        "format": "complex",
        "user": user,
        "device": {"format": "opaque", "id": device_of(plan, number)},
    }


def _segment(part: bytes) -> bytes:
    encoded: str = base64url_encode(part)
    return encoded.encode()


def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"signalhub-benchmark-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _write_once(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def read_tokens(path: Path, *, first: int, count: int) -> Iterable[bytes]:
    """Return tokens `first` to `first + count` of a file made by `signed_tokens`.

    Raises ValueError when the file holds fewer.
    """
    lines = path.read_bytes().split(b"\n")
    if first + count > len(lines) - 1:
        raise ValueError(f"{path} holds {len(lines) - 1} tokens, {first + count} are wanted")
    return lines[first : first + count]


def main() -> None:
    """Sign a plan's tokens and print the file's name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--audience", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--label", default="load")
    parser.add_argument("--subjects", type=int, default=1_000)
    options = parser.parse_args()
    plan = TokenPlan(
        issuer=options.issuer,
        audience=options.audience,
        count=options.count,
        label=options.label,
        subject_count=options.subjects,
    )
    print(signed_tokens(plan))


if __name__ == "__main__":
    main()
