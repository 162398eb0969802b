"""Streams as an admin sees them: who has one, what state it is in."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field

import transmitters.store
from hub.admin.bodies import Body
from hub.admin.deliveries import ReplayBody, replay
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from runtime.errors import Invalid, NotFound
from runtime.feed import bump
from ssf.encryption import parse_encryption_key
from ssf.errors import StreamError
from ssf.stream import StreamStatus, render_configuration
from ssf.stream_requests import REASON_CHARS_MAX, StatusUpdate
from transmitters.management import set_status_by_transmitter
from transmitters.model import Stream, configuration_of

# Streams: made by their clients over SSF; an admin sees them, sets how they look, removes them.


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


MemberName = Annotated[str, Field(min_length=1, max_length=100)]
MemberValue = Annotated[str, Field(max_length=255)]


class StreamChange(Body):
    """How SETs of a stream are to look; members that are left out stay.

    profile: `final` is SSF 1.0; `sse` is the draft of 2021, for receivers that speak no other.
    subject_format: what users are named by; null for subjects as the events have them.
    encryption_key: a public JWK of the receiver (RSA for RSA-OAEP-256, EC P-256 for ECDH-ES): SETs
    are encrypted for it with A256GCM; null for signed SETs as they are.
    filters: member of an event to its good values, such as `{"current_level": ["HIGH"]}`: an event
    in which the member is something else does not go out; one without the member does.
    """

    profile: Literal["final", "sse"] | None = None
    subject_format: (
        Literal["account", "did", "email", "iss_sub", "opaque", "phone_number", "uri"] | None
    ) = None
    encryption_key: dict[str, Any] | None = None
    filters: dict[MemberName, Annotated[list[MemberValue], Field(min_length=1, max_length=50)]] | (
        None
    ) = Field(default=None, max_length=10)


async def change_stream(admin: Admin, stream_id: str, body: StreamChange) -> Document:
    """Set how SETs of a stream look, also of those that are queued."""
    members: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if members.get("profile", "final") is None:
        raise Invalid("The body is not acceptable.", pointers=(("/profile", "final or sse"),))
    if members.get("encryption_key") is not None:
        members["encryption_key"] = _encryption_key(members["encryption_key"])
    async with admin.node.database.transaction() as connection:
        stream = await transmitters.store.get_stream(
            connection, admin.tenant_id, stream_id=stream_id, lock=True
        )
        if stream is None:
            raise NotFound("No such stream.")
        changed = replace(stream, **members)
        await transmitters.store.change_stream(connection, changed, now=admin.now)
        await bump(connection, admin.tenant_id, "streams")
    return _stream(admin, changed)


def _encryption_key(jwk: dict[str, Any]) -> str:
    try:
        return parse_encryption_key(jwk)
    except StreamError as error:
        pointers = (("/encryption_key", error.description),)
        raise Invalid("The key cannot be used.", pointers=pointers) from error


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
    """Enable, pause or disable a stream of any client, and announce it to the receiver.

    What is paused or disabled here its receiver cannot let go on: only an admin can (SSF-STAT-9).
    """
    update = StatusUpdate(stream_id=stream_id, status=body.status, reason=body.reason)
    async with admin.node.database.transaction() as connection:
        stream = await transmitters.store.get_stream(
            connection, admin.tenant_id, stream_id=stream_id, lock=True
        )
        if stream is None:
            raise NotFound("No such stream.")
        stops = body.status is not StreamStatus.ENABLED
        stream = replace(stream, stopped_as=body.status.value if stops else None)
        changed = await set_status_by_transmitter(connection, stream, update, now=admin.now)
        if changed is stream:
            # The status is the same, but from now on an admin's.
            await transmitters.store.change_stream(connection, stream, now=admin.now)
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
        "stopped_as": stream.stopped_as,
        "default_subjects": stream.default_subjects,
        "subject_count": stream.subject_count,
        "profile": stream.profile,
        "subject_format": stream.subject_format,
        "encryption_key": (
            None if stream.encryption_key is None else msgspec.json.decode(stream.encryption_key)
        ),
        "filters": stream.filters,
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
        change=change_stream,
        change_body=StreamChange,
        delete=delete_stream,
        example={"subject_format": "email"},
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
