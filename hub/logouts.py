"""What the logouts that we carried out say about their users, in the transaction that settles them.

attempts end ─▶ tasks settled ─▶ confirmed by every IdP? ─▶ all sessions are over: a remedy
└─▶ all done, and the tenant resets? ─▶ its findings superseded
└─▶ judged, responded to
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

import risk.resets
from actions.model import Proof, Task, TaskKind, TaskState
from actions.settlement import SETTLE_TASKS, TaskSettlement
from actions.store import Key, containments_by_key
from actions.tasks.store import tasks_by_key, tasks_of
from hub.pipeline import TOPICS, caps_of, lock_tenants, respond
from hub.store import get_tenant
from risk.resets import LoggedOut

#: whose answers tell that a user is logged out; who listens to our events confirms nothing
_CONFIRMING: Final = frozenset({TaskKind.IDP_LOGOUT, TaskKind.APP_LOGOUT})


@dataclass(frozen=True, slots=True)
class _Ended:
    """One containment's logouts after the batch. is_reset: the tenant wants LOW after them."""

    key: Key
    logouts: Sequence[Task]
    is_reset: bool

    @property
    def is_secured(self) -> bool:
        """Whether every identity provider says that the user's sessions are over."""
        asked = [each for each in self.logouts if each.kind is TaskKind.IDP_LOGOUT]
        return bool(asked) and all(
            each.state is TaskState.DONE and each.proves is Proof.EFFECTIVE for each in asked
        )

    @property
    def is_complete(self) -> bool:
        """Whether everybody who was asked to log the user out has done it."""
        return bool(self.logouts) and all(each.state is TaskState.DONE for each in self.logouts)


async def _settle_tasks(
    connection: AsyncConnection, settlements: Sequence[TaskSettlement]
) -> Sequence[bool]:
    """Record the ends of attempts, and let risk hear of logouts that were carried out."""
    logouts = await _logouts_among(connection, settlements)
    resetting = {
        tenant_id: await _resets(connection, tenant_id)
        for tenant_id in sorted({one.tenant_id for one in logouts})
    }
    concerned = {
        (one.tenant_id, one.containment_id)
        for one in logouts
        if resetting[one.tenant_id] or one.proves == Proof.EFFECTIVE
    }
    # Before the containments, as everybody does who changes risk and containments.
    await lock_tenants(connection, {tenant_id for tenant_id, _ in concerned})
    counted = await SETTLE_TASKS.handle(connection, settlements)
    settled = {
        (one.tenant_id, one.containment_id): one.at
        for one, counts in zip(settlements, counted, strict=True)
        if counts and (one.tenant_id, one.containment_id) in concerned
    }
    if settled:
        await _tell(connection, settled, resetting, now=max(settled.values()))
    return counted


async def _resets(connection: AsyncConnection, tenant_id: str) -> bool:
    tenant = await get_tenant(connection, tenant_id)
    return tenant is not None and tenant.reset_on_universal_logout


async def _logouts_among(
    connection: AsyncConnection, settlements: Sequence[TaskSettlement]
) -> list[TaskSettlement]:
    done = [one for one in settlements if one.state == TaskState.DONE]
    if not done:
        return []
    tasks = await tasks_by_key(connection, {(one.tenant_id, one.task_id) for one in done})
    kinds = {key: task.kind for key, task in tasks.items()}
    return [one for one in done if kinds.get((one.tenant_id, one.task_id)) in _CONFIRMING]


async def _tell(
    connection: AsyncConnection,
    settled: Mapping[Key, datetime],
    resetting: Mapping[str, bool],
    *,
    now: datetime,
) -> None:
    """Let risk hear of users whose logouts are done. settled: when, by containment."""
    held = await containments_by_key(connection, settled.keys())
    tasks = await tasks_of(connection, held.keys())
    told: defaultdict[str, list[LoggedOut]] = defaultdict(list)
    for key, containment in sorted(held.items()):
        logouts = [
            each
            for each in tasks[key]
            if each.kind in _CONFIRMING and each.round == containment.round
        ]
        ended = _Ended(key, logouts, resetting[key[0]])
        said = LoggedOut(
            user_id=containment.user_id,
            containment_id=containment.containment_id,
            at=settled[key],
            is_secured=ended.is_secured,
            is_reset=ended.is_reset and ended.is_complete,
        )
        if said.is_secured or said.is_reset:
            told[key[0]].append(said)
    for tenant_id in sorted(told):
        caps = await caps_of(connection, {tenant_id})
        made = await risk.resets.hear(connection, tenant_id, told[tenant_id], caps=caps, now=now)
        await respond(connection, made, now=now)


SETTLE: Final = replace(SETTLE_TASKS, handle=_settle_tasks, wakes=TOPICS)
