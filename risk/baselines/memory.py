"""Baselines in memory, and what waits to be written to them. One of each per process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from prometheus_client import Counter

from risk.baselines import store
from risk.baselines.codec import decode, encode
from risk.baselines.model import Baseline, Occurrence, record
from risk.baselines.service import (
    BASELINES_KIND,
    EVERYBODY,
    ORG_DIMENSIONS,
    RECORD_GOOD,
    RecordGood,
    org_pair,
)
from runtime.behind import WriteBehind
from runtime.changes import Change, ChangeFeed
from runtime.database import Database
from runtime.writer import Writer

#: baselines held by one process, as bytes: about 2 kB each
HELD_MAX: Final = 100_000
ORG_HELD_MAX: Final = 100_000
#: a tenant's counts of places grow slowly: they are read again after a while, not on every change
ORG_TTL_S: Final = 60.0
#: a place is well known of a tenant when this many of its users were seen there
ORG_USERS_MIN: Final = 3
#: a tenant with fewer users is new itself
ORG_LEARNING_USERS: Final = 5
#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0

log = structlog.get_logger()
_lost_total = Counter(
    "hub_risk_baselines_lost_total", "Good occurrences that could not be recorded."
)

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgView:
    """What a tenant's users are known for. familiar: dimensions whose value is well known."""

    familiar: frozenset[str]
    is_learning: bool


class Baselines:
    """Baselines by (tenant, user), also of users who have none; kept by the change feed."""

    def __init__(
        self, database: Database, changes: ChangeFeed, *, held_max: int = HELD_MAX
    ) -> None:
        self._database = database
        self._changes = changes
        self._held_max = held_max
        self._held: OrderedDict[_Key, bytes] = OrderedDict()
        self._org: OrderedDict[tuple[str, str, str], tuple[int, float]] = OrderedDict()
        #: counts what the feed has told; what was read before that is not kept
        self._told = 0
        changes.subscribe(BASELINES_KIND, self)

    async def of(
        self, tenant_id: str, user_id: str, *, reading: Callable[[], None] | None = None
    ) -> Baseline:
        """Return a user's baseline, an empty one for a user without. Raises database errors.

        reading: is called before the database is asked.
        """
        key = (tenant_id, user_id)
        is_fresh = self._changes.age_s <= FEED_AGE_MAX_S
        if is_fresh and key in self._held:
            self._held.move_to_end(key)
            return decode(self._held[key])
        told = self._told
        if reading is not None:
            reading()
        async with self._database.snapshot() as connection:
            body = await store.read_baseline(connection, tenant_id, user_id)
        if is_fresh and told == self._told:
            self._keep(key, body)
        return decode(body)

    async def org(
        self,
        tenant_id: str,
        values: Mapping[str, str],
        *,
        reading: Callable[[], None] | None = None,
    ) -> OrgView:
        """Return what of these values (by dimension) is well known of the tenant's users.

        reading: is called before the database is asked. Raises database errors.
        """
        now = time.monotonic()
        wanted = {
            EVERYBODY,
            *(org_pair(name, value) for name, value in values.items() if name in ORG_DIMENSIONS),
        }
        held = {pair: self._org.get((tenant_id, *pair)) for pair in wanted}
        missing = {
            pair for pair, entry in held.items() if entry is None or entry[1] < now - ORG_TTL_S
        }
        users = {pair: entry[0] for pair, entry in held.items() if entry is not None}
        if missing:
            if reading is not None:
                reading()
            async with self._database.snapshot() as connection:
                found = await store.org_users(connection, tenant_id, missing)
            for pair in missing:
                users[pair] = found.get(pair, 0)
                self._org[(tenant_id, *pair)] = (users[pair], now)
                self._org.move_to_end((tenant_id, *pair))
            while len(self._org) > ORG_HELD_MAX:
                self._org.popitem(last=False)
        return OrgView(
            familiar=frozenset(
                name
                for name, value in values.items()
                if users.get(org_pair(name, value), 0) >= ORG_USERS_MIN
            ),
            is_learning=users[EVERYBODY] < ORG_LEARNING_USERS,
        )

    def saw(self, tenant_id: str, user_id: str, seen: Occurrence) -> None:
        """Know at once, in this process, what is about to be written."""
        key = (tenant_id, user_id)
        if key in self._held:
            self._keep(key, encode(record(decode(self._held[key]), seen)[0]))

    async def changed(self, entries: Sequence[Change]) -> None:
        """Forget these users; they are read again when they are asked for."""
        self._told += 1
        for entry in entries:
            self._held.pop((entry.tenant_id, entry.ref), None)

    def start_over(self) -> None:
        """Believe no more what is being read; what is held was told of as it changed.

        A gap in the feed may have hidden changes, so everything is dropped.
        """
        self._told += 1
        self._held.clear()

    def _keep(self, key: _Key, body: bytes) -> None:
        self._held[key] = body
        self._held.move_to_end(key)
        if len(self._held) > self._held_max:
            self._held.popitem(last=False)


class Recorder:
    """Writes good occurrences behind the answers they come from; a crash loses 0.25 s."""

    def __init__(self, writer: Writer, baselines: Baselines) -> None:
        self._baselines = baselines
        self._behind = WriteBehind(
            partial(writer.submit, RECORD_GOOD), lost=_lost_total, warn=_warn
        )

    def note(self, tenant_id: str, user_id: str, seen: Occurrence) -> None:
        """Record one good occurrence soon. Never waits, raises nothing.

        Only for what succeeded with the assurance that policy asked for.
        """
        self._behind.note(RecordGood(tenant_id=tenant_id, user_id=user_id, seen=seen))
        self._baselines.saw(tenant_id, user_id, seen)

    async def run(self) -> None:
        """Write what was noted, at most four times a second, until cancelled."""
        await self._behind.run()

    async def flush(self) -> None:
        """Write what was noted. What the writer does not take is dropped and counted."""
        await self._behind.flush()


def _warn(count: int, error: str) -> None:
    log.warning("baselines.lost", count=count, error=error)
