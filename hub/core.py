"""The core process: hot writer, pipeline, schedules. Never does outbound HTTP.

One per SQLite file; on PostgreSQL every node has one and the holder of the lease works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.service
import actions.session_logout
import hub.guard.service
import hub.guard.store
import hub.reminders
import hub.sweeps
import receivers.store
import risk.app_use.service
import risk.baselines.service
import risk.contexts.service
import risk.inline.service
import risk.ips.service
import risk.reviews.service
import risk.service
import risk.signins.service
import runtime.changes
from hub.node import Node, ProcessConfig, open_node
from hub.oauth.store import system_purge_assertions, system_purge_revoked
from hub.operations import all_operations
from hub.pace import SIGNALS_MAX, Pace
from hub.pipeline import (
    TOPICS,
    caps_of,
    handle_signals,
    lock_tenants,
    publish_logouts,
    respond,
)
from hub.store import system_list_tenants
from hub.tenancy import DEFAULT_TENANT, tenant_issuer
from receivers.model import PendingSignal, SignalMark, SignalState
from receivers.refusals.model import LIFE
from receivers.refusals.store import system_purge_errors
from risk.mappings.service import MappingCache
from risk.networks.administration import read_all
from risk.networks.keeper import Keeper
from runtime.database import DELETED_AT_ONCE_MAX
from runtime.deadlocks import may_pass, repeated, was_undone
from runtime.queue import Fence, LeaseKeeper, fences_valid
from transmitters.upkeep.model import Limits
from transmitters.upkeep.service import Upkeep

LOOK_AGAIN_S: Final = 0.25
#: how often the database may fail one signal, and no other, before that is set aside
FAILURES_MAX: Final = 10
SCHEDULE_S: Final = 0.5
PURGE_S: Final = 60.0
UPKEEP_S: Final = 60.0
REMIND_S: Final = 300.0
LOCAL_TASKS_MAX: Final = 64
#: while intake queues it gets this many times the pipeline's time, a turn lasting at most a while
INTAKE_SHARE: Final = 4.0
INTAKE_TURN_MAX_S: Final = 0.5
#: what one small step of the upkeep takes, more or less
BREATH_S: Final = 0.05
#: turns of the event loop until what has just arrived is read, queued and committed
TURNS_UNTIL_COMMITTED: Final = 3
REASSESS_MAX: Final = 64
#: the one bucket that stands for "runs the pipeline"
LEADER_BUCKET: Final = 0
LEASE_KIND: Final = "core"

log = structlog.get_logger()


async def run_core(config: ProcessConfig, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with open_node(config, all_operations()) as node:
        core = Core(node)
        leases = LeaseKeeper(LEASE_KIND, config.name, writer=node.writer, clock=node.clock)
        renewed = asyncio.Event()
        node.spawn(leases.run(renewed))
        await renewed.wait()
        node.spawn(_repeat(node, leases, core.handle_signals, topic="signals"))
        node.spawn(_repeat(node, leases, core.publish_logouts, topic="tasks"))
        node.spawn(_repeat(node, leases, core.reassess, pause_s=SCHEDULE_S))
        node.spawn(_repeat(node, leases, core.sweep, pause_s=SCHEDULE_S))
        node.spawn(_repeat(node, leases, core.purge, pause_s=PURGE_S))
        node.spawn(_repeat(node, leases, core.tend_streams, pause_s=UPKEEP_S))
        node.spawn(_repeat(node, leases, core.remind, pause_s=REMIND_S))
        if (folder := config.networks_dir) is not None:
            keeper = Keeper(
                folder,
                clock=node.clock,
                notifier=node.notifier,
                feeds=partial(read_all, node.database, DEFAULT_TENANT),
            )
            # Not by lease: the files are this node's own.
            node.spawn(keeper.run())
        log.info("core.started", dialect=node.database.dialect)
        await stop.wait()


class Core:
    """The steps of the core process. Each is one transaction and returns whether more is left."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._issuer = partial(tenant_issuer, node.config.issuer)
        self._upkeep = Upkeep(
            database=node.database,
            clock=node.clock,
            limits=Limits(
                sets_max=node.config.stream_sets_max,
                age_max_s=node.config.stream_age_max_s,
                settled_max_s=node.config.delivery_retention_s,
                inactivity_timeout_s=node.config.inactivity_timeout_s,
            ),
            breathe=self._breathe,
        )
        self._mappings = MappingCache()
        #: signals that are tried one by one, because their batch failed
        self._one_by_one = 0
        #: the signal that failed alone, and how often in a row
        self._failing = ("", 0)
        self._pace = Pace()
        #: the last batch was full, so that there is probably more
        self._is_behind = False

    async def handle_signals(self, fence: Fence) -> bool:
        """Take one batch of the inbox through the pipeline."""
        limit = self._batch_size()
        waiting: list[PendingSignal] = []
        if limit == 1 or not self._is_behind:
            # An empty inbox must not cost a write transaction.
            async with self._node.database.snapshot() as connection:
                waiting = await receivers.store.pending_signals(connection, 1)
            if not waiting:
                self._one_by_one = 0
                return False
        self._is_behind = False
        started, used = time.monotonic(), time.thread_time()
        try:
            count = await self._handle(fence, limit)
            self._is_behind = count == limit
            self._pace.note(count, time.thread_time() - used)
        except Exception as error:
            if was_undone(error):
                # No signal is to blame, and the next time it may go through.
                raise
            if limit == 1:
                await self._note_failed(waiting[0], error)
            else:
                log.warning("batch.failed", exc_info=True)
                self._one_by_one = SIGNALS_MAX
        if self._one_by_one and limit == 1:
            self._one_by_one -= 1
        await self._let_intake_pass(time.monotonic() - started)
        return True

    def _batch_size(self) -> int:
        """Return how many signals to take: one after a failed batch, few while others write."""
        if self._one_by_one:
            return 1
        return self._pace.size(is_busy=self._node.config.crowd.is_busy)

    async def _let_intake_pass(self, took_s: float) -> None:
        """Hold the pipeline back while intake queues: what is accepted first can wait to be read.

        A flood then fills the inbox at nearly the speed of the disk, and the pipeline keeps a
        fifth of the writer. Without a flood only what is there already goes first.
        """
        for _ in range(TURNS_UNTIL_COMMITTED):
            # On SQLite nothing in a batch waits for anything, so that others get no turn in it.
            await asyncio.sleep(0)
        if self._node.config.crowd.is_crowded:
            await asyncio.sleep(min(INTAKE_SHARE * took_s, INTAKE_TURN_MAX_S))

    async def _handle(self, fence: Fence, limit: int) -> int:
        """Take up to `limit` signals through the pipeline; return how many there were."""
        node = self._node
        async with self._as_leader(fence) as connection:
            if connection is None:
                return 0
            batch = await receivers.store.pending_signals(connection, limit)
            if not batch:
                return 0
            topics = await handle_signals(
                connection,
                batch,
                issuer=self._issuer,
                now=node.clock.now(),
                mappings=self._mappings,
            )
        node.notifier.wake_all(topics)
        return len(batch)

    @asynccontextmanager
    async def _as_leader(self, fence: Fence) -> AsyncIterator[AsyncConnection | None]:
        """Yield a write transaction's connection, or None when another process leads by now."""
        async with self._node.database.transaction() as connection:
            yield connection if await fences_valid(connection, {fence}) else None

    async def _note_failed(self, signal: PendingSignal, error: Exception) -> None:
        """Set aside what fails by itself: one bad signal must not stop the inbox.

        A database that is away, or does not get to it in time, is no signal's fault: raises the
        error, until the same signal met that several times in a row.
        """
        of_before, failures = self._failing
        failures = failures + 1 if of_before == signal.signal_id else 1
        self._failing = (signal.signal_id, failures)
        if failures < FAILURES_MAX and may_pass(error):
            raise error
        log.error("signal.failed", signal_id=signal.signal_id, exc_info=error)
        await self._set_aside(signal)

    async def _set_aside(self, signal: PendingSignal) -> None:
        mark = SignalMark(
            tenant_id=signal.tenant_id,
            signal_id=signal.signal_id,
            state=SignalState.FAILED,
            detail="the hub failed on it; the log has the reason",
        )
        async with self._node.database.transaction() as connection:
            await receivers.store.mark_signals(connection, [mark], self._node.clock.now())

    async def publish_logouts(self, fence: Fence) -> bool:
        """Publish the session-revoked events that are due."""
        node = self._node
        now = node.clock.now()
        async with node.database.snapshot() as connection:
            if not await actions.service.local_due(connection, now, limit=1):
                return False
        async with self._as_leader(fence) as connection:
            if connection is None:
                return False
            tasks = await actions.service.local_due(connection, now, limit=LOCAL_TASKS_MAX)
            await publish_logouts(connection, tasks, now=now)
        node.notifier.wake_all(TOPICS)
        return True

    async def reassess(self, fence: Fence) -> bool:
        """Re-assess whom time, a new link or an expired pin concerns."""
        node = self._node
        now = node.clock.now()
        await self._tell(fence, now)
        async with node.database.snapshot() as connection:
            tenant_ids = await risk.service.tenants_to_reassess(connection, now)
        if not tenant_ids:
            return False
        async with self._as_leader(fence) as connection:
            if connection is None:
                return False
            await lock_tenants(connection, tenant_ids)
            caps = await caps_of(connection, tenant_ids)
            assessments = await risk.service.reassess_due(
                connection, now, limit=REASSESS_MAX, caps=caps, tenant_ids=tenant_ids
            )
            topics = await respond(connection, assessments, now=now)
        node.notifier.wake_all(topics)
        return True

    async def tend_streams(self, fence: Fence) -> bool:
        """Keep what streams hold within limits, delete old receipts, pause who is silent."""
        async with self._node.database.snapshot() as connection:
            tenants = await system_list_tenants(connection)
        for tenant in tenants:
            if tenant.status != "active":
                # Nothing of it can go out or be fetched: it waits, and nobody is to blame.
                continue
            if await self._upkeep.tend(tenant.tenant_id, partial(self._as_leader, fence)):
                self._node.notifier.wake_all(("deliveries", "polls"))
        return False

    async def remind(self, fence: Fence) -> bool:
        """Tell people of users who are at HIGH for long."""
        await hub.reminders.remind(self._node, partial(self._as_leader, fence))
        return False

    async def sweep(self, fence: Fence) -> bool:
        """Judge again, a page at a time, whom an edit of policies may concern."""
        await hub.sweeps.sweep(self._node, partial(self._as_leader, fence))
        return False

    async def _breathe(self) -> None:
        """Let others have the event loop, and intake its turn, between two small steps."""
        await asyncio.sleep(0)
        await self._let_intake_pass(BREATH_S)

    async def _tell(self, fence: Fence, now: datetime) -> None:
        """Tell admins of providers that were quarantined."""
        async with self._node.database.snapshot() as connection:
            if not await hub.guard.store.system_untold(connection):
                return
        async with self._as_leader(fence) as connection:
            if connection is None:
                return
            await hub.guard.service.tell(connection, now=now)
        self._node.notifier.wake("tasks")

    async def purge(self, _fence: Fence) -> bool:
        """Delete what nobody reads any more, in small batches, one after the other while it lasts.

        With one batch a minute a busy hub would write more than it deletes.
        """
        now = self._node.clock.now()
        purges: tuple[Callable[[AsyncConnection], Awaitable[int]], ...] = (
            runtime.changes.purge_changes,
            partial(system_purge_revoked, before=now),
            partial(risk.ips.service.purge, now=now),
            partial(risk.contexts.service.purge, now=now),
            partial(risk.inline.service.purge, now=now),
            partial(risk.reviews.service.purge, now=now),
            partial(actions.session_logout.purge, now=now),
            partial(risk.app_use.service.purge, now=now),
            partial(risk.baselines.service.purge, now=now),
            partial(risk.signins.service.purge, now=now),
            partial(system_purge_assertions, before=now),
            partial(system_purge_errors, before=now - LIFE),
        )
        deleted = []
        for purge in purges:
            # One after the other: who holds rows of one table waits for no other table's.
            async with self._node.database.transaction() as connection:
                deleted.append(await purge(connection))
        if max(deleted) < DELETED_AT_ONCE_MAX:
            return False
        await self._breathe()
        return True


async def _repeat(
    node: Node,
    leases: LeaseKeeper,
    step: Callable[[Fence], Awaitable[bool]],
    *,
    topic: str | None = None,
    pause_s: float = LOOK_AGAIN_S,
) -> None:
    """Run `step` while this process leads; look again when woken, and in any case after a while."""
    while True:
        seen = node.notifier.count(topic) if topic else 0
        more = False
        try:
            if LEADER_BUCKET in leases.buckets():
                more = await repeated(partial(step, leases.fence(LEADER_BUCKET)))
        except Exception:
            log.warning("core.step_failed", step=step.__name__, exc_info=True)
        if more:
            # A step may wait for nothing itself.
            await asyncio.sleep(0)
            continue
        if topic:
            await node.notifier.wait(topic, pause_s, since=seen)
        else:
            await asyncio.sleep(pause_s)
