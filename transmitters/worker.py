"""The push worker's view of its work: what is due, how one SET is pushed, how that is settled.

`runtime.queue` runs it: lanes in parallel, one SET of a lane at a time, outcomes in batches.
"""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import structlog

from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import AddressBlocked, NotFound, Unavailable
from runtime.lanes import Busy
from runtime.outbound import Outbound, OutboundRequest
from runtime.queue import Fence, Suspended, nobody_suspended
from runtime.secrets import SecretBox
from runtime.writer import Operation
from ssf.errors import SharedSignalsError
from ssf.push import (
    ANSWER_BYTES_MAX,
    SECEVENT_MEDIA_TYPE,
    PushClass,
    PushOutcome,
    classify_response,
)
from transmitters.delivery import store
from transmitters.delivery.model import (
    PUSH_TIMEOUT_S,
    PushSettlement,
    PushTarget,
    PushWork,
)
from transmitters.delivery.operations import SETTLE
from transmitters.keys import SigningKeys
from transmitters.metrics import attempts_total
from transmitters.model import (
    Addressing,
)
from transmitters.pushes.store import due_pushes
from transmitters.selection import (
    AHEAD_MAX,
    Places,
    ReadAhead,
    Selection,
    stream_of,
)
from transmitters.silence import Silence
from transmitters.store import Connection

#: with so few streams that something waits for, no other is looked at
WAITING_FEW: Final = 64
#: streams looked at together, and how often one search goes on to the next ones
TARGETS_PAGE: Final = 64
#: the first of them: often it has all that there is room for; each next page is twice as large
TARGETS_PAGE_MIN: Final = 16
PAGES_MAX: Final = 8
#: failures that somebody has to look at
_ALERTING: Final = frozenset(
    {PushClass.CREDENTIALS, PushClass.KEY_PROBLEM, PushClass.STREAM_MISCONFIGURED}
)

_SAYS_NOTHING_OF_THE_STREAM: Final = frozenset({PushClass.DELIVERED, PushClass.PERMANENT})

#: (tenant, stream), None before the first
_Place: TypeAlias = tuple[str, str] | None

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """One try. kid: of the key the SET was signed with, if it got that far."""

    outcome: PushOutcome
    status: int = 0
    kid: str | None = None
    duration_ms: float = 0.0

    @property
    def answered_after_s(self) -> float | None:
        """How long the answer took, None when there was none."""
        return self.duration_ms / 1000 if self.status else None


class PushSource:
    """Implements `runtime.lanes.LaneSource` for push streams."""

    kind: str = "deliveries"
    settle: Operation[PushSettlement, bool] = SETTLE

    def __init__(  # noqa: PLR0913 - what requests are made of, and for whom
        self,
        database: Database,
        outbound: Outbound,
        *,
        keys: SigningKeys,
        box: SecretBox,
        clock: Clock,
        issuer: Callable[[str], str],
        suspended: Suspended = nobody_suspended,
        mark: Callable[[], int] = int,
    ) -> None:
        """mark: changes whenever the configuration does, as far as this process was told."""
        self._database = database
        self._suspended = suspended
        self._outbound = outbound
        self._keys = keys
        self._box = box
        self._clock = clock
        self._issuer = issuer
        self._mark = mark
        self._ahead = ReadAhead(mark)
        self._silence = Silence()
        self._told_suspended: Collection[str] = ()
        #: the (tenant, stream) served last: the next search goes on behind it
        self._served: _Place = None

    def lane(self, work: PushWork) -> str:
        """Return the unit of order: one ordering key of one stream."""
        return work.lane

    def bucket(self, work: PushWork) -> int:
        """Return the bucket of the stream."""
        return work.target.bucket

    def at_hand(self, now: datetime, limit: int, busy: Busy) -> Sequence[PushWork]:
        """Return what an earlier search found and may go out now, from memory."""
        return () if self._ahead.is_empty else self._go(limit, now=now, busy=busy)

    async def due(
        self, buckets: Collection[int], now: datetime, limit: int, busy: Busy
    ) -> Sequence[PushWork]:
        """Return SETs to push now, at most `limit`, none of a lane in `busy`.

        Goes round over the streams, and takes from none more than its window, so that neither a
        long queue nor a slow receiver keeps the others waiting. What it finds beyond `limit` is at
        hand for a moment.
        """
        self._told_suspended = await self._suspended()
        places = Places(busy, self._silence, suspended=self._told_suspended)
        chosen = Selection(limit=limit + AHEAD_MAX, busy=busy, places=places)
        mark = self._mark()
        after = await self._look(chosen, buckets=buckets, now=now)
        self._ahead.keep(chosen.in_turn(), read_at=now, mark=mark)
        works = self._go(limit, now=now, busy=busy)
        if not works:
            # Behind many streams of suspended tenants there may be others.
            self._served = after
        return works

    def _go(self, limit: int, *, now: datetime, busy: Busy) -> list[PushWork]:
        places = Places(busy, self._silence, suspended=self._told_suspended)
        works = self._ahead.take(limit, now=now, busy=busy, places=places)
        if works:
            self._served = self._ahead.reached(works) or self._served
        return works

    async def _look(self, chosen: Selection, *, buckets: Collection[int], now: datetime) -> _Place:
        """Go round once, from behind the stream served last; return where the round ended.

        The streams that something waits for are few as a rule, however many there are. When they
        are many, most of them may be paused or polled: then those that may be called are searched.
        """
        async with self._database.snapshot() as connection:
            waiting, are_all = await store.system_waiting_streams(
                connection, after=None, limit=WAITING_FEW
            )
            if not are_all:
                return await self._go_round(connection, chosen, buckets=buckets, now=now)
            found = await store.system_targets_among(
                connection, among=waiting, buckets=buckets, now=now
            )
            served = self._served or ("", "")
            in_turn = sorted(found, key=lambda each: (stream_of(each) <= served, stream_of(each)))
            await _choose(connection, in_turn, chosen, now)
            return self._served

    async def _go_round(
        self,
        connection: Connection,
        chosen: Selection,
        *,
        buckets: Collection[int],
        now: datetime,
    ) -> _Place:
        after, wrapped = self._served, self._served is None
        page = TARGETS_PAGE_MIN
        for _ in range(PAGES_MAX):
            targets = await store.system_push_targets(
                connection, buckets=buckets, now=now, limit=page, after=after
            )
            await _choose(connection, targets, chosen, now)
            if chosen.is_full() or (wrapped and len(targets) < page):
                break
            if len(targets) < page:
                wrapped, after = True, None
            else:
                after = stream_of(targets[-1])
            # Streams whose window is full must not hide those behind them.
            page = min(2 * page, TARGETS_PAGE)
        return after

    async def perform(self, work: PushWork, fence: Fence) -> PushSettlement:
        """Push one SET once and say what came of it. Raises nothing that can be foreseen.

        Source: RFC 8935 §2; requirements PUSH-1 to PUSH-5, PUSH-8, PUSH-40 to PUSH-46.
        """
        self._silence.begun(work)
        try:
            attempt = await self._attempt(work)
        finally:
            self._silence.over(work)
        self._silence.learn(work.target, attempt.answered_after_s)
        outcome, attempts = attempt.outcome, work.pending.attempts + 1
        now = self._clock.now()
        if outcome.klass not in _SAYS_NOTHING_OF_THE_STREAM:
            self._ahead.forget_stream(stream_of(work.target))
        attempts_total.labels("push", outcome.klass.value).inc()
        write = log.error if outcome.klass in _ALERTING else log.info
        write(
            "delivery.attempted",
            tenant_id=work.target.tenant_id,
            stream_id=work.target.stream_id,
            jti=work.pending.jti,
            txn=work.pending.event.txn,
            event_type=work.pending.event.event_type,
            outcome=outcome.klass.value,
            status=attempt.status,
            err=outcome.err,
            attempt_number=attempts,
            duration_ms=round(attempt.duration_ms, 1),
        )
        return PushSettlement(
            fence=fence,
            tenant_id=work.target.tenant_id,
            stream_id=work.target.stream_id,
            jti=work.pending.jti,
            kid=attempt.kid or work.pending.kid,
            klass=outcome.klass.value,
            status=attempt.status,
            err=outcome.err,
            detail=outcome.detail,
            retry_after_s=outcome.retry_after_s,
            attempts=attempts,
            lone_attempts=work.lone_attempts + (0 if work.target.failures else 1),
            overdue_s=work.overdue_s(now),
            stream_failures=work.target.failures,
            delivery_epoch=work.target.delivery_epoch,
            jitter=random.random(),  # noqa: S311 - spreads retries, keeps no secret
            at=now,
        )

    def makes_room(self, settlement: PushSettlement) -> bool:
        """Tell whether the stream may have its next SET: yes when it took this one, as always.

        While anything is wrong, attempts stay within the window until it is known what follows.
        """
        return settlement.klass == PushClass.DELIVERED and not settlement.stream_failures

    async def _attempt(self, work: PushWork) -> _Attempt:
        addressing = Addressing(
            iss=self._issuer(work.target.tenant_id),
            aud=work.target.aud,
            subject_format=work.target.subject_format,
            profile=work.target.profile,
            encryption_key=work.target.encryption_key,
        )
        try:
            (signed,) = await self._keys.sign(work.target.tenant_id, [work.pending], addressing)
        except NotFound as error:
            return _Attempt(outcome=_no_answer(error.detail))
        if isinstance(signed, SharedSignalsError):
            refused = PushOutcome(
                klass=PushClass.PERMANENT,
                err=signed.code,
                detail=signed.description,
                retry_after_s=None,
            )
            return _Attempt(outcome=refused)
        request = self._request(work, signed.raw)
        try:
            answer = await self._outbound.send(request)
        except AddressBlocked as error:
            blocked = PushOutcome(
                klass=PushClass.STREAM_MISCONFIGURED,
                err="address_blocked",
                detail=error.detail,
                retry_after_s=None,
            )
            return _Attempt(outcome=blocked, kid=signed.kid)
        except Unavailable as error:
            return _Attempt(outcome=_no_answer(error.detail), kid=signed.kid)
        outcome = classify_response(
            status=answer.status, body=answer.body, retry_after_s=answer.retry_after_s
        )
        return _Attempt(
            outcome=outcome,
            status=answer.status,
            kid=signed.kid,
            duration_ms=answer.duration_ms,
        )

    def _request(self, work: PushWork, raw: bytes) -> OutboundRequest:
        headers = {"content-type": SECEVENT_MEDIA_TYPE, "accept": "application/json"}
        if work.target.authorization_header_sealed is not None:
            # The whole value, scheme included: nothing is added (PUSH-5).
            headers["authorization"] = self._box.open(work.target.authorization_header_sealed)
        return OutboundRequest(
            method="POST",
            url=work.target.endpoint_url,
            headers=headers,
            body=raw,
            timeout_s=PUSH_TIMEOUT_S,
            body_bytes_max=ANSWER_BYTES_MAX,
        )


async def _choose(
    connection: Connection, targets: Sequence[PushTarget], chosen: Selection, now: datetime
) -> None:
    """Read the share of each stream, those of a tenant together."""
    for tenant_id, group in itertools.groupby(
        chosen.among(targets), key=operator.attrgetter("tenant_id")
    ):
        of_tenant = list(group)
        due = await due_pushes(
            connection,
            tenant_id,
            targets=of_tenant,
            now=now,
            each=chosen.rows_of(of_tenant),
            busy=chosen.lanes,
        )
        chosen.take(due)


def _no_answer(detail: str) -> PushOutcome:
    outcome = classify_response(status=0, body=b"", retry_after_s=None)
    return PushOutcome(klass=outcome.klass, err=None, detail=detail, retry_after_s=None)
