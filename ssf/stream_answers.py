"""What a receiver sends to manage its stream, and reads in the answers (SSF 1.0 §8).

The other half of `ssf.stream`: there we are the transmitter, here the receiver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from ssf.errors import StreamError
from ssf.stream import STREAM_ID_CHARS_MAX, DeliveryMethod, StreamStatus
from ssf.strict_json import parse_object

ANSWER_BYTES_MAX: Final = 256 * 1024
STREAMS_MAX: Final = 1_000
TEXT_CHARS_MAX: Final = 1_000
LIST_MAX: Final = 500

#: what drafts before ID3 called the methods; read, never sent (OLD-2)
_OLD_METHODS: Final = {
    "https://schemas.openid.net/secevent/risc/delivery-method/push": DeliveryMethod.PUSH,
    "https://schemas.openid.net/secevent/risc/delivery-method/poll": DeliveryMethod.POLL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStream:
    """Our stream as the transmitter told us; None and () stand for absent members.

    method: None when it is none that we know.
    """

    stream_id: str
    iss: str
    aud: tuple[str, ...] = ()
    method: DeliveryMethod | None = None
    endpoint_url: str | None = None
    events_supported: tuple[str, ...] = ()
    events_requested: tuple[str, ...] = ()
    events_delivered: tuple[str, ...] = ()
    description: str | None = None
    min_verification_interval_s: int | None = None
    inactivity_timeout_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStatus:
    """The status of our stream as the transmitter told us."""

    status: StreamStatus
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWish:
    """What a receiver decides about its stream: the three members it may send.

    endpoint_url, authorization_header: of push only.
    """

    events_requested: tuple[str, ...]
    method: DeliveryMethod
    endpoint_url: str | None = None
    authorization_header: str | None = None
    description: str | None = None


def render_wish(wish: StreamWish, *, stream_id: str | None = None) -> bytes:
    """Render a create request, or with `stream_id` a PATCH or PUT: nothing but what is ours to say.

    Raises nothing. Source: SSF 1.0 §8.1.1.1, §8.1.1.3; requirements CRC-4, CRC-6, SSF-DEL-1.
    """
    delivery: dict[str, object] = {"method": wish.method.value}
    if wish.method is DeliveryMethod.PUSH:
        delivery["endpoint_url"] = wish.endpoint_url
        if wish.authorization_header is not None:
            delivery["authorization_header"] = wish.authorization_header
    members: dict[str, object] = {} if stream_id is None else {"stream_id": stream_id}
    members |= {"events_requested": wish.events_requested, "delivery": delivery}
    if wish.description is not None:
        members["description"] = wish.description
    return msgspec.json.encode(members)


def of_stream(endpoint: str, stream_id: str) -> str:
    """Return the URL of a management endpoint with our stream named in its query."""
    joint = "&" if "?" in endpoint else "?"
    return f"{endpoint}{joint}{urlencode({'stream_id': stream_id})}"


def parse_configuration(body: bytes, issuer: str) -> RemoteStream:
    """Read the answer to create, read, PATCH or PUT.

    issuer: of the transmitter's metadata. Lenient about what is missing, not about who answers.
    Raises StreamError. Source: SSF 1.0 §8.1.1; requirements SSF-OP-50, CRC-2, OLD-2, OLD-10.
    """
    return _configuration(parse_object(body, bytes_max=ANSWER_BYTES_MAX, error=_bad_answer), issuer)


def parse_configurations(body: bytes, issuer: str) -> tuple[RemoteStream, ...]:
    """Read the answer to a read without `stream_id`: an array, or the one stream there is.

    Streams of another issuer are left out. Raises StreamError. Source: SSF 1.0 §8.1.1.2;
    requirement SSF-OP-11.
    """
    # Wrapped, so that one strict reader of objects does for arrays too.
    members = parse_object(
        b'{"streams":' + (body.strip() or b"[]") + b"}",
        bytes_max=ANSWER_BYTES_MAX,
        error=_bad_answer,
    )["streams"]
    items = members if isinstance(members, list) else [members]
    if len(items) > STREAMS_MAX or not all(isinstance(item, dict) for item in items):
        raise _bad_answer(f"no array of at most {STREAMS_MAX} streams")
    return tuple(_configuration(item, issuer) for item in items if item.get("iss") == issuer)


def parse_status(body: bytes) -> RemoteStatus:
    """Read the answer about a stream's status. Raises StreamError. Source: SSF 1.0 §8.1.2.1."""
    members = parse_object(body, bytes_max=ANSWER_BYTES_MAX, error=_bad_answer)
    status = members.get("status")
    if not isinstance(status, str) or status not in set(StreamStatus):
        raise _bad_answer("status is none of enabled, paused, disabled")
    reason = members.get("reason")
    return RemoteStatus(
        status=StreamStatus(status),
        reason=reason[:TEXT_CHARS_MAX] if isinstance(reason, str) else None,
    )


def _configuration(members: Mapping[str, Any], issuer: str) -> RemoteStream:
    if members.get("iss") != issuer:
        raise StreamError(
            "invalid_issuer", "the answer's iss is not the issuer asked", requirement="SSF-OP-50"
        )
    stream_id = members.get("stream_id")
    if not isinstance(stream_id, str) or not 0 < len(stream_id) <= STREAM_ID_CHARS_MAX:
        raise _bad_answer("stream_id is missing or no acceptable string")
    method, endpoint_url = _delivery(members.get("delivery"))
    return RemoteStream(
        stream_id=stream_id,
        iss=issuer,
        aud=_texts(members, "aud"),
        method=method,
        endpoint_url=endpoint_url,
        events_supported=_texts(members, "events_supported"),
        events_requested=_texts(members, "events_requested"),
        events_delivered=_texts(members, "events_delivered"),
        description=_text(members.get("description")),
        min_verification_interval_s=_seconds(members, "min_verification_interval"),
        inactivity_timeout_s=_seconds(members, "inactivity_timeout"),
    )


def _delivery(value: object) -> tuple[DeliveryMethod | None, str | None]:
    if value is None:
        return None, None
    if not isinstance(value, dict):
        raise _bad_answer("delivery is no object")
    name = str(value.get("method") or value.get("delivery_method"))
    known = {method.value: method for method in DeliveryMethod} | _OLD_METHODS
    url = value.get("endpoint_url") or value.get("url")
    if url is not None and not (isinstance(url, str) and url.startswith(("https://", "http://"))):
        raise _bad_answer("delivery.endpoint_url is no http(s) URL")
    return known.get(name), url


def _texts(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = members.get(name)
    items: Sequence[object] = [value] if isinstance(value, str) else value or []
    if (
        not isinstance(items, list)
        or len(items) > LIST_MAX
        or not all(isinstance(item, str) and len(item) <= TEXT_CHARS_MAX for item in items)
    ):
        raise _bad_answer(f"{name} is no array of at most {LIST_MAX} texts")
    return tuple(items)


def _text(value: object) -> str | None:
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) else None


def _seconds(members: Mapping[str, Any], name: str) -> int | None:
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return min(value, 10 * 366 * 86_400)


def _bad_answer(description: str) -> StreamError:
    return StreamError("invalid_response", f"answer: {description}", requirement="SSF-CFG-1")
