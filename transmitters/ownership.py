"""Whose stream it is, and that a write to it is audited: the frame of every use case on streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
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
    connection: Connection, caller: Caller, stream_id: str, *, changes_at: datetime | None = None
) -> Stream:
    """Return a stream of the caller; one of somebody else is not there. Raises NotFound.

    changes_at: for a use case that changes the stream, which is activity of its receiver; it is
    held until the commit.
    """
    stream = await store.get_stream(
        connection, caller.tenant_id, stream_id=stream_id, lock=changes_at is not None
    )
    if stream is None or stream.client_id != caller.client_id:
        raise NotFound("No such stream.")
    return stream if changes_at is None else replace(stream, active_at=changes_at)
