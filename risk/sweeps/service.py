"""Use cases of sweeps: begin one with an edit, take its next page, tell how it went.

    policy or zone written ─▶ request, same transaction ─▶ core, a page at a time ─▶ done
      sessions: each live one is noted for review, and judged by an api process
      users:    asked of policy as if they had just come to their level

INVARIANT: the place is written in the transaction of the page, so that a crash repeats or skips
nothing; a newer edit begins anew instead of standing in line.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from risk.reviews import store as reviews_store
from risk.reviews.model import ReviewCause, new_review
from risk.sessions import store as sessions_store
from risk.sql.store import Connection
from risk.sweeps import store
from risk.sweeps.model import (
    CAUSE_CHARS_MAX,
    SESSIONS_MAX,
    USERS_MAX,
    WAITING_MAX,
    ZONE_CAUSE,
    Sweep,
    SweepKind,
    SweepState,
)
from runtime.ids import new_id


async def request(
    connection: Connection, tenant_id: str, kind: SweepKind, *, cause: str, now: datetime
) -> Sweep:
    """Begin a sweep, in the transaction of what leads to it; one that runs begins anew."""
    sweep = Sweep(
        tenant_id=tenant_id,
        kind=kind,
        sweep_id=new_id("swp"),
        cause=cause[:CAUSE_CHARS_MAX],
        state=SweepState.RUNNING,
        requested_at=now,
        worked_at=now,
    )
    await store.write_sweep(connection, sweep)
    return sweep


async def take(connection: Connection, sweep: Sweep) -> Sweep | None:
    """Return a running sweep as it is now, locked; None when it is over or was begun anew."""
    held = await store.lock_sweep(connection, sweep.tenant_id, sweep.kind, sweep.sweep_id)
    return held if held is not None and held.state is SweepState.RUNNING else None


async def note_sessions(connection: Connection, sweep: Sweep, *, now: datetime) -> Sweep:
    """Note the next live sessions for review and move on; none while too many reviews wait."""
    if await reviews_store.system_count_reviews(connection, at_most=WAITING_MAX) >= WAITING_MAX:
        return await finish_step(connection, sweep, is_last=False, now=now)
    page = await sessions_store.sessions_after(
        connection, sweep.tenant_id, after=sweep.after, limit=SESSIONS_MAX
    )
    live = [each for each in page if each.is_live(now)][:WAITING_MAX]
    is_last = len(page) < SESSIONS_MAX and len(live) < WAITING_MAX
    cause = ReviewCause.ZONE if sweep.cause.startswith(ZONE_CAUSE) else ReviewCause.POLICY
    reached = live[-1] if len(live) == WAITING_MAX else page[-1] if page else None
    await reviews_store.add_reviews(
        connection,
        [new_review(each, cause, at=now, trace_id=sweep.sweep_id) for each in live],
    )
    moved = replace(
        sweep,
        after=reached.session_id if reached else sweep.after,
        looked=sweep.looked + len(live),
    )
    return await finish_step(connection, moved, is_last=is_last, now=now)


async def next_users(connection: Connection, sweep: Sweep) -> list[str]:
    """Return the next users above LOW, by id."""
    return await store.raised_after(connection, sweep.tenant_id, after=sweep.after, limit=USERS_MAX)


async def finish_step(
    connection: Connection, sweep: Sweep, *, is_last: bool, now: datetime
) -> Sweep:
    """Write how far a sweep came, in the transaction of the step."""
    moved = replace(
        sweep,
        worked_at=now,
        state=SweepState.DONE if is_last else SweepState.RUNNING,
        done_at=now if is_last else None,
    )
    await store.write_sweep(connection, moved)
    return moved
