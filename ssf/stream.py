"""Streams: their states, their configuration, and the messages that manage them (SSF 1.0 §8).

The poll URL, `aud` and `stream_id` are the transmitter's; method, push URL, wanted event types and
description the receiver's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from ssf.errors import StreamError
from ssf.events.ssf import STREAM_EVENT_TYPES
from ssf.profile import FINAL, OLD_METHODS, WireProfile
from ssf.strict_json import parse_object

REQUEST_BYTES_MAX: Final = 128 * 1024
EVENTS_REQUESTED_MAX: Final = 200
EVENT_URI_CHARS_MAX: Final = 1024
ENDPOINT_URL_CHARS_MAX: Final = 2048
AUTHORIZATION_HEADER_CHARS_MAX: Final = 4096
DESCRIPTION_CHARS_MAX: Final = 1000
STREAM_ID_CHARS_MAX: Final = 256


class StreamStatus(StrEnum):
    """enabled transmits, paused holds, disabled drops (SSF-STAT-3 to SSF-STAT-6)."""

    ENABLED = "enabled"
    PAUSED = "paused"
    DISABLED = "disabled"


# SSF 1.0 §8.1.2 forbids no step, and setting the present status again is fine (SSF-STAT-9).
STREAM_TRANSITIONS: Final[Mapping[StreamStatus, frozenset[StreamStatus]]] = MappingProxyType(
    {
        StreamStatus.ENABLED: frozenset(StreamStatus),
        StreamStatus.PAUSED: frozenset(StreamStatus),
        StreamStatus.DISABLED: frozenset(StreamStatus),
    }
)


class DeliveryMethod(StrEnum):
    """How SETs reach the receiver (SSF-DEL-1)."""

    PUSH = "urn:ietf:rfc:8935"
    POLL = "urn:ietf:rfc:8936"


_NOTHING_SUPPLIED: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedStream:
    """What a receiver asks for in a create request.

    authorization_header: the whole value to send with every push; secret. transmitter_supplied:
    members which are not the receiver's to choose but were sent along; `new_configuration` checks
    that they are true. subject_format, has_old_method: what drafts let a receiver say; whether
    they count depends on its profile.
    """

    events_requested: tuple[str, ...]
    method: DeliveryMethod
    endpoint_url: str | None = None
    authorization_header: str | None = field(default=None, repr=False)
    description: str | None = None
    transmitter_supplied: Mapping[str, object] = field(default_factory=lambda: _NOTHING_SUPPLIED)
    subject_format: str | None = None
    has_old_method: bool = False


#: what the receiver decides, each as a whole (SSF 1.0 §8.1.1)
RECEIVER_SUPPLIED: Final = frozenset({"events_requested", "delivery", "description"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChange:
    """What a receiver asks for with PATCH or PUT.

    wanted: as in a create request. keeps: receiver-supplied members that stay as they are, where
    `wanted` says nothing.
    """

    stream_id: str
    wanted: WantedStream
    keeps: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfiguration:
    """One stream as it is. Intervals in seconds; authorization_header is never rendered.

    Requirements SSF-CFG-1 to SSF-CFG-12, SSF-DEL-1 to SSF-DEL-7.
    """

    stream_id: str
    iss: str
    aud: tuple[str, ...]
    events_supported: tuple[str, ...]
    events_requested: tuple[str, ...]
    events_delivered: tuple[str, ...]
    method: DeliveryMethod
    endpoint_url: str
    authorization_header: str | None = field(default=None, repr=False)
    description: str | None = None
    min_verification_interval_s: int | None = None
    inactivity_timeout_s: int | None = None
    status: StreamStatus = StreamStatus.ENABLED
    reason: str | None = None
    subject_format: str | None = None
    profile: WireProfile = FINAL


def parse_create(body: bytes, *, allow_http: bool = False) -> WantedStream:
    """Read a create request.

    body: at most REQUEST_BYTES_MAX. No delivery means poll; event types we do not know are kept.
    Null counts as absent, unknown members are ignored. allow_http: the development switch.
    Raises StreamError, to be answered 400.
    Source: SSF 1.0 §6.1, §8.1.1.1; requirements SSF-OP-1, SSF-OP-4, SSF-DEL-1 to SSF-DEL-8,
    SSF-CFG-5, EGW-16, EGW-17, EGW-18.
    """
    return _wanted(parse_body(body, "SSF-OP-4"), allow_http=allow_http)


def parse_patch(body: bytes, *, allow_http: bool = False) -> StreamChange:
    """Read an update request: members that are absent stay as they are. Raises StreamError.

    Source: SSF 1.0 §8.1.1.3; requirements SSF-OP-20, SSF-OP-22, SSF-OP-31.
    """
    members = parse_body(body, "SSF-OP-20")
    keeps = frozenset(name for name in RECEIVER_SUPPLIED if members.get(name) is None)
    return StreamChange(
        stream_id=stream_id_of(members, "SSF-OP-20"),
        wanted=_wanted(members, allow_http=allow_http),
        keeps=keeps,
    )


def parse_put(body: bytes, *, allow_http: bool = False) -> StreamChange:
    """Read a replace request: members that are absent are deleted. Raises StreamError.

    Source: SSF 1.0 §8.1.1.4; requirements SSF-OP-30, SSF-OP-31.
    """
    members = parse_body(body, "SSF-OP-30")
    return StreamChange(
        stream_id=stream_id_of(members, "SSF-OP-30"),
        wanted=_wanted(members, allow_http=allow_http),
        keeps=frozenset(),
    )


def _wanted(members: Mapping[str, Any], *, allow_http: bool) -> WantedStream:
    method, delivery = _delivery(members)
    push = method is DeliveryMethod.PUSH
    description = text_of(members, "description", "SSF-OP-4")
    # Unknown to SSF 1.0, so it refuses nothing, whatever it holds.
    wanted_format = members.get("format")
    return WantedStream(
        events_requested=_events_requested(members),
        method=method,
        # For poll the URL is ours and no header is sent: whatever the receiver wrote is dropped.
        endpoint_url=_push_url(delivery, allow_http=allow_http) if push else None,
        authorization_header=_authorization_header(delivery) if push else None,
        description=None if description is None else description[:DESCRIPTION_CHARS_MAX],
        transmitter_supplied=MappingProxyType(
            {name: members[name] for name in _TRANSMITTER_SUPPLIED if members.get(name) is not None}
        ),
        subject_format=wanted_format if isinstance(wanted_format, str) else None,
        has_old_method=delivery.get("method") in OLD_METHODS,
    )


def new_configuration(
    wanted: WantedStream,
    *,
    stream_id: str,
    iss: str,
    aud: tuple[str, ...],
    events_supported: tuple[str, ...],
    poll_url: str,
) -> StreamConfiguration:
    """Make the configuration of a new stream; it starts enabled.

    events_delivered are the requested types that are supported, in the order of the request.
    poll_url: used when the method is poll. Intervals are set with dataclasses.replace.
    Raises StreamError when the request claims transmitter-supplied members that are not so.
    Source: SSF 1.0 §8.1.1; requirements SSF-CFG-6, SSF-DEL-2, SSF-DEL-4, SSF-OP-4, SSF-OP-5.
    """
    configuration = StreamConfiguration(
        stream_id=stream_id,
        iss=iss,
        aud=aud,
        events_supported=events_supported,
        events_requested=wanted.events_requested,
        events_delivered=tuple(uri for uri in wanted.events_requested if uri in events_supported),
        method=wanted.method,
        endpoint_url=poll_url if wanted.endpoint_url is None else wanted.endpoint_url,
        authorization_header=wanted.authorization_header,
        description=wanted.description,
    )
    check_transmitter_supplied(configuration, wanted.transmitter_supplied)
    return configuration


def changed_configuration(
    current: StreamConfiguration, change: StreamChange, *, poll_url: str
) -> StreamConfiguration:
    """Make the configuration that a PATCH or PUT leads to; all that is ours stays.

    poll_url: used when the method is poll. Raises StreamError when the request claims
    transmitter-supplied members that are not so before the change.
    Source: SSF 1.0 §8.1.1.3, §8.1.1.4; requirements SSF-OP-20, SSF-OP-21, SSF-OP-30, SSF-DEL-4.
    """
    wanted, keeps = change.wanted, change.keeps
    check_transmitter_supplied(current, wanted.transmitter_supplied)
    changed = current
    if "description" not in keeps:
        changed = replace(changed, description=wanted.description)
    if "events_requested" not in keeps:
        supported = current.events_supported
        changed = replace(
            changed,
            events_requested=wanted.events_requested,
            events_delivered=tuple(uri for uri in wanted.events_requested if uri in supported),
        )
    if "delivery" not in keeps:
        changed = replace(
            changed,
            method=wanted.method,
            endpoint_url=poll_url if wanted.endpoint_url is None else wanted.endpoint_url,
            authorization_header=wanted.authorization_header,
        )
    return changed


def check_transmitter_supplied(
    configuration: StreamConfiguration, supplied: Mapping[str, object]
) -> None:
    """Check that members which are ours to set have, where a receiver sent them, our values.

    Arrays compare as sets, and one audience equals the array of it. Raises StreamError.
    Source: SSF 1.0 §8.1.1.3; requirements SSF-OP-4, SSF-OP-21, EGW-13.
    """
    current = render_configuration(configuration)
    for name, value in supplied.items():
        if _comparable(value) != _comparable(current.get(name)):
            raise refused(f"{name} is not for the receiver to choose", "SSF-OP-21")


def render_configuration(c: StreamConfiguration) -> dict[str, object]:
    """Render a stream configuration, without the authorization header.

    Raises nothing. Source: SSF 1.0 §8.1.1; requirements SSF-CFG-1 to SSF-CFG-10, SSF-DEL-7.
    """
    optional = {
        "min_verification_interval": c.min_verification_interval_s,
        "inactivity_timeout": c.inactivity_timeout_s,
        "description": c.description,
        "format": c.subject_format if c.profile.receiver_names_audience else None,
    }
    one_aud = len(c.aud) == 1 and not c.profile.audience_is_array
    return {
        "stream_id": c.stream_id,
        "iss": c.iss,
        "aud": c.aud[0] if one_aud else list(c.aud),
        "delivery": {
            "method": c.profile.method_name(c.method.value),
            "endpoint_url": c.endpoint_url,
        },
        "events_supported": list(c.events_supported),
        "events_requested": list(c.events_requested),
        "events_delivered": list(c.events_delivered),
    } | {name: value for name, value in optional.items() if value is not None}


def selects(c: StreamConfiguration, event_type: str) -> bool:
    """Decide by type and status whether an event is kept for a stream; subjects are another rule.

    A paused stream selects, because its events are held; a disabled one does not. Verification and
    stream-updated are never filtered. Raises nothing.
    Source: SSF 1.0 §8.1.2.1, §8.1.4, §8.1.5; requirements SUB-40, SSF-STAT-4, SSF-STAT-6,
    SSF-VER-6, SSF-UPD-4.
    """
    if event_type in STREAM_EVENT_TYPES:
        return True
    return c.status is not StreamStatus.DISABLED and event_type in c.events_delivered


def render_status(c: StreamConfiguration) -> dict[str, object]:
    """Render the status of a stream. Raises nothing. Requirements SSF-STAT-1, SSF-STAT-7."""
    reason = {} if c.reason is None else {"reason": c.reason}
    return {"stream_id": c.stream_id, "status": c.status.value, **reason}


_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_TRANSMITTER_SUPPLIED: Final = (
    "stream_id",
    "iss",
    "aud",
    "events_supported",
    "events_delivered",
    "min_verification_interval",
    "inactivity_timeout",
)


def parse_body(body: bytes, requirement: str) -> dict[str, Any]:
    """Read the object of a request. Raises StreamError."""
    return parse_object(
        body,
        bytes_max=REQUEST_BYTES_MAX,
        error=lambda description: refused(f"body: {description}", requirement),
    )


def _delivery(members: Mapping[str, Any]) -> tuple[DeliveryMethod, Mapping[str, Any]]:
    delivery = members.get("delivery")
    if delivery is None:
        # SSF 1.0 §8.1.1.1: without delivery the Transmitter MUST assume poll.
        return DeliveryMethod.POLL, {}
    if not isinstance(delivery, dict):
        raise refused("delivery is no object", "SSF-OP-4")
    method = str(delivery.get("method"))
    try:
        return DeliveryMethod(OLD_METHODS.get(method, method)), delivery
    except ValueError:
        raise refused("delivery.method is not supported", "SSF-DEL-5") from None


def is_event_uri(value: object) -> bool:
    """Return whether this can name a type of event: an absolute URI. Source: RFC 8417 §2.2."""
    return (
        isinstance(value, str)
        and len(value) <= EVENT_URI_CHARS_MAX
        and _ABSOLUTE_URI.fullmatch(value) is not None
    )


def _events_requested(members: Mapping[str, Any]) -> tuple[str, ...]:
    value = members.get("events_requested")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > EVENTS_REQUESTED_MAX:
        raise refused(
            f"events_requested is no array of at most {EVENTS_REQUESTED_MAX} URIs", "SSF-OP-4"
        )
    # What names no type that we know, were it no URI at all, is kept and echoed (SSF-CFG-5).
    if not all(isinstance(uri, str) and 0 < len(uri) <= EVENT_URI_CHARS_MAX for uri in value):
        raise refused("events_requested holds something that is no URI", "SSF-OP-4")
    return tuple(dict.fromkeys(value))


def _push_url(delivery: Mapping[str, Any], *, allow_http: bool) -> str:
    url = delivery.get("endpoint_url")
    if not isinstance(url, str) or not 0 < len(url) <= ENDPOINT_URL_CHARS_MAX:
        raise refused("push needs an endpoint_url", "SSF-DEL-2")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise refused("endpoint_url is no URL", "SSF-DEL-6")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise refused("endpoint_url is no URL", "SSF-DEL-6") from None
    if not usable or parts.scheme not in ({"https", "http"} if allow_http else {"https"}):
        raise refused("endpoint_url is no https URL", "SSF-DEL-6")
    if "@" in parts.netloc or "#" in url or "\\" in url:
        raise refused("endpoint_url has userinfo, a fragment or a backslash", "SSF-DEL-6")
    return url


def _authorization_header(delivery: Mapping[str, Any]) -> str | None:
    value = delivery.get("authorization_header")
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= AUTHORIZATION_HEADER_CHARS_MAX:
        raise refused("authorization_header is no header value of fitting length", "SSF-DEL-8")
    # RFC 9110 §5.5: US-ASCII; HTTP clients disagree about the bytes of anything else, so that it
    # would not arrive as it was given. Spaces at the ends would not survive the wire.
    if value != value.strip() or not all(" " <= letter <= "~" for letter in value):
        raise refused("authorization_header holds characters no header may hold", "SSF-DEL-8")
    return value


def stream_id_of(members: Mapping[str, Any], requirement: str) -> str:
    """Return which stream a request is about. Raises StreamError."""
    value = members.get("stream_id")
    if not isinstance(value, str) or not 0 < len(value) <= STREAM_ID_CHARS_MAX:
        raise refused("stream_id is missing or no acceptable string", requirement)
    return value


def text_of(members: Mapping[str, Any], name: str, requirement: str) -> str | None:
    """Return a text member, None when it is absent or null. Raises StreamError."""
    value = members.get(name)
    if value is None or isinstance(value, str):
        return value
    raise refused(f"{name} is no string", requirement)


def _comparable(value: object) -> frozenset[str]:
    items = value if isinstance(value, list) else [value]
    return frozenset(repr(item) for item in items)


def refused(description: str, requirement: str) -> StreamError:
    """Make the error of a request that cannot be carried out as it is."""
    return StreamError("invalid_request", description, requirement=requirement)
