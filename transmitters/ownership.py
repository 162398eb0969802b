"""Whose stream it is, and that a write to it is audited: the frame of every use case on streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runtime.audit import AuditNote
from runtime.caller import Caller
from runtime.errors import NotFound
from transmitters import store
from transmitters.deps import TransmitterDeps
from transmitters.model import Stream
from transmitters.store import Connection


@asynccontextmanager
async def audited(
    caller: Caller, deps: TransmitterDeps, action: str, ref: str, detail: dict[str, Any]
) -> AsyncIterator[Connection]:
    """Yield a transaction whose audit entry is written; a refusal undoes both."""
    note = AuditNote(
        tenant_id=caller.tenant_id, actor=caller.client_id, action=action, ref=ref, detail=detail
    )
    async with deps.db.transaction() as connection:
        await deps.add_audit(connection, note, now=deps.clock.now())
        yield connection


async def own_stream(
    connection: Connection, caller: Caller, stream_id: str, *, lock: bool = False
) -> Stream:
    """Return a stream of the caller; one of somebody else is not there. Raises NotFound."""
    stream = await store.get_stream(connection, caller.tenant_id, stream_id=stream_id, lock=lock)
    if stream is None or stream.client_id != caller.client_id:
        raise NotFound("No such stream.")
    return stream
