"""Use cases of IP risk: take a report, forget what is over. `report` takes batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Final

from risk.ips import store
from risk.ips.model import CALLS_PER_WINDOW_MAX, WINDOW, IPReport
from risk.sql.store import Connection
from runtime.changes import note_changes
from runtime.writer import Operation

#: what the change feed calls claims about addresses; refs are addresses, or ANY for many of them
IPS_KIND: Final = "ips"
ANY: Final = "*"
REFS_PER_REPORT_MAX: Final = 64


async def report(connection: Connection, items: Sequence[IPReport]) -> list[float]:
    """Store reports of any tenants; return for each 0, or after how many seconds to come again.

    A client may call 30 times in a minute that begins with its first call; the calls are counted
    here, in the transaction that stores what they say, so that all processes count together.
    """
    waits: dict[int, float] = {}
    order = sorted(range(len(items)), key=lambda place: items[place].tenant_id)
    for tenant_id, places in groupby(order, key=lambda place: items[place].tenant_id):
        batch = {place: items[place] for place in places}
        waits |= await _report_of_tenant(connection, tenant_id, batch)
    return [waits[place] for place in range(len(items))]


async def _report_of_tenant(
    connection: Connection, tenant_id: str, batch: dict[int, IPReport]
) -> dict[int, float]:
    clients = {item.client_id for item in batch.values()}
    now = max(item.received_at for item in batch.values())
    windows = await store.lock_windows(connection, tenant_id, clients, now=now)
    waits: dict[int, float] = {}
    for place, item in batch.items():
        window, waits[place] = counted(windows[item.client_id], item.received_at)
        windows[item.client_id] = window
    for client_id in sorted(clients):
        await store.write_window(connection, tenant_id, client_id, windows[client_id])
    taken = sorted(
        (item for place, item in batch.items() if not waits[place]), key=attrgetter("received_at")
    )
    claims = [claim for item in taken for claim in item.claims]
    await store.write_claims(connection, tenant_id, claims)
    ips = {claim.ip for claim in claims}
    refs = sorted(ips) if len(ips) <= REFS_PER_REPORT_MAX else [ANY]
    await note_changes(connection, IPS_KIND, [(tenant_id, ref) for ref in refs])
    return waits


def counted(window: tuple[datetime, int], at: datetime) -> tuple[tuple[datetime, int], float]:
    """Count one call: return the window after it, and how many seconds to wait, 0 for none.

    Raises nothing.
    """
    started_at, calls = window
    if at >= started_at + WINDOW or at < started_at - WINDOW:
        started_at, calls = at, 0
    if calls >= CALLS_PER_WINDOW_MAX:
        return (started_at, calls), max(1.0, (started_at + WINDOW - at).total_seconds())
    return (started_at, calls + 1), 0.0


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget claims that are over, a bounded number; return how many."""
    return await store.system_purge_claims(connection, before=now)


REPORT_IPS: Final = Operation(
    name="risk.report_ips", item=IPReport, result=float, handle=report, wakes=("changes",)
)
