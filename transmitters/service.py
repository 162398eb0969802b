"""Use cases of the transmitter: publish events, answer polls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, Final

import msgspec
import structlog

from runtime import ids
from runtime.caller import Caller
from runtime.clock import epoch_s
from runtime.errors import NotFound
from ssf.errors import EventError, LocalProtocolError, SharedSignalsError, SubjectError
from ssf.events.registry import STREAM_EVENT_TYPES, parse_event, render_event
from ssf.poll import PollRequest
from ssf.stream import StreamStatus
from ssf.subject import Subject, parse_subject
from transmitters import store
from transmitters.delivery.model import (
    POLL_SETS_MAX,
    PollTurn,
    SETRefusal,
)
from transmitters.delivery.operations import POLL
from transmitters.deps import TransmitterDeps
from transmitters.metrics import published_total
from transmitters.model import (
    Addressing,
    EventToPublish,
    Published,
    Stream,
    bounded_ordering_key,
)
from transmitters.polling.store import has_visible
from transmitters.published.store import add_deliveries, add_events, hold_streams
from transmitters.store import Connection
from transmitters.subjects.model import NONE, SubjectRule, is_wanted, name_keys
from transmitters.subjects.store import rules_naming
from transmitters.upkeep.activity import restart_timer

__all__ = ["PolledSETs", "poll", "publish"]

#: a waiting poll looks again after this long at the latest, woken or not
LOOK_AGAIN_S: Final = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolledSETs:
    """The answer to one poll. sets: jti to compact SET, oldest first."""

    sets: Mapping[str, str]
    more_available: bool


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
    streams = {
        tenant_id: await _streams_for(connection, tenant_id, events)
        for tenant_id in {event.tenant_id for event in events}
    }
    unwanted = await _unwanted(connection, events, streams, now)
    chosen_by = _chosen(events, streams, unwanted)
    standing = await _held(connection, chosen_by)
    published: list[Published] = []
    event_rows: list[dict[str, Any]] = []
    delivery_rows: list[dict[str, Any]] = []
    for index, (event, found) in enumerate(zip(events, chosen_by, strict=True)):
        chosen = [stream for stream in found if _stands(stream, standing, event.event_type)]
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
    await add_events(connection, event_rows)
    await add_deliveries(connection, delivery_rows)
    published_total.inc(len(published))
    return published


def _chosen(
    events: Sequence[EventToPublish],
    streams: Mapping[str, Sequence[Stream]],
    unwanted: set[tuple[int, str]],
) -> list[list[Stream]]:
    """Return by event the streams that it goes out over."""
    selecting: dict[tuple[str, str], list[Stream]] = {}
    chosen: list[list[Stream]] = []
    for index, event in enumerate(events):
        kind = (event.tenant_id, event.event_type)
        if kind not in selecting:
            selecting[kind] = [
                stream for stream in streams[event.tenant_id] if stream.selects(event.event_type)
            ]
        chosen.append(
            [
                stream
                for stream in selecting[kind]
                if event.is_open_to(stream)
                and (index, stream.stream_id) not in unwanted
                and stream.lets_pass(event.event_type, event.payload)
            ]
        )
    return chosen


async def _held(
    connection: Connection, chosen: Sequence[Sequence[Stream]]
) -> dict[tuple[str, str], StreamStatus]:
    """Hold the chosen streams until the commit; return what status each has, if it is there.

    Whoever deletes or disables one now waits, and drops what is queued here (SSF-STAT-6).
    """
    ids_of: dict[str, set[str]] = {}
    for stream in chain.from_iterable(chosen):
        ids_of.setdefault(stream.tenant_id, set()).add(stream.stream_id)
    return {
        (tenant_id, stream_id): status
        for tenant_id in sorted(ids_of)
        for stream_id, status in (
            await hold_streams(connection, tenant_id, stream_ids=ids_of[tenant_id])
        ).items()
    }


def _stands(
    stream: Stream, standing: Mapping[tuple[str, str], StreamStatus], event_type: str
) -> bool:
    """Return whether the stream is there and still takes the event, in the status it has now."""
    status = standing.get((stream.tenant_id, stream.stream_id))
    return status is stream.status or (
        status is not None and replace(stream, status=status).selects(event_type)
    )


async def _streams_for(
    connection: Connection, tenant_id: str, events: Sequence[EventToPublish]
) -> list[Stream]:
    """Return the streams that may select one of the tenant's events, oldest first.

    A stream gets events about itself whether it asked for them or not (SSF-VER-6, SSF-UPD-4).
    """
    of_tenant = [event for event in events if event.tenant_id == tenant_id]
    types = {event.event_type for event in of_tenant} - STREAM_EVENT_TYPES
    found = await store.streams_asking_for(connection, tenant_id, types) if types else []
    known = {stream.stream_id for stream in found}
    about_themselves = {
        event.only_stream_id
        for event in of_tenant
        if event.event_type in STREAM_EVENT_TYPES and event.only_stream_id is not None
    }
    for stream_id in sorted(about_themselves - known):
        stream = await store.get_stream(connection, tenant_id, stream_id=stream_id)
        found += [] if stream is None else [stream]
    return found


async def _unwanted(
    connection: Connection,
    events: Sequence[EventToPublish],
    streams: Mapping[str, Sequence[Stream]],
    now: datetime,
) -> set[tuple[int, str]]:
    """Return (index of event, stream) where the subject is none of the stream's.

    Streams that take everybody, which is most of them, cost nothing. An event about a stream is
    under no filter (SUB-46). Nor is one whose subject cannot be read: it stops no other event, and
    becomes a dead letter, with the reason, of each stream that would have had it.
    """
    choosy = {
        tenant_id: [one for one in of_tenant if one.default_subjects == NONE or one.subject_count]
        for tenant_id, of_tenant in streams.items()
    }
    unwanted: set[tuple[int, str]] = set()
    for tenant_id, of_tenant in choosy.items():
        if not of_tenant:
            continue
        about = {
            index: subjects
            for index, event in enumerate(events)
            if event.tenant_id == tenant_id
            and event.event_type not in STREAM_EVENT_TYPES
            and (subjects := _subjects_of(event)) is not None
        }
        named = {
            index: frozenset[str]().union(*(name_keys(subject) for subject in subjects))
            for index, subjects in about.items()
        }
        by_name: dict[tuple[str, str], list[SubjectRule]] = {}
        for name, rule in await rules_naming(
            connection, tenant_id, names=frozenset[str]().union(*named.values()), now=now
        ):
            by_name.setdefault((rule.stream_id, name), []).append(rule)
        for index, subjects in about.items():
            for stream in of_tenant:
                rules = [
                    rule
                    for name in named[index]
                    for rule in by_name.get((stream.stream_id, name), ())
                ]
                if not is_wanted(stream.default_subjects, rules, subjects):
                    unwanted.add((index, stream.stream_id))
    return unwanted


def _subjects_of(event: EventToPublish) -> list[Subject] | None:
    """Return the identifiers of the event's subject; None when one cannot be read."""
    try:
        return [parse_subject(subject) for subject in event.subjects]
    except SubjectError as error:
        log.warning(
            "event.unreadable",
            tenant_id=event.tenant_id,
            event_type=event.event_type,
            txn=event.txn,
            reason=error.description,
        )
        return None


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
        "hops": list(event.hops) or None,
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


async def _nothing_changed() -> None:
    pass


async def poll(
    stream_id: str,
    request: PollRequest,
    *,
    caller: Caller,
    deps: TransmitterDeps,
    is_gone: Callable[[], Awaitable[bool]] = _nobody_left,
    check: Callable[[], Awaitable[None]] = _nothing_changed,
) -> PolledSETs:
    """Answer one poll.

    What the request acknowledges or refuses is settled first, and committed before any wait. With
    nothing to hand out the answer waits until there is something, at most `deps.long_poll_s`. A
    poll that settles nothing and finds nothing writes nothing. is_gone: tells whether the poller
    hung up; a SET handed out to nobody would stay hidden for POLL_VISIBILITY_S. check: asks again,
    after a wait, whether the caller may have what there is by now, and raises what it is told then.
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
    has_waited = False
    while True:
        seen = deps.notifier.count("polls")
        polled = await _take_turn(turn, deps=deps, check=check if has_waited else _nothing_changed)
        left_s = ends_at_s - loop.time()
        if polled.sets or polled.more_available or request.return_immediately or left_s <= 0:
            break
        has_waited = True
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


async def _take_turn(
    turn: PollTurn, *, deps: TransmitterDeps, check: Callable[[], Awaitable[None]]
) -> PolledSETs:
    """Look first, and write only when there is something to settle or to hand out."""
    settles = bool(turn.acks or turn.refusals)
    async with deps.db.snapshot() as connection:
        stream = await store.get_stream(connection, turn.tenant_id, stream_id=turn.stream_id)
        if stream is None or not turn.may_poll(stream):
            raise NotFound("No such stream.")
        # What settles goes to the writer anyway, which looks for itself.
        found = settles or await has_visible(connection, stream, now=turn.at)
    await restart_timer(stream, deps=deps)
    if not (settles or (found and turn.sets_max)):
        return PolledSETs(sets={}, more_available=found)
    await check()
    page = await deps.writer.submit(POLL, turn)
    if not page.known:
        raise NotFound("No such stream.")
    addressing = Addressing(
        iss=deps.issuer(turn.tenant_id),
        aud=stream.aud,
        subject_format=stream.subject_format,
        profile=stream.profile,
        encryption_key=stream.encryption_key,
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
