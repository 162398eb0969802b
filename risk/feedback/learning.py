"""What people's words teach of a user: what was theirs enters the baseline, what was not leaves it.

In the caller's transaction, which holds the tenant's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from risk.baselines.model import Occurrence, session_mark, short
from risk.baselines.service import (
    RecordGood,
    WithdrawSession,
    record_good,
    withdraw_sessions,
)
from risk.contexts.stored import restore_context
from risk.hijacks import DOUBTED_AFTER, SESSIONS_MAX
from risk.inline import store as stands_store
from risk.inline.model import Stand, StandState
from risk.lookups.service import Subject
from risk.model import EntityKind
from risk.sessions import store as sessions_store
from risk.sessions.model import Session
from risk.sql.store import Connection

#: how long after its end a session is still what "safe" speaks of
TAUGHT_AFTER: Final = timedelta(days=1)
#: contexts that one word makes known; the newest
TAUGHT_MAX: Final = 100
#: what was stopped for good is taught by a word about that very session alone
_STOPPED: Final = frozenset({StandState.DENIED, StandState.TERMINATED})


async def teach(connection: Connection, tenant_id: str, subject: Subject, *, now: datetime) -> None:
    """Let what the sessions were seen with enter the user's baseline: a person says it is theirs.

    Not what the user refused themselves, and of other sessions than the one that is named nothing
    that was stopped. Undo does not take it out again, `confirm-compromised` does. Raises nothing of
    its own.
    """
    found_sessions = await _sessions(connection, tenant_id, subject, since=now - TAUGHT_AFTER)
    sessions = {each.session_id: each for each in found_sessions}
    found = await stands_store.newest_stands(connection, tenant_id, session_ids=sorted(sessions))
    stands = [
        each
        for each in chain.from_iterable(found.values())
        if each.state != StandState.REFUSED
        and (subject.session is not None or each.state not in _STOPPED)
    ]
    newest = sorted(stands, key=lambda each: (each.at, each.context_key))[-TAUGHT_MAX:]
    await record_good(connection, list(_occurrences(newest, sessions, now)))


async def withdraw(
    connection: Connection, tenant_id: str, subject: Subject, *, now: datetime
) -> None:
    """Take out of the user's baseline what the sessions brought that a stranger had.

    Of a user those that are live or ended of late, as a Universal Logout does: one of them is the
    stranger's. Undo does not bring it back; what is the user's own is learned anew soon.
    """
    await withdraw_sessions(
        connection,
        [
            WithdrawSession(
                tenant_id=tenant_id,
                user_id=each.user_id,
                session=session_mark(each.iss, each.sid, each.session_id),
                at=now,
            )
            for each in await _sessions(connection, tenant_id, subject, since=now - DOUBTED_AFTER)
        ],
    )


async def _sessions(
    connection: Connection, tenant_id: str, subject: Subject, *, since: datetime
) -> Sequence[Session]:
    """Return the session that is meant, else those of the user that were not over by `since`."""
    if subject.session is not None:
        return [subject.session]
    if subject.kind is not EntityKind.USER:
        return []
    return await sessions_store.recent_of_user(
        connection, tenant_id, user_id=subject.entity_id, since=since, limit=SESSIONS_MAX
    )


def _occurrences(
    stands: Sequence[Stand], sessions: Mapping[str, Session], now: datetime
) -> Iterator[RecordGood]:
    for stand in stands:
        session = sessions[stand.session_id]
        here = restore_context(stand.context, stand.since)
        if not here.ip:
            continue
        seen = Occurrence(
            at=min(stand.at, now),
            ip=here.ip,
            asn=here.record.asn,
            country=here.record.country,
            device=short(here.device_token_hash or here.device_id),
            ua=here.ua_family or None,
            app=stand.app_id or None,
            session=session_mark(session.iss, session.sid, session.session_id),
        )
        yield RecordGood(
            tenant_id=session.tenant_id, user_id=session.user_id, seen=seen, is_vouched=True
        )
