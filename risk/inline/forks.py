"""Two clients that use one session in turns: noticed by where and by what it is used. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from risk.contexts.model import Context
from risk.model import Level

#: switches between two clients of one session that are remembered
TRAIL_MAX: Final = 8
FORK_WINDOW: Final = timedelta(minutes=10)
#: phones change between two networks too, but not all the time
FLAPPING_WINDOW: Final = timedelta(minutes=2)
FLAPS_MIN: Final = 6


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


@dataclass(slots=True)
class Trail:
    """The switches of a session between clients, newest last, and the worst that was seen."""

    switches: deque[tuple[Spot, datetime]] = field(default_factory=lambda: deque(maxlen=TRAIL_MAX))
    level: Level = Level.LOW

    def step(self, spot: Spot, at: datetime) -> bool:
        """Note where the session is used; return whether that made a fork of it, or a worse one."""
        if self.switches and self.switches[-1][0] == spot:
            return False
        self.switches.append((spot, at))
        found = fork_level(list(self.switches))
        if found <= self.level:
            return False
        self.level = found
        return True
