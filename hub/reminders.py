"""Telling people of users who are at HIGH for 24 and for 72 hours: nothing ends that by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.notices
from actions.messages import Event
from hub.node import Node
from hub.store import system_list_tenants
from risk.reminders import service

#: a transaction of the leading process, or None when another leads by now
AsLeader: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncConnection | None]]
TOPICS: Final = ("tasks",)

log = structlog.get_logger()


async def remind(node: Node, as_leader: AsLeader) -> None:
    """Tell webhooks, and the log, of everybody who is due; each stage once."""
    now = node.clock.now()
    async with node.database.snapshot() as connection:
        tenants = [
            tenant.tenant_id
            for tenant in await system_list_tenants(connection)
            if await service.due(connection, tenant.tenant_id, now=now)
        ]
    for tenant_id in tenants:
        async with as_leader() as connection:
            if connection is None:
                return
            for each in await service.take(connection, tenant_id, now=now):
                await actions.notices.tell(
                    connection,
                    tenant_id,
                    Event.UNRESOLVED,
                    notice_id=each.reminder_id,
                    facts={
                        "user_id": each.user_id,
                        "level": "HIGH",
                        "since": each.since.isoformat(),
                        "hours": each.hours,
                        "message": f"The risk of {each.user_id} is HIGH for {each.hours} hours and"
                        " nobody has ended it: look at what would.",
                    },
                    now=now,
                )
                log.warning(
                    "risk.unresolved",
                    tenant_id=tenant_id,
                    user_id=each.user_id,
                    hours=each.hours,
                )
        node.notifier.wake_all(TOPICS)
