"""The upkeep of a tenant's streams, in small transactions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from runtime.clock import Clock, epoch_s
from runtime.database import Database
from ssf.stream import StreamStatus
from ssf.stream_requests import StatusUpdate
from transmitters.delivery.model import REFUSED_IN_ROW_MAX
from transmitters.health import store as health
from transmitters.management import set_status_by_transmitter
from transmitters.metrics import dropped_total, purged_total
from transmitters.model import STREAM_DELETED
from transmitters.store import Connection, get_stream
from transmitters.upkeep import store
from transmitters.upkeep.model import (
    BATCH_ROWS,
    BATCHES_MAX,
    HELD_TOO_LONG,
    HELD_TOO_MANY,
    HOP_ROWS,
    IDLE_STREAMS_MAX,
    Limits,
    silent_since,
)

log = structlog.get_logger()

#: begins a write transaction; yields None when another process does the upkeep by now
Begin = Callable[[], AbstractAsyncContextManager[Connection | None]]


@dataclass(slots=True, kw_only=True)
class Upkeep:
    """Goes over streams and deliveries now and then; every transaction is small.

    breathe: awaited between transactions, so that what is urgent comes first. after: where the
    last walk over a tenant's deliveries stopped.
    """

    database: Database
    clock: Clock
    limits: Limits
    breathe: Callable[[], Awaitable[None]]
    after: dict[str, str] = field(default_factory=dict)

    async def tend(self, tenant_id: str, begin: Begin) -> bool:
        """Do one tenant's upkeep; return whether anything of it is for its receivers to hear.

        Requirements SSF-STAT-13, SSF-CFG-12, PUSH-42.
        """
        await self._trim(tenant_id, begin)
        await self._purge_deliveries(tenant_id, begin)
        await self._purge_events(tenant_id, begin)
        refused = await self._pause_refused(tenant_id, begin)
        return await self._pause_silent(tenant_id, begin) or refused

    # --- what is held -----------------------------------------------------------------------------

    async def _trim(self, tenant_id: str, begin: Begin) -> None:
        """Drop what streams hold too long, or beyond what they may hold: the oldest first.

        And all that is queued for a stream that is gone: an older release could leave it behind.
        """
        after = ""
        for _ in range(BATCHES_MAX):
            async with self.database.snapshot() as connection:
                found = await store.streams_with_pending(
                    connection, tenant_id, after=after, limit=BATCH_ROWS
                )
            for stream_id, is_there in found:
                await self._trim_stream(tenant_id, stream_id, begin, is_there=is_there)
            if len(found) < BATCH_ROWS:
                return
            after, _ = found[-1]
            await self.breathe()

    async def _trim_stream(
        self, tenant_id: str, stream_id: str, begin: Begin, *, is_there: bool
    ) -> None:
        old = self.clock.now()
        surplus_before = None
        if is_there:
            old -= timedelta(seconds=self.limits.age_max_s)
            surplus_before = await self._first_kept(tenant_id, stream_id)
        for _ in range(BATCHES_MAX):
            async with self.database.snapshot() as connection:
                page = await store.oldest_pending(
                    connection, tenant_id, stream_id=stream_id, limit=BATCH_ROWS
                )
            too_old = [one.jti for one in page if one.queued_at <= old]
            surplus = [
                one.jti
                for one in page
                if one.queued_at > old and surplus_before and one.jti < surplus_before
            ]
            if not (too_old or surplus):
                return
            async with begin() as connection:
                if connection is None:
                    return
                # Streams before their deliveries, as everywhere.
                await get_stream(connection, tenant_id, stream_id=stream_id, hold=True)
                why_old = HELD_TOO_LONG if is_there else STREAM_DELETED
                for jtis, reason in ((too_old, why_old), (surplus, HELD_TOO_MANY)):
                    count = await store.drop(
                        connection,
                        tenant_id,
                        stream_id=stream_id,
                        jtis=jtis,
                        err=reason,
                        now=self.clock.now(),
                    )
                    _count_dropped(tenant_id, stream_id, count, reason)
            await self.breathe()

    async def _first_kept(self, tenant_id: str, stream_id: str) -> str | None:
        """Return the jti of the oldest SET that the stream may hold, None when it holds less."""
        before: str | None = None
        left = self.limits.sets_max
        while left > 0:
            hop = min(left, HOP_ROWS)
            async with self.database.snapshot() as connection:
                before = await store.pending_before(
                    connection, tenant_id, stream_id=stream_id, before=before, hop=hop
                )
            if before is None:
                return None
            left -= hop
            if left:
                await self.breathe()
        return before

    # --- what is settled --------------------------------------------------------------------------

    async def _purge_deliveries(self, tenant_id: str, begin: Begin) -> None:
        """Delete receipts that are old enough, oldest first, going on where the last walk ended."""
        until = self.clock.now() - timedelta(seconds=self.limits.settled_max_s)
        for _ in range(BATCHES_MAX):
            async with self.database.snapshot() as connection:
                page = await store.oldest_deliveries(
                    connection, tenant_id, after=self.after.get(tenant_id, ""), limit=BATCH_ROWS
                )
            old = [one.jti for one in page if one.settled_at and one.settled_at <= until]
            if old:
                async with begin() as connection:
                    if connection is None:
                        return
                    count = await store.delete_settled(connection, tenant_id, jtis=old, until=until)
                purged_total.labels("deliveries").inc(count)
            # What was issued later cannot have been settled before.
            ends = len(page) < BATCH_ROWS or page[-1].iat > epoch_s(until)
            self.after[tenant_id] = "" if ends else page[-1].jti
            if ends:
                return
            await self.breathe()

    async def _purge_events(self, tenant_id: str, begin: Begin) -> None:
        until = self.clock.now() - timedelta(seconds=self.limits.settled_max_s)
        for _ in range(BATCHES_MAX):
            async with self.database.snapshot() as connection:
                found = await store.unused_events(
                    connection, tenant_id, until=until, limit=BATCH_ROWS
                )
            if not found:
                return
            async with begin() as connection:
                if connection is None:
                    return
                count = await store.delete_events(connection, tenant_id, event_ids=found)
            purged_total.labels("events").inc(count)
            await self.breathe()

    # --- who refuses, who is silent ---------------------------------------------------------------

    async def _pause_refused(self, tenant_id: str, begin: Begin) -> bool:
        """Pause streams whose endpoint refuses all, and say so in case it hears (PUSH-42)."""
        async with self.database.snapshot() as connection:
            found = await store.refused_streams(connection, tenant_id, limit=IDLE_STREAMS_MAX)
        if not found:
            return False
        async with begin() as connection:
            if connection is None:
                return False
            for stream_id in found:
                stream = await get_stream(connection, tenant_id, stream_id=stream_id, lock=True)
                if stream is None:
                    continue
                update = StatusUpdate(
                    stream_id=stream_id,
                    status=StreamStatus.PAUSED,
                    reason=f"The endpoint refused {REFUSED_IN_ROW_MAX} SETs in a row.",
                )
                await set_status_by_transmitter(connection, stream, update, now=self.clock.now())
                # The announcement is sent, once; and whoever enables the stream begins anew.
                await health.forget_failures(connection, tenant_id, stream_id=stream_id)
        return True

    async def _pause_silent(self, tenant_id: str, begin: Begin) -> bool:
        """Pause enabled streams whose receiver is silent, and tell it (SSF-CFG-12, SSF-UPD-2)."""
        timeout_s = self.limits.inactivity_timeout_s
        if timeout_s is None:
            return False
        now = self.clock.now()
        since = silent_since(timeout_s, now)
        async with self.database.snapshot() as connection:
            found = await store.silent_streams(
                connection, tenant_id, since=since, limit=IDLE_STREAMS_MAX
            )
        if not found:
            return False
        async with begin() as connection:
            if connection is None:
                return False
            # A stream from before there was a time-out has its whole time from now on.
            await store.begin_timers(connection, tenant_id, now=now)
            for stream_id in found:
                stream = await get_stream(connection, tenant_id, stream_id=stream_id, lock=True)
                if stream is None or stream.active_at is None or stream.active_at > since:
                    continue
                update = StatusUpdate(
                    stream_id=stream_id,
                    status=StreamStatus.PAUSED,
                    reason=f"No activity of the receiver for {timeout_s} s.",
                )
                await set_status_by_transmitter(connection, stream, update, now=now)
        return True


def _count_dropped(tenant_id: str, stream_id: str, count: int, reason: str) -> None:
    if count:
        dropped_total.labels(reason).inc(count)
        log.warning(
            "stream.trimmed",
            tenant_id=tenant_id,
            stream_id=stream_id,
            dropped_count=count,
            reason=reason,
        )
