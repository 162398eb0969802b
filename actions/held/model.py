"""A logout of one session that waits for a person. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

#: whatever became of it, and also when nobody decided: longer than sessions live
HELD_LIFE: Final = timedelta(days=30)


class HeldState(StrEnum):
    """Where a held logout stands."""

    HELD = "held"
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLogout:
    """One logout that the guard held back.

    order_key: the same for the same session, context and apps. app_ids: only there; None:
    everywhere the session is known. settled_by: who decided.
    """

    tenant_id: str
    held_id: str
    order_key: str
    user_id: str
    session_id: str
    iss: str
    sid: str
    context_key: str
    app_ids: tuple[str, ...] | None
    reasons: tuple[str, ...]
    trace_id: str
    state: HeldState
    held_at: datetime
    settled_at: datetime | None = None
    settled_by: str | None = None
