"""Live sessions in memory: what was settled about their contexts, and the answers given.

session, stand written ─▶ change feed ─▶ LiveSessions ◀─ every question about a session
                            renew ─▶ what is in use and grows old is read anew, several at once

A session that is not held costs four queries; the one asked about longest ago makes room.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from risk.inline import store
from risk.inline.forks import TrailNote
from risk.inline.index import Index, Key
from risk.inline.live import Live, OfSession, made
from risk.inline.model import Settled, Stand
from risk.posture.store import postures_of
from risk.sessions import service as sessions
from risk.sessions.model import SESSIONS_KIND, Session
from risk.sessions.store import find_sessions, marks_of
from risk.sql.store import Connection
from runtime.changes import BELIEVED_S, RENEWED_AFTER_S, Change, ChangeFeed
from runtime.database import Database, chunks
from runtime.turns import work_in_turns

#: a feed that was not read for longer is not believed
FEED_AGE_MAX_S: Final = 2.0
#: sessions held by one process
HELD_MAX: Final = 100_000
#: a session that was found by its cookie or its bare id is looked up anew after a while: another
#: one may have the same name by then
ALIAS_LIFE_S: Final = 30.0
#: sessions that are renewed together: others get the event loop in between
RENEWED_AT_ONCE: Final = 64
#: sessions that are read together, which is more work
READ_AT_ONCE: Final = 16


class _Read(NamedTuple):
    """A session as it is stored. trail: how it was used, in all processes."""

    live: Live
    trail: TrailNote | None


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
        self._index = Index()
        self._aliases: OrderedDict[Key, tuple[Key, float]] = OrderedDict()
        #: asked about, and old enough to be read anew
        self._due: set[Key] = set()
        #: counts what the feed has told; what was read before that is not believed twice
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
            (read,) = await self._read(connection, tenant_id, [session])
        key, live = self._followed(tenant_id, read, now)
        # What may be another one by now is not believed again, but what is seen of it is kept.
        live.is_stale = told != self._told or self._changes.age_s > FEED_AGE_MAX_S
        self._hold(key, live)
        if not live.is_stale and (iss is None or sid is None):
            self._note_alias(_alias(tenant_id, sid, cookie_sha256), key)
        return live

    async def load(self, tenant_id: str, names: Collection[tuple[str, str]]) -> None:
        """Read sessions that are about to be asked about, several at once, where that is needed.

        names: (issuer, sid). Raises database errors.
        """
        wanted = {name for name in names if self.peek(tenant_id, *name, None) is None}
        for some in chunks(sorted(wanted), READ_AT_ONCE):
            told, now = self._told, time.monotonic()
            async with self._database.snapshot() as connection:
                found = await find_sessions(connection, tenant_id, keys=set(some))
                read = await self._read(connection, tenant_id, list(found.values()))
            if told != self._told or self._changes.age_s > FEED_AGE_MAX_S:
                return
            for each in read:
                self._hold(*self._followed(tenant_id, each, now))
            await asyncio.sleep(0)

    async def _read(
        self, connection: Connection, tenant_id: str, found: Sequence[Session]
    ) -> list[_Read]:
        """Return sessions with what was settled about each."""
        ids = [each.session_id for each in found]
        stands = await store.newest_stands(connection, tenant_id, session_ids=ids)
        apps = await store.apps_of(connection, tenant_id, session_ids=ids)
        trails = await store.trails_of(connection, tenant_id, session_ids=ids)
        postures = await postures_of(
            connection,
            tenant_id,
            device_ids={each.device_id for each in found if each.device_id},
        )
        read = []
        for session in found:
            session_id = session.session_id
            live = made(session, stands.get(session_id, ()), apps.get(session_id, ()))
            live.posture = tuple(postures.get(session.device_id or "", ()))
            if session.binding:
                live.proven = await store.proven_at(connection, tenant_id, session_id=session_id)
            read.append(_Read(live, trails.get(session_id)))
        return read

    def _followed(self, tenant_id: str, read: _Read, now: float) -> tuple[Key, Live]:
        """Return a session that was read, with what this process saw of it, and its key.

        now: when it was read.
        """
        live, session = read.live, read.live.session
        live.read_at = now
        key = (tenant_id, session.iss, session.sid)
        before = self._held.get(key)
        if before is not None and before.session.session_id == session.session_id:
            live.follow(before)
        live.hear(read.trail)
        return key, live

    async def changed(self, entries: Sequence[Change]) -> None:
        """Read these sessions again when they are asked about."""
        self._told += 1
        for entry in entries:
            key = self._index.of_id(entry.tenant_id, entry.ref)
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
        await work_in_turns(due, RENEWED_AT_ONCE, self._renew)

    async def _renew(self, tenant_id: str, keys: Sequence[Key]) -> None:
        now = time.monotonic()
        lives = [live for key in keys if (live := self._held.get(key)) is not None]
        said = await self._said(tenant_id, lives)
        for live in lives:
            if said[live.session.session_id] != live.says():
                # The feed missed something: read it when it is asked about, as a change is.
                live.is_stale = True
            else:
                live.read_at = now

    async def _said(self, tenant_id: str, lives: Sequence[Live]) -> dict[str, tuple[object, ...]]:
        """Return what sessions have to say if they are as they are stored, by session id."""
        ids = [each.session.session_id for each in lives]
        devices = {each.session.device_id for each in lives if each.session.device_id}
        async with self._database.snapshot() as connection:
            marks = await marks_of(connection, tenant_id, session_ids=ids)
            stands = await store.stand_marks_of(connection, tenant_id, session_ids=ids)
            postures = await postures_of(connection, tenant_id, device_ids=devices)
            bound = [each.session.session_id for each in lives if each.session.binding]
            proven = {
                each: await store.proven_at(connection, tenant_id, session_id=each)
                for each in bound
            }
        said: dict[str, tuple[object, ...]] = {}
        for live in lives:
            session_id = live.session.session_id
            said[session_id] = (
                marks.get(session_id),
                live.waiting() | stands.get(session_id, {}),
                tuple(postures.get(live.session.device_id or "", ())),
                proven.get(session_id, {}),
            )
        return said

    def written(self, stand: Stand, settled: Settled | None) -> None:
        """Hear what became of a stand that was held already; settled: None when it was not written.

        What is being read now may have a stand that is none, so that is read again.
        """
        is_so = settled is not None and settled.is_new
        if not is_so:
            self._told += 1
        key = self._index.of_id(stand.tenant_id, stand.session_id)
        live = None if key is None else self._held.get(key)
        if live is None:
            return
        live.written(stand.context_key)
        if is_so:
            live.learn(stand.context_key)
        else:
            # It is not what the database says: judge this context again.
            live.is_stale = True

    def unwritten(self, item: OfSession) -> None:
        """Hear that something about a session could not be written: it is noted again when due.

        What is being read now may have been read before, so that is read again.
        """
        self._told += 1
        key = self._index.of_id(item.tenant_id, item.session_id or "")
        live = None if key is None else self._held.get(key)
        if live is not None:
            live.unwritten(item)

    def _hold(self, key: Key, live: Live) -> None:
        if (before := self._held.get(key)) is not None:
            self._index.drop(before.session)
        self._held[key] = live
        self._held.move_to_end(key)
        self._index.add(key, live.session)
        while len(self._held) > self._held_max:
            _, gone = self._held.popitem(last=False)
            self._index.drop(gone.session)

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


def _alias(tenant_id: str, sid: str | None, cookie_sha256: str | None) -> Key:
    return (
        (tenant_id, "sid", sid) if sid is not None else (tenant_id, "cookie", cookie_sha256 or "")
    )
