"""From an attempt's outcome to the task's next state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.model import Task, TaskKind, TaskState
from actions.outcomes import (
    NOTIFICATION_WAITS_S,
    Outcome,
    OutcomeClass,
    classify_failure,
    classify_status,
    decide_next,
)
from actions.planning import decide
from runtime.errors import AddressBlocked, TimedOut
from tests.actions import kit


def task(**changes: Any) -> Task:
    decision = decide(
        kit.order(), None, registry=kit.REGISTRY, admitted=True, containment_id="c", now=kit.NOW
    )
    assert decision.containment is not None
    made = next(
        one
        for one in kit.tasks_of(decision.drafts, decision.containment)
        if one.kind is TaskKind.APP_LOGOUT
    )
    return replace(made, **changes)


def later(klass: OutcomeClass = OutcomeClass.TRANSIENT, **changes: Any) -> Outcome:
    return Outcome(klass=klass, detail="not now", **changes)


@pytest.mark.parametrize(
    ("klass", "state"),
    [
        (OutcomeClass.DONE, TaskState.DONE),
        (OutcomeClass.ADVANCE, TaskState.QUEUED),
        (OutcomeClass.TRANSIENT, TaskState.QUEUED),
        (OutcomeClass.CREDENTIALS, TaskState.QUEUED),
        (OutcomeClass.PERMANENT, TaskState.FAILED),
        (OutcomeClass.NEXT_FORMAT, TaskState.FAILED),
        (OutcomeClass.GONE, TaskState.FAILED),
    ],
)
def test_each_outcome_leads_to_one_state(klass: OutcomeClass, state: TaskState) -> None:
    assert decide_next(task(), later(klass), now=kit.NOW, jitter=0.5).state is state


def test_trouble_backs_off_from_half_a_second() -> None:
    waits = [
        (decide_next(task(attempts=made), later(), now=kit.NOW, jitter=1.0).due_at - kit.NOW)
        for made in (0, 1, 2, 20)
    ]

    assert waits == [timedelta(seconds=seconds) for seconds in (0.5, 1, 2, 60)]


def test_refused_credentials_are_retried_slowly() -> None:
    step = decide_next(task(), later(OutcomeClass.CREDENTIALS), now=kit.NOW, jitter=0.0)

    assert step.due_at - kit.NOW == timedelta(seconds=15)


def test_a_wait_the_other_side_asks_for_is_kept() -> None:
    step = decide_next(task(), later(retry_after_s=42.0), now=kit.NOW, jitter=0.0)

    assert step.due_at - kit.NOW == timedelta(seconds=42)


def test_beyond_the_deadline_a_task_fails_with_its_reason() -> None:
    spent = task(attempts=6, deadline_at=kit.NOW)

    step = decide_next(spent, later(), now=kit.NOW, jitter=0.5)

    assert step.state is TaskState.FAILED
    assert step.detail == "given up after 7 attempts: not now"


def test_a_retried_task_has_a_new_budget() -> None:
    spent = task(attempts=40)

    assert decide_next(spent, later(), now=kit.NOW, jitter=0).state is TaskState.FAILED
    again = replace(spent, attempts_before=40)
    assert decide_next(again, later(), now=kit.NOW, jitter=0).state is TaskState.QUEUED


@pytest.mark.requirement("WH-8")
def test_a_notification_is_retried_over_days() -> None:
    told = task(kind=TaskKind.NOTIFY, deadline_at=kit.NOW + timedelta(days=30))
    steps = [
        decide_next(replace(told, attempts=made), later(), now=kit.NOW, jitter=0.0)
        for made in range(len(NOTIFICATION_WAITS_S) + 1)
    ]

    waits = [(step.due_at - kit.NOW).total_seconds() for step in steps[:-1]]
    assert waits == list(NOTIFICATION_WAITS_S)
    assert steps[-1].state is TaskState.FAILED


def test_a_blocked_address_is_not_tried_again() -> None:
    assert classify_failure(AddressBlocked("private address")).klass is OutcomeClass.PERMANENT
    assert classify_failure(TimedOut("slow")).klass is OutcomeClass.TRANSIENT


@given(
    klass=st.sampled_from(OutcomeClass),
    made=st.integers(0, 100),
    wait=st.none() | st.floats(0, 86_400),
    jitter=st.floats(0, 1, exclude_max=True),
    kind=st.sampled_from(TaskKind),
)
def test_every_outcome_has_a_next_step_within_the_deadline(
    klass: OutcomeClass, made: int, wait: float | None, jitter: float, kind: TaskKind
) -> None:
    one = task(attempts=made, kind=kind)

    step = decide_next(one, later(klass, retry_after_s=wait), now=kit.NOW, jitter=jitter)

    assert step.due_at >= kit.NOW
    assert step.state is not TaskState.QUEUED or step.due_at <= one.deadline_at


@given(status=st.integers(-1000, 1000))
def test_every_status_has_a_class(status: int) -> None:
    assert classify_status(status, None).klass in {
        OutcomeClass.TRANSIENT,
        OutcomeClass.CREDENTIALS,
        OutcomeClass.PERMANENT,
    }
