"""Live sessions in memory: what was settled about their contexts, and the answers given.

session, stand written ─▶ change feed ─▶ LiveSessions ◀─ every question about a session
                            renew ─▶ what is in use and grows old is read anew, several at once

A session that is not held costs four queries; the one asked about longest ago makes room.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from risk.contexts.model import Context
from risk.contexts.stored import restore_context
from risk.inline import store
from risk.inline.forks import Trail, TrailNote, spot_of
from risk.inline.model import Settled, Stand, StandState, UsedApp
from risk.inline.proofs import PROOF_LIFE
from risk.posture.model import Reported, as_accepted
from risk.posture.store import postures_of
from risk.sessions import service as sessions
from risk.sessions.model import SESSIONS_KIND, Session
from risk.sessions.store import find_sessions
from risk.sql.store import Connection
from runtime.changes import BELIEVED_S, RENEWED_AFTER_S, Change, ChangeFeed
from runtime.database import Database, chunks

#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0
#: sessions held by one process
HELD_MAX: Final = 100_000
#: answers held of one session: contexts and apps take turns
ANSWERS_MAX: Final = 8
#: contexts of one session that are known to be recorded
NOTED_MAX: Final = 256
#: a session that was found by its cookie or its bare id is looked up anew after a while: another
#: one may have the same name by then
ALIAS_LIFE_S: Final = 30.0
#: sessions that are renewed together: others get the event loop in between
RENEWED_AT_ONCE: Final = 16

Key = tuple[str, str, str]


@dataclass(slots=True)
class Live:
    """One session. stands: by context key. answers: the last ones, by what was asked.

    pending: keys of stands that are being written behind their answers. noted: (context, app) that
    were recorded. learned: context keys that entered the user's baseline. proven: when the key of
    the session was last shown, by context key. posture: what providers report of its device.
    apps: that it is used for, in whatever process. logged_out: (context key, apps) whose logouts
    were ordered. read_at: when this was read, by `time.monotonic`.
    """

    session: Session
    stands: dict[str, Stand]
    contexts: dict[str, Context]
    answers: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict)
    trail: Trail | None = None
    apps: frozenset[str] = frozenset()
    pending: set[str] = field(default_factory=set)
    proven: dict[str, datetime] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)
    noted: set[tuple[str, str | None]] = field(default_factory=set)
    posture: tuple[Reported, ...] = ()
    logged_out: set[tuple[str, tuple[str, ...] | None]] = field(default_factory=set)
    asked_last: Hashable = None
    is_stale: bool = False
    read_at: float = field(default_factory=time.monotonic)

    @property
    def accepted(self) -> list[Context]:
        """The contexts the session was accepted in, with what was reported of its device then."""
        if not self.posture:
            return list(self.contexts.values())
        return [as_accepted(each, self.posture) for each in self.contexts.values()]

    def says(self) -> tuple[object, ...]:
        """Return what is stored of it, in a form that compares."""
        stands = {key: (each.state, each.level, each.at) for key, each in self.stands.items()}
        return self.session, stands, self.posture, self.proven

    def keep(self, asked: Hashable, answer: Any) -> None:
        """Keep an answer; the one kept longest makes room."""
        self.answers[asked] = answer
        if len(self.answers) > ANSWERS_MAX:
            self.answers.popitem(last=False)

    def use(self, app_id: str) -> bool:
        """Note an app that the session is used for; return whether nobody knew that yet."""
        if app_id in self.apps or len(self.apps) >= store.APPS_MAX:
            return False
        self.apps |= {app_id}
        return True

    def stand(self, stand: Stand, context: Context) -> None:
        """Note what was settled about a context; other answers may differ from now on."""
        self.stands[stand.context_key] = stand
        if stand.is_known:
            self.contexts[stand.context_key] = context
        else:
            self.contexts.pop(stand.context_key, None)
        while len(self.stands) > store.STANDS_MAX:
            oldest = next(iter(self.stands))
            del self.stands[oldest]
            self.contexts.pop(oldest, None)
        self.answers.clear()


class LiveSessions:
    """Sessions by (tenant, issuer, sid), least recently used out first; kept by the feed."""

    def __init__(
        self,
        database: Database,
        changes: ChangeFeed,
        *,
        held_max: int = HELD_MAX,
        renewed_after_s: float = RENEWED_AFTER_S,
        believed_s: float = BELIEVED_S,
    ) -> None:
        """held_max: sessions.

        renewed_after_s, believed_s: how old one is when it is read anew, and counts no more.
        """
        self._database = database
        self._changes = changes
        self._held_max = held_max
        self._renewed_after_s = renewed_after_s
        self._believed_s = believed_s
        self._held: OrderedDict[Key, Live] = OrderedDict()
        self._by_id: dict[tuple[str, str], Key] = {}
        self._by_entity: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
        self._aliases: OrderedDict[Key, tuple[Key, float]] = OrderedDict()
        #: asked about, and old enough to be read anew
        self._due: set[Key] = set()
        #: counts what the feed has told; what was read before that is not kept
        self._told = 0
        changes.subscribe(SESSIONS_KIND, self)

    def __len__(self) -> int:
        """Return how many sessions are held."""
        return len(self._held)

    def peek(
        self, tenant_id: str, iss: str | None, sid: str | None, cookie_sha256: str | None
    ) -> Live | None:
        """Return a session that is in memory and can be believed; None: `find` it."""
        now = time.monotonic()
        if now - self._changes.read_at > FEED_AGE_MAX_S:
            return None
        key = self._key(tenant_id, iss, sid, cookie_sha256)
        live = None if key is None else self._held.get(key)
        if key is None or live is None or live.is_stale:
            return None
        if now - live.read_at > self._renewed_after_s:
            if now - live.read_at > self._believed_s:
                return None
            self._due.add(key)
        self._held.move_to_end(key)
        return live

    def last_known(
        self, tenant_id: str, iss: str | None, sid: str | None, cookie_sha256: str | None
    ) -> Live | None:
        """Return a session that is in memory and that nobody said anything new about.

        However long ago that was: for when nobody can be asked. Raises nothing.
        """
        key = self._key(tenant_id, iss, sid, cookie_sha256)
        live = None if key is None else self._held.get(key)
        return None if live is None or live.is_stale else live

    async def find(
        self, tenant_id: str, iss: str | None, sid: str | None, cookie_sha256: str | None
    ) -> Live | None:
        """Return a session with what was settled about it; None: there is none.

        Raises database errors.
        """
        if (held := self.peek(tenant_id, iss, sid, cookie_sha256)) is not None:
            return held
        told, now = self._told, time.monotonic()
        async with self._database.snapshot() as connection:
            session = await sessions.find_session(
                connection, tenant_id, iss=iss, sid=sid, cookie_sha256=cookie_sha256
            )
            if session is None:
                return None
            (live,) = await self._read(connection, tenant_id, [session])
        live.read_at = now
        key = (tenant_id, session.iss, session.sid)
        if told == self._told and self._changes.age_s <= FEED_AGE_MAX_S:
            self._hold(key, live)
            if iss is None or sid is None:
                self._note_alias(_alias(tenant_id, sid, cookie_sha256), key)
        return live

    async def load(self, tenant_id: str, names: Collection[tuple[str, str]]) -> None:
        """Read sessions that are about to be asked about, several at once, where that is needed.

        names: (issuer, sid). Raises database errors.
        """
        wanted = {name for name in names if self.peek(tenant_id, *name, None) is None}
        for some in chunks(sorted(wanted), RENEWED_AT_ONCE):
            told, now = self._told, time.monotonic()
            async with self._database.snapshot() as connection:
                found = await find_sessions(connection, tenant_id, keys=set(some))
                lives = await self._read(connection, tenant_id, list(found.values()))
            if told != self._told or self._changes.age_s > FEED_AGE_MAX_S:
                return
            for live in lives:
                live.read_at = now
                self._hold((tenant_id, live.session.iss, live.session.sid), live)
            await asyncio.sleep(0)

    async def _read(
        self, connection: Connection, tenant_id: str, found: Sequence[Session]
    ) -> list[Live]:
        """Return sessions with what was settled about each, and what this process saw of it."""
        stands = await store.newest_stands(
            connection, tenant_id, session_ids=[each.session_id for each in found]
        )
        postures = await postures_of(
            connection,
            tenant_id,
            device_ids={each.device_id for each in found if each.device_id},
        )
        trails = await store.trails_of(
            connection, tenant_id, session_ids=[each.session_id for each in found]
        )
        lives = []
        for session in found:
            apps = await store.apps_of(connection, tenant_id, session_id=session.session_id)
            before = self._held.get((tenant_id, session.iss, session.sid))
            live = _made(session, stands.get(session.session_id, ()), apps, before)
            live.trail = _trail(live, trails.get(session.session_id))
            live.posture = tuple(postures.get(session.device_id or "", ()))
            if session.binding:
                live.proven = await store.proven_at(
                    connection, tenant_id, session_id=session.session_id
                )
            lives.append(live)
        return lives

    async def changed(self, entries: Sequence[Change]) -> None:
        """Read these sessions again when they are asked about."""
        self._told += 1
        for entry in entries:
            key = self._by_id.get((entry.tenant_id, entry.ref))
            if key is not None and key in self._held:
                self._held[key].is_stale = True

    def start_over(self) -> None:
        """Read every session again when it is asked about, also those being read."""
        self._told += 1
        for live in self._held.values():
            live.is_stale = True
        self._due.clear()
        self._aliases.clear()

    async def renew(self) -> None:
        """Read anew what was asked about and is old enough. Raises database errors."""
        due, self._due = self._due, set()
        by_tenant: defaultdict[str, list[Key]] = defaultdict(list)
        for key in due:
            by_tenant[key[0]].append(key)
        for tenant_id, keys in by_tenant.items():
            for first in range(0, len(keys), RENEWED_AT_ONCE):
                await self._renew(tenant_id, keys[first : first + RENEWED_AT_ONCE])

    async def _renew(self, tenant_id: str, keys: Sequence[Key]) -> None:
        now = time.monotonic()
        held = {key: live for key in keys if (live := self._held.get(key)) is not None}
        async with self._database.snapshot() as connection:
            found = await find_sessions(connection, tenant_id, keys={key[1:] for key in held})
            lives = await self._read(connection, tenant_id, list(found.values()))
        read = {(tenant_id, each.session.iss, each.session.sid): each for each in lives}
        for key, live in held.items():
            fresh = read.get(key)
            if fresh is None or fresh.says() != live.says():
                # The feed missed something: read it when it is asked about, as a change is.
                live.is_stale = True
            else:
                live.read_at = now

    def of_entity(self, tenant_id: str, entity_id: str) -> list[Key]:
        """Return which sessions of a user, or on a device, are held. Raises nothing."""
        return sorted(self._by_entity.get((tenant_id, entity_id), ()))

    def written(self, stand: Stand, settled: Settled | None) -> None:
        """Hear that a stand was written behind its answer; settled: None when it was not."""
        key = self._by_id.get((stand.tenant_id, stand.session_id))
        live = None if key is None else self._held.get(key)
        if live is None:
            return
        live.pending.discard(stand.context_key)
        if settled is None or not settled.is_new:
            # It is not what the database says: judge this context again.
            live.is_stale = True

    def unused(self, used: UsedApp) -> None:
        """Hear that an app could not be written: who is asked for it next tries again."""
        key = self._by_id.get((used.tenant_id, used.session_id))
        live = None if key is None else self._held.get(key)
        if live is not None:
            live.apps -= {used.app_id}
            live.answers.clear()

    def _hold(self, key: Key, live: Live) -> None:
        if (before := self._held.get(key)) is not None:
            self._forget(key, before)
        self._held[key] = live
        self._held.move_to_end(key)
        self._by_id[key[0], live.session.session_id] = key
        for entity_id in _entities(live):
            self._by_entity[key[0], entity_id].add(key)
        while len(self._held) > self._held_max:
            self._forget(*self._held.popitem(last=False))

    def _forget(self, key: Key, live: Live) -> None:
        self._by_id.pop((key[0], live.session.session_id), None)
        for entity_id in _entities(live):
            keys = self._by_entity[key[0], entity_id]
            keys.discard(key)
            if not keys:
                del self._by_entity[key[0], entity_id]

    def _key(
        self, tenant_id: str, iss: str | None, sid: str | None, cookie_sha256: str | None
    ) -> Key | None:
        if iss is not None and sid is not None:
            return tenant_id, iss, sid
        known = self._aliases.get(_alias(tenant_id, sid, cookie_sha256))
        if known is None or time.monotonic() - known[1] > ALIAS_LIFE_S:
            return None
        return known[0]

    def _note_alias(self, alias: Key, key: Key) -> None:
        self._aliases[alias] = (key, time.monotonic())
        self._aliases.move_to_end(alias)
        if len(self._aliases) > self._held_max:
            self._aliases.popitem(last=False)


def _entities(live: Live) -> list[str]:
    session = live.session
    return [session.user_id, *([session.device_id] if session.device_id else [])]


def is_proven(live: Live, key: str, now: datetime) -> bool:
    """Return whether a context of a key-bound session is believed to hold the key.

    Where the session began the key was just made, so that counts as a proof.
    """
    stand = live.stands.get(key)
    shown = live.proven.get(key)
    if shown is None and (not live.stands or (stand and stand.state == StandState.ANCHOR)):
        shown = live.session.created_at
    return shown is not None and now - shown <= PROOF_LIFE


def _alias(tenant_id: str, sid: str | None, cookie_sha256: str | None) -> Key:
    return (
        (tenant_id, "sid", sid) if sid is not None else (tenant_id, "cookie", cookie_sha256 or "")
    )


def _made(
    session: Session, found: Sequence[Stand], used: Collection[str], before: Live | None
) -> Live:
    stands: Mapping[str, Stand] = {each.context_key: each for each in reversed(found)}
    apps = {*used, *(each.app_id for each in found if each.app_id)}
    apps |= {session.app_id} if session.app_id else set()
    made = Live(
        session=session,
        stands=dict(stands),
        contexts={
            key: restore_context(each.context, each.since)
            for key, each in stands.items()
            if each.is_known and each.context
        },
        apps=frozenset(apps),
    )
    if before is None or before.session.session_id != session.session_id:
        return made
    # What was seen of its use is in this process only, and what is being written is not read yet.
    made.trail, made.apps = before.trail, made.apps | before.apps
    made.learned = before.learned
    made.logged_out = before.logged_out if len(before.logged_out) < NOTED_MAX else set()
    made.noted = before.noted if len(before.noted) < NOTED_MAX else set()
    for key in before.pending - made.stands.keys():
        made.pending.add(key)
        made.stands[key] = before.stands[key]
        made.contexts[key] = before.contexts[key]
    return made


def _trail(live: Live, told: TrailNote | None) -> Trail | None:
    """Return what is known of a session's use, here and elsewhere; None as long as nothing is.

    It begins where the session was accepted last, whichever process that was asked.
    """
    trail = live.trail
    if trail is None and live.contexts:
        key, context = next(reversed(live.contexts.items()))
        trail = Trail()
        trail.switches.append((spot_of(context), live.stands[key].at))
    if told is not None:
        trail = trail or Trail()
        trail.hear(told)
    return trail
