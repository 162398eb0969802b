"""Stored levels and their changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from risk.entities.model import Entity
from risk.model import Level, Pin

#: reasons to compute a level again
BY_TIME: Final = "time"
LINKED: Final = "linked"
#: what the change feed calls levels; refs are entities
LEVELS_KIND: Final = "levels"


def caps_of_tenant(
    caps: Mapping[tuple[str, str], Level | None], tenant_id: str
) -> dict[str, Level | None]:
    """Return of caps by (tenant, issuer) those of one tenant, by issuer. Raises nothing."""
    return {issuer: cap for (tenant, issuer), cap in caps.items() if tenant == tenant_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRecord:
    """The level of an entity as it was computed last."""

    tenant_id: str
    entity_id: str
    level: Level
    score: float
    reasons: tuple[str, ...]
    cause_ids: tuple[str, ...]
    computed_at: datetime

    def says_the_same(self, other: LevelRecord) -> bool:
        """Return whether only the time of computation differs. Raises nothing."""
        return (self.level, self.score, self.cause_ids, self.reasons) == (
            other.level,
            other.score,
            other.cause_ids,
            other.reasons,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """One change of a level. trace_id: of the signal or request behind it."""

    tenant_id: str
    history_id: str
    entity_id: str
    previous_level: Level
    level: Level
    at: datetime
    reasons: tuple[str, ...]
    cause_ids: tuple[str, ...]
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A user, with the level that was computed last and the pin; None: there is none."""

    user: Entity
    record: LevelRecord | None
    pin: Pin | None
