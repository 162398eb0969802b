"""A receiver of signed webhooks (Standard Webhooks; requirements WH-1 to WH-5, WH-10 to WH-13)."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from conformance.peers.clock import now_s
from conformance.peers.errors import SignatureError
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.peer import json_response, read_body

WEBHOOK_PATH = "/webhook"
TOLERANCE_S = 300
BODY_BYTES_MAX = 64 * 1024
MESSAGES_MAX = 100_000
SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret


class WebhookInbox:
    """Messages received, each id once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._messages: dict[str, dict[str, Any]] = {}

    async def answer(self, request: Request, secret: str) -> Response:
        """Answer one delivery: 204 for a new or repeated message, 401 without detail otherwise."""
        body = await read_body(request, BODY_BYTES_MAX)
        message_id = request.headers.get("webhook-id")
        try:
            check_signature(request.headers, body, secret=secret, now_s=now_s())
            message = msgspec.json.decode(body, type=dict[str, Any])
        except SignatureError as problem:
            self._ledger.record(
                "webhook.refused",
                Outcome.REFUSED,
                request_id=message_id,
                status=401,
                detail=str(problem),
            )
            return json_response({"title": "Unauthorized", "status": 401}, 401)
        except msgspec.MsgspecError as problem:
            self._ledger.record(
                "webhook.refused",
                Outcome.REFUSED,
                request_id=message_id,
                status=400,
                detail=str(problem),
            )
            return json_response({"title": "Bad Request", "status": 400}, 400)
        self._keep(str(message_id), message)
        return Response(status_code=204)

    def messages(self, wanted_type: str | None) -> list[dict[str, Any]]:
        """List messages, oldest first, of one type if given."""
        return [
            message
            for message in self._messages.values()
            if wanted_type is None or message["body"].get("type") == wanted_type
        ]

    def _keep(self, message_id: str, message: dict[str, Any]) -> None:
        known = message_id in self._messages
        if not known:
            self._messages[message_id] = {"id": message_id, "at": now_s(), "body": message}
            if len(self._messages) > MESSAGES_MAX:
                del self._messages[next(iter(self._messages))]
        self._ledger.record(
            "webhook.received",
            Outcome.REPEAT if known else Outcome.EFFECT,
            request_id=message_id,
            type=message.get("type"),
            data=message.get("data"),
        )


def check_signature(headers: Mapping[str, str], body: bytes, *, secret: str, now_s: float) -> None:
    """Check id, timestamp and signature over the raw body.

    secret: `whsec_` and base64. One matching `v1` suffices; other versions and entries without a
    comma are skipped. Raises SignatureError. Requirements WH-2 to WH-4, WH-10, WH-11.
    """
    message_id = headers.get("webhook-id", "")
    sent_at = headers.get("webhook-timestamp", "")
    if not message_id or "." in message_id:
        raise SignatureError("webhook-id is missing or has a dot")
    if not (sent_at.isascii() and sent_at.isdecimal()):
        raise SignatureError("webhook-timestamp is no integer")
    if abs(now_s - int(sent_at)) > TOLERANCE_S:
        raise SignatureError("webhook-timestamp is too far from now")
    content = f"{message_id}.{sent_at}.".encode() + body
    expected = hmac.digest(_secret_octets(secret), content, "sha256")
    entries = (entry.partition(",") for entry in headers.get("webhook-signature", "").split(" "))
    given = [signature for version, comma, signature in entries if version == "v1" and comma]
    if not any(hmac.compare_digest(_octets(signature), expected) for signature in given):
        raise SignatureError("no signature matches")


def _secret_octets(secret: str) -> bytes:
    octets = _octets(secret.removeprefix(SECRET_PREFIX))
    if not secret.startswith(SECRET_PREFIX) or not octets:
        raise SignatureError("this receiver's secret is unusable")
    return octets


def _octets(text: str) -> bytes:
    """Decode padded base64; anything else gives no octets, which match nothing."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
