"""What an admin watches: containments, tasks, signals, audit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import msgspec

import actions.service
import receivers.store
from actions.model import (
    Attempt,
    Cause,
    Containment,
    ContainmentState,
    Task,
    TaskState,
)
from hub import store
from hub.admin import ingest
from hub.admin.context import without_tenant
from hub.admin.kinds import Action, Admin, Document, Kind, Listing, one_of
from hub.admin.releases import ReleaseBody, release
from hub.pipeline import end_sessions
from receivers.model import SignalState, StoredSignal
from runtime.errors import Invalid

# Containments and their tasks.


async def list_containments(admin: Admin, listing: Listing) -> list[Document]:
    """Return containments, newest first; of one user or in one state when asked."""
    async with admin.node.database.snapshot() as connection:
        found = await actions.service.list_containments(
            connection,
            admin.tenant_id,
            state=one_of(listing.filters.get("state"), ContainmentState, "state"),
            user_id=listing.filters.get("user"),
            before=listing.after or None,
            limit=listing.limit,
        )
    return [_containment(one) for one in found]


async def read_containment(admin: Admin, containment_id: str) -> Document:
    """Return who, what and why: causes, tasks with attempts, what each proves."""
    async with admin.node.database.snapshot() as connection:
        view = await actions.service.get_containment(connection, admin.tenant_id, containment_id)
    return {
        **_containment(view.containment),
        "causes": [_cause(cause) for cause in view.causes],
        "tasks": [
            {
                **_task(one.task),
                "target": one.target_name,
                "attempt_log": [_attempt(attempt) for attempt in one.attempts],
            }
            for one in view.tasks
        ],
    }


async def approve_containment(admin: Admin, containment_id: str, _body: None) -> Document:
    """Carry out a containment that the blast-radius guard held."""
    async with admin.node.database.transaction() as connection:
        planned = await actions.service.approve_containment(
            connection, admin.tenant_id, containment_id, admin.now
        )
        await end_sessions(connection, [planned], now=admin.now)
    admin.node.notifier.wake_all(("changes", "tasks"))
    return await read_containment(admin, containment_id)


async def release_containment(admin: Admin, containment_id: str, body: ReleaseBody) -> Document:
    """Let the user of a containment go, whatever is left of it; over is over."""
    await release(admin, containment_id, body)
    return await read_containment(admin, containment_id)


def _containment(containment: Containment) -> Document:
    return {
        "id": containment.containment_id,
        "user_id": containment.user_id,
        "label": containment.label,
        "state": containment.state.value,
        "level": containment.level,
        "trace_id": containment.trace_id,
        "actions": sorted(containment.actions),
        "reasons": list(containment.reasons),
        "signal_received_at": containment.signal_received_at,
        "opened_at": containment.opened_at,
        "closed_at": containment.closed_at,
    }


def _cause(cause: Cause) -> Document:
    return asdict(cause)


def _attempt(attempt: Attempt) -> Document:
    document = asdict(attempt)
    del document["task_id"]
    return document


async def list_tasks(admin: Admin, listing: Listing) -> list[Document]:
    """Return tasks, newest first; `state=failed` is the dead-letter list of the response side."""
    async with admin.node.database.snapshot() as connection:
        found = await actions.service.list_tasks(
            connection,
            admin.tenant_id,
            state=one_of(listing.filters.get("state"), TaskState, "state"),
            before=listing.after or None,
            limit=listing.limit,
        )
    return [_task(task) for task in found]


async def retry_task(admin: Admin, task_id: str, _body: None) -> Document:
    """Try a failed task again."""
    async with admin.node.database.transaction() as connection:
        task = await actions.service.retry_task(connection, admin.tenant_id, task_id, admin.now)
    admin.node.notifier.wake("tasks")
    return _task(task)


async def abandon_task(admin: Admin, task_id: str, _body: None) -> Document:
    """Give a failed task up, so that its containment may close without it."""
    async with admin.node.database.transaction() as connection:
        task = await actions.service.abandon_task(connection, admin.tenant_id, task_id, admin.now)
    admin.node.notifier.wake("tasks")
    return _task(task)


def _task(task: Task) -> Document:
    return {
        "id": task.task_id,
        "containment_id": task.containment_id,
        "kind": task.kind.value,
        "method": task.payload.method or None,
        "app_id": task.app_id,
        "webhook_id": task.webhook_id,
        "user_id": task.user_id,
        "stage": int(task.stage),
        "state": task.state.value,
        "attempts": task.attempts,
        "proves": task.proves.value or None,
        "result": msgspec.to_builtins(task.result),
        "undo_of": task.undo_of,
        "due_at": task.due_at,
        "created_at": task.created_at,
        "settled_at": task.settled_at,
    }


# Signals: the inbox, and what waits for its subject to appear.


async def list_signals(admin: Admin, listing: Listing) -> list[Document]:
    """Return signals, newest first; in one state when asked."""
    state = one_of(listing.filters.get("state"), SignalState, "state")
    return await _signals(admin, listing, state)


async def list_unmatched(admin: Admin, listing: Listing) -> list[Document]:
    """Return signals whose subject nobody knows yet; they are applied when it appears."""
    return await _signals(admin, listing, SignalState.UNMATCHED)


async def _signals(admin: Admin, listing: Listing, state: SignalState | None) -> list[Document]:
    async with admin.node.database.snapshot() as connection:
        found = await receivers.store.list_signals(
            connection,
            admin.tenant_id,
            state=state,
            before=listing.after or None,
            limit=listing.limit,
        )
    return [_signal(signal) for signal in found]


def _signal(signal: StoredSignal) -> Document:
    document = without_tenant({"id": signal.signal_id, **asdict(signal)})
    # The signed original stays in the store as evidence; it is no reading matter for a list.
    for name in ("raw", "signal_id"):
        del document[name]
    return document


# Audit.


async def list_audit(admin: Admin, listing: Listing) -> list[Document]:
    """Return audit entries, newest first; each carries the hash of the one before it."""
    if listing.after and not (listing.after.isascii() and listing.after.isdigit()):
        raise Invalid("Bad cursor.", pointers=(("cursor", "as given in next_cursor"),))
    before = int(listing.after[:18]) if listing.after else None
    async with admin.node.database.snapshot() as connection:
        found = await store.list_audit(
            connection, admin.tenant_id, before=before, limit=listing.limit
        )
    return [without_tenant({"id": str(entry.number), **asdict(entry)}) for entry in found]


KINDS: Final = (
    Kind(
        name="containments",
        item="containment",
        summary="open and past responses to a user's risk, with causes, tasks and receipts",
        list_page=list_containments,
        read=read_containment,
        filters=("state", "user"),
        actions=(
            Action(
                name="approve",
                summary="Carry out a containment that the blast-radius guard held.",
                perform=approve_containment,
            ),
            Action(
                name="release",
                summary="Let the user go: close what held them, and undo what was done.",
                perform=release_containment,
                body=ReleaseBody,
                example={"word": "dismiss", "reason": "New laptop handed out, SEC-1042."},
            ),
        ),
    ),
    Kind(
        name="tasks",
        item="task",
        summary="steps of containments; state failed is their dead-letter list",
        list_page=list_tasks,
        filters=("state",),
        actions=(
            Action(name="retry", summary="Try a failed task again.", perform=retry_task),
            Action(name="abandon", summary="Give a failed task up.", perform=abandon_task),
        ),
    ),
    Kind(
        name="signals",
        item="signal",
        summary="what providers said, and what became of it",
        list_page=list_signals,
        filters=("state",),
        actions=(ingest.REQUEUE,),
    ),
    Kind(
        name="unmatched",
        item="unmatched",
        summary="signals whose subject nobody knows yet",
        list_page=list_unmatched,
    ),
    Kind(
        name="audit",
        item="audit_entry",
        summary="every write, chained by hash",
        list_page=list_audit,
    ),
)
