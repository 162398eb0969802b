"""Sessions that turn out not to be their users': what they taught of the user is withdrawn.

    the hub ends a session, or finds a fork of it ─▶ that session
    somebody says that an account was hijacked ─▶ the sessions he names, else all of late

In the caller's transaction. A person's `confirm-safe` teaches it again.
Source: threat-protection §3.3 (poisoning guard), §17 row 16(a).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from risk import catalogue
from risk.baselines.model import session_mark
from risk.baselines.service import WithdrawSession, withdraw_sessions
from risk.contexts.model import SEVERE, Change
from risk.finding_type import CauseClass, RaisedBy
from risk.inline.model import Stand, StandState
from risk.level import effective_level
from risk.lookups import store as lookups_store
from risk.model import Detection, DetectionState, EntityKind, Level, SignalMode
from risk.sessions import store as sessions_store
from risk.sessions.model import Session
from risk.sql.store import Connection

#: sessions of a user that a word about the user is about
SESSIONS_MAX: Final = 50
#: how long after its end a session is still doubted by a word about its user
DOUBTED_AFTER: Final = timedelta(days=7)
#: events tell the time in whole seconds
_SECOND: Final = timedelta(seconds=1)
#: besides everything whose cause is a hijacked session
_OF_ACCOUNTS: Final = frozenset({"account_hijacked", "user_reported_suspicious_activity"})
_USER_PREFIX: Final = "usr_"
_SESSION_PREFIX: Final = "ses_"
#: what is not the same client, or not where it was
_OF_STRANGERS: Final = frozenset(each.value for each in (*SEVERE, Change.ASN, Change.COUNTRY))


def is_hijack(name: str) -> bool:
    """Return whether a finding of this kind says that somebody else had sessions of the user.

    What a person confirms is withdrawn with the word itself (`risk.feedback`). Raises nothing.
    """
    known = catalogue.finding_type(name)
    if known.raised_by is RaisedBy.ADMIN:
        return False
    return known.cause is CauseClass.SESSION_HIJACK or name in _OF_ACCOUNTS


def shows_hijack(stand: Stand) -> bool:
    """Return whether a context was stopped so that the whole session is not the user's.

    It ended because another client or another place uses it, at HIGH by its own risk, or it is used
    in turns with somebody else, so that nobody knows whose the other contexts were. A stranger who
    was stopped where he came, with another device, is none: nothing of his was ever let pass. Nor
    is a session that ends with its user. Raises nothing.
    """
    if stand.state != StandState.TERMINATED or stand.session_level != Level.HIGH.name:
        return False
    is_over = stand.ends is not None and not _OF_STRANGERS.isdisjoint(stand.changes)
    return is_over or Change.FORK.value in stand.changes


async def withdraw_settled(connection: Connection, stands: Iterable[Stand]) -> None:
    """Withdraw the sessions that turned out hijacked as these stands were settled."""
    shown = {(each.tenant_id, each.session_id): each for each in stands if shows_hijack(each)}
    items = []
    for (tenant_id, session_id), stand in shown.items():
        session = await lookups_store.session_by_id(connection, tenant_id, session_id=session_id)
        if session is not None:
            items.append(_withdrawal(session, stand.at))
    await withdraw_sessions(connection, items)


async def withdraw_found(
    connection: Connection,
    tenant_id: str,
    findings: Iterable[Detection],
    *,
    caps: Mapping[str, Level | None],
    now: datetime,
) -> None:
    """Withdraw the sessions that findings at HIGH say were somebody else's.

    Sessions that began after what was found stay. caps: as for levels; whose word does not lead to
    HIGH withdraws nothing.
    """
    items: list[WithdrawSession] = []
    for each in findings:
        counts = each.state is DetectionState.ACTIVE and each.mode is SignalMode.ENFORCE
        if not is_hijack(each.name) or not counts:
            continue
        if effective_level(each, caps) is not Level.HIGH:
            continue
        doubted = await _doubted(connection, tenant_id, each, since=now - DOUBTED_AFTER)
        items += [_withdrawal(session, now) for session in doubted]
    await withdraw_sessions(connection, items)


async def _doubted(
    connection: Connection, tenant_id: str, found: Detection, *, since: datetime
) -> Sequence[Session]:
    """Return the user's sessions that a finding names, else all of late; begun before it."""
    named = {found.entity_id, *found.related}
    is_of_user = found.entity_kind is EntityKind.USER
    users = {found.entity_id} if is_of_user else {e for e in named if e.startswith(_USER_PREFIX)}
    before = found.occurred_at + _SECOND
    # By their ids: however many others began since, or later than what was found.
    ids = sorted(each for each in named if each.startswith(_SESSION_PREFIX))[:SESSIONS_MAX]
    by_id = [
        await lookups_store.session_by_id(connection, tenant_id, session_id=session_id)
        for session_id in ids
    ]
    told = [
        each
        for each in by_id
        if each is not None
        and each.user_id in users
        and each.started_at < before
        and (each.ended_at is None or each.ended_at >= since)
    ]
    return told or [
        session
        for user_id in sorted(users)
        for session in await sessions_store.recent_of_user(
            connection, tenant_id, user_id=user_id, since=since, limit=SESSIONS_MAX, before=before
        )
    ]


def _withdrawal(session: Session, at: datetime) -> WithdrawSession:
    return WithdrawSession(
        tenant_id=session.tenant_id,
        user_id=session.user_id,
        session=session_mark(session.iss, session.sid, session.session_id),
        at=at,
    )
