"""A reminder of a user who is at HIGH for long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

#: HIGH never ages: after so long somebody has to look (threat model §1.3)
STAGES: Final = (timedelta(hours=24), timedelta(hours=72))
REMINDED_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminder:
    """One user to look at. reminder_id: of the change to HIGH and the stage. since: HIGH."""

    reminder_id: str
    user_id: str
    since: datetime
    stage: timedelta
    at: datetime

    @property
    def hours(self) -> int:
        """The stage in hours."""
        return int(self.stage.total_seconds()) // 3600


def stage_mark(stage: timedelta) -> str:
    """Return what the id of a reminder ends with. Raises nothing."""
    return f":{int(stage.total_seconds()) // 3600}"
