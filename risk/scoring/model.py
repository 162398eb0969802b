"""What a scorer is given and what it gives back. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from risk.model import Level
from risk.networks.model import NO_RECORD, IPRecord

#: values of behaviours, as practitioners know them (threat model §3.1)
POSITIVE: Final = "POSITIVE"
NEGATIVE: Final = "NEGATIVE"
UNKNOWN: Final = "UNKNOWN"
BAD_REQUEST: Final = "BAD_REQUEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """All that a score may depend on.

    changes: classes of change since the session's anchor (`risk.contexts`), in any order and case;
    none for a sign-in. behaviours: name to POSITIVE, NEGATIVE, UNKNOWN or BAD_REQUEST. familiar,
    peer_familiar, org_familiar: dimensions (`risk.baselines`) in which what is seen is well known
    of this user, of members of a group of theirs, or of the tenant's users. is_learning,
    org_is_learning: too little is known to speak of novelty. hour: of the week, UTC, 0 to 167.
    failures: sign-ins that failed of late, of this user or from this address. ip_reasons: who
    reported the address, as codes.
    """

    changes: tuple[str, ...] = ()
    behaviours: Mapping[str, str] = field(default_factory=dict)
    record: IPRecord = NO_RECORD
    ip_level: Level = Level.LOW
    ip_reasons: tuple[str, ...] = ()
    user_level: Level = Level.LOW
    device_level: Level = Level.LOW
    familiar: frozenset[str] = frozenset()
    peer_familiar: frozenset[str] = frozenset()
    org_familiar: frozenset[str] = frozenset()
    is_learning: bool = False
    org_is_learning: bool = True
    hour: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """One part of a score. name: a code; points: signed; reason: one sentence for people."""

    name: str
    points: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How unlike the person it is.

    INVARIANT: value is the sum of the contributions' points. contributions: the weightiest first.
    reasons: codes of what raised the score. scorer: name and version of who said so.
    """

    value: float
    level: Level
    contributions: tuple[Contribution, ...]
    reasons: tuple[str, ...]
    scorer: str


class Scorer(Protocol):
    """Whoever sits in the seat."""

    @property
    def name(self) -> str:
        """Name and version, as in `rules/1`; part of every answer."""
        ...

    def score(self, features: Features) -> Score:
        """Return the score. Raises nothing, waits for nothing."""
        ...
