"""What a receiver does with its stream, and writing it down without a write per poll."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from runtime.writer import Operation
from transmitters.deps import TransmitterDeps
from transmitters.model import Stream
from transmitters.store import Connection
from transmitters.upkeep import store
from transmitters.upkeep.model import is_news


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver did something with its stream."""

    tenant_id: str
    stream_id: str
    at: datetime


async def _note(connection: Connection, items: Sequence[Activity]) -> list[bool]:
    latest = {(item.tenant_id, item.stream_id): item.at for item in items}
    for (tenant_id, stream_id), at in sorted(latest.items()):
        await store.note_activity(connection, tenant_id, stream_id=stream_id, at=at)
    return [True] * len(items)


ACTIVITY: Final = Operation(
    name="transmitters.activity", item=Activity, result=bool, handle=_note, is_own=True
)


async def restart_timer(stream: Stream, *, deps: TransmitterDeps) -> None:
    """Note that the receiver read, or polled; what it changes notes it by itself.

    Costs a write only when it is news. Source: SSF 1.0 §8.1.1; requirements SSF-CFG-11, POLL-26.
    """
    now = deps.clock.now()
    if is_news(stream, deps.inactivity_timeout_s, now):
        seen = Activity(tenant_id=stream.tenant_id, stream_id=stream.stream_id, at=now)
        await deps.writer.submit(ACTIVITY, seen)
