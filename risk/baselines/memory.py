"""Baselines in memory, and what waits to be written to them. One of each per process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from prometheus_client import Counter

from risk.baselines import store
from risk.baselines.codec import decode, encode
from risk.baselines.model import Baseline, Occurrence, peer_marks, record
from risk.baselines.service import (
    BASELINES_KIND,
    EVERYBODY,
    ORG_DIMENSIONS,
    RECORD_GOOD,
    RecordGood,
    org_pair,
    peer_pair,
)
from runtime.behind import WriteBehind
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.recollection import Recollection
from runtime.writer import Writer

#: baselines held by one process, as bytes: about 2 kB each
HELD_MAX: Final = 100_000
ORG_HELD_MAX: Final = 100_000
#: a tenant's counts of places grow slowly: they are read again after a while, not on every change
ORG_TTL_S: Final = 60.0
#: a place is well known of a tenant when this many of its users were seen there
ORG_USERS_MIN: Final = 3
#: what is usual in a group: that many of its members, and that share of those who are known
PEER_USERS_MIN: Final = 3
PEER_SHARE_MIN: Final = 0.1
#: a tenant with fewer users is new itself
ORG_LEARNING_USERS: Final = 5

log = structlog.get_logger()
_lost_total = Counter(
    "hub_risk_baselines_lost_total", "Good occurrences that could not be recorded."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgView:
    """What others are known for. familiar: dimensions whose value is well known of the tenant.

    peer_familiar: of a group of the user's.
    """

    familiar: frozenset[str]
    peer_familiar: frozenset[str]
    is_learning: bool


class Baselines:
    """Baselines by (tenant, user), also of users who have none; kept by the change feed."""

    def __init__(
        self, database: Database, changes: ChangeFeed, *, held_max: int = HELD_MAX
    ) -> None:
        self._database = database
        self._bodies = Recollection[bytes](
            database, changes, BASELINES_KIND, store.read_baselines, nothing=b"", held_max=held_max
        )
        self._org: OrderedDict[tuple[str, str, str], tuple[int, float]] = OrderedDict()

    async def of(
        self, tenant_id: str, user_id: str, *, reading: Callable[[], None] | None = None
    ) -> Baseline:
        """Return a user's baseline, an empty one for a user without. Raises database errors.

        reading: is called before the database is asked.
        """
        body = self._bodies.peek(tenant_id, user_id)
        if body is None:
            if reading is not None:
                reading()
            body = (await self._bodies.of(tenant_id, (user_id,)))[user_id]
        return decode(body)

    async def org(
        self,
        tenant_id: str,
        values: Mapping[str, str],
        *,
        groups: Collection[str] = (),
        reading: Callable[[], None] | None = None,
    ) -> OrgView:
        """Return what of these values (by dimension) is well known of the tenant's users.

        groups: of the user, whose members are peers. reading: is called before the database is
        asked. Raises database errors.
        """
        now = time.monotonic()
        marks = peer_marks(groups)
        pairs = {
            name: org_pair(name, value) for name, value in values.items() if name in ORG_DIMENSIONS
        }
        everybody = {EVERYBODY, *pairs.values()}
        wanted = everybody | {peer_pair(mark, *pair) for mark in marks for pair in everybody}
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
                name for name, pair in pairs.items() if users[pair] >= ORG_USERS_MIN
            ),
            peer_familiar=frozenset(
                name
                for name, pair in pairs.items()
                if any(
                    _is_known_of_peers(
                        users[peer_pair(mark, *pair)], users[peer_pair(mark, *EVERYBODY)]
                    )
                    for mark in marks
                )
            ),
            is_learning=users[EVERYBODY] < ORG_LEARNING_USERS,
        )

    def saw(self, tenant_id: str, user_id: str, seen: Occurrence) -> None:
        """Know at once, in this process, what is about to be written."""
        self._bodies.amend(tenant_id, user_id, lambda body: encode(record(decode(body), seen)[0]))


def _is_known_of_peers(seen: int, members: int) -> bool:
    """Return whether what so many members of a group are known for is usual in it."""
    return seen >= PEER_USERS_MIN and seen >= members * PEER_SHARE_MIN


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
