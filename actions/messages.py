"""What people are told about a containment: a notification's JSON body. Pure.

`message` is for the people who watch over the service: who, why, what was done. `user_message` is
for the user, in plain words and without internals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from actions.model import (
    DISRUPTIVE,
    Action,
    Cause,
    Containment,
    LogoutMethod,
    Proof,
    Task,
    TaskKind,
    TaskState,
)
from actions.webhook import BODY_BYTES_MAX


class Event(StrEnum):
    """The notification types of this package; requirement WH-9."""

    OPENED = "containment.opened"
    UPDATED = "containment.updated"
    CLOSED = "containment.closed"
    QUARANTINED = "provider.quarantined"
    SILENT = "upstream.silent"
    UNRESOLVED = "risk.unresolved"
    ALERTED = "policy.alerted"
    SPARED = "break_glass.spared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a story is told: numbers of items, and characters of their texts."""

    actions: int
    told: int
    causes: int
    name_characters: int
    summary_characters: int


FULL: Final = Limits(actions=40, told=15, causes=10, name_characters=80, summary_characters=200)
#: at six octets per character (JSON's longest escape) still far below 20 kB
SHORT: Final = Limits(actions=3, told=3, causes=3, name_characters=30, summary_characters=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One task as people see it. target_name: the app or identity provider."""

    task: Task
    target_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything one notification is told from. note: what an update is about."""

    event: Event
    happened_at: datetime
    containment: Containment
    causes: tuple[Cause, ...]
    steps: tuple[Step, ...]
    note: str = ""


def render_notification(story: Story) -> bytes:
    """Return the JSON body, below 20 kB whatever the story holds. Requirement WH-6."""
    body = msgspec.json.encode(_document(story, FULL))
    if len(body) >= BODY_BYTES_MAX:
        # Long texts in scripts of many octets per character.
        body = msgspec.json.encode(_document(story, SHORT))
    return body


def _document(story: Story, limits: Limits) -> dict[str, Any]:
    containment = story.containment
    steps = [step for step in story.steps if step.task.kind is not TaskKind.NOTIFY]
    return {
        "type": story.event.value,
        "timestamp": _iso(story.happened_at),
        "data": {
            "containment_id": containment.containment_id,
            "user_id": containment.user_id,
            "label": _short(containment.label, limits.name_characters),
            "state": containment.state.value,
            "level": containment.level,
            "trace_id": containment.trace_id,
            "opened_at": _iso(containment.opened_at),
            "signal_received_at": _iso(containment.signal_received_at),
            "closed_at": _iso(containment.closed_at) if containment.closed_at else None,
            "causes": [_render_cause(cause, limits) for cause in story.causes[: limits.causes]],
            "actions": [_render_step(step, limits) for step in steps[: limits.actions]],
            "message": message(story, limits),
            "user_message": user_message(story, limits),
        },
    }


def message(story: Story, limits: Limits = FULL) -> str:
    """Return the text for the people who watch: who, why, what was done."""
    who = _short(story.containment.label, limits.name_characters) or story.containment.user_id
    done = _done_text(story.steps, limits)
    match story.event:
        case Event.OPENED:
            why = _why(_active(story.causes), limits)
            what = "is contained" if story.containment.actions & DISRUPTIVE else "needs a look"
            return f"{who} {what}: risk {story.containment.level}{why}. {done}"
        case Event.UPDATED:
            why = _why(_active(story.causes), limits)
            note = _short(story.note, limits.summary_characters * 2)
            return f"{who}: {note} The containment stays open{why}. {done}".replace("  ", " ")
        case _:
            why = _why(story.causes, limits)
            return (
                f"{who} is no longer contained: everything that led to it is cleared{why}. {done}"
            )


def user_message(story: Story, limits: Limits = FULL) -> str:
    """Return the text for the user: one short, plain paragraph, no internals."""
    match story.event:
        case Event.OPENED | Event.UPDATED:
            cause = _first_summary(_active(story.causes), limits)
            return (
                f"We saw a sign that your account may be at risk{cause}."
                f"{_consequence(story.containment)} Your security team can help."
            )
        case _:
            solved = "The problem that put your account at risk is solved."
            if not story.containment.actions & DISRUPTIVE:
                return solved
            return f"{solved} Your access is restored; please sign in again."


def _consequence(containment: Containment) -> str:
    parts = []
    if Action.UNIVERSAL_LOGOUT in containment.actions:
        parts.append("you were signed out everywhere")
    if Action.QUARANTINE in containment.actions:
        parts.append("access is paused until the problem is solved, then it comes back by itself")
    return f" To protect you, {' and '.join(parts)}." if parts else ""


def describe(step: Step, limits: Limits = FULL) -> str:
    """Return one step as a clause, with what it proves or why it failed."""
    name = _short(step.target_name, limits.name_characters)
    task = step.task
    what = _WHAT[task.kind].format(name=name)
    if task.state is TaskState.DONE:
        how = " (effective)" if task.proves is Proof.EFFECTIVE else ""
        return f"{what}{how}"
    if task.state is TaskState.FAILED:
        return f"FAILED: {what}: {_short(task.result.detail, limits.summary_characters)}"
    state = "cancelled" if task.state is TaskState.CANCELLED else "under way"
    return f"{what} ({state})"


_WHAT: Final = {
    TaskKind.QUARANTINE_ADD: "put into quarantine at {name}",
    TaskKind.QUARANTINE_REMOVE: "taken out of quarantine at {name}",
    TaskKind.IDP_LOGOUT: "sessions ended at {name}",
    TaskKind.APP_LOGOUT: "logged out of {name}",
    TaskKind.PUBLISH_SESSION_REVOKED: "session-revoked sent to all streams",
    TaskKind.NOTIFY: "told {name}",
}


def _done_text(steps: Sequence[Step], limits: Limits) -> str:
    told = [step for step in steps if step.task.kind is not TaskKind.NOTIFY]
    told = [step for step in told if step.task.state is not TaskState.CANCELLED]
    if not told:
        return "Nothing had to be changed."
    more = f", and {len(told) - limits.told} more" if len(told) > limits.told else ""
    clauses = [describe(step, limits) for step in told[: limits.told]]
    return "Done: " + "; ".join(clauses) + more + "."


def _why(causes: Sequence[Cause], limits: Limits) -> str:
    if not causes:
        return ""
    told = [_short(cause.summary or cause.name, limits.summary_characters) for cause in causes]
    more = f", and {len(told) - limits.causes} more" if len(told) > limits.causes else ""
    return " (" + "; ".join(told[: limits.causes]) + more + ")"


def _first_summary(causes: Sequence[Cause], limits: Limits) -> str:
    for cause in causes:
        if cause.summary:
            return f" ({_short(cause.summary, limits.summary_characters)})"
    return ""


def _active(causes: Sequence[Cause]) -> list[Cause]:
    return [cause for cause in causes if cause.cleared_at is None]


def _render_cause(cause: Cause, limits: Limits) -> dict[str, Any]:
    return {
        "detection_id": cause.detection_id,
        "name": _short(cause.name, limits.name_characters),
        "issuer": _short(cause.issuer, limits.summary_characters),
        "summary": _short(cause.summary, limits.summary_characters),
        "cleared": cause.cleared_at is not None,
    }


def _render_step(step: Step, limits: Limits) -> dict[str, Any]:
    task = step.task
    method = task.payload.method
    return {
        "task_id": task.task_id,
        "action": task.kind.value,
        "target": _short(step.target_name, limits.name_characters),
        "method": method or (LogoutMethod.SSF.value if not task.app_id else None),
        "state": task.state.value,
        "proves": task.proves.value,
    }


def _short(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
