"""The hot writes of upstreams: what must be durable before a request, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter

from receivers.model import AcceptedSET
from receivers.upstreams import store
from receivers.upstreams.model import Begin, Change, Settlement, StateCheck
from receivers.upstreams.store import Connection
from runtime.queue import fences_valid
from runtime.writer import Operation
from ssf.events.ssf import STREAM_EVENT_TYPES, StreamUpdated
from ssf.stream import StreamStatus

REASON_CHARS_MAX: Final = 1_000

log = structlog.get_logger()
_updates_total = Counter(
    "hub_receivers_upstream_updates_total",
    "Changes of status that upstreams announced.",
    ["status"],
)
_silences_total = Counter(
    "hub_receivers_upstream_silences_total", "Verifications that were asked for and did not come."
)


async def _begin(connection: Connection, items: Sequence[Begin]) -> list[bool]:
    valid = await fences_valid(connection, {item.fence for item in items})
    answers: dict[int, bool] = {}
    for place in _in_order(items):
        item = items[place]
        holds = item.fence in valid
        if holds and item.order_id is not None:
            sent = Change(order_state="sent")
            holds = await store.change_upstream(
                connection, item.tenant_id, item.upstream_id, sent, order_id=item.order_id
            )
        if holds and item.state is not None:
            await store.add_state(
                connection, item.tenant_id, item.upstream_id, state=item.state, at=item.at
            )
        answers[place] = holds
    return [answers[place] for place in range(len(items))]


async def _settle(connection: Connection, items: Sequence[Settlement]) -> list[bool]:
    valid = await fences_valid(connection, {item.fence for item in items})
    done: dict[int, bool] = {}
    for place in _in_order(items):
        item = items[place]
        done[place] = item.fence in valid and await store.change_upstream(
            connection,
            item.tenant_id,
            item.upstream_id,
            item.change,
            order_id=item.order_id,
            awaited_since=item.awaited_since,
        )
        if done[place] and item.change.is_silent is True:
            _silences_total.inc()
            log.error(
                "upstream.silent",
                tenant_id=item.tenant_id,
                upstream_id=item.upstream_id,
                awaited_since=str(item.awaited_since),
            )
    return [done[place] for place in range(len(items))]


def _in_order(items: Sequence[Begin | Settlement]) -> list[int]:
    """Return the places of items in the order in which everybody locks upstreams.

    So that two batches cannot wait for each other.
    """
    return sorted(range(len(items)), key=lambda i: (items[i].tenant_id, items[i].upstream_id))


async def _check_states(connection: Connection, items: Sequence[StateCheck]) -> list[bool]:
    return [
        await store.is_state_known(
            connection, item.tenant_id, item.upstream_id, state=item.state, at=item.at
        )
        for item in items
    ]


async def note_arrivals(connection: Connection, arrived: Sequence[AcceptedSET]) -> None:
    """Record what SETs that have just been stored say of their upstreams.

    Part of the inbox's transaction, so that a change of status is neither lost nor taken twice.
    Requirements SSF-VER-10, SSF-UPD-6.
    """
    of_upstream: dict[tuple[str, str], list[AcceptedSET]] = {}
    for item in arrived:
        if item.upstream_id is not None:
            of_upstream.setdefault((item.tenant_id, item.upstream_id), []).append(item)
    # One upstream after the other, in the same order everywhere: nobody waits for each other.
    for (tenant_id, upstream_id), items in sorted(of_upstream.items(), key=lambda pair: pair[0]):
        at = max(item.received_at for item in items)
        await store.note_heard(connection, tenant_id, upstream_id, at=at)
        for item in items:
            if item.event_type in STREAM_EVENT_TYPES:
                await _note_stream_event(connection, item)


async def _note_stream_event(connection: Connection, item: AcceptedSET) -> None:
    upstream_id = item.upstream_id or ""
    upstream = await store.get_upstream(connection, item.tenant_id, upstream_id, lock=True)
    if upstream is None:
        return
    if item.event_type != StreamUpdated.type_uri:
        await store.note_verified(connection, upstream, item.received_at)
        log.info("upstream.verified", tenant_id=item.tenant_id, upstream_id=upstream_id)
        return
    payload = _members(item.payload)
    status = payload.get("status")
    if status not in set(StreamStatus):
        # Logged, not refused; the status endpoint will say more (SSF-UPD-6, CR-21).
        status = upstream.stream_status
    reason = payload.get("reason")
    change = Change(
        stream_status=status,
        stream_reason=str(reason)[:REASON_CHARS_MAX] if reason else None,
        status_due_at=item.received_at if upstream.stream_id else None,
        poll_due_at=item.received_at,
    )
    await store.change_upstream(connection, item.tenant_id, upstream_id, change)
    _updates_total.labels(status or "unknown").inc()
    log.warning(
        "upstream.stream_updated",
        tenant_id=item.tenant_id,
        upstream_id=upstream_id,
        status=status,
    )


def _members(payload: bytes) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.json.decode(payload)
    return members


BEGIN: Final = Operation(name="receivers.upstream_begin", item=Begin, result=bool, handle=_begin)
SETTLE: Final = Operation(
    name="receivers.upstream_settle", item=Settlement, result=bool, handle=_settle, is_own=True
)
CHECK_STATE: Final = Operation(
    name="receivers.upstream_state", item=StateCheck, result=bool, handle=_check_states
)
OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (BEGIN, SETTLE, CHECK_STATE)
