"""Values of the response side: apps, containments, tasks and what became of them. No I/O.

A **containment** is the open response to the causes that hold a user at a level. It is carried
out by **tasks**, one durable step each, in stages; every try of a task is an **attempt**.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Final

import msgspec

from actions.fronting import ForwardAuthSetting
from ssf.profile import FINAL

#: a stage waits for the one before it, but never longer than this (contracts §6)
STAGE_WAIT: Final = timedelta(milliseconds=500)
#: how long a step is tried before it is set aside as failed
TASK_DEADLINE: Final = timedelta(minutes=15)
NOTIFICATION_DEADLINE: Final = timedelta(hours=80)
#: blast-radius guard (contracts §6)
GUARD_WINDOW: Final = timedelta(minutes=10)
GUARD_FLOOR: Final = 3
GUARD_CEILING: Final = 25
GUARD_PER_CENT: Final = 2
#: bucket of tasks that the core process performs itself; no delivery process ever owns it
LOCAL_BUCKET: Final = -1
#: what the change feed calls containments; its refs are user ids
CONTAINMENTS_KIND: Final = "containments"
#: the cause that somebody asked for a logout; it ends when that was carried out, not by a judgement
REQUESTED: Final = "logout_requested"
CAUSES_MAX: Final = 200
#: begins the id of the logout of one session, which stands where tasks have their containment
SESSION_PREFIX: Final = "slo_"
DETAIL_CHARACTERS_MAX: Final = 500


class AppKind(StrEnum):
    """What a registered app is to the hub."""

    IDP = "idp"
    RP = "rp"
    GATEWAY = "gateway"


class LogoutMethod(StrEnum):
    """How an app is told to end a user's sessions."""

    GTR = "gtr"
    BCL = "bcl"
    SSF = "ssf"


class SCIMDialect(StrEnum):
    """How a SCIM server wants one member removed; requirement SCC-11."""

    FILTER = "filter"
    VALUE_ARRAY = "value-array"


class Action(StrEnum):
    """What a policy may order against a user."""

    QUARANTINE = "QUARANTINE"
    UNIVERSAL_LOGOUT = "UNIVERSAL_LOGOUT"
    NOTIFY = "NOTIFY"


#: actions that take something away from a user, which the blast-radius guard counts
DISRUPTIVE: Final = frozenset({Action.QUARANTINE, Action.UNIVERSAL_LOGOUT})


class ContainmentState(StrEnum):
    """Where a containment stands. HELD: the guard waits for a person; nothing was done."""

    OPEN = "open"
    HELD = "held"
    RESTORING = "restoring"
    CLOSED = "closed"


class TaskKind(StrEnum):
    """What one task does."""

    QUARANTINE_ADD = "quarantine_add"
    QUARANTINE_REMOVE = "quarantine_remove"
    IDP_LOGOUT = "idp_logout"
    APP_LOGOUT = "app_logout"
    PUBLISH_SESSION_REVOKED = "publish_session_revoked"
    NOTIFY = "notify"


class Stage(IntEnum):
    """The order of a containment: quarantine first, so that signing in again is denied."""

    QUARANTINE = 0
    IDP = 1
    APPS = 2
    PEOPLE = 3


class TaskState(StrEnum):
    """Where a task stands. FAILED is the dead-letter list; a person may retry or abandon it."""

    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Proof(StrEnum):
    """What the answer of the other side proves."""

    NOTHING = ""
    ACCEPTED = "accepted"
    EFFECTIVE = "effective"


class PlanOutcome(StrEnum):
    """What planning decided about one user."""

    NOTHING = "nothing"
    OPENED = "opened"
    ATTACHED = "attached"
    REOPENED = "reopened"
    HELD = "held"
    UPDATED = "updated"
    RESTORING = "restoring"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutSetting:
    """One way to log users out of an app. endpoint_url: absent for `ssf`, which uses a stream."""

    method: LogoutMethod
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SCIMSetting:
    """How to reach an IdP's group for quarantined users. The group is named by its id (SCC-19).

    user_attribute: how users are found there: `userName`, `emails.value`, `externalId` or `id`.
    """

    base_url: str
    quarantine_group_id: str
    dialect: SCIMDialect = SCIMDialect.FILTER
    user_attribute: str = "userName"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A party we log users out of; an IdP is an app of kind `idp`. Holds no secret.

    stream_profile: what its new streams begin with, a name of `ssf.profile.PROFILES`. forward_auth:
    how gateways guard it.
    """

    tenant_id: str
    app_id: str
    name: str
    kind: AppKind
    sensitivity: int
    subject_formats: tuple[str, ...]
    subject_issuer: str | None
    logout: tuple[LogoutSetting, ...]
    client_id_at_app: str | None
    issuer: str | None
    scim: SCIMSetting | None
    has_scim_token: bool
    status: str
    created_at: datetime
    updated_at: datetime
    stream_profile: str = FINAL.name
    forward_auth: ForwardAuthSetting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An endpoint that is told about containments. events: None for all. Holds no secret."""

    tenant_id: str
    webhook_id: str
    url: str
    events: tuple[str, ...] | None
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One detection that holds a user at a level; `summary` is a phrase for people."""

    detection_id: str
    name: str
    issuer: str
    summary: str
    attached_at: datetime | None = None
    cleared_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainmentOrder:
    """What the policy wants done about one user now.

    causes: every detection that holds the user at its present level; one that is missing here is
    taken as cleared. actions: names of `Action`; others are ignored. identifiers: RFC 9493 objects
    of the user. received_at: when the signal that led here was received. exempt: a break-glass
    user, whom an open containment lets go. hold: carry nothing out before a person approves.
    """

    tenant_id: str
    user_id: str
    trace_id: str
    level: str
    reasons: tuple[str, ...]
    causes: tuple[Cause, ...]
    actions: frozenset[str]
    identifiers: tuple[Mapping[str, object], ...]
    label: str
    received_at: datetime
    exempt: bool = False
    hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """An open (or past) response to a user's risk.

    round: how often tasks were ordered; a new cause starts a new round. enforced_at: when the
    first disruptive action was admitted by the guard.
    """

    tenant_id: str
    containment_id: str
    user_id: str
    state: ContainmentState
    level: str
    trace_id: str
    actions: frozenset[str]
    reasons: tuple[str, ...]
    identifiers: tuple[Mapping[str, object], ...]
    label: str
    round: int
    opened_at: datetime
    signal_received_at: datetime
    enforced_at: datetime | None
    closed_at: datetime | None

    @property
    def denies(self) -> bool:
        """Return whether the user is quarantined: sign-ins and sessions are to be denied."""
        return self.state is ContainmentState.OPEN and Action.QUARANTINE in self.actions


class TaskPayload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task has to know, and what it learned on the way.

    group_id, scim_user_id, was_member: the quarantine group, the user's id there, and whether the
    user was in it before us. INVARIANT: `was_member` is stored before the first change is sent, so
    that a crash in between cannot make our own member look like somebody else's (SCC-19).
    identifiers, reason: whom to publish session-revoked about and why; filled in when it is due.
    session: {iss, sid} of the one session that is logged out; None for all of the user.
    event_type, note, body: of a notification; the body is kept once it was sent, so that repeats
    under one webhook-id are equal.
    """

    method: str = ""
    format_index: int = 0
    group_id: str | None = None
    scim_user_id: str | None = None
    was_member: bool | None = None
    event_type: str = ""
    note: str = ""
    body: str | None = None
    identifiers: tuple[dict[str, Any], ...] = ()
    reason: str = ""
    session: dict[str, str] | None = None


class TaskResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a task.

    residual: what the user may still be able to use, in words. receipts: the streams that got the
    session-revoked event.
    """

    detail: str = ""
    status: int = 0
    residual: str = ""
    receipts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDraft:
    """A task that planning wants; it becomes a `Task` when it gets an id.

    target: what is shared with other tasks, such as `logout|app_…`: concurrency is limited per
    target. lane: what must stay in order.
    """

    kind: TaskKind
    stage: Stage
    target: str
    lane: str
    key: str
    payload: TaskPayload
    app_id: str | None = None
    webhook_id: str | None = None
    undo_of: str | None = None
    due_in: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One durable step of a containment. attempts_before: attempts made before the last retry."""

    tenant_id: str
    task_id: str
    containment_id: str
    round: int
    kind: TaskKind
    app_id: str | None
    webhook_id: str | None
    user_id: str
    stage: Stage
    target: str
    lane: str
    bucket: int
    idempotency_key: str
    state: TaskState
    attempts: int
    attempts_before: int
    due_at: datetime
    deadline_at: datetime
    payload: TaskPayload
    result: TaskResult
    proves: Proof
    created_at: datetime
    settled_at: datetime | None
    undo_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a task. status: HTTP status, 0 when there was no answer."""

    task_id: str
    attempt_number: int
    at: datetime
    duration_ms: float
    outcome: str
    status: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What `plan` did about one order. logs_out: a Universal Logout began, or began anew."""

    tenant_id: str
    user_id: str
    trace_id: str
    containment_id: str
    outcome: PlanOutcome
    tasks_enqueued: int
    logs_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task with its attempts and the name of its app or webhook."""

    task: Task
    target_name: str
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainmentView:
    """Who, what and why: a containment with its causes, its tasks and their receipts."""

    containment: Containment
    causes: tuple[Cause, ...]
    tasks: tuple[TaskView, ...]


def containments_max(users: int) -> int:
    """Return how many users of a tenant may be newly contained per GUARD_WINDOW.

    users: how many the tenant has. Raises nothing. Source: contracts §6 Guards.
    """
    return min(GUARD_CEILING, max(GUARD_FLOOR, users * GUARD_PER_CENT // 100))


def target_of_lane(lane: str) -> str:
    """Return the target a lane belongs to: the lane without its last part."""
    return lane.rpartition("|")[0]
