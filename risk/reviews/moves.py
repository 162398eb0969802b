"""Sessions whose user or device has another level now: judged once, whoever holds them, or nobody.

They are found in the database, because what no process holds has to be judged as well. A request
meanwhile is judged by the levels of now: those reach every process by the change feed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

from risk.model import Assessment
from risk.reviews import service as reviews
from risk.reviews.model import Review, ReviewCause, new_review
from risk.sessions import store as sessions_store
from risk.sessions.model import Session
from risk.sql.store import Connection
from runtime.ids import new_id

#: sessions of one batch of moves that are judged again; others with their next request
SESSIONS_MAX: Final = 1_000
TRACE_CHARS_MAX: Final = 200


async def note_moves(
    connection: Connection,
    tenant_id: str,
    *,
    users: Iterable[Assessment] = (),
    devices: Collection[str],
    now: datetime,
) -> int:
    """Note the live sessions of users whose level moved, and on devices of which news came.

    users: those whose level stayed are left out. Returns how many are to be judged, each once.
    """
    moved = {each.user_id: each for each in users if each.level is not each.previous_level}
    concerned = {*moved, *devices}
    if not concerned:
        return 0
    found = await sessions_store.live_of_entities(
        connection, tenant_id, entity_ids=concerned, now=now, limit=SESSIONS_MAX
    )
    once = {session.session_id: session for session in found}
    noted = [_review(session, moved, now) for session in once.values()]
    await reviews.note(connection, noted)
    return len(noted)


async def note_groups(
    connection: Connection, tenant_id: str, user_id: str, *, now: datetime
) -> int:
    """Note the live sessions of a user who is in other groups now; return how many."""
    live = await sessions_store.live_of_entities(
        connection, tenant_id, entity_ids={user_id}, now=now, limit=SESSIONS_MAX
    )
    noted = [
        new_review(session, ReviewCause.GROUPS, at=now, trace_id=new_id("chg")) for session in live
    ]
    await reviews.note(connection, noted)
    return len(noted)


def _review(session: Session, moved: Mapping[str, Assessment], now: datetime) -> Review:
    made = moved.get(session.user_id)
    if made is None:
        return new_review(session, ReviewCause.LEVEL, at=now, trace_id=new_id("chg"))
    return new_review(
        session,
        ReviewCause.LEVEL,
        at=now,
        trace_id=made.trace_id[:TRACE_CHARS_MAX],
        old={"user_level": made.previous_level.name},
        new={"user_level": made.level.name},
    )
