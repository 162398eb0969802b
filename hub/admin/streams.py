"""Streams as an admin sees them: who has one, what was delivered, what had to be given up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from pydantic import Field

import transmitters.service
import transmitters.store
from hub.admin.bodies import Body
from hub.admin.context import without_tenant
from hub.admin.kinds import Action, Admin, Document, Kind, Listing, one_of
from runtime.errors import NotFound
from ssf.stream import StreamStatus, render_configuration
from ssf.stream_requests import REASON_CHARS_MAX, StatusUpdate
from transmitters.management import set_status_by_transmitter
from transmitters.model import DeliveryState, Stream, configuration_of

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
        changed = await set_status_by_transmitter(
            connection, stream, update, deps=admin.state.transmitters
        )
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
        "configuration": render_configuration(configuration_of(stream, issuer=admin.base)),
        "created_at": stream.created_at,
    }


# Deliveries: one SET for one stream, and what became of it.


async def list_deliveries(admin: Admin, listing: Listing) -> list[Document]:
    """Return deliveries with their receipts, newest first; of one stream or state when asked."""
    async with admin.node.database.snapshot() as connection:
        found = await transmitters.store.list_deliveries(
            connection,
            admin.tenant_id,
            stream_id=listing.filters.get("stream"),
            state=one_of(listing.filters.get("state"), DeliveryState, "state"),
            before=listing.after or None,
            limit=listing.limit,
        )
    return [without_tenant({"id": receipt.jti, **asdict(receipt)}) for receipt in found]


# Dead letters of streams.


class RedriveBody(Body):
    """Which dead SET to deliver again."""

    stream_id: str
    jti: str


async def list_dead_letters(admin: Admin, listing: Listing) -> list[Document]:
    """Return SETs that were given up, newest first, with the reason."""
    async with admin.node.database.snapshot() as connection:
        found = await transmitters.store.dead_letters(
            connection, admin.tenant_id, limit=listing.limit, before=listing.after or None
        )
    return [without_tenant({"id": letter.jti, **asdict(letter)}) for letter in found]


async def redrive(admin: Admin, _id: str, body: RedriveBody) -> Document:
    """Queue a dead SET again, with its jti and iat."""
    async with admin.node.database.transaction() as connection:
        await transmitters.service.redrive(
            connection,
            admin.tenant_id,
            stream_id=body.stream_id,
            jti=body.jti,
            now=admin.now,
        )
    admin.node.notifier.wake_all(("deliveries", "polls"))
    return {"redriven": 1}


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
        ),
    ),
    Kind(
        name="deliveries",
        item="delivery",
        summary="SETs for streams, and what became of each",
        list_page=list_deliveries,
        filters=("stream", "state"),
    ),
    Kind(
        name="dead-letters",
        item="dead_letter",
        summary="SETs that could not be delivered, with the reason",
        list_page=list_dead_letters,
        actions=(
            Action(
                name="redrive",
                summary="Deliver a dead SET again.",
                perform=redrive,
                body=RedriveBody,
                on_kind=True,
            ),
        ),
    ),
)
