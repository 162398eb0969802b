"""Stored levels and their changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from risk.model import Level

#: reasons to compute a level again
BY_TIME: Final = "time"
LINKED: Final = "linked"


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
