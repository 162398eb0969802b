"""Use cases of the transmitter: manage streams, publish events, answer polls, redrive."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from runtime import ids
from runtime.caller import Caller
from runtime.clock import Clock, epoch_s
from runtime.database import Database
from runtime.errors import Conflict, NotFound
from runtime.feed import bump
from runtime.notify import Notifier
from runtime.secrets import SecretBox
from runtime.writer import Writer
from ssf.errors import EventError, LocalProtocolError, SharedSignalsError
from ssf.events.registry import parse_event, render_event
from ssf.poll import PollRequest
from ssf.stream import (
    StreamConfiguration,
    StreamStatus,
    WantedStream,
    new_configuration,
)
from transmitters import store
from transmitters.delivery.model import (
    LONG_POLL_S,
    POLL_SETS_MAX,
    PollTurn,
    SETRefusal,
)
from transmitters.delivery.operations import POLL
from transmitters.delivery.store import has_visible
from transmitters.keys import SigningKeys
from transmitters.metrics import published_total
from transmitters.model import (
    EVENTS_SUPPORTED,
    STREAMS_PER_CLIENT_MAX,
    Addressing,
    EventToPublish,
    Published,
    Stream,
    bounded_ordering_key,
    configuration_of,
    poll_url,
)
from transmitters.store import Connection

__all__ = [
    "PolledSETs",
    "TransmitterDeps",
    "create_stream",
    "delete_stream",
    "list_streams",
    "poll",
    "publish",
    "read_stream",
    "redrive",
]

#: a waiting poll looks again after this long at the latest, woken or not
LOOK_AGAIN_S: Final = 1.0

log = structlog.get_logger()


def _going_on() -> bool:
    return False


async def _no_preference(_tenant_id: str, _app_id: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolledSETs:
    """The answer to one poll. sets: jti to compact SET, oldest first."""

    sets: Mapping[str, str]
    more_available: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TransmitterDeps:
    """What stream management and polling run on, placed into `app.state.transmitters` by hub.

    issuer: tenant id to issuer. subject_format_of: (tenant, app) to the subject format that the
    app's streams get, None for subjects as the event has them. allow_http: the development switch.
    is_stopping: whether this process is about to end, so that nothing should wait any longer.
    """

    db: Database
    writer: Writer
    notifier: Notifier
    clock: Clock
    keys: SigningKeys
    box: SecretBox
    issuer: Callable[[str], str]
    subject_format_of: Callable[[str, str], Awaitable[str | None]] = _no_preference
    allow_http: bool = False
    long_poll_s: float = LONG_POLL_S
    is_stopping: Callable[[], bool] = _going_on


async def create_stream(
    wanted: WantedStream,
    *,
    caller: Caller,
    deps: TransmitterDeps,
    aud: tuple[str, ...] | None = None,
) -> StreamConfiguration:
    """Create one more stream for the caller; it starts enabled.

    aud: by default the caller's client id, which is in no access token's `aud` (SET-42).
    Raises StreamError for claims that are not the receiver's to make, Conflict when the client has
    STREAMS_PER_CLIENT_MAX streams.
    Source: SSF 1.0 §8.1.1.1; requirements SSF-OP-1, SSF-OP-2, SSF-OP-5, SSF-AUTH-5, SSF-DEL-7.
    """
    tenant_id, stream_id = caller.tenant_id, ids.new_id("str")
    issuer = deps.issuer(tenant_id)
    configuration = new_configuration(
        wanted,
        stream_id=stream_id,
        iss=issuer,
        aud=aud or (caller.client_id,),
        events_supported=EVENTS_SUPPORTED,
        poll_url=poll_url(issuer, stream_id),
    )
    header = wanted.authorization_header
    stream = Stream(
        tenant_id=tenant_id,
        stream_id=stream_id,
        client_id=caller.client_id,
        app_id=caller.app_id,
        aud=configuration.aud,
        method=wanted.method,
        endpoint_url=wanted.endpoint_url,
        authorization_header_sealed=None if header is None else deps.box.seal(header),
        events_requested=wanted.events_requested,
        description=wanted.description,
        status=configuration.status,
        reason=None,
        subject_format=(
            await deps.subject_format_of(tenant_id, caller.app_id) if caller.app_id else None
        ),
        created_at=deps.clock.now(),
    )
    async with deps.db.transaction() as connection:
        if (
            await store.count_streams(connection, tenant_id, client_id=caller.client_id)
            >= STREAMS_PER_CLIENT_MAX
        ):
            raise Conflict(f"A client has at most {STREAMS_PER_CLIENT_MAX} streams.")
        await store.add_stream(connection, stream)
        await bump(connection, tenant_id, "streams")
    log.info(
        "stream.created",
        tenant_id=tenant_id,
        stream_id=stream_id,
        method=wanted.method.name.lower(),
    )
    return configuration


async def read_stream(
    stream_id: str, *, caller: Caller, deps: TransmitterDeps
) -> StreamConfiguration:
    """Return one stream of the caller.

    Raises NotFound, also for a stream of somebody else. Requirements SSF-OP-10, SSF-AUTH-2.
    """
    async with deps.db.snapshot() as connection:
        stream = await _own_stream(connection, caller, stream_id)
    return configuration_of(stream, issuer=deps.issuer(caller.tenant_id))


async def list_streams(*, caller: Caller, deps: TransmitterDeps) -> list[StreamConfiguration]:
    """Return all streams of the caller, oldest first. Raises nothing. Requirement SSF-OP-11."""
    async with deps.db.snapshot() as connection:
        streams = await store.list_streams(connection, caller.tenant_id, client_id=caller.client_id)
    issuer = deps.issuer(caller.tenant_id)
    return [configuration_of(stream, issuer=issuer) for stream in streams]


async def delete_stream(stream_id: str, *, caller: Caller, deps: TransmitterDeps) -> None:
    """Delete a stream of the caller, its secrets, and what is queued for it.

    Raises NotFound, also the second time. Requirements SSF-OP-40, SSF-OP-41.
    """
    async with deps.db.transaction() as connection:
        await _own_stream(connection, caller, stream_id)
        dropped = await store.delete_stream(
            connection, caller.tenant_id, stream_id=stream_id, now=deps.clock.now()
        )
        await bump(connection, caller.tenant_id, "streams")
    # Its waiting polls find out now instead of at their next look.
    deps.notifier.wake("polls")
    log.info(
        "stream.deleted", tenant_id=caller.tenant_id, stream_id=stream_id, dropped_count=dropped
    )


async def _own_stream(connection: Connection, caller: Caller, stream_id: str) -> Stream:
    stream = await store.get_stream(connection, caller.tenant_id, stream_id=stream_id)
    if stream is None or stream.client_id != caller.client_id:
        raise NotFound("No such stream.")
    return stream


async def publish(
    connection: Connection, events: Sequence[EventToPublish], now: datetime
) -> list[Published]:
    """Queue each event for every stream that selects it, in the caller's transaction.

    One row per event, one light row per selected stream; `jti` and `iat` are fixed here, signing
    waits for the delivery. An event that no stream selects leaves no row. After the commit the
    caller wakes `deliveries` and `polls`.
    Raises LocalProtocolError for an event that breaks the definition of its type.
    Requirements SET-4, SET-5, SET-10, SET-14, SET-15, EGW-49.
    """
    streams: dict[str, list[Stream]] = {}
    for tenant_id in {event.tenant_id for event in events}:
        streams[tenant_id] = await store.list_streams(connection, tenant_id)
    selecting: dict[tuple[str, str], list[Stream]] = {}
    published: list[Published] = []
    event_rows: list[dict[str, Any]] = []
    delivery_rows: list[dict[str, Any]] = []
    for index, event in enumerate(events):
        kind = (event.tenant_id, event.event_type)
        if kind not in selecting:
            selecting[kind] = [
                stream for stream in streams[event.tenant_id] if stream.selects(event.event_type)
            ]
        chosen = [stream for stream in selecting[kind] if event.is_open_to(stream)]
        if not chosen:
            continue
        event_row = _event_row(event, now)
        event_rows.append(event_row)
        for stream in chosen:
            delivery = _delivery_row(event_row, stream, now)
            delivery_rows.append(delivery)
            published.append(
                Published(
                    index=index,
                    event_id=event_row["event_id"],
                    txn=event_row["txn"],
                    stream_id=stream.stream_id,
                    app_id=stream.app_id,
                    jti=delivery["jti"],
                )
            )
    await store.add_events(connection, event_rows)
    await store.add_deliveries(connection, delivery_rows)
    published_total.inc(len(published))
    return published


def _event_row(event: EventToPublish, now: datetime) -> dict[str, Any]:
    event_id = ids.new_id("evt")
    payload: Mapping[str, Any] = event.payload
    if not event.is_rendered:
        try:
            payload = render_event(parse_event(event.event_type, event.payload))
        except EventError as error:
            raise LocalProtocolError("broken_event", error.description) from error
    return {
        "tenant_id": event.tenant_id,
        "event_id": event_id,
        "event_type": event.event_type,
        "payload": payload,
        "subjects": [dict(subject) for subject in event.subjects],
        "ordering_key": bounded_ordering_key(event.ordering_key),
        "txn": event.txn or event_id,
        "toe": event.toe_s,
        "created_at": now,
    }


def _delivery_row(event_row: Mapping[str, Any], stream: Stream, now: datetime) -> dict[str, Any]:
    return {
        "tenant_id": stream.tenant_id,
        "stream_id": stream.stream_id,
        "jti": ids.new_ulid(),
        "event_id": event_row["event_id"],
        "iat": epoch_s(now),
        "ordering_key": event_row["ordering_key"],
        "queued_at": now,
    }


async def _nobody_left() -> bool:
    return False


async def poll(
    stream_id: str,
    request: PollRequest,
    *,
    caller: Caller,
    deps: TransmitterDeps,
    is_gone: Callable[[], Awaitable[bool]] = _nobody_left,
) -> PolledSETs:
    """Answer one poll.

    What the request acknowledges or refuses is settled first, and committed before any wait. With
    nothing to hand out the answer waits until there is something, at most `deps.long_poll_s`. A
    poll that settles nothing and finds nothing writes nothing. is_gone: tells whether the poller
    hung up; a SET handed out to nobody would stay hidden for POLL_VISIBILITY_S.
    Raises NotFound for a stream that is not the caller's, or is no poll stream, or is gone.
    Source: RFC 8936 §2.2 to §2.5; requirements POLL-4 to POLL-8, POLL-10 to POLL-13, POLL-22,
    POLL-23.
    """
    wanted = POLL_SETS_MAX if request.max_events is None else request.max_events
    turn = PollTurn(
        tenant_id=caller.tenant_id,
        stream_id=stream_id,
        client_id=caller.client_id,
        kid=await deps.keys.current_kid(caller.tenant_id),
        sets_max=min(wanted, POLL_SETS_MAX),
        at=deps.clock.now(),
        jitter=random.random(),  # noqa: S311 - spreads retries, keeps no secret
        acks=request.ack,
        refusals=tuple(
            SETRefusal(jti=jti, err=error.err, detail=error.description)
            for jti, error in request.set_errs.items()
        ),
    )
    # A length of time, not a time of day: the clock that tests move has no part in it.
    loop = asyncio.get_running_loop()
    ends_at_s = loop.time() + deps.long_poll_s
    while True:
        seen = deps.notifier.count("polls")
        polled = await _take_turn(turn, deps=deps)
        left_s = ends_at_s - loop.time()
        if polled.sets or polled.more_available or request.return_immediately or left_s <= 0:
            break
        await deps.notifier.wait("polls", min(left_s, LOOK_AGAIN_S), since=seen)
        if deps.is_stopping() or await is_gone():
            break
        turn = msgspec.structs.replace(turn, at=deps.clock.now(), acks=(), refusals=())
    log.info(
        "stream.polled",
        tenant_id=caller.tenant_id,
        stream_id=stream_id,
        acks_count=len(request.ack),
        refusals_count=len(request.set_errs),
        sets_count=len(polled.sets),
        more_available=polled.more_available,
    )
    return polled


async def _take_turn(turn: PollTurn, *, deps: TransmitterDeps) -> PolledSETs:
    """Look first, and write only when there is something to settle or to hand out."""
    async with deps.db.snapshot() as connection:
        stream = await store.get_stream(connection, turn.tenant_id, stream_id=turn.stream_id)
        if stream is None or not turn.may_poll(stream):
            raise NotFound("No such stream.")
        found = stream.status is StreamStatus.ENABLED and await has_visible(
            connection, turn.tenant_id, stream_id=turn.stream_id, now=turn.at
        )
    if not (turn.acks or turn.refusals or (found and turn.sets_max)):
        return PolledSETs(sets={}, more_available=found)
    page = await deps.writer.submit(POLL, turn)
    if not page.known:
        raise NotFound("No such stream.")
    addressing = Addressing(
        iss=deps.issuer(turn.tenant_id), aud=stream.aud, subject_format=stream.subject_format
    )
    signed = await deps.keys.sign(turn.tenant_id, page.pending, addressing)
    sets: dict[str, str] = {}
    broken: list[SETRefusal] = []
    for pending, result in zip(page.pending, signed, strict=True):
        if isinstance(result, SharedSignalsError):
            broken.append(SETRefusal(jti=pending.jti, err=result.code, detail=result.description))
        else:
            sets[pending.jti] = result.raw.decode()
    if broken:
        # Nobody can be handed these: they become dead letters, as if they had been refused.
        await deps.writer.submit(
            POLL, msgspec.structs.replace(turn, acks=(), refusals=tuple(broken), sets_max=0)
        )
    return PolledSETs(sets=sets, more_available=page.more_available)


async def redrive(
    connection: Connection, tenant_id: str, *, stream_id: str, jti: str, now: datetime
) -> None:
    """Queue a dead SET again, unchanged; after the commit the caller wakes `deliveries`, `polls`.

    Raises NotFound when it is no dead letter of that stream. Requirement PUSH-17.
    """
    if not await store.redrive(connection, tenant_id, stream_id=stream_id, jti=jti, now=now):
        raise NotFound("No such dead letter.")
