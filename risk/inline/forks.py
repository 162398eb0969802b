"""By whom a session is used over time: the switches between its clients, and the forks they show.

    request ─▶ step ─▶ this process's switches ─▶ SHARE_TRAIL ─▶ change feed ─▶ every other process

A cookie that somebody copied is seen by its being used in turns, whichever process is asked. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from risk.contexts.model import Context
from risk.model import Level

#: switches between two clients of one session that are remembered
TRAIL_MAX: Final = 8
FORK_WINDOW: Final = timedelta(minutes=10)
#: phones change between two networks too, but not all the time
FLAPPING_WINDOW: Final = timedelta(minutes=2)
FLAPS_MIN: Final = 6
#: how often one process tells of one session at most
TOLD_EVERY: Final = timedelta(milliseconds=250)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where and by what a session was used, as far as two users of it can be told apart."""

    device: str
    family: str
    os_family: str
    asn: int | None


def spot_of(context: Context) -> Spot:
    """Return the spot of a context. Raises nothing."""
    return Spot(
        context.device_token_hash or context.device_id,
        context.ua_family,
        context.os_family,
        context.record.asn,
    )


def fork_level(trail: Sequence[tuple[Spot, datetime]]) -> Level:
    """Return how bad it is that a session is used in turns; LOW: it is not.

    trail: the switches, oldest first. HIGH when two devices take turns, MEDIUM when two kinds of
    client in two networks do, or one client flaps between networks faster than anybody travels.
    Raises nothing.
    """
    worst = Level.LOW
    for place in range(2, len(trail)):
        (first, since), (second, _), (third, until) = trail[place - 2 : place + 1]
        if first != third or until - since > FORK_WINDOW:
            continue
        if first.device and second.device and first.device != second.device:
            return Level.HIGH
        if (first.family, first.os_family) != (second.family, second.os_family) and (
            first.asn != second.asn
        ):
            worst = Level.MEDIUM
    if len(trail) >= FLAPS_MIN and trail[-1][1] - trail[-FLAPS_MIN][1] <= FLAPPING_WINDOW:
        asns = {spot.asn for spot, _ in list(trail)[-FLAPS_MIN:]}
        if len(asns) > 1:
            worst = Level.MEDIUM
    return worst


class TrailNote(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session's use, as it is stored and travels to the writer."""

    tenant_id: str
    session_id: str
    level: str
    switches: tuple[tuple[Spot, datetime], ...]

    @property
    def at(self) -> datetime:
        """When the last switch was."""
        return self.switches[-1][1]


@dataclass(slots=True)
class Trail:
    """The switches of a session between clients, newest last, and the worst that was seen.

    is_news: whether the other processes are to hear of it. told_at: when they last did.
    """

    switches: tuple[tuple[Spot, datetime], ...] = ()
    level: Level = Level.LOW
    is_news: bool = False
    told_at: datetime | None = None

    def step(self, spot: Spot, at: datetime) -> bool:
        """Note where the session is used; return whether that made a fork of it, or a worse one."""
        if self.switches and self.switches[-1][0] == spot:
            return False
        self.is_news = bool(self.switches)
        self.switches = (*self.switches, (spot, at))[-TRAIL_MAX:]
        found = fork_level(self.switches)
        if found <= self.level:
            return False
        self.level = found
        return True

    def news(self, tenant_id: str, session_id: str, now: datetime) -> TrailNote | None:
        """Return what the other processes are to hear now; None: nothing, or not yet."""
        if not self.is_news or (self.told_at is not None and now - self.told_at < TOLD_EVERY):
            return None
        self.is_news, self.told_at = False, now
        return TrailNote(
            tenant_id=tenant_id,
            session_id=session_id,
            level=self.level.name,
            switches=self.switches,
        )

    def hear(self, note: TrailNote) -> None:
        """Take in what other processes saw. Raises nothing."""
        self.switches = joined([*self.switches, *note.switches])
        self.level = max(self.level, Level[note.level], fork_level(self.switches))

    def known(self, spot: Spot) -> Spot:
        """Return the spot as it is kept here, where it is the last one. Raises nothing."""
        last = self.switches[-1][0] if self.switches else spot
        return last if last == spot else spot


def joined(switches: Iterable[tuple[Spot, datetime]]) -> tuple[tuple[Spot, datetime], ...]:
    """Return the last switches of several processes as those of one. Raises nothing."""
    found: list[tuple[Spot, datetime]] = []
    for spot, at in sorted(switches, key=lambda each: each[1]):
        if not found or found[-1][0] != spot:
            found.append((spot, at))
    return tuple(found[-TRAIL_MAX:])


def both(known: TrailNote | None, told: TrailNote) -> TrailNote:
    """Return what is stored of a session's use with what one process tells. Raises nothing."""
    if known is None:
        return told
    trail = Trail(told.switches, Level[told.level])
    trail.hear(known)
    return msgspec.structs.replace(told, level=trail.level.name, switches=trail.switches)


def render_switches(switches: Sequence[tuple[Spot, datetime]]) -> Any:
    """Return switches as JSON. Raises nothing."""
    return msgspec.to_builtins(switches)


def restore_switches(stored: Any) -> tuple[tuple[Spot, datetime], ...]:
    """Return switches from what `render_switches` made."""
    return msgspec.convert(stored, tuple[tuple[Spot, datetime], ...])
