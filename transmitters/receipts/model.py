"""Which SETs are looked for, and which of them are sent again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ssf.errors import SubjectError
from ssf.events.registry import STREAM_EVENT_TYPES
from ssf.subject import Subject, matches, parse_subject
from transmitters.model import DeliveryState

#: SETs that one call sends again; there may be more, and the answer says so
SENT_AGAIN_MAX: Final = 1_000
#: SETs that one call looks at
LOOKED_AT_MAX: Final = 10_000
#: events whose deliveries are looked up when a `txn` is asked for
EVENTS_OF_TXN_MAX: Final = 500
#: processes whose clocks differ by less than this may write into one stream
CLOCKS_DIFFER_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """When SETs were issued, by their `iat`: from `since` on, and before `until`."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def first_s(self) -> int | None:
        """The smallest `iat` inside, in seconds since 1970."""
        return None if self.since is None else math.floor(self.since.timestamp())

    @property
    def end_s(self) -> int | None:
        """The smallest `iat` that is too late, in seconds since 1970."""
        return None if self.until is None else math.ceil(self.until.timestamp())

    def holds(self, iat: int) -> bool:
        """Return whether a SET issued at `iat` is inside."""
        return (self.first_s is None or iat >= self.first_s) and (
            self.end_s is None or iat < self.end_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptFilter:
    """Which deliveries of a tenant are listed; what is None does not count."""

    stream_id: str | None = None
    state: DeliveryState | None = None
    jti: str | None = None
    txn: str | None = None
    event_type: str | None = None
    period: Period = Period()


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """One SET of a stream that may be sent again."""

    jti: str
    iat: int
    state: DeliveryState
    event_type: str
    subjects: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which SETs of one stream to send again: all conditions hold; None and empty do not count.

    state: DEAD for a redrive, DELIVERED for a replay. subject: as if a receiver had added it.
    after: a jti to go on behind.
    """

    state: DeliveryState
    jti: str | None = None
    subject: Subject | None = None
    event_types: frozenset[str] = frozenset()
    period: Period = Period()
    after: str | None = None

    def takes(self, one: LookedAt) -> bool:
        """Return whether the SET is one of them.

        What was said about the stream itself is of its day: it is sent again only when asked for
        by name, else a receiver would hear of a pause that is long over.
        """
        if one.state is not self.state or not self.period.holds(one.iat):
            return False
        if self.event_types and one.event_type not in self.event_types:
            return False
        if one.event_type in STREAM_EVENT_TYPES:
            named = self.jti is not None or bool(self.event_types)
            if not named:
                return False
        return self.subject is None or any(
            _is_about(self.subject, subject) for subject in one.subjects
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SentAgain:
    """What one call did. after: the jti to go on behind when there may be more, else None."""

    count: int
    after: str | None


def _is_about(wanted: Subject, subject: Mapping[str, Any]) -> bool:
    try:
        return matches(wanted, parse_subject(subject))
    except SubjectError:
        # What cannot be read is about nobody in particular; it is found by its jti.
        return False
