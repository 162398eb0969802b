"""Events of the tenant: what was published, and test events on demand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import msgspec
from pydantic import Field

import transmitters.store
from hub.admin.bodies import Body
from hub.admin.context import without_tenant
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from runtime.errors import Conflict, Invalid, NotFound
from ssf.errors import LocalProtocolError, SubjectError
from ssf.events.registry import STREAM_EVENT_TYPES
from ssf.stream import StreamStatus
from ssf.subject import parse_subject, render_subject
from transmitters.model import EventToPublish, Stream
from transmitters.published.store import list_events
from transmitters.service import publish

EVENT_TYPE_CHARACTERS_MAX: Final = 1024
TXN_CHARACTERS_MAX: Final = 200


async def list_published(admin: Admin, listing: Listing) -> list[Document]:
    """Return published events, newest first."""
    async with admin.node.database.snapshot() as connection:
        found = await list_events(
            connection, admin.tenant_id, limit=listing.limit, before=listing.after or None
        )
    return [without_tenant({"id": event.event_id, **_members(asdict(event))}) for event in found]


def _members(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "event_id"}


class EmitBody(Body):
    """A test event for one stream. subject: its `sub_id`. event: its payload."""

    stream_id: str = Field(min_length=1, max_length=64)
    event_type: str = Field(min_length=1, max_length=EVENT_TYPE_CHARACTERS_MAX)
    subject: dict[str, Any]
    event: dict[str, Any] = Field(default_factory=dict)
    txn: str | None = Field(default=None, min_length=1, max_length=TXN_CHARACTERS_MAX)


async def emit(admin: Admin, _id: str, body: EmitBody) -> Document:
    """Queue a test event for one stream, as if something had happened.

    It changes no risk and starts no response. Raises NotFound for an unknown stream, Conflict when
    the stream does not take the event, Invalid for an event that breaks its definition.
    """
    async with admin.node.database.transaction() as connection:
        stream = await transmitters.store.get_stream(
            connection, admin.tenant_id, stream_id=body.stream_id
        )
        if stream is None:
            raise NotFound("No such stream.")
        if stream.status is StreamStatus.DISABLED:
            raise Conflict("The stream is disabled, so nothing can be sent over it.")
        try:
            queued = await publish(connection, [_event(admin.tenant_id, body)], admin.now)
        except LocalProtocolError as error:
            raise _not_acceptable("/event", error.description) from error
    if not queued:
        raise Conflict(_why_not_taken(stream, body))
    return {
        "stream_id": body.stream_id,
        "event_id": queued[0].event_id,
        "jti": queued[0].jti,
        "txn": queued[0].txn,
    }


def _why_not_taken(stream: Stream, body: EmitBody) -> str:
    if not stream.selects(body.event_type):
        taken = [uri for uri in stream.events_requested if stream.selects(uri)]
        return (
            f"The stream does not take events of this type; it takes {', '.join(taken) or 'none'}."
        )
    if not stream.lets_pass(body.event_type, body.event):
        return "A filter of the stream holds this event back."
    return "The subject is none that the stream was asked about, or was removed from it."


def _event(tenant_id: str, body: EmitBody) -> EventToPublish:
    if body.event_type in STREAM_EVENT_TYPES:
        raise _not_acceptable("/event_type", "events about a stream are sent by what happens to it")
    try:
        subject = render_subject(parse_subject(body.subject))
    except SubjectError as error:
        raise _not_acceptable("/subject", error.description) from error
    # Test events about one subject arrive in order, like all others.
    return EventToPublish(
        tenant_id=tenant_id,
        event_type=body.event_type,
        payload=body.event,
        subjects=(subject,),
        ordering_key=f"test:{msgspec.json.encode(subject, order='sorted').decode()}",
        txn=body.txn,
        only_stream_id=body.stream_id,
    )


def _not_acceptable(pointer: str, text: str) -> Invalid:
    return Invalid("The event is not acceptable.", pointers=((pointer, text),))


KINDS: Final = (
    Kind(
        name="events",
        item="event",
        summary="events that were published to streams",
        list_page=list_published,
        actions=(
            Action(
                name="emit",
                summary="Send a test event over one stream.",
                perform=emit,
                body=EmitBody,
                on_kind=True,
                example={
                    "stream_id": "str_01KJQ2M8D06ZC4T9W6YR0QXN1E",
                    "event_type": (
                        "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
                    ),
                    "subject": {"format": "email", "email": "rosa.lind@customer.example"},
                    "event": {
                        "initiating_entity": "admin",
                        "reason_admin": {"en": "A test of the stream."},
                    },
                },
            ),
        ),
    ),
)
