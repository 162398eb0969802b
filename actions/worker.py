"""The source of work for the delivery processes: claim lanes, perform, settle.

Fairness: every target (an app's logouts, an IdP's group, a webhook) gets a bounded share of the
window, and one that does not answer gets a single probe at a time, so that an app that is down
delays no other app, however many users are being logged out.
"""

from __future__ import annotations

import random
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from actions import store
from actions.messages import Step
from actions.model import Task, TaskKind, TaskResult, TaskState, target_of_lane
from actions.notices import notice_containment
from actions.outcomes import Outcome, OutcomeClass, classify_failure, decide_next
from actions.performing import Performed, SigningKeys, Tools, Work, perform
from actions.registry import store as registry_store
from actions.service import target_names
from actions.settlement import SETTLE_TASKS, TaskSettlement
from actions.store import Connection
from actions.tasks import store as task_store
from actions.tasks.store import LaneLimits
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import Unavailable
from runtime.keyring import Keyring
from runtime.lanes import Forgetful
from runtime.outbound import Outbound
from runtime.queue import Fence, Suspended, nobody_suspended
from runtime.secrets import SecretBox
from runtime.writer import Operation

IN_FLIGHT_PER_TARGET_MAX: Final = 8
#: SCIM servers are slow and rate-limited; requirement SCC-18
IN_FLIGHT_PER_GROUP_MAX: Final = 2
IN_FLIGHT_WHEN_FAILING_MAX: Final = 1
FAILING_TARGETS_MAX: Final = 500

_LOGOUT_KINDS: Final = frozenset({TaskKind.IDP_LOGOUT, TaskKind.APP_LOGOUT})

log = structlog.get_logger()
_attempts_total = Counter("hub_actions_attempts_total", "Attempts of tasks.", ["kind", "outcome"])
_signal_to_logout = Histogram(
    "hub_actions_signal_to_logout_seconds",
    "From the signal's receipt to an app's acknowledged logout.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 900),
)


class TaskSource(Forgetful):
    """Implements `runtime.lanes.LaneSource` for tasks."""

    kind = "tasks"

    def __init__(  # noqa: PLR0913 - what requests are made of, and for whom
        self,
        database: Database,
        outbound: Outbound,
        *,
        keyring: Keyring,
        box: SecretBox,
        clock: Clock,
        issuer: Callable[[str], str],
        suspended: Suspended = nobody_suspended,
        settle: Operation[TaskSettlement, bool] = SETTLE_TASKS,
    ) -> None:
        """issuer: the tenant's issuer URL by tenant id.

        settle: how outcomes are recorded; whoever does more with them than we do passes its own.
        """
        self.settle = settle
        self._database = database
        self._suspended = suspended
        self._tools = Tools(
            outbound=outbound, keys=SigningKeys(keyring), box=box, clock=clock, issuer=issuer
        )
        self._failing: set[str] = set()

    async def due(
        self, buckets: Collection[int], now: datetime, limit: int, busy: Collection[str]
    ) -> Sequence[Work]:
        """Return due heads of lanes, at most `limit`, fair over targets."""
        under_way = Tally(target_of_lane(lane) for lane in busy)
        limits = LaneLimits(
            busy=busy,
            full=[target for target, count in under_way.items() if count >= self._share(target)],
            failing=sorted(self._failing),
            per_target=IN_FLIGHT_PER_TARGET_MAX,
            suspended=sorted(await self._suspended()),
        )
        async with self._database.snapshot() as connection:
            tasks = await task_store.system_due_tasks(
                connection, buckets, now, limits=limits, limit=limit
            )
            taken = []
            for task in tasks:
                if under_way[task.target] < self._share(task.target):
                    under_way[task.target] += 1
                    taken.append(task)
            return await _load(connection, taken)

    def lane(self, work: Work) -> str:
        """Return the lane of `work`."""
        return work.task.lane

    def bucket(self, work: Work) -> int:
        """Return the bucket of `work`."""
        return work.task.bucket

    async def perform(self, work: Work, fence: Fence) -> TaskSettlement:
        """Make one attempt and return its settlement; raises nothing but cancellation."""
        started = time.perf_counter()
        performed = await self._attempt(work)
        ended_at = self._tools.clock.now()
        task, outcome = work.task, performed.outcome
        step = decide_next(
            task,
            outcome,
            now=ended_at,
            jitter=random.random(),  # noqa: S311 - spreads retries, keeps no secret
        )
        self._note_health(task.target, outcome)
        settlement = TaskSettlement(
            tenant_id=task.tenant_id,
            task_id=task.task_id,
            containment_id=task.containment_id,
            fence=fence,
            attempt_number=task.attempts + 1,
            at=ended_at,
            duration_ms=(time.perf_counter() - started) * 1000,
            outcome=outcome.klass.value,
            state=step.state.value,
            due_at=step.due_at,
            payload=performed.payload,
            result=TaskResult(detail=step.detail, status=outcome.status, residual=outcome.residual),
            proves=outcome.proves.value,
            status=outcome.status,
        )
        _report(work, settlement)
        return settlement

    async def _attempt(self, work: Work) -> Performed:
        payload = work.task.payload
        try:
            return await perform(work, self._tools)
        except Unavailable as error:
            return Performed(outcome=classify_failure(error), payload=payload)
        except Exception as error:
            # Outermost step of the worker: a bug or a missing key must not lose the task.
            log.exception("task.broken", task_id=work.task.task_id)
            detail = f"an error on our side: {type(error).__name__}"
            outcome = Outcome(klass=OutcomeClass.TRANSIENT, detail=detail)
            return Performed(outcome=outcome, payload=payload)

    def _share(self, target: str) -> int:
        if target in self._failing:
            return IN_FLIGHT_WHEN_FAILING_MAX
        if target.startswith("quarantine|"):
            return IN_FLIGHT_PER_GROUP_MAX
        return IN_FLIGHT_PER_TARGET_MAX

    def _note_health(self, target: str, outcome: Outcome) -> None:
        """Remember targets that do not answer; forget them with the first answer."""
        if outcome.status or outcome.klass is not OutcomeClass.TRANSIENT:
            self._failing.discard(target)
        elif len(self._failing) < FAILING_TARGETS_MAX:
            self._failing.add(target)


async def _load(connection: Connection, tasks: Sequence[Task]) -> list[Work]:
    """Return tasks with what their attempts need; a fixed number of reads."""
    if not tasks:
        return []
    containments = await store.containments_by_key(
        connection, {(task.tenant_id, task.containment_id) for task in tasks}
    )
    apps = await registry_store.sealed_apps(
        connection, {(task.tenant_id, task.app_id) for task in tasks if task.app_id}
    )
    webhooks = await registry_store.sealed_webhooks(
        connection, {(task.tenant_id, task.webhook_id) for task in tasks if task.webhook_id}
    )
    told = {(task.tenant_id, task.containment_id) for task in tasks if task.kind is TaskKind.NOTIFY}
    causes = await store.causes_of(connection, told)
    siblings = await task_store.tasks_of(connection, told)
    names = await target_names(connection, [task for some in siblings.values() for task in some])
    works = []
    for task in tasks:
        key = (task.tenant_id, task.containment_id)
        mine = siblings.get(key, ()) if task.kind is TaskKind.NOTIFY else ()
        works.append(
            Work(
                task=task,
                containment=containments.get(key)
                or notice_containment(task.tenant_id, task.containment_id, task.created_at),
                app=apps.get((task.tenant_id, task.app_id or "")),
                webhook=webhooks.get((task.tenant_id, task.webhook_id or "")),
                causes=tuple(causes.get(key, ())),
                steps=tuple(Step(task=one, target_name=names[one.task_id]) for one in mine),
            )
        )
    return works


def _report(work: Work, settlement: TaskSettlement) -> None:
    """Write the one line of this attempt, and count it."""
    task = work.task
    _attempts_total.labels(task.kind.value, settlement.outcome).inc()
    if task.kind in _LOGOUT_KINDS and settlement.state == TaskState.DONE:
        since = settlement.at - work.containment.signal_received_at
        _signal_to_logout.observe(max(since.total_seconds(), 0.0))
    failed = settlement.state == TaskState.FAILED
    event = "logout.attempted" if task.kind in _LOGOUT_KINDS else "task.attempted"
    write = log.warning if failed else log.info
    write(
        event,
        tenant_id=task.tenant_id,
        task_id=task.task_id,
        containment_id=task.containment_id,
        kind=task.kind.value,
        target=task.target,
        trace_id=work.containment.trace_id,
        attempt_number=settlement.attempt_number,
        outcome=settlement.outcome,
        state=settlement.state,
        status=settlement.status,
        detail=settlement.result.detail,
        duration_ms=round(settlement.duration_ms, 1),
    )
