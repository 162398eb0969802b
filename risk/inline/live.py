"""One live session in memory: what was settled about its contexts, and the answers given.

A process holds a hundred thousand of them. So what most sessions have none or one of is a tuple,
and what is equal in many is shared.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from risk.contexts.model import Context
from risk.contexts.stored import kept_context, restore_context
from risk.inline import store
from risk.inline.forks import Trail, TrailNote, spot_of
from risk.inline.model import Stand, StandMark, StandState
from risk.inline.orders import FindingMark, SessionFinding, SessionLogout, UsedApp
from risk.inline.proofs import PROOF_LIFE
from risk.policies.recorded import RecordedContext
from risk.posture.model import Reported, as_accepted
from risk.sessions.model import Session
from runtime.sharing import shared

#: answers held of one session: contexts and apps take turns
ANSWERS_MAX: Final = 8
#: contexts of one session of which the same is remembered: recorded, learned, logged out
NOTED_MAX: Final = 256
_NO_APPS: Final[frozenset[str]] = frozenset()
_NEVER: Final[Mapping[str, datetime]] = MappingProxyType({})


class OfSession(Protocol):
    """Something about a session that is written behind an answer."""

    @property
    def tenant_id(self) -> str: ...  # noqa: D102

    @property
    def session_id(self) -> str | None: ...  # noqa: D102


class Met(NamedTuple):
    """What was settled about a context. context: where others are, or may be, compared with it.

    The stand comes without the context as it is stored.
    """

    stand: Stand
    context: Context | None


@dataclass(slots=True)
class Live:
    """One session. met: its contexts, by their keys. answers: the last ones, by what was asked.

    pending: keys of stands that are being written behind their answers. noted: (context, app) that
    were recorded. learned: context keys that entered the user's baseline. proven: when the key of
    the session was last shown, by context key. posture: what providers report of its device.
    apps: that it is used for, in whatever process; unopened: those of them that this process met
    first, and has let nobody into yet. logged_out: (context key, apps) whose logouts
    were ordered. at_high: findings at HIGH that were told. read_at: when this was
    read, by `time.monotonic`.
    """

    session: Session
    met: dict[str, Met]
    answers: dict[Hashable, Any] = field(default_factory=dict)
    trail: Trail | None = None
    apps: frozenset[str] = _NO_APPS
    unopened: frozenset[str] = _NO_APPS
    pending: tuple[str, ...] = ()
    proven: Mapping[str, datetime] = field(default_factory=lambda: _NEVER)
    learned: tuple[str, ...] = ()
    noted: tuple[tuple[str, str | None], ...] = ()
    posture: tuple[Reported, ...] = ()
    logged_out: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    at_high: tuple[FindingMark, ...] = ()
    asked_last: Hashable = None
    is_stale: bool = False
    read_at: float = field(default_factory=time.monotonic)

    @property
    def contexts(self) -> list[Context]:
        """The contexts the session was accepted in, in the order they were first settled in."""
        return [each.context for each in self.met.values() if each.stand.is_known and each.context]

    @property
    def accepted(self) -> dict[str, Context]:
        """The contexts that others are compared with, with what was reported of the device then.

        By their keys as they were settled.

        INVARIANT: never empty where a client was seen: as long as the session was accepted nowhere,
        others are compared with who came first. Nobody begins a session because another was kept
        out of it.
        """
        seen = [each for each in self.met.values() if each.context]
        found = [each for each in seen if each.stand.is_known] or _by_age(seen)[:1]
        return {
            stand.context_key: as_accepted(context, self.posture) if self.posture else context
            for stand, context in found
            if context is not None
        }

    def stand_at(self, key: str) -> Stand | None:
        """Return what was settled about a context; None: nothing yet."""
        met = self.met.get(key)
        return None if met is None else met.stand

    def says(self) -> tuple[object, ...]:
        """Return what tells whether something else is stored of it by now."""
        stands = {key: each.mark for key, (each, _) in self.met.items()}
        return self.session.mark, stands, self.posture, self.proven

    def waiting(self) -> dict[str, StandMark]:
        """Return the marks of the stands that are not written yet, by context key."""
        return {key: self.met[key].stand.mark for key in self.pending if key in self.met}

    def keep(self, asked: Hashable, answer: Any) -> None:
        """Keep an answer; the one kept longest makes room."""
        self.answers[asked] = answer
        if len(self.answers) > ANSWERS_MAX:
            del self.answers[next(iter(self.answers))]

    def use(self, app_id: str) -> bool:
        """Note an app that the session is used for; return whether nobody knew that yet."""
        if app_id in self.apps or len(self.apps) >= store.APPS_MAX:
            return False
        self.apps = shared(self.apps | {app_id})
        self.unopened = shared(self.unopened | {app_id})
        return True

    def open(self, app_id: str | None) -> bool:
        """Note that the session was let into an app; return whether that is the first time.

        As far as this process knows, and of apps that nobody knew before it.
        """
        if app_id not in self.unopened:
            return False
        self.unopened -= {app_id}
        return True

    def note(self, key: str, app_id: str | None) -> None:
        """Remember that a context is recorded for an app."""
        self.noted = (*self.noted, (key, app_id))[-NOTED_MAX:]

    def learn(self, key: str) -> None:
        """Remember that a context entered the user's baseline."""
        if key not in self.learned:
            self.learned = (*self.learned, key)[-NOTED_MAX:]

    def log_out(self, key: str, app_ids: tuple[str, ...] | None) -> bool:
        """Remember that logouts are ordered; return whether they were not yet."""
        if (key, app_ids) in self.logged_out:
            return False
        self.logged_out = (*self.logged_out, (key, app_ids))[-NOTED_MAX:]
        return True

    def find_at_high(self, mark: FindingMark) -> None:
        """Remember that a context was found at HIGH, and told."""
        self.at_high = (*self.at_high, mark)[-NOTED_MAX:]

    def unwritten(self, item: OfSession) -> None:
        """Forget that something was noted, because it could not be written, and judge anew."""
        if isinstance(item, SessionLogout):
            gone = (item.context_key, item.app_ids)
            self.logged_out = tuple(each for each in self.logged_out if each != gone)
        elif isinstance(item, SessionFinding):
            self.at_high = tuple(each for each in self.at_high if each != item.mark)
        elif isinstance(item, UsedApp):
            self.apps -= {item.app_id}
        elif isinstance(item, RecordedContext):
            self.noted = tuple(each for each in self.noted if each != item.mark)
        elif isinstance(item, TrailNote) and self.trail is not None:
            self.trail.is_news = True
        self.answers.clear()

    def prove(self, key: str, at: datetime) -> None:
        """Note that a context has shown the key of the session."""
        self.proven = {**self.proven, key: at}

    def is_proven(self, key: str, now: datetime) -> bool:
        """Return whether a context of a key-bound session is believed to hold the key.

        Where the session began the key was just made, so that counts as a proof.
        """
        stand = self.stand_at(key)
        shown = self.proven.get(key)
        if shown is None and (not self.met or (stand and stand.state == StandState.ANCHOR)):
            shown = self.session.created_at
        return shown is not None and now - shown <= PROOF_LIFE

    def stand(self, stand: Stand, context: Context, *, is_pending: bool = False) -> None:
        """Note what was settled about a context; other answers may differ from now on.

        is_pending: it is still to be written.
        """
        key = stand.context_key
        is_first = not any(each.context for each in self.met.values())
        before = self.met.get(key)
        is_kept = stand.is_known or is_first or (before is not None and before.context is not None)
        self.met[key] = _met(stand, context if is_kept else None)
        if is_pending and key not in self.pending:
            self.pending += (key,)
        if len(self.met) > store.STANDS_MAX:
            self._make_room(is_known=stand.is_known)
        self.answers.clear()

    def _make_room(self, *, is_known: bool) -> None:
        """Forget the oldest of the stands that are known, or of the others; never the first.

        Those that the database would not be asked for either. A known context that is forgotten is
        judged as a new one, against the others.
        """
        alike = [each for each in self.met.values() if each.stand.is_known is is_known]
        first = _by_age(alike)[0].stand
        newest = sorted((each.stand for each in alike), key=lambda each: each.at, reverse=True)
        for gone in newest[store.STANDS_MAX :]:
            if gone is not first:
                del self.met[gone.context_key]
                self.written(gone.context_key)

    def written(self, key: str) -> None:
        """Note that nobody waits any more for a stand to be written."""
        self.pending = tuple(each for each in self.pending if each != key)

    def follow(self, before: Live) -> None:
        """Take over what only this process saw of the session, and what is still to be written.

        INVARIANT: nothing is waited for between this and the moment from which only this one hears
        what became of a stand. Else one that was refused would be taken over for good.
        """
        self.trail, self.apps = before.trail, shared(self.apps | before.apps)
        self.unopened = before.unopened
        self.learned, self.noted = before.learned, before.noted
        self.logged_out, self.at_high = before.logged_out, before.at_high
        self.pending = tuple(key for key in before.pending if key not in self.met)
        for key in self.pending:
            self.met[key] = before.met[key]

    def hear(self, told: TrailNote | None) -> None:
        """Take in how the session was used elsewhere.

        Its trail begins where it was accepted last, whichever process that was asked.
        """
        if self.trail is None:
            for stand, context in reversed(self.met.values()):
                if context is not None and stand.is_known:
                    self.trail = Trail(((spot_of(context), stand.at),))
                    break
        if told is not None:
            self.trail = self.trail or Trail()
            self.trail.hear(told)


def made(session: Session, found: Sequence[Stand], used: Collection[str]) -> Live:
    """Return a session as it is stored. found: its stands, the newest first; used: its apps."""
    apps = {*used, *([session.app_id] if session.app_id else [])}
    is_known = any(each.is_known for each in found)
    first = min((each for each in found if each.context and not is_known), key=_age, default=None)
    return Live(
        session=session,
        met={
            each.context_key: _met(
                each,
                restore_context(each.context, each.since)
                if each.context and (each.is_known or each is first)
                else None,
            )
            for each in reversed(found)
        },
        apps=shared(frozenset(apps)),
    )


def _age(stand: Stand) -> tuple[datetime, str]:
    """Return what puts stands in the order they were first settled in, everywhere the same."""
    return stand.since, stand.context_key


def _by_age(met: Iterable[Met]) -> list[Met]:
    return sorted(met, key=lambda each: _age(each.stand))


def _met(stand: Stand, context: Context | None) -> Met:
    return Met(stand.without_context(), None if context is None else kept_context(context))
