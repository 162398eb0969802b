"""Break-glass users: never logged out or quarantined automatically, only told about."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

import hub.guard.service as guard_service
from hub.admin.bodies import Body
from hub.admin.kinds import Admin, Document, Kind, Listing
from hub.guard import store
from hub.guard.model import REASON_CHARS_MAX, BreakGlass
from hub.pipeline import lock_tenants

Reference = Annotated[str, Field(min_length=1, max_length=1_000)]
Reason = Annotated[str, Field(min_length=1, max_length=REASON_CHARS_MAX)]


class BreakGlassBody(Body):
    """A user, as `usr_…`, `email:…`, `ext:…` or `iss_sub:…|…`, and why."""

    user: Reference
    reason: Reason


async def create_entry(admin: Admin, body: BreakGlassBody) -> Document:
    """Put a user on the list; a containment that is open ends."""
    async with admin.node.database.transaction() as connection:
        await lock_tenants(connection, {admin.tenant_id})
        entry = await guard_service.add_break_glass(
            connection, admin.tenant_id, body.user, reason=body.reason, now=admin.now
        )
    return _entry(entry)


async def list_entries(admin: Admin, listing: Listing) -> list[Document]:
    """Return the list by id."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_break_glass(connection, admin.tenant_id)
    page = [entry for entry in found if entry.entry_id > listing.after][: listing.limit]
    return [_entry(entry) for entry in page]


async def read_entry(admin: Admin, entry_id: str) -> Document:
    """Return one entry."""
    async with admin.node.database.snapshot() as connection:
        return _entry(await guard_service.get_break_glass(connection, admin.tenant_id, entry_id))


async def delete_entry(admin: Admin, entry_id: str) -> None:
    """Take a user off the list; policy counts again at once."""
    async with admin.node.database.transaction() as connection:
        await lock_tenants(connection, {admin.tenant_id})
        await guard_service.delete_break_glass(connection, admin.tenant_id, entry_id, now=admin.now)


def _entry(entry: BreakGlass) -> Document:
    return {
        "id": entry.entry_id,
        "user": entry.user,
        "reason": entry.reason,
        "added_at": entry.added_at,
    }


KINDS: Final = (
    Kind(
        name="break-glass",
        item="break_glass",
        summary="users who are never logged out or quarantined automatically",
        list_page=list_entries,
        read=read_entry,
        create=create_entry,
        create_body=BreakGlassBody,
        delete=delete_entry,
        example={"user": "email:admin@customer.example", "reason": "the last administrator"},
    ),
)
