"""The pure rules of delivery: windows, retries, back-off, dead letters, turns of pollers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from runtime.backoff import Backoff
from runtime.queue import Fence
from ssf.profile import FINAL
from ssf.push import PushClass, classify_response
from ssf.stream import DeliveryMethod
from transmitters.model import DeliveryState, PendingSET, Stream

POLL_SETS_MAX: Final = 100
#: how long a SET that was handed out stays hidden from every poller (POLL-13)
POLL_VISIBILITY_S: Final = 30.0
LONG_POLL_S: Final = 30.0

#: SETs under way to one push stream at a time, each with another ordering key
STREAM_WINDOW: Final = 32
#: the same while the stream fails: one probe tells whether it is back
STREAM_PROBE_WINDOW: Final = 1
PUSH_TIMEOUT_S: Final = 10.0
#: a SET that waited this long for a stream that failed all the while becomes a dead letter
OVERDUE_MAX_S: Final = 3 * 86_400.0
#: attempts of one SET while its stream works, as far as is known: then the SET is the trouble
LONE_ATTEMPTS_MAX: Final = 30
#: so many SETs refused for good and without a reason, one after the other: nothing more is sent,
#: and the upkeep pauses the stream (PUSH-42)
REFUSED_IN_ROW_MAX: Final = 20
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PushTarget:
    """A push stream that has SETs due.

    failures, failing_since: failures in a row and when they began.
    """

    tenant_id: str
    stream_id: str
    client_id: str
    bucket: int
    endpoint_url: str
    authorization_header_sealed: str | None
    aud: tuple[str, ...]
    subject_format: str | None
    failures: int
    failing_since: datetime | None
    profile: str = FINAL.name
    encryption_key: str | None = None
    delivery_epoch: int = 0

    @property
    def window(self) -> int:
        """How many SETs may be under way to this stream at a time."""
        return STREAM_PROBE_WINDOW if self.failures else STREAM_WINDOW


def lane_of(stream_id: str, ordering_key: str) -> str:
    """Return the unit of order: one ordering key of one stream."""
    return f"{stream_id}|{ordering_key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushWork:
    """One SET that is due on a push stream, with what is needed to send it.

    lone_attempts: those so far that began while the stream did not fail.
    """

    target: PushTarget
    ordering_key: str
    queued_at: datetime
    pending: PendingSET
    lone_attempts: int = 0

    @property
    def lane(self) -> str:
        """The unit of order: one ordering key of one stream."""
        return lane_of(self.target.stream_id, self.ordering_key)

    def overdue_s(self, now: datetime) -> float:
        """Return how long the SET has waited for the stream's endpoint to work again.

        Not its age: a SET may have been held on a paused stream for weeks (SSF-STAT-4).
        """
        failing_since = self.target.failing_since
        if failing_since is None:
            return 0.0
        return (now - max(failing_since, self.queued_at)).total_seconds()


class PushSettlement(msgspec.Struct, frozen=True, kw_only=True):
    """What one push attempt came to.

    klass: a `PushClass` value. status: of HTTP, 0 without an answer. attempts: this one included.
    lone_attempts: those of them that began while the stream did not fail.
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
    lone_attempts: int
    overdue_s: float
    stream_failures: int
    delivery_epoch: int
    jitter: float
    at: datetime

    def is_outdated(self, delivery_epoch: int | None) -> bool:
        """Return whether it is trouble of an endpoint, or with credentials, that the stream had.

        delivery_epoch: of the stream now; None when it is gone. What was delivered counts anyway.
        """
        return (
            self.klass != PushClass.DELIVERED
            and delivery_epoch is not None
            and delivery_epoch != self.delivery_epoch
        )


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
    """How a push stream does: failures in a row, since when, and until when it is left alone.

    refused_in_row: SETs that its endpoint refused for good, without saying why, since the last one
    it took.
    """

    failures: int = 0
    failing_since: datetime | None = None
    backoff_until: datetime | None = None
    refused_in_row: int = 0

    def after(self, settlement: PushSettlement, decision: Decision) -> StreamHealth:
        """Return the health after one attempt.

        Attempts that were under way side by side and failed count as one failure.
        """
        if decision.stream_rests_s is None:
            if not settlement.status:
                # Without an answer and without trouble of the endpoint, nothing was sent at all.
                return self
            return StreamHealth(refused_in_row=self._refused_after(settlement))
        ends_at = settlement.at + timedelta(seconds=decision.stream_rests_s)
        return StreamHealth(
            failures=max(self.failures, settlement.stream_failures + 1),
            failing_since=self.failing_since or settlement.at,
            backoff_until=max(self.backoff_until or ends_at, ends_at),
            refused_in_row=self.refused_in_row,
        )

    def _refused_after(self, settlement: PushSettlement) -> int:
        # Whoever names an error code has read the SET: it is about that one.
        is_blunt = settlement.klass == PushClass.PERMANENT and settlement.err is None
        return self.refused_in_row + 1 if is_blunt else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a SET, and of its stream, after one attempt or refusal.

    retry_in_s: counts with PENDING only. stream_rests_s: how long the whole stream is left alone;
    None means that its endpoint works.
    """

    state: DeliveryState
    retry_in_s: float = 0.0
    stream_rests_s: float | None = None


def decide_push(settlement: PushSettlement) -> Decision:
    """Decide what one push attempt means for the SET and its stream.

    Trouble of the endpoint (no connection, 5xx, 429, credentials, redirects) rests the stream and
    costs no SET its life before OVERDUE_MAX_S; attempts while the stream works otherwise do.
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
    # Not those of an outage: after a long one the first hiccup would be the last.
    lone = settlement.lone_attempts >= LONE_ATTEMPTS_MAX and settlement.stream_failures == 0
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
