"""Signed webhooks by the Standard Webhooks rules: signature, request, answer. Pure.

Source: Standard Webhooks specification; requirements WH-1 to WH-8, EGW-76, EGW-78.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from actions.model import Proof
from actions.outcomes import Outcome, OutcomeClass, classify_status
from runtime.outbound import OutboundRequest

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the public mark of a secret, not one
SECRET_BYTES_MIN: Final = 24
SECRET_BYTES_MAX: Final = 64
TIMEOUT_S: Final = 15.0
#: requirement WH-6
BODY_BYTES_MAX: Final = 20_000

_GONE: Final = 410


def render_secret(key: bytes) -> str:
    """Return the printable form of a key of 24 to 64 octets. Requirement WH-4."""
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError("a webhook secret has 24 to 64 octets")
    return SECRET_PREFIX + base64.b64encode(key).decode()


def parse_secret(secret: str) -> bytes:
    """Return the HMAC key: the decoded octets, not the text (EGW-76).

    Raises ValueError. Requirement WH-4.
    """
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a webhook secret begins with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is base64 after its prefix") from error
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError("a webhook secret has 24 to 64 octets")
    return key


def signature(secret: str, message_id: str, timestamp_s: int, *, body: bytes) -> str:
    """Return the `v1` signature over id, timestamp and the exact body. Requirements WH-2, WH-3."""
    content = f"{message_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(parse_secret(secret), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def build_request(
    url: str, secret: str, *, message_id: str, timestamp_s: int, body: bytes
) -> OutboundRequest:
    """Return the request for one attempt.

    message_id: the same for all attempts of one message. timestamp_s: of this attempt.
    Raises ValueError on a bad secret, an id with a dot, or a body of BODY_BYTES_MAX or more.
    Requirements WH-1, WH-2, WH-5, WH-6.
    """
    if "." in message_id:
        raise ValueError("a webhook id holds no dot: it is joined by dots for signing")
    if len(body) >= BODY_BYTES_MAX:
        raise ValueError("a webhook body stays below 20 kB")
    return OutboundRequest(
        method="POST",
        url=url,
        headers={
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(secret, message_id, timestamp_s, body=body),
        },
        body=body,
        timeout_s=TIMEOUT_S,
    )


def classify_answer(status: int, retry_after_s: float | None) -> Outcome:
    """Decide what an answer means for the message: 2xx delivered, 410 never again, else later.

    A webhook failure of any other kind is retried, because receivers are often fixed within the
    days the schedule lasts. Raises nothing. Requirement WH-7.
    """
    if 200 <= status < 300:  # noqa: PLR2004 - the class of RFC 9110 §15.3
        return Outcome(
            klass=OutcomeClass.DONE, detail="delivered", status=status, proves=Proof.ACCEPTED
        )
    if status == _GONE:
        detail = "the endpoint asked to be left alone (410); it is switched off now"
        return Outcome(klass=OutcomeClass.GONE, detail=detail, status=status)
    detail = classify_status(status, retry_after_s).detail
    return Outcome(
        klass=OutcomeClass.TRANSIENT, detail=detail, status=status, retry_after_s=retry_after_s
    )
