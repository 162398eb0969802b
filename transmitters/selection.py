"""Which SETs are pushed next: fair over streams, within their windows, one per lane.

    search ─▶ Selection ─▶ ReadAhead ─▶ at most a window of each stream
                             └─ the rest is kept a moment for the next places that become free

What is kept in memory was due when it was read, and whoever reads it owns its bucket. It is let
go soon, because streams are paused, changed and deleted by others.
"""

from __future__ import annotations

import operator
from collections import Counter as Tally
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from runtime.lanes import Busy
from transmitters.delivery.model import PushTarget, PushWork
from transmitters.silence import Silence

#: SETs that a search reads beyond those that there are places for
AHEAD_MAX: Final = 128
#: SETs of a failing stream that its next probe is chosen among
PROBES_READ: Final = 16
#: how long they are good for; as long as other processes may go by configuration they remember
AHEAD_S: Final = 0.25

_Stream = tuple[str, str]


def stream_of(target: PushTarget) -> _Stream:
    """Return what names the stream of a target."""
    return target.tenant_id, target.stream_id


class Places:
    """Places that streams have left in their windows, and beside what is silent.

    busy: lanes under way (see `runtime.lanes.Busy`); the stream is the first part of a lane.
    """

    def __init__(self, busy: Busy, silence: Silence, *, suspended: Collection[str]) -> None:
        self._suspended = suspended
        self._taken = Tally(_stream_id(lane) for lane, has_place in busy.items() if has_place)
        self._doubtful = silence.now(busy)

    def has_room(self, target: PushTarget) -> bool:
        """Tell whether one more SET may go out over the stream."""
        if target.tenant_id in self._suspended:
            return False
        if self._taken[target.stream_id] >= target.window:
            return False
        return self._doubtful.leaves_room(target)

    def take(self, target: PushTarget) -> None:
        """Give a place of the stream away."""
        self._taken[target.stream_id] += 1
        if target.failures:
            self._doubtful.add(target)


class Selection:
    """Gathers what a search finds: no busy lane, no lane twice, little of each stream."""

    def __init__(self, *, limit: int, busy: Collection[str], places: Places) -> None:
        self._works: list[PushWork] = []
        self._limit = limit
        self._share = limit
        self._busy_of = Tally(map(_stream_id, busy))
        #: lanes at work, and those of which a SET was found
        self.lanes = set(busy)
        self._places = places
        self._of_stream: Tally[str] = Tally()

    def is_full(self) -> bool:
        """Tell whether enough was found."""
        return len(self._works) >= self._limit

    def among(self, targets: Sequence[PushTarget]) -> list[PushTarget]:
        """Return the streams of which SETs are of use; they share what is wanted."""
        waiting = [target for target in targets if self._places.has_room(target)]
        self._share = -(-self._limit // max(len(waiting), 1))
        return waiting

    def rows_of(self, targets: Sequence[PushTarget]) -> int:
        """As many as are wanted of each, and those that turn out to be under way: they are due."""
        fails = any(target.failures for target in targets)
        wanted = max(self._share, PROBES_READ) if fails else self._share
        return wanted + max(self._busy_of[target.stream_id] for target in targets)

    def take(self, due: Sequence[PushWork]) -> None:
        """Take those that may go out now or soon."""
        for work in _in_order(due):
            if self.is_full():
                return
            if work.lane in self.lanes or self._has_share(work.target):
                continue
            self.lanes.add(work.lane)
            self._of_stream[work.target.stream_id] += 1
            self._works.append(work)

    def in_turn(self) -> list[PushWork]:
        """Return what was found, the first SETs of all streams before the second ones.

        A receiver then gets few at once while others wait, and needs few connections.
        """
        turns: Tally[str] = Tally()
        numbered = []
        for work in self._works:
            numbered.append((turns[work.target.stream_id], work))
            turns[work.target.stream_id] += 1
        # Stable: among the first ones the order is that of the search.
        numbered.sort(key=operator.itemgetter(0))
        return [work for _, work in numbered]

    def _has_share(self, target: PushTarget) -> bool:
        # A stream that fails is probed; what would follow is not worth remembering.
        share = target.window if target.failures else self._share
        return self._of_stream[target.stream_id] >= share


class ReadAhead:
    """SETs that were found due and have not been started.

    mark: changes when any configuration did; then nothing that was read before is good.
    """

    def __init__(self, mark: Callable[[], int]) -> None:
        self._mark = mark
        self._works: list[PushWork] = []
        self._read_at: datetime | None = None
        self._read_under = mark()
        self._order: dict[_Stream, int] = {}
        self._reached = -1

    @property
    def is_empty(self) -> bool:
        """Whether nothing is remembered."""
        return not self._works

    def keep(self, found: Sequence[PushWork], *, read_at: datetime, mark: int) -> None:
        """Remember what a search found, in turn, in place of what was remembered before."""
        self._works, self._read_at, self._read_under = list(found), read_at, mark
        self._order = _places_of(found)
        self._reached = -1

    def reached(self, works: Sequence[PushWork]) -> _Stream | None:
        """Return the stream that the round got to with `works`, None when it was further before."""
        stream = max((stream_of(work.target) for work in works), key=self._order.__getitem__)
        if self._order[stream] <= self._reached:
            return None
        self._reached = self._order[stream]
        return stream

    def forget_stream(self, stream: _Stream) -> None:
        """Let go of what is remembered of one stream, because it is in trouble."""
        self._works = [work for work in self._works if stream_of(work.target) != stream]

    def take(self, limit: int, *, now: datetime, busy: Busy, places: Places) -> list[PushWork]:
        """Return what may go out now, at most `limit`, and remember the others."""
        if not self._works or not self._is_good(now):
            self._works = []
            return []
        taken: list[PushWork] = []
        left: list[PushWork] = []
        for place, work in enumerate(self._works):
            if len(taken) >= limit:
                left += self._works[place:]
                break
            if work.lane in busy:
                continue
            if places.has_room(work.target):
                places.take(work.target)
                taken.append(work)
            else:
                left.append(work)
        self._works = left
        return taken

    def _is_good(self, now: datetime) -> bool:
        if self._read_at is None or self._read_under != self._mark():
            return False
        return timedelta(0) <= now - self._read_at <= timedelta(seconds=AHEAD_S)


def _in_order(due: Sequence[PushWork]) -> list[PushWork]:
    """Of a failing stream the SET that was tried least is its probe, else the oldest goes first.

    One SET that its receiver fails at, or hangs on, would be the probe for good: it is the oldest.
    """
    places = _places_of(due)
    return sorted(
        due,
        key=lambda work: (
            places[stream_of(work.target)],
            work.pending.attempts if work.target.failures else 0,
        ),
    )


def _places_of(works: Sequence[PushWork]) -> dict[_Stream, int]:
    """Number the streams of works in the order they come in."""
    streams = dict.fromkeys(stream_of(work.target) for work in works)
    return {stream: place for place, stream in enumerate(streams)}


def _stream_id(lane: str) -> str:
    return lane.partition("|")[0]
