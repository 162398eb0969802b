"""How many sign-ins failed of late: by user and place, and by address; shared by all processes.

    failed ─▶ counted here ─▶ COUNT_FAILURES, four times a second ─▶ change feed ─▶ everywhere

Failures at a user's account count only against whoever comes from the same place, so that an
attacker elsewhere makes nothing harder for the user. A place is an address; of IPv6 the network of
64 bits, whose addresses one owner has as many of as he likes; where nobody says the address, the
device. What is said of neither counts nothing: it could be anybody's. An address counts as a whole
only until somebody succeeds from it: behind an office's address some people always mistype.

However many names and addresses an attacker tries, a process shares so many counts at once and no
more, those that grow fastest first; the others count in the process that saw them.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from heapq import nlargest
from itertools import groupby, islice
from typing import Final, NamedTuple

import msgspec

from risk.signins import store
from risk.signins.model import FAILURES_KIND, NO_FAILURES, FailureNote, Tally
from risk.sql.store import Connection
from runtime.changes import ChangeFeed, note_changes
from runtime.database import Database
from runtime.errors import Refused, Unavailable
from runtime.recollection import Recollection
from runtime.writer import Operation, Writer

WINDOW: Final = timedelta(hours=1)
#: counts held by one process, of either sort; those that moved longest ago go first
HELD_MAX: Final = 50_000
COUNTED_MAX: Final = 1_000
#: failures of an address that mean nothing by themselves
ADDRESS_FREE: Final = 10
#: of an IPv6 address, what one owner has
IPV6_NETWORK_BITS: Final = 64
FLUSH_S: Final = 0.25
#: counts that one process shares at once: a flood of sign-ins is none of the change feed
FLUSHED_MAX: Final = 16
#: of the counts that wait, so many of the oldest and of the newest are looked at
LOOKED_AT_MAX: Final = 2_000

_Key = tuple[str, str]


class Place(NamedTuple):
    """Where sign-ins come from, as they are counted. name: "" where nobody says."""

    name: str
    is_address: bool = False


NOWHERE: Final = Place("")


def place_of(ip: str, device: str | None) -> Place:
    """Return where a sign-in counts. ip: "" for none, else as `normal_ip` has it. Raises nothing.

    device: what it is known by.
    """
    if not ip:
        return Place(f"device {device}") if device else NOWHERE
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv4Address):
        return Place(ip, is_address=True)
    network = ipaddress.ip_network((address, IPV6_NETWORK_BITS), strict=False)
    return Place(str(network), is_address=True)


# --- in one process -----------------------------------------------------------------------------


class Failures:
    """Counts of failed sign-ins since the last success or hour."""

    def __init__(
        self,
        writer: Writer,
        database: Database,
        changes: ChangeFeed,
        *,
        held_max: int = HELD_MAX,
    ) -> None:
        self._writer = writer
        self._held_max = held_max
        self._shared = Recollection[Tally](
            database, changes, FAILURES_KIND, _read, nothing=NO_FAILURES, held_max=held_max
        )
        #: what this process saw and did not share yet
        self._waiting: OrderedDict[_Key, FailureNote] = OrderedDict()
        self._noted = asyncio.Event()

    async def of(self, tenant_id: str, user: str, place: Place, now: datetime) -> int:
        """Return how many failures weigh on a sign-in. user: any stable name.

        Raises database errors.
        """
        if not place.is_address:
            return await self.of_user(tenant_id, user, place, now)
        of_user, of_address = _name(user, place), _name("", place)
        shared = await self._shared.of(tenant_id, (of_user, of_address))
        by_user = self._count((tenant_id, of_user), shared[of_user], now)
        by_address = self._count((tenant_id, of_address), shared[of_address], now)
        return max(by_user, by_address - ADDRESS_FREE)

    async def of_user(self, tenant_id: str, user: str, place: Place, now: datetime) -> int:
        """Return how many attempts at a user failed from a place. Raises database errors."""
        if place == NOWHERE:
            return 0
        name = _name(user, place)
        shared = await self._shared.of(tenant_id, (name,))
        return self._count((tenant_id, name), shared[name], now)

    def failed(self, tenant_id: str, user: str, place: Place, now: datetime) -> None:
        """Count a failure, here at once and everywhere soon. Never waits, raises nothing."""
        for name in _names(user, place):
            known = self._waiting.get((tenant_id, name))
            before = known.failed if known is not None and now - known.at <= WINDOW else 0
            self._wait(
                FailureNote(
                    tenant_id=tenant_id,
                    name=name,
                    failed=min(before + 1, COUNTED_MAX),
                    at=now,
                    clears=known is not None and known.clears,
                )
            )

    async def succeeded(self, tenant_id: str, user: str, place: Place, now: datetime) -> None:
        """Forget what failed before, here at once and everywhere soon. Raises database errors."""
        names = _names(user, place)
        shared = await self._shared.of(tenant_id, names)
        for name in names:
            if self._count((tenant_id, name), shared[name], now):
                self._wait(
                    FailureNote(tenant_id=tenant_id, name=name, failed=0, at=now, clears=True)
                )

    async def run(self) -> None:
        """Share what was counted, again and again, until cancelled."""
        while True:
            await self._noted.wait()
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Share the counts that grew most; return after the commit.

        What cannot be written counts on in this process. Raises what is no trouble of the writer's.
        """
        self._noted.clear()
        some = self._most()
        results = await asyncio.gather(
            *(self._writer.submit(COUNT_FAILURES, note) for note in some), return_exceptions=True
        )
        for note, result in zip(some, results, strict=True):
            if isinstance(result, BaseException):
                if not isinstance(result, Refused | Unavailable):
                    raise result
            else:
                self._written(note, result)
        if self._waiting:
            self._noted.set()

    def _most(self) -> list[FailureNote]:
        """Return what is shared next: successes, up to half of it, and what grew most.

        The oldest and the newest are looked at: what grows now is among the newest, however many
        names somebody tries beside it.
        """
        waiting = self._waiting.values()
        some = (*islice(waiting, LOOKED_AT_MAX), *islice(reversed(waiting), LOOKED_AT_MAX))
        seen = {(note.tenant_id, note.name): note for note in some}.values()
        clears = [note for note in seen if note.clears][: FLUSHED_MAX // 2]
        counts = (note for note in seen if not note.clears)
        return clears + nlargest(FLUSHED_MAX - len(clears), counts, key=lambda note: note.failed)

    def _wait(self, note: FailureNote) -> None:
        key = (note.tenant_id, note.name)
        self._waiting[key] = note
        self._waiting.move_to_end(key)
        if len(self._waiting) > self._held_max:
            self._waiting.popitem(last=False)
        self._noted.set()

    def _written(self, note: FailureNote, tally: Tally) -> None:
        key = (note.tenant_id, note.name)
        # Until the feed tells everybody, this process included.
        self._shared.amend(*key, lambda _: tally)
        now_waiting = self._waiting.get(key)
        if now_waiting is note:
            del self._waiting[key]
        elif now_waiting is not None and now_waiting.clears == note.clears:
            rest = max(0, now_waiting.failed - note.failed)
            self._waiting[key] = msgspec.structs.replace(now_waiting, failed=rest, clears=False)

    def _count(self, key: _Key, shared: Tally, now: datetime) -> int:
        waiting = self._waiting.get(key)
        count = shared.count if now - shared.at <= WINDOW else 0
        if waiting is not None:
            count = 0 if waiting.clears else count
            count += waiting.failed if now - waiting.at <= WINDOW else 0
        return min(count, COUNTED_MAX)


def _name(user: str, place: Place) -> str:
    """Return what a count is kept by. It names nobody: whom somebody tried is not to be read."""
    return hashlib.sha256(f"{place.name}\n{user}".encode()).hexdigest()


def _names(user: str, place: Place) -> tuple[str, ...]:
    """Return all that an attempt counts for."""
    if place == NOWHERE:
        return ()
    return (_name(user, place), *((_name("", place),) if place.is_address else ()))


async def _read(connection: Connection, tenant_id: str, names: Collection[str]) -> dict[str, Tally]:
    return await store.tallies_of(connection, tenant_id, names=names)


# --- for all processes --------------------------------------------------------------------------


async def count_failures(connection: Connection, items: Sequence[FailureNote]) -> list[Tally]:
    """Add to the counts of any tenants; return what each is now, in order."""
    results: dict[int, Tally] = {}
    order = sorted(range(len(items)), key=lambda place: items[place].tenant_id)
    for tenant_id, places in groupby(order, key=lambda place: items[place].tenant_id):
        batch = {place: items[place] for place in places}
        names = {each.name for each in batch.values()}
        tallies = await store.lock_tallies(connection, tenant_id, names)
        for place, note in batch.items():
            results[place] = tallies[note.name] = added(tallies[note.name], note)
        await store.write_tallies(connection, tenant_id, tallies)
        await note_changes(connection, FAILURES_KIND, [(tenant_id, name) for name in sorted(names)])
    return [results[place] for place in range(len(items))]


def added(tally: Tally, note: FailureNote) -> Tally:
    """Return a count with what one process saw. Raises nothing."""
    before = 0 if note.clears or note.at - tally.at > WINDOW else tally.count
    return Tally(count=min(before + note.failed, COUNTED_MAX), at=max(note.at, tally.at))


COUNT_FAILURES: Final = Operation(
    name="risk.count_failures",
    item=FailureNote,
    result=Tally,
    handle=count_failures,
    wakes=("changes",),
)
