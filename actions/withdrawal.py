"""Requested logouts that a person withdraws: what was not sent of them is never sent."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from actions import store
from actions.batch import Changes
from actions.drafts import Situation
from actions.model import ContainmentState
from actions.requests import end_request
from actions.settlement import read_registries
from actions.store import Connection
from actions.tasks import store as task_store

_UNDER_WAY: Final = frozenset({ContainmentState.OPEN, ContainmentState.HELD})


async def withdraw_requests(
    connection: Connection, tenant_id: str, containment_id: str, *, now: datetime
) -> None:
    """End the requested logouts of a containment that has no other cause any more.

    A containment that is over, or that other causes hold, stays as it is. Raises nothing of its
    own.
    """
    key = (tenant_id, containment_id)
    found = (await store.lock_containments(connection, [key])).get(key)
    if found is None or found.state not in _UNDER_WAY:
        return
    causes = await store.causes_of(connection, [key])
    tasks = await task_store.tasks_of(connection, [key], only_open=True)
    situation = Situation(containment=found, causes=tuple(causes[key]), tasks=tuple(tasks[key]))
    registries = await read_registries(connection, {tenant_id})
    decision = end_request(situation, registry=registries[tenant_id], now=now)
    if decision is None or decision.containment is None:
        return
    changes = Changes(known={key})
    changes.add(decision, now=now)
    await changes.write(connection, now=now)
