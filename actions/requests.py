"""Logouts that somebody asked for, such as by Global Token Revocation: no policy ordered them.

service.plan with `decide_request` ─▶ a round of logouts
settlement, when they are done or failed ─▶ `end_request` ─▶ released, or kept for other causes
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from actions.drafts import Registry, Situation
from actions.model import ContainmentOrder, ContainmentState, PlanOutcome
from actions.planning import (
    Decision,
    active_ids,
    contain,
    new_containment,
    order_of,
    release,
    requested_ids,
)


def decide_request(
    order: ContainmentOrder,
    current: Situation | None,
    *,
    registry: Registry,
    admitted: bool,
    containment_id: str,
    now: datetime,
) -> Decision:
    """Decide what follows when somebody asks for a user's logout, such as by GTR (GTR-14).

    A new round of logouts, beside whatever holds the user: the policy's causes and the level stay.
    A containment that is being lifted goes on being lifted; only logouts are added to it.
    Raises nothing.
    """
    if current is None:
        current = Situation(
            containment=new_containment(order, containment_id, now), causes=(), tasks=()
        )
    before = current.containment
    if before.state is ContainmentState.RESTORING:
        before = replace(before, actions=frozenset())
        going_on = tuple(task for task in current.tasks if task.undo_of is None)
        current = replace(current, containment=before, tasks=going_on)
    held_by = tuple(cause for cause in current.causes if cause.cleared_at is None)
    order = replace(
        order,
        level=before.level,
        reasons=tuple(dict.fromkeys((*before.reasons, *order.reasons))),
        causes=(*held_by, *order.causes),
    )
    return contain(order, current, registry=registry, admitted=admitted, now=now)


def end_request(current: Situation, *, registry: Registry, now: datetime) -> Decision | None:
    """Return how a requested logout ends that was carried out; None when there is none.

    current: a containment without logouts under way. Raises nothing.
    """
    requested = requested_ids(current)
    if not requested:
        return None
    cleared = tuple(sorted(requested))
    if active_ids(current) - requested:
        return Decision(outcome=PlanOutcome.UPDATED, cleared=cleared)
    order = replace(order_of(current), actions=frozenset())
    return release(order, current, cleared=cleared, registry=registry, now=now)
