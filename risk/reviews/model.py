"""Why a session is judged without a request. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

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


#: noted by sweeps, which count them; their trace is the sweep
SWEPT: Final = frozenset({ReviewCause.POLICY, ReviewCause.ZONE})
#: what people edit: there may be many, and everything else comes first
EDITS: Final = SWEPT | {ReviewCause.GROUPS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One look at one session.

    old, new: of what changed. context: where it was seen, as contexts are stored; {} to judge it in
    the context it was accepted in. told_by: who says so.
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
