"""Stream management: what a receiver does with its streams, and what an admin does to them.

Every function is one transaction; its first step is the audit entry, which also makes the writes
of a tenant wait for each other (`runtime/audit.py`). Subjects are in `transmitters/subjects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import structlog

from runtime import ids
from runtime.caller import Caller
from runtime.errors import Conflict, Forbidden, TooManyRequests
from runtime.feed import bump
from ssf.errors import StreamError
from ssf.events.registry import render_event
from ssf.events.ssf import StreamUpdated, Verification
from ssf.profile import profile_of
from ssf.stream import (
    StreamChange,
    StreamConfiguration,
    StreamStatus,
    WantedStream,
    changed_configuration,
    new_configuration,
)
from ssf.stream_requests import (
    StatusUpdate,
    VerificationRequest,
    as_profile,
    named_audience,
)
from ssf.subject import opaque, render_subject
from transmitters import store
from transmitters.deps import StreamDefaults, TransmitterDeps
from transmitters.health import store as health
from transmitters.model import (
    EVENTS_SUPPORTED,
    MIN_VERIFICATION_INTERVAL_S,
    STREAMS_PER_CLIENT_MAX,
    EventToPublish,
    Stream,
    configuration_of,
    poll_url,
)
from transmitters.ownership import audited, own_stream
from transmitters.service import publish
from transmitters.store import Connection
from transmitters.upkeep.activity import restart_timer

#: whom a change of a stream concerns: its SETs go out otherwise, or not at all
TOPICS: Final = ("deliveries", "polls", "config")

log = structlog.get_logger()


# --- one stream of a receiver ---------------------------------------------------------------------


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
    app_id, defaults = caller.app_id, StreamDefaults()
    if app_id is not None:
        defaults = await deps.stream_defaults(tenant_id, app_id)
    profile = profile_of(defaults.profile)
    aud = aud or named_audience(wanted, profile)
    wanted = as_profile(wanted, profile)
    configuration = new_configuration(
        wanted,
        stream_id=stream_id,
        iss=issuer,
        aud=aud or (caller.client_id,),
        events_supported=EVENTS_SUPPORTED,
        poll_url=poll_url(issuer, stream_id),
    )
    stream = Stream(
        tenant_id=tenant_id,
        stream_id=stream_id,
        client_id=caller.client_id,
        app_id=caller.app_id,
        aud=configuration.aud,
        method=wanted.method,
        endpoint_url=wanted.endpoint_url,
        authorization_header_sealed=_sealed(wanted, deps),
        events_requested=wanted.events_requested,
        description=wanted.description,
        status=configuration.status,
        reason=None,
        subject_format=_first_format(wanted, defaults),
        profile=profile.name,
        created_at=deps.clock.now(),
        active_at=deps.clock.now(),
        default_subjects=await deps.default_subjects(tenant_id),
    )
    async with audited(caller, deps, "stream.create", stream_id, _told(wanted)) as connection:
        if (
            await store.count_streams(connection, tenant_id, client_id=caller.client_id)
            >= STREAMS_PER_CLIENT_MAX
        ):
            raise Conflict(f"A client has at most {STREAMS_PER_CLIENT_MAX} streams.")
        await store.add_stream(connection, stream)
        if profile.verifies_new_streams:
            event = _about_stream(stream, Verification.type_uri, render_event(Verification()))
            await publish(connection, [event], deps.clock.now())
        await bump(connection, tenant_id, "streams")
    if profile.verifies_new_streams:
        deps.notifier.wake_all(TOPICS)
    log.info(
        "stream.created",
        tenant_id=tenant_id,
        stream_id=stream_id,
        method=wanted.method.name.lower(),
    )
    return _shown(stream, deps)


async def read_stream(
    stream_id: str, *, caller: Caller, deps: TransmitterDeps
) -> StreamConfiguration:
    """Return one stream of the caller.

    Raises NotFound, also for a stream of somebody else. Requirements SSF-OP-10, SSF-AUTH-2.
    """
    async with deps.db.snapshot() as connection:
        stream = await own_stream(connection, caller, stream_id)
    await restart_timer(stream, deps=deps)
    return _shown(stream, deps)


async def list_streams(*, caller: Caller, deps: TransmitterDeps) -> list[StreamConfiguration]:
    """Return all streams of the caller, oldest first. Raises nothing. Requirement SSF-OP-11."""
    async with deps.db.snapshot() as connection:
        streams = await store.list_streams(connection, caller.tenant_id, client_id=caller.client_id)
    return [_shown(stream, deps) for stream in streams]


async def only_stream(*, caller: Caller, deps: TransmitterDeps) -> str | None:
    """Return the one stream of a receiver whose draft has no stream ids, None of any other.

    Source: SSE Implementer's Draft 1 §7.1; requirement OLD-1.
    """
    async with deps.db.snapshot() as connection:
        streams = await store.list_streams(connection, caller.tenant_id, client_id=caller.client_id)
    if len(streams) == 1 and profile_of(streams[0].profile).has_one_stream:
        return streams[0].stream_id
    return None


async def change_stream(
    change: StreamChange, *, caller: Caller, deps: TransmitterDeps
) -> StreamConfiguration:
    """Update or replace what the receiver supplied of its stream; what is queued moves with it.

    Raises NotFound, and StreamError for claims that are not the receiver's to make.
    Source: SSF 1.0 §8.1.1.3, §8.1.1.4; requirements SSF-OP-20 to SSF-OP-33.
    """
    issuer = deps.issuer(caller.tenant_id)
    keeps_delivery = "delivery" in change.keeps
    detail = _told(change.wanted, keeps_delivery=keeps_delivery)
    async with audited(caller, deps, "stream.change", change.stream_id, detail) as connection:
        stream = await own_stream(connection, caller, change.stream_id, changes_at=deps.clock.now())
        wanted = as_profile(change.wanted, profile_of(stream.profile))
        after = changed_configuration(
            _shown(stream, deps),
            replace(change, wanted=wanted),
            poll_url=poll_url(issuer, stream.stream_id),
        )
        changed = replace(
            stream,
            events_requested=after.events_requested,
            description=after.description,
        )
        if not keeps_delivery:
            changed = replace(
                changed,
                method=wanted.method,
                endpoint_url=wanted.endpoint_url,
                authorization_header_sealed=_sealed(wanted, deps),
                delivery_epoch=stream.delivery_epoch + 1,
            )
        now = deps.clock.now()
        await store.change_stream(connection, changed, now=now)
        if not keeps_delivery:
            # Whom pushes failed to reach, or who held a page of a poll, is not asked any more.
            await health.forget_failures(connection, caller.tenant_id, stream_id=stream.stream_id)
            await store.release_pending(
                connection, caller.tenant_id, stream_id=stream.stream_id, now=now
            )
        await bump(connection, caller.tenant_id, "streams")
    deps.notifier.wake_all(TOPICS)
    log.info("stream.changed", tenant_id=caller.tenant_id, stream_id=change.stream_id)
    return _shown(changed, deps)


async def delete_stream(stream_id: str, *, caller: Caller, deps: TransmitterDeps) -> None:
    """Delete a stream of the caller, its subjects and secrets, and what is queued for it.

    Raises NotFound, also the second time. Requirements SSF-OP-40, SSF-OP-41.
    """
    async with audited(caller, deps, "stream.delete", stream_id, {}) as connection:
        await own_stream(connection, caller, stream_id, changes_at=deps.clock.now())
        dropped = await store.delete_stream(
            connection, caller.tenant_id, stream_id=stream_id, now=deps.clock.now()
        )
        await bump(connection, caller.tenant_id, "streams")
    # Its waiting polls and its pushes find out now instead of at their next look.
    deps.notifier.wake_all(TOPICS)
    log.info(
        "stream.deleted", tenant_id=caller.tenant_id, stream_id=stream_id, dropped_count=dropped
    )


# --- status ---------------------------------------------------------------------------------------


async def set_status(
    update: StatusUpdate, *, caller: Caller, deps: TransmitterDeps
) -> StreamConfiguration:
    """Set the status of a stream as its receiver wishes; nothing announces it.

    Nor is its receiver told what the hub had made of it before, if it did not hear of it yet.
    Paused, SETs are held; disabled, they are lost, also those that were queued. Raises NotFound,
    and Forbidden for a status that lets out more than the one with which an admin stopped it.
    Source: SSF 1.0 §8.1.2.2; requirements SSF-STAT-3 to SSF-STAT-9, SSF-STAT-12, SSF-STAT-13.
    """
    detail = {"status": update.status.value, "reason": update.reason}
    async with audited(caller, deps, "stream.status", update.stream_id, detail) as connection:
        stream = await own_stream(connection, caller, update.stream_id, changes_at=deps.clock.now())
        if not stream.may_become(update.status):
            raise Forbidden("An administrator stopped this stream.")
        changed = replace(stream, status=update.status, reason=update.reason, announcement_jti=None)
        await _take_back(connection, stream, now=deps.clock.now())
        await _enter_status(connection, changed, now=deps.clock.now())
    deps.notifier.wake_all(TOPICS)
    _log_status(changed, by="receiver")
    return _shown(changed, deps)


async def set_status_by_transmitter(
    connection: Connection, stream: Stream, update: StatusUpdate, *, now: datetime
) -> Stream:
    """Set the status of a stream for the hub's own reasons, and announce it to the receiver.

    The announcement goes out whatever the new status is, and alone while it is not enabled.
    connection: of a transaction that holds the stream. Nothing is announced that is no change.
    Source: SSF 1.0 §8.1.2, §8.1.5; requirements SSF-STAT-12, SSF-UPD-1 to SSF-UPD-5.
    """
    if update.status is stream.status:
        return stream
    changed = replace(stream, status=update.status, reason=update.reason, announcement_jti=None)
    if update.status is StreamStatus.ENABLED:
        # Its receiver gets the whole time to show that it is there.
        changed = replace(changed, active_at=now)
    else:
        # One announcement goes out, and none that is older would have its turn before it.
        await _take_back(connection, stream, now=now)
    # First what is dropped or let go, then the announcement, which is neither.
    await _enter_status(connection, changed, now=now)
    event = StreamUpdated(status=update.status.value, reason=update.reason)
    announcement = _about_stream(stream, StreamUpdated.type_uri, render_event(event))
    # It goes out alone, so it must not have to wait for a verification that does not.
    alone = replace(announcement, ordering_key=_announcements_of(stream))
    (queued,) = await publish(connection, [alone], now)
    changed = replace(changed, announcement_jti=queued.jti)
    await store.change_stream(connection, changed, now=now)
    await bump(connection, stream.tenant_id, "streams")
    _log_status(changed, by="transmitter")
    return changed


def _announcements_of(stream: Stream) -> str:
    """Return the ordering key of what is said about the stream's status."""
    return f"status:{stream.stream_id}"


async def _take_back(connection: Connection, stream: Stream, *, now: datetime) -> None:
    """Drop announcements of a status that is of the past; nobody has to hear of it any more."""
    await store.drop_pending(
        connection,
        stream.tenant_id,
        stream_id=stream.stream_id,
        ordering_key=_announcements_of(stream),
        err="superseded",
        now=now,
    )


async def _enter_status(connection: Connection, stream: Stream, *, now: datetime) -> None:
    await store.change_stream(connection, stream, now=now)
    if stream.status is StreamStatus.DISABLED:
        await store.drop_pending(
            connection,
            stream.tenant_id,
            stream_id=stream.stream_id,
            err="stream_disabled",
            now=now,
        )
    elif stream.status is StreamStatus.ENABLED:
        await health.forget_failures(connection, stream.tenant_id, stream_id=stream.stream_id)
        await store.release_pending(
            connection, stream.tenant_id, stream_id=stream.stream_id, now=now
        )
    await bump(connection, stream.tenant_id, "streams")


# --- verification ---------------------------------------------------------------------------------


async def request_verification(
    request: VerificationRequest, *, caller: Caller, deps: TransmitterDeps
) -> None:
    """Queue a verification event with the state of the request.

    Raises NotFound, TooManyRequests within MIN_VERIFICATION_INTERVAL_S, and StreamError for a
    disabled stream, which would never deliver it.
    Source: SSF 1.0 §8.1.4.2; requirements SSF-VER-1 to SSF-VER-7, SSF-VER-13.
    """
    now = deps.clock.now()
    async with audited(caller, deps, "stream.verify", request.stream_id, {}) as connection:
        stream = await own_stream(
            connection, caller, request.stream_id, changes_at=deps.clock.now()
        )
        asked_at = stream.verification_asked_at
        if asked_at is not None:
            wait_s = MIN_VERIFICATION_INTERVAL_S - (now - asked_at).total_seconds()
            if 0 < wait_s <= MIN_VERIFICATION_INTERVAL_S:
                raise TooManyRequests("Verification is asked for too often.", retry_after_s=wait_s)
        if stream.status is StreamStatus.DISABLED:
            raise StreamError(
                "invalid_request",
                "the stream is disabled, so nothing can be sent over it",
                requirement="SSF-VER-13",
            )
        payload = render_event(Verification(state=request.state))
        event = _about_stream(stream, Verification.type_uri, payload)
        await publish(connection, [event], now)
        await store.change_stream(connection, replace(stream, verification_asked_at=now), now=now)
    deps.notifier.wake_all(TOPICS)


def _about_stream(stream: Stream, event_type: str, payload: Mapping[str, Any]) -> EventToPublish:
    """Return an event whose subject is the stream itself (SSF-VER-5, SSF-UPD-1)."""
    return EventToPublish(
        tenant_id=stream.tenant_id,
        event_type=event_type,
        payload=payload,
        is_rendered=True,
        subjects=(render_subject(opaque(stream.stream_id)),),
        # A lane of its own: it waits for no other event, and no other event for it (SSF-VER-9).
        ordering_key=f"stream:{stream.stream_id}",
        only_stream_id=stream.stream_id,
    )


def _shown(stream: Stream, deps: TransmitterDeps) -> StreamConfiguration:
    """Return the stream as its receiver sees it."""
    return configuration_of(
        stream,
        issuer=deps.issuer(stream.tenant_id),
        inactivity_timeout_s=deps.inactivity_timeout_s,
    )


def _first_format(wanted: WantedStream, defaults: StreamDefaults) -> str | None:
    """Return the format of subjects; a receiver of an old draft chooses among the app's."""
    formats = defaults.subject_formats
    may_choose = profile_of(defaults.profile).receiver_names_audience
    if may_choose and wanted.subject_format in formats:
        return wanted.subject_format
    return formats[0] if formats else None


def _sealed(wanted: WantedStream, deps: TransmitterDeps) -> str | None:
    header = wanted.authorization_header
    return None if header is None else deps.box.seal(header)


def _told(wanted: WantedStream, *, keeps_delivery: bool = False) -> dict[str, Any]:
    """Return what the audit says of a request: no secret, and no URL that may hold one."""
    told: dict[str, Any] = {"events_requested": list(wanted.events_requested)}
    return told if keeps_delivery else {**told, "method": wanted.method.value}


def _log_status(stream: Stream, *, by: str) -> None:
    log.info(
        "stream.status_set",
        tenant_id=stream.tenant_id,
        stream_id=stream.stream_id,
        status=stream.status.value,
        by=by,
    )
