"""Durable work in lanes: leases with fencing, and the loop that works them off.

Work is claimed by bucket (contracts §2). A process owns buckets for a lease of 5 s, renewed at a
third; each ownership has an epoch, and a settlement counts only under the epoch it was claimed
with. A lane is the unit of order: at most one piece of work per lane is under way, oldest first.

    leases ─▶ due(buckets) ─▶ perform(work)  outbound, in parallel over lanes
                                   │
                     settle ◀──────┘  one batch per commit, fenced
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_epoch_s
from runtime.errors import Unavailable
from runtime.leases import store
from runtime.notify import Notifier
from runtime.writer import Operation, Writer

BUCKETS: Final = 256
LEASE_S: Final = 5.0
RENEW_S: Final = LEASE_S / 3
#: work of a lease is not started when less than this is left of it
LEASE_MARGIN_S: Final = 1.0
LOOK_AGAIN_S: Final = 0.25
WINDOW: Final = 64
SETTLE_RETRY_S: Final = 0.1
#: with this many lanes under way outcomes are settled in waves, each gathered for a moment:
#: one commit, one search for more and one round of signing then serve many lanes
CROWD: Final = 16
GATHER_S: Final = 0.005

WorkT = TypeVar("WorkT")
SettlementT = TypeVar("SettlementT")

log = structlog.get_logger()


class Fence(msgspec.Struct, frozen=True):
    """Under which ownership of which bucket something was claimed."""

    kind: str
    bucket: int
    epoch: int


class LeaseRequest(msgspec.Struct, frozen=True):
    """What one owner wants of one kind. `fresh`: it starts anew and forgot what it was doing."""

    kind: str
    owner: str
    now_s: float
    fresh: bool


class LeaseAnswer(msgspec.Struct, frozen=True):
    """What the owner holds now: (bucket, epoch) pairs, until `until_s` (epoch seconds)."""

    held: list[tuple[int, int]]
    until_s: float


def bucket_of(*parts: str) -> int:
    """Return the bucket of a lane, the same in every process and release."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=2).digest()
    return int.from_bytes(digest) % BUCKETS


async def fences_valid(connection: AsyncConnection, fences: Collection[Fence]) -> set[Fence]:
    """Return those fences whose owner still owns the bucket; asked inside the settling write."""
    valid: set[Fence] = set()
    for kind in {fence.kind for fence in fences}:
        wanted = {fence for fence in fences if fence.kind == kind}
        epochs = await store.lease_epochs(
            connection, kind=kind, buckets={fence.bucket for fence in wanted}
        )
        valid |= {fence for fence in wanted if epochs.get(fence.bucket) == fence.epoch}
    return valid


async def _grant_leases(
    connection: AsyncConnection, requests: Sequence[LeaseRequest]
) -> list[LeaseAnswer]:
    # Kinds in one order everywhere, so that two processes never wait for each other.
    order = sorted(range(len(requests)), key=lambda place: requests[place].kind)
    answers = {place: await _grant(connection, requests[place]) for place in order}
    return [answers[place] for place in range(len(requests))]


async def _grant(connection: AsyncConnection, request: LeaseRequest) -> LeaseAnswer:
    """Renew what the owner holds, take what is free, give back what is above its fair share."""
    now = from_epoch_s(request.now_s)
    until = now + timedelta(seconds=LEASE_S)
    kind, owner = request.kind, request.owner
    if not request.fresh:
        # Nearly always nothing changed, and there is nobody to share with.
        all_held = await store.renew_alone(connection, kind=kind, owner=owner, now=now, until=until)
        if len(all_held) == BUCKETS:
            return LeaseAnswer(held=sorted(all_held.items()), until_s=until.timestamp())
    rows = {lease.bucket: lease for lease in await store.system_lock_leases(connection, kind)}
    owners = await store.note_member(connection, kind=kind, owner=owner, now=now, until=until)
    await store.add_leases(
        connection,
        kind=kind,
        owner=store.NOBODY,
        buckets=[bucket for bucket in range(BUCKETS) if bucket not in rows],
        until=from_epoch_s(0),
    )
    mine = sorted(bucket for bucket, lease in rows.items() if lease.owner == owner)
    free = [
        bucket
        for bucket in range(BUCKETS)
        if bucket not in rows or (rows[bucket].owner != owner and rows[bucket].expires_at <= now)
    ]
    share = math.ceil(BUCKETS / owners)
    keep, surplus = mine[:share], mine[share:]
    taken = free[: max(0, share - len(keep))]
    # A fresh owner forgot what it had under way: a new epoch keeps late settlements out.
    renewed = [] if request.fresh else [b for b in keep if rows[b].expires_at > now]
    retaken = [bucket for bucket in keep if bucket not in set(renewed)]
    await store.extend_leases(connection, kind=kind, owner=owner, buckets=renewed, until=until)
    await store.take_leases(
        connection, kind=kind, owner=owner, buckets=retaken + taken, until=until
    )
    await store.extend_leases(connection, kind=kind, owner=owner, buckets=surplus, until=now)
    held = renewed + retaken + taken
    epochs = await store.lease_epochs(connection, kind=kind, buckets=held) if held else {}
    return LeaseAnswer(held=sorted(epochs.items()), until_s=until.timestamp())


LEASE: Final = Operation(
    name="runtime.lease", item=LeaseRequest, result=LeaseAnswer, handle=_grant_leases
)
OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (LEASE,)


class LeaseKeeper:
    """Holds this process's buckets of one kind of work."""

    def __init__(self, kind: str, owner: str, *, writer: Writer, clock: Clock) -> None:
        self.kind = kind
        self._owner = owner
        self._writer = writer
        self._clock = clock
        self._epochs: dict[int, int] = {}
        self._until = clock.now()
        self._fresh = True

    def buckets(self) -> Collection[int]:
        """Return the buckets this process may start work of now; empty when the lease runs out."""
        if self._until - self._clock.now() < timedelta(seconds=LEASE_MARGIN_S):
            return ()
        return self._epochs.keys()

    def fence(self, bucket: int) -> Fence:
        """Return the fence for work of an owned bucket. Raises KeyError when it is not owned."""
        return Fence(kind=self.kind, bucket=bucket, epoch=self._epochs[bucket])

    def holds(self, fence: Fence) -> bool:
        """Tell whether this process still owns what `fence` was given for."""
        return self._epochs.get(fence.bucket) == fence.epoch and bool(self.buckets())

    async def renew(self) -> None:
        """Ask once for the fair share of buckets. Raises Unavailable."""
        request = LeaseRequest(
            kind=self.kind,
            owner=self._owner,
            now_s=self._clock.now().timestamp(),
            fresh=self._fresh,
        )
        answer = await self._writer.submit(LEASE, request)
        self._epochs = dict(answer.held)
        self._until = from_epoch_s(answer.until_s)
        self._fresh = False

    async def run(self, changed: asyncio.Event) -> None:
        """Renew until cancelled; `changed` is set after each renewal."""
        while True:
            wait_s = RENEW_S
            try:
                await self.renew()
            except Unavailable:
                wait_s = SETTLE_RETRY_S
            changed.set()
            await asyncio.sleep(wait_s)


#: tells which tenants are suspended at present: nothing goes out for them, their work waits
Suspended = Callable[[], Awaitable[Collection[str]]]


async def nobody_suspended() -> Collection[str]:
    """Return no tenant. Raises nothing."""
    return ()


class LaneSource(Protocol[WorkT, SettlementT]):
    """What a feature gives: where its work is, how it is done, how it is settled."""

    kind: str
    settle: Operation[SettlementT, bool]

    async def due(
        self, buckets: Collection[int], now: datetime, limit: int, busy: Collection[str]
    ) -> Sequence[WorkT]:
        """Return heads of lanes that are due, at most `limit`, none of a lane in `busy`."""
        ...

    def lane(self, work: WorkT) -> str:
        """Return the lane of `work`."""
        ...

    def bucket(self, work: WorkT) -> int:
        """Return the bucket of `work`."""
        ...

    async def perform(self, work: WorkT, fence: Fence) -> SettlementT:
        """Do it, outside any transaction; failures are settlements, never exceptions."""
        ...


class Lanes:
    """Works off one source: claims, performs up to `window` lanes in parallel, settles."""

    def __init__(
        self,
        source: LaneSource[Any, Any],
        *,
        leases: LeaseKeeper,
        writer: Writer,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._source = source
        self._leases = leases
        self._writer = writer
        self._notifier = notifier
        self._clock = clock
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._something_changed = asyncio.Event()
        self._is_finishing = False
        #: done when the wave that is being gathered goes to the writer
        self._wave: asyncio.Future[None] | None = None

    async def run(self, *, window: int = WINDOW) -> None:
        """Work until cancelled; what is under way is finished by whoever owns the lane next."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leases.run(self._something_changed))
            group.create_task(self._pass_wakes_on())
            while True:
                self._something_changed.clear()
                try:
                    await self._start_due(group, window)
                except Exception:
                    log.warning("lanes.claim_failed", kind=self._source.kind, exc_info=True)
                await self._something_changed.wait()

    async def finish(self, timeout_s: float) -> None:
        """Begin nothing more, and wait for what is under way; what takes longer is left behind.

        `run` goes on, because what ends has to be settled under leases that hold.
        """
        self._is_finishing = True
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=timeout_s)

    async def _pass_wakes_on(self) -> None:
        while True:
            seen = self._notifier.count(self._source.kind)
            await self._notifier.wait(self._source.kind, LOOK_AGAIN_S, since=seen)
            self._something_changed.set()

    async def _start_due(self, group: asyncio.TaskGroup, window: int) -> None:
        free = window - len(self._busy)
        buckets = self._leases.buckets()
        if self._is_finishing or free <= 0 or not buckets:
            return
        works = await self._source.due(tuple(buckets), self._clock.now(), free, tuple(self._busy))
        for work in works:
            lane, bucket = self._source.lane(work), self._source.bucket(work)
            # All of this may have changed while the work was looked up.
            if self._is_finishing or lane in self._busy or bucket not in self._leases.buckets():
                continue
            fence = self._leases.fence(bucket)
            self._busy[lane] = group.create_task(self._work_off(work, lane, fence))

    async def _work_off(self, work: Any, lane: str, fence: Fence) -> None:
        try:
            settlement = await self._source.perform(work, fence)
            if len(self._busy) >= CROWD:
                await self._join_wave()
            await self._settle(settlement, fence)
        except Exception:
            log.exception("lanes.work_failed", kind=self._source.kind)
            await asyncio.sleep(1.0 + random.random())  # noqa: S311 - jitter, not a secret
        finally:
            self._busy.pop(lane, None)
            self._something_changed.set()

    async def _join_wave(self) -> None:
        """Wait until the present wave leaves, at most GATHER_S."""
        if self._wave is None:
            loop = asyncio.get_running_loop()
            self._wave = loop.create_future()
            loop.call_later(GATHER_S, self._send_wave, self._wave)
        # Shielded: a lane that is cancelled must not cancel the others'.
        await asyncio.shield(self._wave)

    def _send_wave(self, wave: asyncio.Future[None]) -> None:
        self._wave = None
        wave.set_result(None)

    async def _settle(self, settlement: Any, fence: Fence) -> None:
        """Record the outcome; keep trying while the bucket is ours, else the next owner redoes."""
        while True:
            try:
                await self._writer.submit(self._source.settle, settlement)
            except Unavailable:
                await asyncio.sleep(SETTLE_RETRY_S)
                if fence.bucket not in self._leases.buckets():
                    return
            else:
                return
