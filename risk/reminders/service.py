"""Use cases of reminders: who is due, and take them."""

from __future__ import annotations

from datetime import datetime

from risk.reminders import store
from risk.reminders.model import REMINDED_MAX, STAGES, Reminder, stage_mark
from risk.sql.store import Connection


async def due(connection: Connection, tenant_id: str, *, now: datetime) -> list[Reminder]:
    """Return whom people are to be reminded of now, at most REMINDED_MAX per stage.

    Who was forgotten about for three days is told of once, not twice. Raises nothing of its own.
    """
    found: dict[str, Reminder] = {}
    for stage in STAGES:
        rows = await store.high_since(
            connection,
            tenant_id,
            before=now - stage,
            stage=stage_mark(stage),
            limit=REMINDED_MAX,
        )
        for user_id, history_id, since in rows:
            found[user_id] = Reminder(
                reminder_id=history_id + stage_mark(stage),
                user_id=user_id,
                since=since,
                stage=stage,
                at=now,
            )
    return [found[user_id] for user_id in sorted(found)]


async def take(connection: Connection, tenant_id: str, *, now: datetime) -> list[Reminder]:
    """Mark those who are due as told, in the transaction that tells it; return them."""
    wanted = await due(connection, tenant_id, now=now)
    earlier = [
        Reminder(
            reminder_id=each.reminder_id.rpartition(":")[0] + stage_mark(stage),
            user_id=each.user_id,
            since=each.since,
            stage=stage,
            at=now,
        )
        for each in wanted
        for stage in STAGES
        if stage < each.stage
    ]
    new = await store.add(connection, tenant_id, wanted)
    await store.add(connection, tenant_id, earlier)
    return [each for each in wanted if each.reminder_id in new]
