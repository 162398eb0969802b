"""Logouts of sessions that the blast-radius guard held: seen, approved or refused by a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from actions import session_logout
from actions.held.model import HeldLogout, HeldState
from hub import session_logouts
from hub.admin.kinds import Action, Admin, Document, Kind, Listing, one_of
from hub.operations import LOG_OUT_SESSION


class _Settle(Protocol):
    """Decides about one held logout."""

    def __call__(
        self,
        connection: AsyncConnection,
        tenant_id: str,
        held_id: str,
        /,
        *,
        by: str,
        now: datetime,
    ) -> Awaitable[None]:
        """Raises NotFound, Conflict."""
        ...


async def list_held(admin: Admin, listing: Listing) -> list[Document]:
    """Return held logouts, newest first; of one user or in one state when asked."""
    async with admin.node.database.snapshot() as connection:
        found = await session_logout.list_held(
            connection,
            admin.tenant_id,
            state=one_of(listing.filters.get("state"), HeldState, "state"),
            user_id=listing.filters.get("user"),
            before=listing.after or None,
            limit=listing.limit,
        )
    return [_rendered(each) for each in found]


async def read_held(admin: Admin, held_id: str) -> Document:
    """Return one held logout."""
    async with admin.node.database.snapshot() as connection:
        return _rendered(await session_logout.get_held(connection, admin.tenant_id, held_id))


def _settling(settle: _Settle) -> Callable[[Admin, str, None], Awaitable[Document]]:
    async def perform(admin: Admin, held_id: str, _body: None) -> Document:
        async with admin.node.database.transaction() as connection:
            await settle(
                connection, admin.tenant_id, held_id, by=admin.caller.client_id, now=admin.now
            )
        admin.node.notifier.wake_all(LOG_OUT_SESSION.wakes)
        return await read_held(admin, held_id)

    return perform


def _rendered(held: HeldLogout) -> Document:
    return {
        "id": held.held_id,
        "user_id": held.user_id,
        "session_id": held.session_id,
        "iss": held.iss,
        "sid": held.sid,
        "apps": None if held.app_ids is None else list(held.app_ids),
        "state": held.state.value,
        "reasons": list(held.reasons),
        "trace_id": held.trace_id,
        "held_at": held.held_at,
        "settled_at": held.settled_at,
        "settled_by": held.settled_by,
    }


KINDS: Final = (
    Kind(
        name="session-logouts",
        item="session_logout",
        summary="logouts of sessions that the blast-radius guard held for a person",
        list_page=list_held,
        read=read_held,
        filters=("state", "user"),
        actions=(
            Action(
                name="approve",
                summary="Carry out a logout that the blast-radius guard held.",
                perform=_settling(session_logouts.approve),
            ),
            Action(
                name="refuse",
                summary="Let a held logout never happen; the session stays stopped at the doors.",
                perform=_settling(session_logouts.refuse),
            ),
        ),
    ),
)
