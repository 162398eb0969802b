"""Streams as an admin sees them: who has one, what state it is in."""

from __future__ import annotations

from typing import Final

from pydantic import Field

import transmitters.store
from hub.admin.bodies import Body
from hub.admin.deliveries import ReplayBody, replay
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from runtime.errors import NotFound
from ssf.stream import StreamStatus, render_configuration
from ssf.stream_requests import REASON_CHARS_MAX, StatusUpdate
from transmitters.management import set_status_by_transmitter
from transmitters.model import Stream, configuration_of

# Streams: made by their clients over SSF; an admin sees and removes them.


async def list_streams(admin: Admin, listing: Listing) -> list[Document]:
    """Return streams of all clients by id."""
    async with admin.node.database.snapshot() as connection:
        found = await transmitters.store.list_streams(connection, admin.tenant_id)
    ordered = sorted(found, key=lambda stream: stream.stream_id)
    page = [one for one in ordered if one.stream_id > listing.after][: listing.limit]
    return [_stream(admin, stream) for stream in page]


async def read_stream(admin: Admin, stream_id: str) -> Document:
    """Return one stream, without its Authorization value."""
    return _stream(admin, await _get_stream(admin, stream_id))


async def delete_stream(admin: Admin, stream_id: str) -> None:
    """Delete a stream; what it had not delivered is dropped."""
    await _get_stream(admin, stream_id)
    async with admin.node.database.transaction() as connection:
        await transmitters.store.delete_stream(
            connection, admin.tenant_id, stream_id=stream_id, now=admin.now
        )
    admin.node.notifier.wake("polls")


class StatusBody(Body):
    """The status to set, and why; the receiver is told both."""

    status: StreamStatus
    reason: str | None = Field(default=None, max_length=REASON_CHARS_MAX)


async def set_status(admin: Admin, stream_id: str, body: StatusBody) -> Document:
    """Enable, pause or disable a stream of any client, and announce it to the receiver."""
    update = StatusUpdate(stream_id=stream_id, status=body.status, reason=body.reason)
    async with admin.node.database.transaction() as connection:
        stream = await transmitters.store.get_stream(
            connection, admin.tenant_id, stream_id=stream_id, lock=True
        )
        if stream is None:
            raise NotFound("No such stream.")
        changed = await set_status_by_transmitter(connection, stream, update, now=admin.now)
    return _stream(admin, changed)


async def _get_stream(admin: Admin, stream_id: str) -> Stream:
    async with admin.node.database.snapshot() as connection:
        stream = await transmitters.store.get_stream(
            connection, admin.tenant_id, stream_id=stream_id
        )
    if stream is None:
        raise NotFound("No such stream.")
    return stream


def _stream(admin: Admin, stream: Stream) -> Document:
    return {
        "id": stream.stream_id,
        "client_id": stream.client_id,
        "app_id": stream.app_id,
        "status": stream.status.value,
        "reason": stream.reason,
        "default_subjects": stream.default_subjects,
        "subject_count": stream.subject_count,
        "configuration": render_configuration(
            configuration_of(
                stream,
                issuer=admin.base,
                inactivity_timeout_s=admin.node.config.inactivity_timeout_s,
            )
        ),
        "created_at": stream.created_at,
    }


KINDS: Final = (
    Kind(
        name="streams",
        item="stream",
        summary="SSF streams of all clients",
        list_page=list_streams,
        read=read_stream,
        delete=delete_stream,
        actions=(
            Action(
                name="status",
                summary="Enable, pause or disable a stream; its receiver is told.",
                perform=set_status,
                body=StatusBody,
                example={"status": "paused", "reason": "maintenance"},
            ),
            Action(
                name="replay",
                summary="Send SETs again that were delivered before; jti and iat stay.",
                perform=replay,
                body=ReplayBody,
                example={"since": "2026-03-02T16:00:00Z", "until": "2026-03-02T17:00:00Z"},
            ),
        ),
    ),
)
