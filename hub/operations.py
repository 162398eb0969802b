"""Every hot write of the hub, by name: what the core process executes for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

import actions
import receivers
import receivers.inbox.store
import risk
import runtime.queue
import transmitters
from hub.pipeline import lock_tenants
from risk.sessions.model import PutSession, PutSessionResult
from runtime.writer import Operation


async def _put_sessions(
    connection: AsyncConnection, items: Sequence[PutSession]
) -> Sequence[PutSessionResult]:
    """Write sessions, and let signals that waited for their new users and devices be assessed.

    The tenants are locked first: a batch of the pipeline that finds a user unknown has either
    marked its signal unmatched before we look for it, or begins after the user is known.
    """
    await lock_tenants(connection, {item.tenant_id for item in items})
    results = await risk.PUT_SESSION.handle(connection, items)
    for item, result in zip(items, results, strict=True):
        if result.new_alias_keys:
            await receivers.inbox.store.requeue_unmatched(
                connection, item.tenant_id, result.new_alias_keys
            )
    return results


PUT_SESSION: Final = replace(risk.PUT_SESSION, handle=_put_sessions)


def all_operations() -> tuple[Operation[Any, Any], ...]:
    """Return the operations of all packages."""
    return (
        *runtime.queue.OPERATIONS,
        *receivers.OPERATIONS,
        *(PUT_SESSION if one is risk.PUT_SESSION else one for one in risk.OPERATIONS),
        *actions.OPERATIONS,
        *transmitters.OPERATIONS,
    )
