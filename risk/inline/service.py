"""Use cases of stands: settle one before the answer, note those let pass behind it. Batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from risk.inline import store
from risk.inline.model import Settled, Stand, StandState, settle
from risk.sessions import service as sessions
from risk.sessions.model import SESSIONS_KIND, EndSession
from risk.sql.store import Connection
from runtime.changes import note_changes
from runtime.database import serialize
from runtime.writer import Operation

#: longer than sessions live
LIFE: Final = timedelta(days=30)


async def settle_stands(connection: Connection, items: Sequence[Stand]) -> list[Settled]:
    """Settle stands of any tenants; one result per item, in order: what is stored now.

    INVARIANT: of parallel requests exactly one makes a stand what it becomes; the others are told
    what it is. Whoever ends a session with a stand ends it in the same transaction.
    """
    results: dict[int, Settled] = {}
    order = sorted(range(len(items)), key=lambda place: items[place].tenant_id)
    for tenant_id, places in groupby(order, key=lambda place: items[place].tenant_id):
        batch = {place: items[place] for place in places}
        results |= await _settle_of_tenant(connection, tenant_id, batch)
    return [results[place] for place in range(len(items))]


async def _settle_of_tenant(
    connection: Connection, tenant_id: str, batch: dict[int, Stand]
) -> dict[int, Settled]:
    session_ids = sorted({each.session_id for each in batch.values()})
    for session_id in session_ids:
        await serialize(connection, "stands", tenant_id, session_id)
    known = await store.stands_of(connection, tenant_id, session_ids=session_ids)
    anchored = {session_id for (session_id, _), each in known.items() if each.is_accepted}
    written: dict[tuple[str, str], Stand] = {}
    results: dict[int, Settled] = {}
    for place, wanted in batch.items():
        key = (wanted.session_id, wanted.context_key)
        before = written.get(key) or known.get(key)
        if wanted.state == StandState.ANCHOR and before is None and wanted.session_id in anchored:
            # Somebody else was first: this context has to be judged against theirs.
            results[place] = Settled(stand=wanted, is_new=False)
            continue
        results[place] = settle(before, wanted)
        if results[place].is_new:
            written[key] = results[place].stand
        if results[place].stand.is_accepted:
            anchored.add(wanted.session_id)
    await store.write_stands(connection, written.values())
    over = [each for each in written.values() if each.ends is not None]
    await sessions.end_sessions(connection, [_end_of(each) for each in over])
    # Also whoever was not first has to look again.
    await note_changes(
        connection, SESSIONS_KIND, [(tenant_id, session_id) for session_id in session_ids]
    )
    return results


def _end_of(stand: Stand) -> EndSession:
    iss, sid = stand.ends or ("", "")
    return EndSession(tenant_id=stand.tenant_id, iss=iss, sid=sid, at=stand.at)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget what was settled about sessions that are over, a bounded number; return how many."""
    return await store.system_purge_stands(connection, before=now - LIFE)


SETTLE: Final = Operation(
    name="risk.settle_stand",
    item=Stand,
    result=Settled,
    handle=settle_stands,
    wakes=("changes",),
)
