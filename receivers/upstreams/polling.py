"""Polling one upstream once (RFC 8936): report, ask, take in what comes.

::

    acks and setErrs of last time ──▶ POST endpoint_url ──▶ sets
                                                             │ service.accept, each committed
               Settlement ◀── ack: stored or repeated, setErrs: refused, neither: undecided

What is to be acknowledged is settled before the next request, so that a process that dies after
the commit leaves it to whoever polls next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from receivers.keys import IssuerKeys
from receivers.model import ProviderProfile
from receivers.refusals.log import Witness
from receivers.service import accept
from receivers.upstreams.model import POLL_BACKOFF, Change, Upstream
from receivers.upstreams.tokens import Tokens
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.outbound import Outbound, OutboundAnswer, OutboundRequest
from runtime.writer import Writer
from ssf.errors import RemoteProtocolError, SETError
from ssf.jose import SET_BYTES_MAX, split_jws
from ssf.poll import (
    JTI_CHARS_MAX,
    RESPONSE_BYTES_MAX,
    PollRequest,
    PollResponse,
    ReportedError,
    parse_response,
    render_request,
)
from ssf.secevent import peek_jti

EVENTS_MAX: Final = 100
#: how often errors are reported to an upstream that refuses the request with them
REPORT_TRIES: Final = 3
#: answers by which it may mean them: bad request, too large, not understood
MAY_MEAN_ERRORS: Final = frozenset({400, 413, 422})
#: above every transmitter's long poll that is known, and below what middle boxes cut (POLL-25)
POLL_TIMEOUT_S: Final = 75.0
#: a poll under way is given up this soon when the hub stops or another process takes over
LOOK_S: Final = 0.5
#: an upstream that answers "nothing" at once is not asked again at once
EMPTY_PAUSE: Final = timedelta(seconds=1)
QUICK_MS: Final = 1_000.0
OK: Final = 200
NO_CONTENT: Final = 204
DETAIL_CHARS_MAX: Final = 500

log = structlog.get_logger()
_polls_total = Counter("hub_receivers_polls_total", "Polls of upstreams.", ["outcome"])


@dataclass(frozen=True, slots=True)
class _Taken:
    """What became of the SETs of one answer. wait_s: when an undecided one is worth a try."""

    acks: list[str]
    set_errs: dict[str, list[str]]
    wait_s: float | None


class Poller:
    """Polls upstreams; holds nothing between polls."""

    def __init__(
        self,
        outbound: Outbound,
        *,
        tokens: Tokens,
        keys: IssuerKeys,
        writer: Writer,
        clock: Clock,
        witness: Witness | None = None,
    ) -> None:
        self._witness = witness
        self._outbound = outbound
        self._tokens = tokens
        self._keys = keys
        self._writer = writer
        self._clock = clock

    async def poll(
        self, upstream: Upstream, provider: ProviderProfile, *, goes_on: Callable[[], bool]
    ) -> Change | None:
        """Poll once and return what to write; None when it was given up.

        goes_on: looked at while waiting for the answer. Raises nothing that can be foreseen.
        Requirements POLL-1, POLL-14 to POLL-18, POLL-25, CRC-11 to CRC-15.
        """
        try:
            answer = await self._ask(upstream, provider.issuer, goes_on)
            if answer is None:
                return None
            response = _read(answer)
        except (Unavailable, RemoteProtocolError) as failure:
            return self._failed(upstream, failure)
        now = self._clock.now()
        taken = await self._take_all(response, upstream, provider, now)
        _polls_total.labels("answered").inc()
        log.debug(
            "upstream.polled",
            tenant_id=upstream.tenant_id,
            upstream_id=upstream.upstream_id,
            sets=len(response.sets),
            acks=len(taken.acks),
            refused=len(taken.set_errs),
        )
        change = Change(
            acks=taken.acks,
            set_errs=taken.set_errs,
            poll_due_at=now + self._pause(upstream, response, taken, answer),
            poll_failures=0,
        )
        if upstream.failing_since is not None and not upstream.is_silent:
            cleared = {"failing_since": None, "last_error": None}
            change = Change(**change.columns() | cleared)
        return self._keep_unsure(upstream, change)

    async def _ask(
        self, upstream: Upstream, issuer: str, goes_on: Callable[[], bool]
    ) -> OutboundAnswer | None:
        errors = upstream.set_errs or {}
        headers = {"content-type": "application/json", "accept": "application/json"}
        if errors:
            headers["content-language"] = "en"  # POLL-18
        request = OutboundRequest(
            method="POST",
            # As it is, query and all (POLL-1, CRC-14).
            url=upstream.settings.endpoint_url or "",
            headers=headers,
            body=render_request(
                PollRequest(
                    max_events=EVENTS_MAX,
                    return_immediately=False,
                    ack=upstream.acks,
                    set_errs={jti: ReportedError(*error) for jti, error in errors.items()},
                )
            ),
            timeout_s=POLL_TIMEOUT_S,
            body_bytes_max=RESPONSE_BYTES_MAX,
        )
        asking = asyncio.ensure_future(
            self._tokens.send(upstream, issuer, request, via=self._outbound)
        )
        try:
            while not (await asyncio.wait({asking}, timeout=LOOK_S))[0]:
                if not goes_on():
                    return None
            return asking.result()
        finally:
            asking.cancel()

    async def _take_all(
        self, response: PollResponse, upstream: Upstream, provider: ProviderProfile, now: datetime
    ) -> _Taken:
        """Hand each SET to intake. They are verified in order and share a commit."""
        outcomes = await asyncio.gather(
            *(self._take(jti, text, provider, now) for jti, text in response.sets.items())
        )
        acks, waits = [], []
        errors: dict[str, list[str]] = {}
        for jti, outcome in zip(response.sets, outcomes, strict=True):
            if outcome is None:
                acks.append(jti)
            elif isinstance(outcome, SETError):
                errors[jti] = [outcome.code, outcome.description[:DETAIL_CHARS_MAX]]
            else:
                waits.append(outcome.retry_after_s)
        # INVARIANT: what an upstream sends makes its row no larger than this; it is read at every
        # look. What is not reported is in the list of refused SETs all the same.
        kept = [jti for jti in errors if len(jti) <= JTI_CHARS_MAX][:EVENTS_MAX]
        if len(kept) < len(errors):
            _report_dropped(upstream, len(errors) - len(kept), "too many, or their names too long")
        return _Taken(acks, {jti: errors[jti] for jti in kept}, max(waits, default=None))

    async def _take(
        self, jti: str, text: str, provider: ProviderProfile, now: datetime
    ) -> SETError | Unavailable | None:
        """Store one SET; None when it is stored, now or earlier. It says nothing of its effect."""
        try:
            raw = text.encode("ascii")
            if len(raw) <= SET_BYTES_MAX and peek_jti(split_jws(raw)) != jti:
                return SETError(
                    "invalid_request", "jti is not the one announced", requirement="SET-58"
                )
            await accept(
                raw,
                provider=provider,
                now=now,
                keys=self._keys,
                writer=self._writer,
                witness=self._witness,
            )
        except UnicodeEncodeError:
            return SETError("invalid_request", "not a compact JWS", requirement="SET-51")
        except (SETError, Unavailable) as outcome:
            return outcome
        return None

    def _pause(
        self,
        upstream: Upstream,
        response: PollResponse,
        taken: _Taken,
        answer: OutboundAnswer,
    ) -> timedelta:
        if taken.wait_s is not None:
            return timedelta(seconds=taken.wait_s)
        reported = bool(upstream.acks or upstream.set_errs)
        if not response.sets and answer.duration_ms < QUICK_MS and not reported:
            return EMPTY_PAUSE
        return timedelta(0)

    def _keep_unsure(self, upstream: Upstream, change: Change) -> Change:
        """A stream that is not enabled may not have taken our acks: say them again (CRC-13)."""
        if upstream.stream_status != "paused":
            return change
        again = [*dict.fromkeys([*upstream.acks, *change.columns()["acks"]])]
        return Change(**change.columns() | {"acks": again[-EVENTS_MAX:]})

    def _failed(self, upstream: Upstream, failure: Unavailable | RemoteProtocolError) -> Change:
        now, failures = self._clock.now(), upstream.poll_failures + 1
        detail = (failure.detail if isinstance(failure, Unavailable) else failure.description)[
            :DETAIL_CHARS_MAX
        ]
        asked_s = failure.retry_after_s if isinstance(failure, _Refusal) else None
        wait_s = POLL_BACKOFF.delay_s(failures, jitter=_jitter(), retry_after_s=asked_s)
        _polls_total.labels("failed").inc()
        log.warning(
            "upstream.poll_failed",
            tenant_id=upstream.tenant_id,
            upstream_id=upstream.upstream_id,
            failures=failures,
            reason=detail,
        )
        change = Change(
            poll_failures=failures,
            poll_due_at=now + timedelta(seconds=wait_s or POLL_BACKOFF.ceiling_s),
            failing_since=upstream.failing_since or now,
            last_error=detail,
        )
        is_refused = isinstance(failure, _Refusal) and failure.status in MAY_MEAN_ERRORS
        if not (is_refused and upstream.set_errs and failures >= REPORT_TRIES):
            return change
        # It would refuse every poll to come, and with it every SET (POLL-18 is for its log alone).
        _report_dropped(upstream, len(upstream.set_errs), detail)
        return Change(**change.columns() | {"set_errs": {}})


class _Refusal(Unavailable):
    """The upstream answered, but not with SETs."""

    def __init__(self, status: int, *, retry_after_s: float) -> None:
        super().__init__(f"the poll was answered {status}", retry_after_s=retry_after_s)
        self.status = status


def _report_dropped(upstream: Upstream, count: int, reason: str) -> None:
    log.warning(
        "upstream.errors_dropped",
        tenant_id=upstream.tenant_id,
        upstream_id=upstream.upstream_id,
        count=count,
        reason=reason,
    )


def _read(answer: OutboundAnswer) -> PollResponse:
    """Return the SETs. Raises _Refusal for another status, PollError for another body."""
    if answer.status == NO_CONTENT or (answer.status == OK and not answer.body.strip()):
        return PollResponse(sets={}, more_available=False)
    if answer.status != OK:
        raise _Refusal(answer.status, retry_after_s=answer.retry_after_s or 0.0)
    return parse_response(answer.body)


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads retries, keeps no secret
