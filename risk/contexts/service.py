"""Use cases of recorded contexts: note those that were judged, forget old ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from risk.contexts import store
from risk.policies.recorded import RecordedContext
from risk.sql.store import Connection
from runtime.writer import Operation

#: policies are tried on a month of use
LIFE: Final = timedelta(days=30)


async def record(connection: Connection, items: Sequence[RecordedContext]) -> list[bool]:
    """Append records of any tenants."""
    await store.add_contexts(connection, items)
    return [True] * len(items)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget records that are too old, a bounded number; return how many."""
    return await store.system_purge_contexts(connection, before=now - LIFE)


RECORD: Final = Operation(
    name="risk.record_context", item=RecordedContext, result=bool, handle=record, is_own=True
)
