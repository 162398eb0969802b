"""What an answer means for a task, and what follows from it. Pure and total."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from actions.model import DETAIL_CHARACTERS_MAX, Proof, Task, TaskKind, TaskState
from runtime.backoff import Backoff
from runtime.errors import AddressBlocked, Unavailable

NO_ANSWER: Final = 0
CALL_BACKOFF: Final = Backoff(first_s=0.5, ceiling_s=60.0, attempts_max=30)
#: credentials are mended by people, who are slower than servers
CREDENTIALS_BACKOFF: Final = Backoff(first_s=30.0, ceiling_s=120.0, attempts_max=30)
#: waits before the second, third … try of a notification; requirement WH-8
NOTIFICATION_WAITS_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
NOTIFICATION_JITTER: Final = 0.1

#: statuses that say "not now": request timeout, too early, too many requests
_LATER: Final = frozenset({408, 425, 429})


class OutcomeClass(StrEnum):
    """The ways an attempt can end.

    ADVANCE: a step inside the task is done and its finding must be stored before the next one.
    NEXT_FORMAT: the app does not take this subject format. GONE: the endpoint asks to be left
    alone for good (HTTP 410 of a webhook).
    """

    DONE = "done"
    ADVANCE = "advance"
    NEXT_FORMAT = "next_format"
    TRANSIENT = "transient"
    CREDENTIALS = "credentials"
    PERMANENT = "permanent"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended. detail: for people, without secrets or subjects."""

    klass: OutcomeClass
    detail: str
    status: int = NO_ANSWER
    proves: Proof = Proof.NOTHING
    residual: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """The state a task moves to. due_at matters while it is queued."""

    state: TaskState
    due_at: datetime
    detail: str


_FIXED: Final = MappingProxyType(
    {
        401: (OutcomeClass.CREDENTIALS, "our credentials were refused (401)"),
        403: (OutcomeClass.CREDENTIALS, "our credentials lack the authority (403)"),
        501: (OutcomeClass.PERMANENT, "the other side does not support this (501)"),
    }
)


def classify_status(status: int, retry_after_s: float | None) -> Outcome:
    """Say what a failure status means where a protocol has no rule of its own.

    status: HTTP status, 0 when no answer came. Raises nothing: a 2xx that no protocol rule took is
    PERMANENT, because we do not know what it promises. Requirements GTR-12, SCC-17.
    """
    if status in _FIXED:
        klass, detail = _FIXED[status]
    elif status in _LATER or not 100 <= status < 500:  # noqa: PLR2004 - classes of RFC 9110 §15
        klass, detail = OutcomeClass.TRANSIENT, f"not available now ({status or 'no answer'})"
    elif 300 <= status < 400:  # noqa: PLR2004 - the same
        klass, detail = OutcomeClass.PERMANENT, f"a redirect, which is not followed ({status})"
    else:
        klass, detail = OutcomeClass.PERMANENT, f"refused ({status})"
    return Outcome(klass=klass, detail=detail, status=status, retry_after_s=retry_after_s)


def classify_failure(error: Unavailable) -> Outcome:
    """Say what it means that no answer came at all. Raises nothing."""
    # The guard's refusal comes from our own settings, so repeating the call changes nothing.
    blocked = isinstance(error, AddressBlocked)
    klass = OutcomeClass.PERMANENT if blocked else OutcomeClass.TRANSIENT
    return Outcome(klass=klass, detail=error.detail[:DETAIL_CHARACTERS_MAX])


def decide_next(task: Task, outcome: Outcome, *, now: datetime, jitter: float) -> NextStep:
    """Decide the state after an attempt: done, queued for later, or failed.

    jitter: uniform in [0, 1), drawn by the caller. Raises nothing: every outcome has one step.
    Source: threat-protection rules of retry to a deadline; requirements GTR-12, WH-8.
    """
    detail = outcome.detail[:DETAIL_CHARACTERS_MAX]
    if outcome.klass is OutcomeClass.DONE:
        return NextStep(state=TaskState.DONE, due_at=now, detail=detail)
    if outcome.klass is OutcomeClass.ADVANCE:
        return NextStep(state=TaskState.QUEUED, due_at=now, detail=detail)
    if outcome.klass not in {OutcomeClass.TRANSIENT, OutcomeClass.CREDENTIALS}:
        return NextStep(state=TaskState.FAILED, due_at=now, detail=detail)
    delay_s = _delay_s(task, outcome, jitter)
    if delay_s is not None and now + timedelta(seconds=delay_s) <= task.deadline_at:
        due_at = now + timedelta(seconds=delay_s)
        return NextStep(state=TaskState.QUEUED, due_at=due_at, detail=detail)
    gave_up = f"given up after {task.attempts + 1} attempts: {detail}"
    return NextStep(state=TaskState.FAILED, due_at=now, detail=gave_up[:DETAIL_CHARACTERS_MAX])


def _delay_s(task: Task, outcome: Outcome, jitter: float) -> float | None:
    made = task.attempts - task.attempts_before + 1
    if task.kind is TaskKind.NOTIFY:
        if made > len(NOTIFICATION_WAITS_S):
            return None
        wait_s = NOTIFICATION_WAITS_S[made - 1] * (1 + NOTIFICATION_JITTER * jitter)
        return max(wait_s, outcome.retry_after_s or 0.0)
    slow = outcome.klass is OutcomeClass.CREDENTIALS
    rule = CREDENTIALS_BACKOFF if slow else CALL_BACKOFF
    return rule.delay_s(made, jitter=jitter, retry_after_s=outcome.retry_after_s)


def with_status(outcome: Outcome, status: int) -> Outcome:
    """Return the outcome with the HTTP status it was read from. Raises nothing."""
    return replace(outcome, status=status)
