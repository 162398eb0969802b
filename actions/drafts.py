"""The tasks a containment consists of: one round of them, its undoing, and telling people. Pure.

INVARIANT: only members we added ourselves are ever removed (SCC-19).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from actions.messages import Event
from actions.model import (
    STAGE_WAIT,
    Action,
    App,
    AppKind,
    Cause,
    Containment,
    LogoutMethod,
    LogoutSetting,
    Stage,
    Task,
    TaskDraft,
    TaskKind,
    TaskPayload,
    TaskState,
    Webhook,
)

ACTIVE: Final = "active"
_QUARANTINE_KINDS: Final = frozenset({TaskKind.QUARANTINE_ADD, TaskKind.QUARANTINE_REMOVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Whom a tenant's containments reach."""

    apps: tuple[App, ...] = ()
    webhooks: tuple[Webhook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known of a user's containment that is not closed.

    tasks: all quarantine tasks, and all others that are queued, oldest first.
    """

    containment: Containment
    causes: tuple[Cause, ...]
    tasks: tuple[Task, ...]


def notify_drafts(
    containment: Containment, event: Event, registry: Registry, *, key: str, note: str = ""
) -> tuple[TaskDraft, ...]:
    """Return one notification per webhook that wants `event`, when the policy ordered any.

    key: makes the notification unique within its containment. Raises nothing. Requirement WH-9.
    """
    if Action.NOTIFY not in containment.actions:
        return ()
    return tuple(
        TaskDraft(
            kind=TaskKind.NOTIFY,
            stage=Stage.PEOPLE,
            target=f"notify|{webhook.webhook_id}",
            # One lane per containment: opened, updated, closed arrive in this order.
            lane=f"notify|{webhook.webhook_id}|{containment.containment_id}",
            key=f"{containment.containment_id}:{key}:{webhook.webhook_id}",
            webhook_id=webhook.webhook_id,
            payload=TaskPayload(event_type=event.value, note=note),
        )
        for webhook in registry.webhooks
        if webhook.status == ACTIVE and (webhook.events is None or event.value in webhook.events)
    )


def round_drafts(
    containment: Containment,
    current: Situation,
    registry: Registry,
    *,
    event: Event,
    causes: Sequence[Cause],
) -> tuple[TaskDraft, ...]:
    """Return a round's tasks in the order of their stages, collapsed with what is under way."""
    apps = [app for app in registry.apps if app.status == ACTIVE]
    drafts: list[TaskDraft] = []
    if Action.QUARANTINE in containment.actions:
        drafts += _quarantine_drafts(containment, current, apps)
    if Action.UNIVERSAL_LOGOUT in containment.actions:
        drafts += _logout_drafts(containment, apps)
    # One outstanding call per app and user: repeated triggers collapse (GTR-13).
    busy = {task.lane for task in queued_of(current)}
    drafts = [draft for draft in drafts if draft.lane not in busy]
    news = "; ".join(cause.summary or cause.name for cause in causes)
    note = f"new: {news}." if news and event is Event.UPDATED else ""
    key = f"{containment.round}:told"
    drafts += notify_drafts(containment, event, registry, key=key, note=note)
    stages = sorted({draft.stage for draft in drafts})
    return tuple(
        replace(draft, due_in=STAGE_WAIT * stages.index(draft.stage))
        for draft in sorted(drafts, key=lambda draft: draft.stage)
    )


def _quarantine_drafts(
    containment: Containment, current: Situation, apps: Sequence[App]
) -> list[TaskDraft]:
    drafts = []
    for app in apps:
        if app.kind is not AppKind.IDP or app.scim is None:
            continue
        history = [
            task
            for task in current.tasks
            if task.kind in _QUARANTINE_KINDS
            and task.app_id == app.app_id
            and task.payload.group_id == app.scim.quarantine_group_id
        ]
        if _is_member_already(history):
            continue
        drafts.append(
            TaskDraft(
                kind=TaskKind.QUARANTINE_ADD,
                stage=Stage.QUARANTINE,
                target=f"quarantine|{app.app_id}",
                lane=f"quarantine|{app.app_id}|{containment.user_id}",
                key=f"{containment.containment_id}:{containment.round}:quarantine:{app.app_id}",
                app_id=app.app_id,
                payload=_inherited(history, app.scim.quarantine_group_id),
            )
        )
    return drafts


def _is_member_already(history: Sequence[Task]) -> bool:
    """Return whether the last membership change was an addition that is done or on its way.

    A removal counts whatever became of it: one that was cancelled or failed may have been under
    way, and adding once more is harmless.
    """
    effective = [
        task
        for task in history
        if task.kind is TaskKind.QUARANTINE_REMOVE
        or task.state in {TaskState.DONE, TaskState.QUEUED}
    ]
    return bool(effective) and effective[-1].kind is TaskKind.QUARANTINE_ADD


def _inherited(history: Sequence[Task], group_id: str) -> TaskPayload:
    """Keep knowing that a member is ours, although a fresh look would find it already there."""
    for task in reversed(history):
        if task.payload.was_member is not None and task.payload.scim_user_id:
            return TaskPayload(
                group_id=group_id,
                scim_user_id=task.payload.scim_user_id,
                was_member=task.payload.was_member,
            )
    return TaskPayload(group_id=group_id)


def _logout_drafts(containment: Containment, apps: Sequence[App]) -> list[TaskDraft]:
    drafts = [
        _logout_draft(containment, app, setting)
        for app in sorted(apps, key=lambda app: (-app.sensitivity, app.app_id))
        for setting in app.logout
        if setting.method is not LogoutMethod.SSF
    ]
    publish = TaskDraft(
        kind=TaskKind.PUBLISH_SESSION_REVOKED,
        stage=Stage.APPS,
        target="publish",
        lane=f"publish|{containment.user_id}",
        key=f"{containment.containment_id}:{containment.round}:publish",
        payload=TaskPayload(method=LogoutMethod.SSF.value),
    )
    return [publish, *drafts]


def _logout_draft(containment: Containment, app: App, setting: LogoutSetting) -> TaskDraft:
    idp = app.kind is AppKind.IDP
    method = setting.method.value
    return TaskDraft(
        kind=TaskKind.IDP_LOGOUT if idp else TaskKind.APP_LOGOUT,
        stage=Stage.IDP if idp else Stage.APPS,
        target=f"logout|{app.app_id}",
        lane=f"logout|{app.app_id}|{method}:{containment.user_id}",
        key=f"{containment.containment_id}:{containment.round}:logout:{app.app_id}:{method}",
        app_id=app.app_id,
        payload=TaskPayload(method=method),
    )


def undo_drafts(current: Situation) -> tuple[TaskDraft, ...]:
    """Return the removals of members we added, latest addition first.

    An addition counts from the moment its prior look is stored: its change may have been sent,
    whatever the task's state says (a lost answer, a crash), and a removal too much is harmless.
    """
    drafts: list[TaskDraft] = []
    for task in reversed(current.tasks):
        payload = task.payload
        if task.kind is not TaskKind.QUARANTINE_ADD or payload.was_member is not False:
            continue
        if _is_undone(task, current, drafts):
            continue
        drafts.append(
            TaskDraft(
                kind=TaskKind.QUARANTINE_REMOVE,
                stage=Stage.QUARANTINE,
                target=task.target,
                lane=task.lane,
                key=f"{task.containment_id}:{current.containment.round}:undo:{task.task_id}",
                app_id=task.app_id,
                undo_of=task.task_id,
                payload=_undo_payload(payload),
            )
        )
    return tuple(drafts)


def _undo_payload(payload: TaskPayload) -> TaskPayload:
    """Return what the removal of a member needs to know of its addition."""
    return TaskPayload(
        group_id=payload.group_id,
        scim_user_id=payload.scim_user_id,
        was_member=payload.was_member,
    )


def _is_undone(addition: Task, current: Situation, drafts: Sequence[TaskDraft]) -> bool:
    """Return whether the member was removed since, or will be by one of `drafts`."""
    place = (addition.lane, addition.payload.group_id)
    removed = any(
        task.kind is TaskKind.QUARANTINE_REMOVE
        and (task.lane, task.payload.group_id) == place
        and task.task_id > addition.task_id
        and task.state is TaskState.DONE
        for task in current.tasks
    )
    return removed or any((draft.lane, draft.payload.group_id) == place for draft in drafts)


def queued_of(current: Situation) -> list[Task]:
    """Return the tasks that are not settled yet."""
    return [task for task in current.tasks if task.state is TaskState.QUEUED]
