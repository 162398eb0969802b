"""Use cases of baselines: record what was good, withdraw what was not, forget a user, look.

Recording is written behind the answer, in batches; the process that saw it knows it at once, the
others hear of what is new by the change feed.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import msgspec

from risk.baselines import store
from risk.baselines.codec import decode, encode
from risk.baselines.model import (
    Baseline,
    Occurrence,
    peer_marks,
    record,
    trust,
    withdraw,
)
from risk.entities import store as entities_store
from risk.sql.store import Connection
from runtime.changes import note_changes
from runtime.writer import Operation

#: what the change feed calls baselines; refs are users
BASELINES_KIND: Final = "baselines"
#: what of a user is also counted for the tenant: places and kinds of client, never devices
ORG_DIMENSIONS: Final = ("country", "region", "city", "asn", "prefix", "trip", "tls")
#: begins the dimensions that count the members of groups
PEER: Final = "peer:"
#: the dimension that counts all users with a baseline, and its one value
EVERYBODY: Final = ("user", "*")
#: a value where nobody new was seen for longer is forgotten
ORG_LIFE: Final = timedelta(days=365)


class RecordGood(msgspec.Struct, frozen=True, kw_only=True):
    """One good occurrence of a user; item of the operation RECORD_GOOD.

    is_vouched: a person says it is the user's, also where its session was withdrawn.
    """

    tenant_id: str
    user_id: str
    seen: Occurrence
    is_vouched: bool = False


class WithdrawSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that was not the user's; item of the operation WITHDRAW_SESSION.

    session: as `session_mark` makes it.
    """

    tenant_id: str
    user_id: str
    session: str
    at: datetime


async def record_good(connection: Connection, items: Sequence[RecordGood]) -> list[bool]:
    """Record occurrences of any users; return for each whether it brought something new."""
    news = [False] * len(items)
    for tenant_id in sorted({item.tenant_id for item in items}):
        batch = {place: item for place, item in enumerate(items) if item.tenant_id == tenant_id}
        for place in await _record_of_tenant(connection, tenant_id, batch):
            news[place] = True
    return news


async def _record_of_tenant(
    connection: Connection, tenant_id: str, batch: dict[int, RecordGood]
) -> set[int]:
    now = max(item.seen.at for item in batch.values())
    user_ids = {item.user_id for item in batch.values()}
    bodies = await store.lock_baselines(connection, tenant_id, user_ids, now=now)
    before = {user_id: decode(body) for user_id, body in bodies.items()}
    known = dict(before)
    people = await entities_store.read_entities(connection, tenant_id, entity_ids=user_ids)
    marks = {
        user_id: peer_marks(people[user_id].groups if user_id in people else ())
        for user_id in known
    }
    org: Tally[tuple[str, str]] = Tally()
    org[EVERYBODY] += sum(1 for body in bodies.values() if not body)
    brought: set[int] = set()
    for place, item in sorted(batch.items(), key=lambda each: each[1].seen.at):
        if item.is_vouched:
            known[item.user_id] = trust(known[item.user_id], item.seen.session)
        known[item.user_id], new = record(known[item.user_id], item.seen)
        if new:
            brought.add(place)
        pairs = [pair for pair in map(_org_pair, new) if pair[0] in ORG_DIMENSIONS]
        org.update(pairs)
        for mark in marks[item.user_id].intersection(known[item.user_id].peers):
            org.update(peer_pair(mark, *pair) for pair in pairs)
    for user_id, present in marks.items():
        for mark in present.difference(before[user_id].peers):
            org.update(_of_peer(mark, known[user_id]))
        for mark in frozenset(before[user_id].peers) - present:
            org.subtract(_of_peer(mark, before[user_id]))
        known[user_id] = replace(known[user_id], peers=tuple(sorted(present)))
    await store.write_baselines(
        connection,
        [_row(tenant_id, user_id, known[user_id], at=now) for user_id in sorted(known)],
    )
    await store.add_org_values(
        connection, tenant_id, {pair: users for pair, users in org.items() if users}, now=now
    )
    # What was seen before changes no answer worth a reading in every process.
    users = sorted({batch[place].user_id for place in brought})
    await note_changes(connection, BASELINES_KIND, [(tenant_id, user_id) for user_id in users])
    return brought


def _of_peer(mark: str, baseline: Baseline) -> list[tuple[str, str]]:
    """Return what a member of a group adds to its counts: itself, and all it is known for."""
    return [
        peer_pair(mark, *EVERYBODY),
        *(
            peer_pair(mark, *org_pair(name, value))
            for name in ORG_DIMENSIONS
            for value in baseline.counts.get(name, {})
        ),
    ]


def _row(tenant_id: str, user_id: str, baseline: Baseline, *, at: datetime) -> dict[str, object]:
    return {
        "tenant_id": tenant_id,
        "user_id": user_id,
        "events": baseline.events,
        "body": encode(baseline),
        "updated_at": at,
    }


def _org_pair(pair: tuple[str, str]) -> tuple[str, str]:
    return org_pair(*pair)


def org_pair(dimension: str, value: str) -> tuple[str, str]:
    """Return how a value is counted for the tenant: long ones by their beginning."""
    return dimension, value[: store.VALUE_CHARS_MAX]


def peer_pair(mark: str, dimension: str, value: str) -> tuple[str, str]:
    """Return how a value is counted for a group, by its mark."""
    return f"{PEER}{dimension}", f"{mark}:{value}"[: store.VALUE_CHARS_MAX]


async def withdraw_sessions(connection: Connection, items: Sequence[WithdrawSession]) -> list[bool]:
    """Take what compromised sessions brought out again, and keep out what may still come of them.

    Return for each whether it was still trusted. The tenant's counts of places keep what they
    brought: one user less or more is within their meaning.
    """
    found = [False] * len(items)
    # Users in one order everywhere, so that two writers cannot wait for each other.
    order = sorted(
        range(len(items)), key=lambda place: (items[place].tenant_id, items[place].user_id, place)
    )
    for place in order:
        item = items[place]
        bodies = await store.lock_baselines(connection, item.tenant_id, {item.user_id}, now=item.at)
        before = decode(bodies[item.user_id])
        after = withdraw(before, item.session)
        found[place] = after != before
        if found[place]:
            await store.write_baselines(
                connection, [_row(item.tenant_id, item.user_id, after, at=item.at)]
            )
            await note_changes(connection, BASELINES_KIND, [(item.tenant_id, item.user_id)])
    return found


async def forget(connection: Connection, tenant_id: str, user_id: str) -> bool:
    """Forget a user's baseline, so that the user is learned anew; return whether there was one."""
    was_known = await store.delete_baseline(connection, tenant_id, user_id)
    await note_changes(connection, BASELINES_KIND, [(tenant_id, user_id)])
    return was_known


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget places of tenants where nobody new was seen for long; return how many."""
    return await store.system_purge_org_values(connection, before=now - ORG_LIFE)


RECORD_GOOD: Final = Operation(
    name="risk.record_good",
    item=RecordGood,
    result=bool,
    handle=record_good,
    wakes=("changes",),
    is_own=True,
)
WITHDRAW_SESSION: Final = Operation(
    name="risk.withdraw_session",
    item=WithdrawSession,
    result=bool,
    handle=withdraw_sessions,
    wakes=("changes",),
)
