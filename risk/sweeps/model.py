"""What a sweep is. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

#: looked at in one step: few enough that nobody waits for it
USERS_MAX: Final = 64
#: rows of the index of sessions that one step reads; those that are over cost nothing more
SESSIONS_MAX: Final = 256
#: reviews that wait, beyond which a sweep adds no more: signals' own reviews come through
WAITING_MAX: Final = 128
CAUSE_CHARS_MAX: Final = 200
#: how the cause of a sweep after an edit of a zone begins; its id follows
ZONE_CAUSE: Final = "zone:"


class SweepKind(StrEnum):
    """Whom a sweep judges again."""

    #: live sessions: policies of sessions and apps
    SESSIONS = "sessions"
    #: users above LOW: the entity risk policy
    USERS = "users"


class SweepState(StrEnum):
    """Whether there is more to look at."""

    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The last sweep of one kind. A newer edit begins it anew, so that there is one at most.

    after: the id that was looked at last. cause: what was edited. looked, acted, would_have:
    sessions or users, counted as they were judged: for acted policy decided something, for
    would_have it held something back. worked_at: of the last step, for taking turns.
    """

    tenant_id: str
    kind: SweepKind
    sweep_id: str
    cause: str
    state: SweepState
    requested_at: datetime
    worked_at: datetime
    after: str = ""
    looked: int = 0
    acted: int = 0
    would_have: int = 0
    done_at: datetime | None = None
