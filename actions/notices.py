"""Telling admins of what is no user's containment: a notification without one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from actions.drafts import ACTIVE
from actions.messages import Event
from actions.model import (
    Action,
    Containment,
    ContainmentState,
    Stage,
    TaskDraft,
    TaskKind,
    TaskPayload,
)
from actions.settlement import read_registries, task_of
from actions.store import Connection
from actions.tasks import store as task_store


async def tell(
    connection: Connection,
    tenant_id: str,
    event: Event,
    *,
    notice_id: str,
    facts: Mapping[str, object],
    now: datetime,
) -> int:
    """Enqueue one notification per webhook that wants the event; return how many.

    notice_id: of what is told, unique in the tenant; a prefix of its own. facts: the members of
    `data`, short. The caller wakes "tasks". Requirements WH-5, WH-6.
    """
    registry = (await read_registries(connection, {tenant_id}))[tenant_id]
    body = render_notice(event, facts, now)
    about = notice_containment(tenant_id, notice_id, now)
    tasks = [
        task_of(_draft(event, notice_id, webhook.webhook_id, body), about, now=now)
        for webhook in registry.webhooks
        if webhook.status == ACTIVE and (webhook.events is None or event.value in webhook.events)
    ]
    await task_store.add_tasks(connection, tasks)
    return len(tasks)


def render_notice(event: Event, facts: Mapping[str, object], happened_at: datetime) -> str:
    """Return the JSON body. Raises nothing."""
    moment = happened_at.astimezone(UTC).isoformat(timespec="milliseconds")
    document = {
        "type": event.value,
        "timestamp": moment.replace("+00:00", "Z"),
        "data": dict(facts),
    }
    return msgspec.json.encode(document).decode()


def notice_containment(tenant_id: str, notice_id: str, at: datetime) -> Containment:
    """Return what stands in a notice's tasks where others have their containment."""
    return Containment(
        tenant_id=tenant_id,
        containment_id=notice_id,
        user_id="",
        state=ContainmentState.CLOSED,
        level="HIGH",
        trace_id=notice_id,
        actions=frozenset({Action.NOTIFY.value}),
        reasons=(),
        identifiers=(),
        label="",
        round=0,
        opened_at=at,
        signal_received_at=at,
        enforced_at=None,
        closed_at=at,
    )


def _draft(event: Event, notice_id: str, webhook_id: str, body: str) -> TaskDraft:
    return TaskDraft(
        kind=TaskKind.NOTIFY,
        stage=Stage.PEOPLE,
        target=f"notify|{webhook_id}",
        lane=f"notify|{webhook_id}|{notice_id}",
        key=f"{notice_id}:told:{webhook_id}",
        webhook_id=webhook_id,
        payload=TaskPayload(event_type=event.value, body=body),
    )
