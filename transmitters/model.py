"""Streams, deliveries, and the pure rules of delivery: subject choice, retries, dead letters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import msgspec

from runtime.backoff import Backoff
from runtime.queue import Fence
from ssf.errors import LocalProtocolError
from ssf.events.common import UnknownEvent
from ssf.events.registry import STANDARD_EVENT_TYPES, STREAM_EVENT_TYPES
from ssf.push import PushClass, classify_response
from ssf.secevent import SecurityEventToken, render_set
from ssf.stream import DeliveryMethod, StreamConfiguration, StreamStatus, selects
from ssf.subject import parse_subject

#: types we offer, in the order they are listed to receivers (SSF-CFG-4)
EVENTS_SUPPORTED: Final = tuple(sorted(STANDARD_EVENT_TYPES))
STREAMS_PER_CLIENT_MAX: Final = 1_000
ORDERING_KEY_CHARACTERS_MAX: Final = 512

POLL_SETS_MAX: Final = 100
#: how long a SET that was handed out stays hidden from every poller (POLL-13)
POLL_VISIBILITY_S: Final = 30.0
LONG_POLL_S: Final = 30.0

#: SETs under way to one push stream at a time, each with another ordering key
STREAM_WINDOW: Final = 16
#: the same while the stream fails: one probe tells whether it is back
STREAM_PROBE_WINDOW: Final = 1
PUSH_TIMEOUT_S: Final = 10.0
#: a SET that waited this long for a stream that failed all the while becomes a dead letter
OVERDUE_MAX_S: Final = 3 * 86_400.0
#: attempts of one SET while its stream takes others: then the SET is the trouble
LONE_ATTEMPTS_MAX: Final = 30
#: attempts of a SET that the receiver itself refuses for now (PUSH-31, PUSH-35)
REFUSED_ATTEMPTS_MAX: Final = 5
_UNLIMITED: Final = 1_000_000_000

_TRANSIENT: Final = Backoff(first_s=0.5, ceiling_s=60.0, attempts_max=_UNLIMITED)
_SLOW: Final = Backoff(first_s=60.0, ceiling_s=3_600.0, attempts_max=_UNLIMITED)
_REFUSED: Final = Backoff(first_s=60.0, ceiling_s=900.0, attempts_max=REFUSED_ATTEMPTS_MAX)

#: classes of failure that say something about the whole stream, and how long it rests
_STREAM_BACKOFF: Final[Mapping[PushClass, Backoff]] = MappingProxyType(
    {
        PushClass.TRANSIENT: _TRANSIENT,
        PushClass.CREDENTIALS: _SLOW,
        PushClass.STREAM_MISCONFIGURED: _SLOW,
    }
)


class DeliveryState(StrEnum):
    """Where one SET of one stream stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of one client, as stored. The poll URL is not: it follows from the issuer."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EventToPublish:
    """One event for every stream that selects it.

    subjects: identifiers of the subject, all of the same principal, the preferred one first; each
    stream takes the one in its format. ordering_key: SETs of one stream with the same key arrive
    in order. toe_s: when it happened, seconds since 1970. only_stream_id, only_app_id: narrow it
    to one stream, or to the streams of one app.
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

    def concerns(self, stream: Stream) -> bool:
        """Return whether the event goes out over `stream`. Source: SSF 1.0 §8.1.3.1; SUB-40."""
        return (
            self.only_stream_id in (None, stream.stream_id)
            and self.only_app_id in (None, stream.app_id)
            # The issuer has no part in the choice.
            and selects(configuration_of(stream, issuer=""), self.event_type)
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
    """What makes a SET one stream's: issuer, audience, and the form of its subjects."""

    iss: str
    aud: tuple[str, ...]
    subject_format: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushWork:
    """One SET that is due on a push stream, with what is needed to send it.

    stream_failures, failing_since: failures of the stream in a row and when they began, as known
    when the work was taken.
    """

    tenant_id: str
    stream_id: str
    bucket: int
    ordering_key: str
    queued_at: datetime
    stream_failures: int
    failing_since: datetime | None
    endpoint_url: str
    authorization_header_sealed: str | None
    aud: tuple[str, ...]
    subject_format: str | None
    pending: PendingSET

    @property
    def lane(self) -> str:
        """The unit of order: one ordering key of one stream."""
        return f"{self.stream_id}|{self.ordering_key}"

    @property
    def stream_window(self) -> int:
        """How many SETs may be under way to this stream at a time."""
        return STREAM_PROBE_WINDOW if self.stream_failures else STREAM_WINDOW

    def overdue_s(self, now: datetime) -> float:
        """Return how long the SET has waited for the stream's endpoint to work again.

        Not its age: a SET may have been held on a paused stream for weeks (SSF-STAT-4).
        """
        if self.failing_since is None:
            return 0.0
        return (now - max(self.failing_since, self.queued_at)).total_seconds()


class PushSettlement(msgspec.Struct, frozen=True, kw_only=True):
    """What one push attempt came to.

    klass: a `PushClass` value. status: of HTTP, 0 without an answer. attempts: this one included.
    overdue_s: how long the SET has waited for its stream to work. jitter: in [0, 1), drawn by the
    worker.
    """

    fence: Fence
    tenant_id: str
    stream_id: str
    jti: str
    kid: str | None
    klass: str
    status: int
    err: str | None
    detail: str
    retry_after_s: float | None
    attempts: int
    overdue_s: float
    stream_failures: int
    jitter: float
    at: datetime


class SETRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """One SET that could not be accepted, or not be rendered. err: a code as in `setErrs`."""

    jti: str
    err: str
    detail: str


class PollTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn on a poll stream: what the receiver reports, and how many SETs it takes.

    kid: of the key that SETs handed out for the first time are signed with.
    """

    tenant_id: str
    stream_id: str
    client_id: str
    kid: str
    sets_max: int
    at: datetime
    jitter: float
    acks: tuple[str, ...] = ()
    refusals: tuple[SETRefusal, ...] = ()

    def may_poll(self, stream: Stream) -> bool:
        """Return whether the stream is this client's, and one that is polled (SSF-AUTH-2)."""
        return stream.client_id == self.client_id and stream.method is DeliveryMethod.POLL


class PollPage(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn found. known: whether the client has such a poll stream."""

    known: bool
    pending: tuple[PendingSET, ...] = ()
    more_available: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHealth:
    """How a push stream does: failures in a row, since when, and until when it is left alone."""

    failures: int = 0
    failing_since: datetime | None = None
    backoff_until: datetime | None = None

    def after(self, settlement: PushSettlement, decision: Decision) -> StreamHealth:
        """Return the health after one attempt.

        Attempts that were under way side by side and failed count as one failure.
        """
        if decision.stream_rests_s is None:
            # Without an answer and without trouble of the endpoint, nothing was sent at all.
            return StreamHealth() if settlement.status else self
        ends_at = settlement.at + timedelta(seconds=decision.stream_rests_s)
        return StreamHealth(
            failures=max(self.failures, settlement.stream_failures + 1),
            failing_since=self.failing_since or settlement.at,
            backoff_until=max(self.backoff_until or ends_at, ends_at),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a SET, and of its stream, after one attempt or refusal.

    retry_in_s: counts with PENDING only. stream_rests_s: how long the whole stream is left alone;
    None means that its endpoint works.
    """

    state: DeliveryState
    retry_in_s: float = 0.0
    stream_rests_s: float | None = None


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


def decide_push(settlement: PushSettlement) -> Decision:
    """Decide what one push attempt means for the SET and its stream.

    Trouble of the endpoint (no connection, 5xx, 429, credentials, redirects) rests the stream and
    costs no SET its life before OVERDUE_MAX_S, unless the stream took others meanwhile.
    Trouble of one SET holds only its ordering key. Raises nothing.
    Source: RFC 8935 §2.4, §4; requirements PUSH-30 to PUSH-37, PUSH-40 to PUSH-46.
    """
    klass = PushClass(settlement.klass)
    if klass is PushClass.DELIVERED:
        return Decision(state=DeliveryState.DELIVERED)
    backoff = _STREAM_BACKOFF.get(klass)
    if backoff is None or _denies_this_set(settlement):
        return _decide_refused(klass, settlement.attempts, settlement.jitter)
    overdue = settlement.overdue_s >= OVERDUE_MAX_S
    lone = settlement.attempts >= LONE_ATTEMPTS_MAX and settlement.stream_failures == 0
    return Decision(
        state=DeliveryState.DEAD if lone or overdue else DeliveryState.PENDING,
        retry_in_s=_delay_s(backoff, settlement.attempts, settlement),
        stream_rests_s=_delay_s(backoff, settlement.stream_failures + 1, settlement),
    )


def decide_refusal(refusal: SETRefusal, *, attempts: int, jitter: float) -> Decision:
    """Decide what an entry of `setErrs` means: the same as a push answered 400 with that code.

    attempts: how often the SET was handed out. Raises nothing.
    Source: RFC 8936 §2.6; requirement POLL-12.
    """
    outcome = classify_response(
        status=400, body=msgspec.json.encode({"err": refusal.err}), retry_after_s=None
    )
    return _decide_refused(outcome.klass, attempts, jitter)


def _decide_refused(klass: PushClass, attempts: int, jitter: float) -> Decision:
    delay_s = _REFUSED.delay_s(attempts, jitter=jitter)
    if klass is PushClass.PERMANENT or delay_s is None:
        return Decision(state=DeliveryState.DEAD)
    return Decision(state=DeliveryState.PENDING, retry_in_s=delay_s)


def _denies_this_set(settlement: PushSettlement) -> bool:
    """With status 400 the receiver talks about the SET; 401 and 403 are about who sends it."""
    return settlement.status == 400 and settlement.err == "access_denied"  # noqa: PLR2004 - RFC 8935 §2.3


def _delay_s(backoff: Backoff, attempts: int, settlement: PushSettlement) -> float:
    delay_s = backoff.delay_s(
        attempts, jitter=settlement.jitter, retry_after_s=settlement.retry_after_s
    )
    return backoff.ceiling_s if delay_s is None else delay_s


def choose_subject(
    subjects: Sequence[Mapping[str, Any]], subject_format: str | None
) -> Mapping[str, Any]:
    """Choose the identifier that a stream understands.

    subjects: of one principal, the preferred one first. subject_format: None takes the first as it
    is; else the first in that format, also one inside `aliases` or the `user` of a complex
    subject. There is no substitute: another format could tell the receiver what it did not know.
    Raises LocalProtocolError when none fits. Requirements SUB-24, SUB-35.
    """
    if subject_format is None:
        if subjects:
            return subjects[0]
        raise LocalProtocolError("subject_unmapped", "the event has no subject")
    for subject in subjects:
        for candidate in (subject, *_inside(subject)):
            if candidate.get("format") == subject_format:
                return candidate
    raise LocalProtocolError(
        "subject_unmapped", f"the subject has no identifier in the format {subject_format}"
    )


def _inside(subject: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    if subject.get("format") == "aliases":
        return tuple(subject["identifiers"])
    if subject.get("format") == "complex" and "user" in subject:
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
    )
    return render_set(token)


def configuration_of(stream: Stream, *, issuer: str) -> StreamConfiguration:
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
        status=stream.status,
        reason=stream.reason,
    )


def poll_url(issuer: str, stream_id: str) -> str:
    """Return where a stream is polled. Requirements POLL-2, SSF-DEL-2."""
    return f"{issuer}/ssf/poll/{stream_id}"


def bounded_ordering_key(key: str) -> str:
    """Return the key itself, or its digest when it is too long to be indexed."""
    if len(key) <= ORDERING_KEY_CHARACTERS_MAX:
        return key
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()
