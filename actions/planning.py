"""Planning: what follows for one user from what the policy wants now. Pure, no I/O.

    order + situation ──▶ decide ──▶ open | attach | reopen | hold | update | release
                                        │
            round of tasks: quarantine ▶ IdP sessions ▶ apps by sensitivity ▶ people
            release: cancel what was not sent, undo in reverse what we added

A decision is a value; `actions.service.plan` writes it. INVARIANT: a cause that is still active
never lets a containment end while the level holds, and only members we added ourselves are ever
removed (SCC-19).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

from actions.drafts import (
    Registry,
    Situation,
    notify_drafts,
    queued_of,
    round_drafts,
    undo_drafts,
)
from actions.messages import Event
from actions.model import (
    CAUSES_MAX,
    DISRUPTIVE,
    REQUESTED,
    Action,
    Cause,
    Containment,
    ContainmentOrder,
    ContainmentState,
    PlanOutcome,
    Task,
    TaskDraft,
    TaskKind,
    TaskState,
)

#: levels of risk, lowest first
LEVELS: Final = ("LOW", "MEDIUM", "HIGH")
_NAMES: Final = frozenset(Action)
#: the steps that log a user out
LOGOUTS: Final = frozenset(
    {TaskKind.IDP_LOGOUT, TaskKind.APP_LOGOUT, TaskKind.PUBLISH_SESSION_REVOKED}
)

_ROUNDS: Final = frozenset({PlanOutcome.OPENED, PlanOutcome.ATTACHED, PlanOutcome.REOPENED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to write. attached: causes to add or to make active again; cleared: detection ids."""

    outcome: PlanOutcome
    containment: Containment | None = None
    attached: tuple[Cause, ...] = ()
    cleared: tuple[str, ...] = ()
    drafts: tuple[TaskDraft, ...] = ()
    cancelled: tuple[str, ...] = field(default=())

    @property
    def logs_out(self) -> bool:
        """Whether it is a round of tasks that logs the user out everywhere."""
        actions = self.containment.actions if self.containment else frozenset()
        return self.outcome in _ROUNDS and Action.UNIVERSAL_LOGOUT in actions


class Decider(Protocol):
    """Decides what follows from an order; `decide` by policy, `decide_request` by request."""

    def __call__(
        self,
        order: ContainmentOrder,
        current: Situation | None,
        /,
        *,
        registry: Registry,
        admitted: bool,
        containment_id: str,
        now: datetime,
    ) -> Decision:
        """Return what to write."""
        ...


def needs_admission(order: ContainmentOrder, current: Situation | None) -> bool:
    """Return whether carrying out the order would newly contain a user, which the guard counts."""
    if current is None:
        return bool(order.actions & DISRUPTIVE)
    before = current.containment
    return before.enforced_at is None and bool((order.actions | before.actions) & DISRUPTIVE)


def decide(
    order: ContainmentOrder,
    current: Situation | None,
    *,
    registry: Registry,
    admitted: bool,
    containment_id: str,
    now: datetime,
) -> Decision:
    """Decide what follows from an order.

    admitted: what the guard says when `needs_admission`. containment_id: for a new containment.
    Raises nothing. Source: contracts §6 (Quarantine, Clean while the fan-out runs, Guards).
    """
    wanted = order.actions & _NAMES
    if current is not None and order.exempt and current.containment.actions & DISRUPTIVE:
        return _let_go(order, current, registry=registry, now=now)
    if current is not None and _is_outgrown(order, current):
        cleared = tuple(sorted(active_ids(current)))
        return release(order, current, cleared=cleared, registry=registry, now=now)
    if not wanted:
        return _relax(order, current, registry=registry, now=now)
    if current is None:
        containment = new_containment(order, containment_id, now)
        current = Situation(containment=containment, causes=(), tasks=())
    if wanted <= current.containment.actions and _is_known(order, current, now):
        cleared = _cleared(order, current)
        return _update(order, current, cleared=cleared, registry=registry, now=now)
    return contain(order, current, registry=registry, admitted=admitted, now=now)


def _let_go(
    order: ContainmentOrder, current: Situation, *, registry: Registry, now: datetime
) -> Decision:
    """End the containment of a break-glass user, whatever its causes."""
    if current.containment.state is ContainmentState.RESTORING:
        return Decision(outcome=PlanOutcome.NOTHING)
    cleared = tuple(sorted(active_ids(current)))
    return release(order, current, cleared=cleared, registry=registry, now=now)


def _relax(
    order: ContainmentOrder, current: Situation | None, *, registry: Registry, now: datetime
) -> Decision:
    """Follow an order that wants nothing any more: the containment ends with its last cause."""
    if current is None or current.containment.state is ContainmentState.RESTORING:
        return Decision(outcome=PlanOutcome.NOTHING)
    cleared = _cleared(order, current)
    if active_ids(current) - set(cleared):
        return _update(order, current, cleared=cleared, registry=registry, now=now)
    return release(order, current, cleared=cleared, registry=registry, now=now)


def _is_outgrown(order: ContainmentOrder, current: Situation) -> bool:
    """Return whether the level fell below what the containment answers.

    Of two findings that only together made a user HIGH, the one that is left supports MEDIUM; when
    policy asks nothing disruptive for that, it must not keep the user in quarantine.
    """
    before = current.containment
    return (
        # One that is held, too: else the guard's leave would carry out what nobody asks for.
        before.state in {ContainmentState.OPEN, ContainmentState.HELD}
        and bool(before.actions & DISRUPTIVE)
        and not order.actions & DISRUPTIVE
        and LEVELS.index(order.level) < LEVELS.index(before.level)
        and not _protected_ids(current)
    )


def _is_known(order: ContainmentOrder, current: Situation, now: datetime) -> bool:
    """Return whether an open containment has all causes of the order already."""
    is_open = current.containment.state is ContainmentState.OPEN
    return is_open and not _attached(order, current, now)


def release(
    order: ContainmentOrder,
    current: Situation,
    *,
    cleared: tuple[str, ...],
    registry: Registry,
    now: datetime,
) -> Decision:
    """End a containment: cancel what was not sent, take back in reverse what we added.

    Notifications that are still queued go out: what they tell has happened. Raises nothing.
    """
    held = current.containment.state is ContainmentState.HELD
    cancelled = tuple(
        task.task_id for task in queued_of(current) if task.kind is not TaskKind.NOTIFY
    )
    undo = undo_drafts(current)
    state = ContainmentState.RESTORING if undo else ContainmentState.CLOSED
    containment = _refreshed(order, current.containment, state=state)
    drafts = undo
    if not undo:
        containment = replace(containment, closed_at=now)
        drafts = () if held else notify_drafts(containment, Event.CLOSED, registry, key="closed")
    outcome = PlanOutcome.RESTORING if undo else PlanOutcome.CLOSED
    return Decision(
        outcome=outcome,
        containment=containment,
        cleared=cleared,
        drafts=drafts,
        cancelled=cancelled,
    )


def due_to_pull(queued: Iterable[Task], now: datetime) -> tuple[str, ...]:
    """Return the ids of waiting tasks whose turn has come because no earlier stage is left.

    queued: the queued tasks of one containment. Raises nothing. Source: contracts §6.
    """
    waiting = [task for task in queued if task.undo_of is None]
    turns: list[str] = []
    for number in {task.round for task in waiting}:
        tasks = [task for task in waiting if task.round == number]
        first = min(task.stage for task in tasks)
        turns += [
            task.task_id
            for task in tasks
            if task.stage == first and task.attempts == 0 and task.due_at > now
        ]
    return tuple(sorted(turns))


def contain(
    order: ContainmentOrder,
    current: Situation,
    *,
    registry: Registry,
    admitted: bool,
    now: datetime,
) -> Decision:
    """Open, reopen, or add a round of tasks for what is new; or hold when the guard says so."""
    before = current.containment
    attached, cleared = _attached(order, current, now), _cleared(order, current)
    if needs_admission(order, current) and not admitted:
        containment = _refreshed(order, before, state=ContainmentState.HELD)
        cancelled = tuple(task.task_id for task in queued_of(current))
        return Decision(
            outcome=PlanOutcome.HELD,
            containment=containment,
            attached=attached,
            cleared=cleared,
            cancelled=cancelled,
        )
    disruptive = bool((order.actions | before.actions) & DISRUPTIVE)
    containment = replace(
        _refreshed(order, before, state=ContainmentState.OPEN),
        round=before.round + 1,
        enforced_at=before.enforced_at or (now if disruptive else None),
    )
    reopened = before.state is ContainmentState.RESTORING
    cancelled = tuple(t.task_id for t in queued_of(current) if t.undo_of) if reopened else ()
    tasks = tuple(
        replace(task, state=TaskState.CANCELLED) if task.task_id in cancelled else task
        for task in current.tasks
    )
    event = Event.OPENED if containment.round == 1 else Event.UPDATED
    drafts = round_drafts(
        containment, replace(current, tasks=tasks), registry, event=event, causes=attached
    )
    return Decision(
        outcome=_outcome(before),
        containment=containment,
        attached=attached,
        cleared=cleared,
        drafts=drafts,
        cancelled=cancelled,
    )


def _outcome(before: Containment) -> PlanOutcome:
    if before.state is ContainmentState.RESTORING:
        return PlanOutcome.REOPENED
    return PlanOutcome.ATTACHED if before.round else PlanOutcome.OPENED


def _update(
    order: ContainmentOrder,
    current: Situation,
    *,
    cleared: tuple[str, ...],
    registry: Registry,
    now: datetime,
) -> Decision:
    """Keep the containment; say so when a cause went and others stay."""
    containment = _refreshed(order, current.containment, state=current.containment.state)
    if not cleared:
        unchanged = containment == current.containment
        outcome = PlanOutcome.NOTHING if unchanged else PlanOutcome.UPDATED
        return Decision(outcome=outcome, containment=None if unchanged else containment)
    told: tuple[TaskDraft, ...] = ()
    if containment.state is ContainmentState.OPEN:
        summaries = [c.summary or c.name for c in current.causes if c.detection_id in cleared]
        key = f"cleared:{'+'.join(sorted(cleared))[:120]}:{now.timestamp()}"
        note = f"cleared: {'; '.join(summaries)}."
        told = notify_drafts(containment, Event.UPDATED, registry, key=key, note=note)
    return Decision(
        outcome=PlanOutcome.UPDATED, containment=containment, cleared=cleared, drafts=told
    )


def new_containment(order: ContainmentOrder, containment_id: str, now: datetime) -> Containment:
    """Return a containment of which nothing was done yet. Raises nothing."""
    return Containment(
        tenant_id=order.tenant_id,
        containment_id=containment_id,
        user_id=order.user_id,
        state=ContainmentState.OPEN,
        level=order.level,
        trace_id=order.trace_id,
        actions=frozenset(),
        reasons=order.reasons,
        identifiers=order.identifiers,
        label=order.label,
        round=0,
        opened_at=now,
        signal_received_at=order.received_at,
        enforced_at=None,
        closed_at=None,
    )


def _refreshed(
    order: ContainmentOrder, containment: Containment, *, state: ContainmentState
) -> Containment:
    """Return the containment with what the order knows better. Actions only grow until it ends."""
    return replace(
        containment,
        state=state,
        level=order.level,
        reasons=order.reasons,
        identifiers=order.identifiers or containment.identifiers,
        label=order.label or containment.label,
        actions=containment.actions | (order.actions & _NAMES),
    )


def active_ids(current: Situation) -> set[str]:
    """Return the ids of the causes that are not cleared. Raises nothing."""
    return {cause.detection_id for cause in current.causes if cause.cleared_at is None}


def _attached(order: ContainmentOrder, current: Situation, now: datetime) -> tuple[Cause, ...]:
    active = active_ids(current)
    room = CAUSES_MAX - len(active)
    new = {cause.detection_id: cause for cause in order.causes if cause.detection_id not in active}
    causes = list(new.values())[:room]
    return tuple(replace(cause, attached_at=now, cleared_at=None) for cause in causes)


def _cleared(order: ContainmentOrder, current: Situation) -> tuple[str, ...]:
    wanted = {cause.detection_id for cause in order.causes}
    return tuple(sorted(active_ids(current) - wanted - _protected_ids(current)))


def requested_ids(current: Situation) -> set[str]:
    """Return those of the active causes that are requests for a logout. Raises nothing."""
    active = (cause for cause in current.causes if cause.cleared_at is None)
    return {cause.detection_id for cause in active if cause.name == REQUESTED}


def _protected_ids(current: Situation) -> set[str]:
    """Return the requests that no judgement may end, because their logouts are under way."""
    is_under_way = any(task.kind in LOGOUTS for task in queued_of(current))
    return requested_ids(current) if is_under_way else set()


def is_restored(tasks: Sequence[Task]) -> bool:
    """Return whether nothing is left to take back: the latest removal of each place is settled.

    tasks: all membership tasks of a containment, oldest first. A failed removal keeps the
    containment restoring, in plain sight, until it is retried or given up. Raises nothing.
    """
    latest: dict[tuple[str, str | None], Task] = {}
    for task in tasks:
        if task.kind is TaskKind.QUARANTINE_REMOVE:
            latest[task.lane, task.payload.group_id] = task
    return all(task.state in {TaskState.DONE, TaskState.CANCELLED} for task in latest.values())


def order_of(situation: Situation) -> ContainmentOrder:
    """Return the order that a held containment stands for."""
    containment = situation.containment
    return ContainmentOrder(
        tenant_id=containment.tenant_id,
        user_id=containment.user_id,
        trace_id=containment.trace_id,
        level=containment.level,
        reasons=containment.reasons,
        causes=tuple(cause for cause in situation.causes if cause.cleared_at is None),
        actions=containment.actions,
        identifiers=containment.identifiers,
        label=containment.label,
        received_at=containment.signal_received_at,
    )
