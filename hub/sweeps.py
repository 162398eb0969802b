"""Sweeps after edits of policies, a page at a time, in the core process.

    sessions ─▶ noted for review ─▶ an api process judges them (hub.inline.reviews)
    users    ─▶ policy is asked ─▶ what was not answered before goes the way of every assessment

A page is one transaction with its place, so that a crash goes on where it was. Pages are small and
there is a pause between them; new containments count against the blast-radius guard as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeAlias

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

import risk.recall
from actions.answered import answered
from hub.node import Node
from hub.pipeline import caps_of, lock_tenants, order_of, respond
from risk.model import Assessment
from risk.reviews.service import TOPIC as REVIEWS
from risk.sweeps import service, store
from risk.sweeps.model import Sweep, SweepKind, SweepState

#: a transaction of the leading process, or None when another leads by now
AsLeader: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncConnection | None]]
#: sweeps that get a page each before there is a pause
AT_ONCE_MAX: Final = 8

log = structlog.get_logger()


async def sweep(node: Node, as_leader: AsLeader) -> int:
    """Take a page of each running sweep, those first that waited longest; return how many."""
    async with node.database.snapshot() as connection:
        running = await store.system_running(connection, limit=AT_ONCE_MAX)
    for each in running:
        async with as_leader() as connection:
            if connection is None:
                return 0
            # Policies of a tenant are asked in one transaction at a time.
            await lock_tenants(connection, {each.tenant_id})
            held = await service.take(connection, each)
            if held is None:
                continue
            now = node.clock.now()
            if held.kind is SweepKind.SESSIONS:
                moved, topics = await service.note_sessions(connection, held, now=now), {REVIEWS}
            else:
                moved, topics = await _ask_users(connection, held, now=now)
        node.notifier.wake_all(topics)
        if moved.state is SweepState.DONE:
            log.info(
                "policy.swept",
                tenant_id=moved.tenant_id,
                kind=moved.kind.value,
                cause=moved.cause,
                looked=moved.looked,
                acted=moved.acted,
                would_have=moved.would_have,
            )
    return len(running)


async def _ask_users(
    connection: AsyncConnection, held: Sweep, *, now: datetime
) -> tuple[Sweep, set[str]]:
    user_ids = await service.next_users(connection, held)
    if not user_ids:
        return await service.finish_step(connection, held, is_last=True, now=now), set()
    caps = await caps_of(connection, {held.tenant_id})
    made = await risk.recall.ask_policy(connection, held.tenant_id, user_ids, caps=caps, now=now)
    wanted = await _unanswered(connection, made)
    topics = await respond(connection, wanted, now=now)
    moved = replace(
        held,
        after=user_ids[-1],
        looked=held.looked + len(made),
        acted=held.acted + sum(1 for each in wanted if each.actions),
        would_have=held.would_have + sum(1 for each in made if each.would_have),
    )
    return await service.finish_step(connection, moved, is_last=False, now=now), set(topics)


async def _unanswered(connection: AsyncConnection, made: list[Assessment]) -> list[Assessment]:
    """Return whose level moved, and for whom policy orders what was not done for these causes."""
    done = await answered(connection, [order_of(each) for each in made if each.actions])
    return [
        each
        for each in made
        if each.level is not each.previous_level
        or (each.actions and (each.tenant_id, each.user_id) not in done)
    ]
