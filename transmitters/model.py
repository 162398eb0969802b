"""Streams, events and SETs: what is stored, what a receiver sees, which subject it gets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from ssf.errors import LocalProtocolError
from ssf.events.common import UnknownEvent
from ssf.events.registry import STANDARD_EVENT_TYPES, STREAM_EVENT_TYPES
from ssf.profile import FINAL, profile_of
from ssf.secevent import SecurityEventToken, render_set
from ssf.stream import DeliveryMethod, StreamConfiguration, StreamStatus, selects
from ssf.subject import parse_subject

#: types we offer, in the order they are listed to receivers (SSF-CFG-4)
EVENTS_SUPPORTED: Final = tuple(sorted(STANDARD_EVENT_TYPES))
STREAMS_PER_CLIENT_MAX: Final = 1_000
#: why a SET is dropped whose stream is gone
STREAM_DELETED: Final = "stream_deleted"
#: verification requests of one stream that come faster are answered 429 (SSF-VER-7)
MIN_VERIFICATION_INTERVAL_S: Final = 10
ORDERING_KEY_CHARACTERS_MAX: Final = 512


#: each lets out less than the one before
_LETTING_OUT_LESS: Final = tuple(
    status.value for status in (StreamStatus.ENABLED, StreamStatus.PAUSED, StreamStatus.DISABLED)
)


class DeliveryState(StrEnum):
    """Where one SET of one stream stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of one client, as stored. The poll URL is not: it follows from the issuer.

    default_subjects: ALL, or NONE until subjects are added. subject_count: subjects that were added
    or removed. announcement_jti: the stream-updated SET that goes out whatever the status is.
    active_at: when its receiver did something, as far as that was written down. profile: how the
    wire looks, a name of `ssf.profile.PROFILES`. encryption_key: of the receiver, public; its SETs
    are encrypted for it. delivery_epoch: how often its delivery was changed. stopped_as: with what
    an admin stopped it; its receiver may set no status that lets out more.
    """

    tenant_id: str
    stream_id: str
    client_id: str
    app_id: str | None
    aud: tuple[str, ...]
    method: DeliveryMethod
    endpoint_url: str | None
    authorization_header_sealed: str | None
    events_requested: tuple[str, ...]
    description: str | None
    status: StreamStatus
    reason: str | None
    subject_format: str | None
    created_at: datetime
    default_subjects: str = "ALL"
    subject_count: int = 0
    announcement_jti: str | None = None
    verification_asked_at: datetime | None = None
    active_at: datetime | None = None
    profile: str = FINAL.name
    encryption_key: str | None = None
    filters: Mapping[str, Sequence[str]] | None = None
    delivery_epoch: int = 0
    stopped_as: str | None = None

    @property
    def transmits(self) -> bool:
        """Whether anything may go out: all when it is enabled, else only an announcement."""
        return self.status is StreamStatus.ENABLED or self.announcement_jti is not None

    def may_become(self, status: StreamStatus) -> bool:
        """Return whether its receiver may set this status: not past an admin's (SSF-STAT-9)."""
        return self.stopped_as is None or (
            _LETTING_OUT_LESS.index(status) >= _LETTING_OUT_LESS.index(self.stopped_as)
        )

    def lets_pass(self, event_type: str, payload: Mapping[str, Any]) -> bool:
        """Return whether no filter of the stream holds the event back.

        A filter names a member and its good values; an event without the member passes, and so
        does an event about the stream itself (SUB-46).
        """
        if not self.filters or event_type in STREAM_EVENT_TYPES:
            return True
        return all(
            payload[member] in good for member, good in self.filters.items() if member in payload
        )

    def selects(self, event_type: str) -> bool:
        """Return whether the stream takes events of this type. Source: SSF 1.0 §8.1.3.1; SUB-40."""
        # The issuer has no part in the choice.
        return selects(configuration_of(self, issuer=""), event_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventToPublish:
    """One event for every stream that selects it.

    subjects: identifiers of the subject, all of the same principal, the preferred one first; each
    stream takes the one in its format. ordering_key: SETs of one stream with the same key arrive
    in order. toe_s: when it happened, seconds since 1970. only_stream_id, only_app_id: narrow it
    to one stream, or to the streams of one app. is_rendered: the payload was rendered from a typed
    event just now, so there is nothing to check. hops: of a relayed event.
    accepts: narrows it further.
    """

    tenant_id: str
    event_type: str
    payload: Mapping[str, Any]
    subjects: tuple[Mapping[str, Any], ...]
    ordering_key: str
    txn: str | None = None
    toe_s: int | None = None
    only_stream_id: str | None = None
    only_app_id: str | None = None
    is_rendered: bool = False
    hops: tuple[str, ...] = ()
    accepts: Callable[[Stream], bool] | None = None

    def concerns(self, stream: Stream) -> bool:
        """Return whether the event goes out over `stream`. Source: SSF 1.0 §8.1.3.1; SUB-40."""
        return self.is_open_to(stream) and stream.selects(self.event_type)

    def is_open_to(self, stream: Stream) -> bool:
        """Return whether the event was not narrowed to other streams."""
        return (
            self.only_stream_id in (None, stream.stream_id)
            and self.only_app_id in (None, stream.app_id)
            and (self.accepts is None or self.accepts(stream))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One SET queued for one stream. index: which of the published events it carries."""

    index: int
    event_id: str
    txn: str
    stream_id: str
    app_id: str | None
    jti: str


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a SET, shared by all its deliveries. toe: seconds since 1970."""

    event_type: str
    payload: dict[str, Any]
    subjects: list[dict[str, Any]]
    txn: str
    toe: int | None
    hops: list[str] | None = None


class PendingSET(msgspec.Struct, frozen=True, kw_only=True):
    """One SET to render: what is fixed per delivery, and its event. iat: seconds since 1970.

    kid: None until it was signed once. attempts: pushes or hand-outs so far.
    """

    jti: str
    iat: int
    kid: str | None
    attempts: int
    event: StoredEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressing:
    """What makes a SET one stream's: issuer, audience, the form of its subjects and of the whole.

    profile, encryption_key: as of `Stream`.
    """

    iss: str
    aud: tuple[str, ...]
    subject_format: str | None
    profile: str = FINAL.name
    encryption_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A SET that was given up, with the reason."""

    tenant_id: str
    stream_id: str
    jti: str
    event_type: str
    err: str | None
    detail: str | None
    attempts: int
    queued_at: datetime
    settled_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReceipt:
    """What became of one SET for one stream.

    iat: as in the SET. kid: of the key it was signed with, None before. err, detail: what the
    receiver said last.
    """

    tenant_id: str
    stream_id: str
    jti: str
    iat: int
    kid: str | None
    event_type: str
    txn: str
    state: DeliveryState
    attempts: int
    err: str | None
    detail: str | None
    queued_at: datetime
    due_at: datetime
    settled_at: datetime | None


def choose_subject(
    subjects: Sequence[Mapping[str, Any]], subject_format: str | None
) -> Mapping[str, Any]:
    """Choose the identifier that a stream understands.

    subjects: of one principal, the preferred one first. subject_format: None takes the first as it
    is; else the first in that format, also one inside `aliases` or the `user` of a complex
    subject. A subject with a session goes out whole, where its user is in that format: its user
    alone would be all sessions. There is no substitute: another format could tell the receiver what
    it did not know.
    Raises LocalProtocolError when none fits. Requirements SUB-24, SUB-35.
    """
    if subject_format is None:
        if subjects:
            return subjects[0]
        raise LocalProtocolError("subject_unmapped", "the event has no subject")
    for subject in subjects:
        if is_of_session(subject) and subject_format in {
            "complex",
            subject.get("user", {}).get("format"),
        }:
            return subject
        for candidate in (subject, *_inside(subject)):
            if candidate.get("format") == subject_format:
                return candidate
    raise LocalProtocolError(
        "subject_unmapped", f"the subject has no identifier in the format {subject_format}"
    )


def is_of_session(subject: Mapping[str, Any]) -> bool:
    """Return whether a subject is one session, and not all of a user. Raises nothing."""
    return subject.get("format") == "complex" and "session" in subject


def _inside(subject: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    if subject.get("format") == "aliases":
        return tuple(subject["identifiers"])
    if subject.get("format") == "complex" and "user" in subject and not is_of_session(subject):
        return (subject["user"], *_inside(subject["user"]))
    return ()


def render_pending(pending: PendingSET, addressing: Addressing) -> bytes:
    """Render the claims of one SET for one stream.

    The same delivery always gives the same claims (SET-5). Raises LocalProtocolError or
    SubjectError when the subject cannot be put in the stream's form.
    Source: SSF 1.0 §4.1; requirements SET-1 to SET-9, SET-14, SSF-VER-5.
    """
    event = pending.event
    # The subject of an event about the stream is the stream, in one form for everybody.
    about_stream = event.event_type in STREAM_EVENT_TYPES
    subject_format = None if about_stream else addressing.subject_format
    token = SecurityEventToken(
        iss=addressing.iss,
        aud=addressing.aud,
        jti=pending.jti,
        iat=pending.iat,
        txn=event.txn,
        toe=event.toe,
        sub_id=parse_subject(choose_subject(event.subjects, subject_format)),
        # The payload was checked and brought into its standard form when it was published.
        event=UnknownEvent(type_uri=event.event_type, payload=event.payload),
        event_type=event.event_type,
        hops=tuple(event.hops or ()),
    )
    # Also of old drafts' receivers: that is what those send that are known to reach them.
    return render_set(token, FINAL if about_stream else profile_of(addressing.profile))


def configuration_of(
    stream: Stream, *, issuer: str, inactivity_timeout_s: int | None = None
) -> StreamConfiguration:
    """Return the stream as its receiver sees it, without the authorization header.

    Requirements SSF-CFG-1 to SSF-CFG-9, SSF-DEL-2, SSF-DEL-7, POLL-2.
    """
    return StreamConfiguration(
        stream_id=stream.stream_id,
        iss=issuer,
        aud=stream.aud,
        events_supported=EVENTS_SUPPORTED,
        events_requested=stream.events_requested,
        events_delivered=tuple(
            uri for uri in stream.events_requested if uri in STANDARD_EVENT_TYPES
        ),
        method=stream.method,
        endpoint_url=stream.endpoint_url or poll_url(issuer, stream.stream_id),
        description=stream.description,
        min_verification_interval_s=MIN_VERIFICATION_INTERVAL_S,
        inactivity_timeout_s=inactivity_timeout_s,
        status=stream.status,
        reason=stream.reason,
        subject_format=stream.subject_format,
        profile=profile_of(stream.profile),
    )


def poll_url(issuer: str, stream_id: str) -> str:
    """Return where a stream is polled. Requirements POLL-2, SSF-DEL-2."""
    return f"{issuer}/ssf/poll/{stream_id}"


def bounded_ordering_key(key: str) -> str:
    """Return the key itself, or its digest when it is too long to be indexed."""
    if len(key) <= ORDERING_KEY_CHARACTERS_MAX:
        return key
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()
