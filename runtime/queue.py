"""Who may do which durable work: leases on buckets, with fencing.

Work is claimed by bucket (contracts §2). A process owns buckets for a lease of 5 s, renewed at a
third; each ownership has an epoch, and a settlement counts only under the epoch it was claimed
with. `runtime.lanes` works off what is owned.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import Clock, from_epoch_s
from runtime.errors import Unavailable
from runtime.leases import store
from runtime.writer import Operation, Writer

BUCKETS: Final = 256
LEASE_S: Final = 5.0
RENEW_S: Final = LEASE_S / 3
#: work of a lease is not started when less than this is left of it
LEASE_MARGIN_S: Final = 1.0
SETTLE_RETRY_S: Final = 0.1


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
    # A fresh owner forgot what it had under way: a new epoch keeps late settlements out. One that
    # was only late did not. That its name still stands there says that nobody came meanwhile; what
    # it did in that time counts, else everything would be done once more.
    renewed, retaken = ([], keep) if request.fresh else (keep, [])
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

    def is_known_lost(self, fence: Fence) -> bool:
        """Tell whether another ownership came after that of `fence`, as far as is known here.

        A lease that ran out is not lost yet: as long as nobody came, what was done under it counts.
        """
        return self._epochs.get(fence.bucket) != fence.epoch

    def holds(self, fence: Fence) -> bool:
        """Tell whether this process still owns what `fence` was given for."""
        return not self.is_known_lost(fence) and bool(self.buckets())

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
