"""How much a stream holds and for how long, how long receipts are kept, when silence counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from transmitters.model import Stream

#: rows that one transaction of the upkeep changes
BATCH_ROWS: Final = 500
#: transactions per tenant and round; what is left waits for the next one
BATCHES_MAX: Final = 200
#: pending SETs that one statement steps over when a stream's are counted
HOP_ROWS: Final = 10_000
#: streams that are paused for silence in one transaction
IDLE_STREAMS_MAX: Final = 50
#: an event and its deliveries are made within this, whatever the clocks of processes say
MADE_WITHIN_S: Final = 60
#: activity is written down at most this often: per stream, as a share of its time-out …
ACTIVITY_SHARE: Final = 1 / 16
#: … and at most once in this long
ACTIVITY_EVERY_S_MAX: Final = 3_600.0

HELD_TOO_LONG: Final = "held_too_long"
HELD_TOO_MANY: Final = "held_too_many"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator may set. sets_max, age_max_s: of what one stream holds undelivered.

    settled_max_s: how long receipts and dead letters stay. inactivity_timeout_s: None means that
    no stream is paused because its receiver is silent.
    """

    sets_max: int
    age_max_s: float
    settled_max_s: float
    inactivity_timeout_s: int | None = None


def activity_every_s(timeout_s: float) -> float:
    """Return how often activity is written down: polls must not cost a write each."""
    return min(timeout_s * ACTIVITY_SHARE, ACTIVITY_EVERY_S_MAX)


def is_news(stream: Stream, timeout_s: float | None, now: datetime) -> bool:
    """Return whether activity of the receiver is to be written down now (SSF-CFG-11)."""
    if timeout_s is None:
        return False
    known = stream.active_at
    return known is None or (now - known).total_seconds() >= activity_every_s(timeout_s)


def silent_since(timeout_s: float, now: datetime) -> datetime:
    """Return the last written activity that is too old: never too early for what was not written.

    Source: SSF 1.0 §8.1.1; requirements SSF-CFG-10, SSF-CFG-11.
    """
    return now - timedelta(seconds=timeout_s + activity_every_s(timeout_s))
