"""Why a session is judged without a request. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec
from typing_extensions import override

from risk.contexts.model import DEVICE_CAUSE
from risk.sessions.model import Session
from runtime.ids import new_id


class ReviewCause(StrEnum):
    """What made somebody look."""

    #: a provider told another posture of the device
    DEVICE = DEVICE_CAUSE
    #: a provider saw the session in use
    PRESENTED = "session.presented"
    #: a policy was edited
    POLICY = "policy.change"
    #: a zone was edited
    ZONE = "zone.change"
    #: its user is in other groups now
    GROUPS = "groups.change"
    #: the level of its user or device moved
    LEVEL = "level.change"
    #: whatever another release notes and this one does not know: nothing it could judge by
    UNKNOWN = "unknown"

    @classmethod
    @override
    def _missing_(cls, _value: object) -> ReviewCause:
        """Return what stands for every cause of another release."""
        return cls.UNKNOWN


#: noted by sweeps, which count them; their trace is the sweep
SWEPT: Final = frozenset({ReviewCause.POLICY, ReviewCause.ZONE})
#: what people edit: there may be many, and everything else comes first
EDITS: Final = SWEPT | {ReviewCause.GROUPS}
#: how often a review is tried that fails; with the waits between a quarter of an hour
ATTEMPTS_MAX: Final = 12
#: the first failure is tried again at once, the next after this time, and twice as long each time
AGAIN_AFTER: Final = timedelta(seconds=1)
AGAIN_AFTER_MAX: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One look at one session.

    old, new: of what changed. context: where it was seen, as contexts are stored; {} to judge it in
    the context it was accepted in. told_by: who says so. attempts: that failed. due_at: when it is
    its turn; None: since `at`.
    """

    tenant_id: str
    review_id: str
    session_id: str
    iss: str
    sid: str
    cause: ReviewCause
    trace_id: str
    at: datetime
    old: Mapping[str, str] = field(default_factory=dict)
    new: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    told_by: str = ""
    attempts: int = 0
    due_at: datetime | None = None


class ReviewPutOff(msgspec.Struct, frozen=True, kw_only=True):
    """A review that failed and is tried again, as it travels to the writer.

    attempts: that failed so far.
    """

    tenant_id: str
    review_id: str
    attempts: int
    due_at: datetime


class ReviewDone(msgspec.Struct, frozen=True, kw_only=True):
    """A review that was made, as it travels to the writer.

    sweep_id: of the sweep that wanted it, "" without. acted, would_have: whether policy decided
    something, or held it back.
    """

    tenant_id: str
    review_id: str
    sweep_id: str = ""
    acted: bool = False
    would_have: bool = False


def put_off(review: Review, now: datetime) -> ReviewPutOff | None:
    """Return when a review that just failed is tried again; None: often enough. Raises nothing."""
    attempts = review.attempts + 1
    if attempts >= ATTEMPTS_MAX:
        return None
    wait = AGAIN_AFTER * 2 ** (attempts - 2) if attempts > 1 else timedelta()
    return ReviewPutOff(
        tenant_id=review.tenant_id,
        review_id=review.review_id,
        attempts=attempts,
        due_at=now + min(wait, AGAIN_AFTER_MAX),
    )


def new_review(session: Session, cause: ReviewCause, **about: Any) -> Review:
    """Return a review of a session. about: the other members. Raises nothing."""
    return Review(
        tenant_id=session.tenant_id,
        review_id=new_id("rvw"),
        session_id=session.session_id,
        iss=session.iss,
        sid=session.sid,
        cause=cause,
        **about,
    )
