"""The delivery process's view of upstreams: what is due, how it is done, how that is settled.

`runtime.queue` runs it. Each upstream has two lanes: polls, at most one at a time (POLL-25), and
everything else, so that a long poll delays no order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog

from receivers.model import ProviderProfile, ProviderStatus
from receivers.service import Profiles
from receivers.upstreams.client import (
    ActionFailedError,
    Errand,
    LeaseLostError,
    Outcome,
    StreamClient,
    foreign_audience,
)
from receivers.upstreams.due.store import system_due_upstreams
from receivers.upstreams.model import (
    OPEN_STATES,
    ORDER_BACKOFF,
    STATUS_EVERY,
    VERIFY_AGAIN,
    Action,
    Begin,
    Change,
    Order,
    OrderState,
    Settlement,
    Upstream,
)
from receivers.upstreams.operations import BEGIN, SETTLE
from receivers.upstreams.polling import Poller
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import Unavailable
from runtime.lanes import Forgetful
from runtime.queue import Fence, LeaseKeeper, Suspended, nobody_suspended
from runtime.writer import Operation, Writer

#: what runs in one process at most; beyond, the ones that wait longest come first
WINDOW: Final = 256
#: of these, long polls: orders always find room
POLLS_MAX: Final = 200
#: how soon an upstream whose provider cannot be used, or whose stream is not for us, is looked at
#: again
NO_PROVIDER_PAUSE: Final = timedelta(seconds=30)
DETAIL_CHARS_MAX: Final = 1_000

log = structlog.get_logger()


class Job(StrEnum):
    """The kinds of work, in the order in which they go first."""

    ORDER = "order"
    SILENCE = "silence"
    STATUS = "status"
    VERIFY = "verify"
    POLL = "poll"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamWork:
    """One piece of work. provider: None when it is gone."""

    job: Job
    upstream: Upstream
    provider: ProviderProfile | None

    @property
    def lane(self) -> str:
        """The unit of order."""
        kind = "poll" if self.job is Job.POLL else "manage"
        return f"{self.upstream.tenant_id}|{self.upstream.upstream_id}|{kind}"


class UpstreamSource(Forgetful):
    """Implements `runtime.lanes.LaneSource` for upstreams."""

    kind: str = "upstreams"

    def __init__(  # noqa: PLR0913 - what the two kinds of work need together
        self,
        database: Database,
        *,
        profiles: Profiles,
        poller: Poller,
        client: StreamClient,
        writer: Writer,
        clock: Clock,
        leases: LeaseKeeper,
        issuer: Callable[[str], str],
        suspended: Suspended = nobody_suspended,
        settle: Operation[Settlement, bool] = SETTLE,
    ) -> None:
        """issuer: the tenant's issuer URL by tenant id, which its intake addresses begin with.

        settle: how outcomes are recorded; whoever does more with them than we do passes its own.
        """
        self.settle = settle
        self._suspended = suspended
        self._database = database
        self._profiles = profiles
        self._poller = poller
        self._client = client
        self._writer = writer
        self._clock = clock
        self._leases = leases
        self._issuer = issuer
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Give up polls that wait for an answer: the process is about to end."""
        self._stopping.set()

    def lane(self, work: UpstreamWork) -> str:
        """Return the lane of `work`."""
        return work.lane

    def bucket(self, work: UpstreamWork) -> int:
        """Return the bucket of `work`."""
        return work.upstream.bucket

    async def due(
        self, buckets: Collection[int], now: datetime, limit: int, busy: Collection[str]
    ) -> Sequence[UpstreamWork]:
        """Return due work, at most `limit`, none of a lane in `busy`; polls do not fill it all."""
        suspended = await self._suspended()
        async with self._database.snapshot() as connection:
            found = await system_due_upstreams(connection, buckets, now, suspended=suspended)
        polls = sum(lane.endswith("|poll") for lane in busy)
        taken: list[UpstreamWork] = []
        for upstream in found:
            profiles = await self._profiles.get(upstream.tenant_id)
            provider = profiles.get(upstream.provider_id)
            for job in jobs_of(upstream, now):
                work = UpstreamWork(job=job, upstream=upstream, provider=provider)
                if work.lane in busy or len(taken) >= limit:
                    continue
                if job is Job.POLL:
                    if polls >= POLLS_MAX:
                        continue
                    polls += 1
                taken.append(work)
        return taken

    async def perform(self, work: UpstreamWork, fence: Fence) -> Settlement:
        """Do it and return its settlement; raises nothing that can be foreseen."""
        upstream, provider = work.upstream, work.provider
        order = upstream.order if work.job is Job.ORDER else None
        if provider is None or provider.status is ProviderStatus.INACTIVE:
            change = self._without_provider(work)
        elif work.job is Job.POLL:
            change = await self._poll(upstream, provider, fence)
        elif work.job is Job.SILENCE:
            change = self._silent(upstream)
        elif order is not None:
            change = await self._carry_out(order, upstream, provider, fence)
        else:
            change = await self._look_after(work.job, upstream, provider, fence)
        return Settlement(
            fence=fence,
            tenant_id=upstream.tenant_id,
            upstream_id=upstream.upstream_id,
            change=change,
            order_id=None if order is None else order.order_id,
            awaited_since=upstream.awaiting_since if work.job is Job.SILENCE else None,
        )

    async def _poll(self, upstream: Upstream, provider: ProviderProfile, fence: Fence) -> Change:
        stranger = foreign_audience(upstream.stream, provider)
        if stranger is not None:
            now = self._clock.now()
            return Change(
                poll_due_at=now + NO_PROVIDER_PAUSE,
                failing_since=upstream.failing_since or now,
                last_error=stranger[:DETAIL_CHARS_MAX],
            )

        def goes_on() -> bool:
            return not self._stopping.is_set() and self._leases.holds(fence)

        return await self._poller.poll(upstream, provider, goes_on=goes_on) or Change()

    async def _carry_out(
        self, order: Order, upstream: Upstream, provider: ProviderProfile, fence: Fence
    ) -> Change:
        """Carry an admin's order out; what may pass is tried again a few times."""
        now, attempts = self._clock.now(), order.attempts + 1
        state, change = OrderState.DONE, Change()
        due_at, settled_at = now, now
        try:
            outcome = await self._run(order.action, upstream, provider, fence, order=order)
            change, detail = outcome.change, outcome.detail
        except ActionFailedError as failure:
            state, change, detail = OrderState.FAILED, failure.change, failure.detail
        except LeaseLostError:
            return Change()
        except Unavailable as trouble:
            detail = trouble.detail
            wait_s = ORDER_BACKOFF.delay_s(
                attempts, jitter=_jitter(), retry_after_s=trouble.retry_after_s
            )
            if wait_s is None:
                state = OrderState.FAILED
            else:
                # As it stands in the table: whether it was sent is known there alone.
                state, due_at = OrderState.WAITING, now + timedelta(seconds=wait_s)
        _report(upstream, order.action, state, detail)
        if order.action is Action.VERIFY and state is not OrderState.DONE:
            # Nothing was asked for after all, so nothing is awaited.
            due = upstream.next_verification(now, again=True)
            change = Change(awaiting_since=None, verify_due_at=due)
        columns = change.columns() | {
            "order_attempts": attempts,
            "order_detail": detail[:DETAIL_CHARS_MAX],
        }
        if state is OrderState.WAITING:
            return Change(**columns | {"order_due_at": due_at})
        return Change(**columns | {"order_state": state.value, "order_settled_at": settled_at})

    async def _look_after(
        self, job: Job, upstream: Upstream, provider: ProviderProfile, fence: Fence
    ) -> Change:
        """Ask for a verification, or for the status, because the time has come."""
        action = Action.VERIFY if job is Job.VERIFY else Action.READ_STATUS
        now = self._clock.now()
        try:
            outcome = await self._run(action, upstream, provider, fence)
        except LeaseLostError:
            return Change()
        except (ActionFailedError, Unavailable) as failure:
            _report(upstream, action, OrderState.FAILED, failure.detail)
            wait = VERIFY_AGAIN
            if isinstance(failure, Unavailable):
                wait = max(wait, timedelta(seconds=failure.retry_after_s))
            if job is Job.STATUS:
                return Change(status_due_at=now + STATUS_EVERY)
            return Change(
                awaiting_since=None,
                verify_due_at=now + wait,
                failing_since=upstream.failing_since or now,
                last_error=failure.detail[:DETAIL_CHARS_MAX],
            )
        if job is Job.VERIFY:
            return outcome.change
        columns = outcome.change.columns()
        enabled = columns.get("stream_status") == "enabled"
        return Change(**columns | {"status_due_at": None if enabled else now + STATUS_EVERY})

    async def _run(
        self,
        action: Action,
        upstream: Upstream,
        provider: ProviderProfile,
        fence: Fence,
        *,
        order: Order | None = None,
    ) -> Outcome:
        async def begin(state: str | None) -> None:
            item = Begin(
                fence=fence,
                tenant_id=upstream.tenant_id,
                upstream_id=upstream.upstream_id,
                at=self._clock.now(),
                order_id=None if order is None else order.order_id,
                state=state,
            )
            if not await self._writer.submit(BEGIN, item):
                raise LeaseLostError

        events_url = f"{self._issuer(upstream.tenant_id)}/receivers/{upstream.provider_id}/events"
        return await self._client.run(
            Errand(
                action=action,
                arguments={} if order is None else order.arguments,
                upstream=upstream,
                provider=provider,
                events_url=events_url,
                is_repeat=order is not None and order.state is OrderState.SENT,
                begin=begin,
            )
        )

    def _silent(self, upstream: Upstream) -> Change:
        """Return that what was asked for has not come; told only if that is so when it settles."""
        now = self._clock.now()
        return Change(
            is_silent=True,
            awaiting_since=None,
            failing_since=upstream.failing_since or upstream.awaiting_since or now,
            last_error="a verification was asked for and did not come",
            verify_due_at=upstream.next_verification(now, again=True),
        )

    def _without_provider(self, work: UpstreamWork) -> Change:
        now = self._clock.now()
        later, why = now + NO_PROVIDER_PAUSE, "its provider is gone or not active"
        if work.job is Job.ORDER:
            return Change(
                order_state=OrderState.FAILED.value, order_settled_at=now, order_detail=why
            )
        if work.job is Job.POLL:
            return Change(poll_due_at=later, last_error=why)
        return Change(verify_due_at=later, status_due_at=None, last_error=why)


def jobs_of(upstream: Upstream, now: datetime) -> list[Job]:
    """Return what is due for an upstream: at most one management job, and at most one poll."""
    jobs = []
    order = upstream.order
    if order is not None and order.state in OPEN_STATES and order.due_at <= now:
        jobs.append(Job.ORDER)
    elif upstream.verify_due_at is not None and upstream.verify_due_at <= now:
        jobs.append(Job.VERIFY if upstream.awaiting_since is None else Job.SILENCE)
    elif upstream.status_due_at is not None and upstream.status_due_at <= now:
        jobs.append(Job.STATUS)
    if upstream.may_poll(now):
        jobs.append(Job.POLL)
    return jobs


def _report(upstream: Upstream, action: Action, state: OrderState, detail: str) -> None:
    write = log.warning if state is OrderState.FAILED else log.info
    write(
        "upstream.called",
        tenant_id=upstream.tenant_id,
        upstream_id=upstream.upstream_id,
        action=action.value,
        state=state.value,
        detail=detail,
    )


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads retries, keeps no secret
