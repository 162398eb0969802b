"""Deliveries as an admin sees them: a receipt per SET and stream, dead letters, sending again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from pydantic import AwareDatetime, Field

import transmitters.receipts.service
import transmitters.receipts.store
from hub.admin.bodies import Body
from hub.admin.context import without_tenant
from hub.admin.kinds import Action, Admin, Document, Kind, Listing, moment_of, one_of
from runtime.errors import Invalid, NotFound
from ssf.errors import SubjectError
from ssf.subject import Subject, parse_subject
from transmitters.model import DeliveryReceipt, DeliveryState
from transmitters.receipts.model import Period, ReceiptFilter, SentAgain, Wanted

ID_CHARACTERS_MAX: Final = 64
EVENT_TYPES_MAX: Final = 100

# Receipts: one SET for one stream, and what became of it.


async def list_deliveries(admin: Admin, listing: Listing) -> list[Document]:
    """Return receipts, newest first; all filters together."""
    filters = listing.filters
    wanted = ReceiptFilter(
        stream_id=filters.get("stream"),
        state=one_of(filters.get("state"), DeliveryState, "state"),
        jti=filters.get("jti"),
        txn=filters.get("txn"),
        event_type=filters.get("event_type"),
        period=Period(
            since=moment_of(filters.get("since"), "since"),
            until=moment_of(filters.get("until"), "until"),
        ),
    )
    async with admin.node.database.snapshot() as connection:
        found = await transmitters.receipts.store.list_receipts(
            connection,
            admin.tenant_id,
            wanted,
            before=listing.after or None,
            limit=listing.limit,
        )
    return [_receipt(receipt) for receipt in found]


async def read_delivery(admin: Admin, jti: str) -> Document:
    """Return the receipt of one SET."""
    async with admin.node.database.snapshot() as connection:
        found = await transmitters.receipts.store.list_receipts(
            connection, admin.tenant_id, ReceiptFilter(jti=jti), limit=1
        )
    if not found:
        raise NotFound("No such delivery.")
    return _receipt(found[0])


def _receipt(receipt: DeliveryReceipt) -> Document:
    return without_tenant({"id": receipt.jti, **asdict(receipt)})


# Dead letters of streams.


async def list_dead_letters(admin: Admin, listing: Listing) -> list[Document]:
    """Return SETs that were given up, newest first, with the reason."""
    async with admin.node.database.snapshot() as connection:
        found = await transmitters.receipts.store.dead_letters(
            connection, admin.tenant_id, limit=listing.limit, before=listing.after or None
        )
    return [without_tenant({"id": letter.jti, **asdict(letter)}) for letter in found]


# Sending again.


class _Conditions(Body):
    """Which SETs of a stream; all conditions hold. since, until: when they were issued.

    after: where the call before said to go on.
    """

    jti: str | None = Field(default=None, max_length=ID_CHARACTERS_MAX)
    subject: dict[str, Any] | None = None
    event_types: list[str] | None = Field(default=None, min_length=1, max_length=EVENT_TYPES_MAX)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    after: str | None = Field(default=None, max_length=ID_CHARACTERS_MAX)


class RedriveBody(_Conditions):
    """Which dead SETs to deliver again: without a condition, all of the stream."""

    stream_id: str = Field(max_length=ID_CHARACTERS_MAX)


class ReplayBody(_Conditions):
    """Which delivered SETs to send again; at least one condition."""


async def redrive(admin: Admin, _id: str, body: RedriveBody) -> Document:
    """Queue dead SETs of a stream again, with their jti and iat."""
    sent = await _send_again(admin, body.stream_id, body, DeliveryState.DEAD)
    return {"redriven": sent.count, "more": sent.after is not None, "after": sent.after}


async def replay(admin: Admin, stream_id: str, body: ReplayBody) -> Document:
    """Queue delivered SETs of a stream again, with their jti and iat."""
    if not any((body.jti, body.subject, body.event_types, body.since, body.until)):
        raise Invalid("Say which SETs: jti, subject, event_types, since or until.")
    sent = await _send_again(admin, stream_id, body, DeliveryState.DELIVERED)
    return {"replayed": sent.count, "more": sent.after is not None, "after": sent.after}


async def _send_again(
    admin: Admin, stream_id: str, body: _Conditions, state: DeliveryState
) -> SentAgain:
    wanted = Wanted(
        state=state,
        jti=body.jti,
        subject=_subject(body.subject),
        event_types=frozenset(body.event_types or ()),
        period=Period(since=body.since, until=body.until),
        after=body.after,
    )
    async with admin.node.database.transaction() as connection:
        return await transmitters.receipts.service.send_again(
            connection, admin.tenant_id, stream_id=stream_id, wanted=wanted, now=admin.now
        )


def _subject(member: dict[str, Any] | None) -> Subject | None:
    if member is None:
        return None
    try:
        return parse_subject(member)
    except SubjectError as error:
        raise Invalid("Bad subject.", pointers=(("/subject", error.description),)) from error


KINDS: Final = (
    Kind(
        name="deliveries",
        item="delivery",
        summary="SETs for streams, and what became of each",
        list_page=list_deliveries,
        read=read_delivery,
        filters=("stream", "state", "jti", "txn", "event_type", "since", "until"),
    ),
    Kind(
        name="dead-letters",
        item="dead_letter",
        summary="SETs that could not be delivered, with the reason",
        list_page=list_dead_letters,
        actions=(
            Action(
                name="redrive",
                summary="Deliver dead SETs of a stream again; jti and iat stay.",
                perform=redrive,
                body=RedriveBody,
                on_kind=True,
                example={
                    "stream_id": "str_01KJQ2M8D06ZC4T9W6YR0QXN1E",
                    "jti": "01KJQ2M909ZC4T9W6YR0QXN1EB",
                },
            ),
        ),
    ),
)
