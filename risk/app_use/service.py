"""Use cases: note which apps users open, find who opens too many new ones, forget the old."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from risk.app_use import store
from risk.app_use.model import LIFE, Burst, OpenedApp, is_news, opened, too_many
from risk.sql.store import Connection
from runtime.database import serialize


async def note_opened(connection: Connection, items: Sequence[OpenedApp]) -> list[Burst]:
    """Note apps that users of any tenants opened; return who opened suspiciously many new ones.

    INVARIANT: however many processes see the apps of one user, a burst is found by exactly one.
    """
    found: list[Burst] = []
    for tenant_id in sorted({item.tenant_id for item in items}):
        mine = [item for item in items if item.tenant_id == tenant_id]
        known = await store.uses_among(
            connection, tenant_id, {(item.user_id, item.app) for item in mine}
        )
        news = [item for item in mine if is_news(known.get((item.user_id, item.app)), item.at)]
        # In one order everywhere, so that two writers cannot wait for each other.
        for user_id in sorted({item.user_id for item in news}):
            of_user = [item for item in news if item.user_id == user_id]
            burst = await _note_of_user(connection, tenant_id, user_id, of_user)
            if burst is not None:
                found.append(burst)
    return found


async def _note_of_user(
    connection: Connection, tenant_id: str, user_id: str, items: Sequence[OpenedApp]
) -> Burst | None:
    await serialize(connection, "user_apps", tenant_id, user_id)
    before = await store.uses_of(connection, tenant_id, user_id=user_id)
    after, burst = opened(before, items)
    changed = {app: use for app, use in after.items() if before.get(app) != use}
    await store.write_uses(connection, tenant_id, user_id, changed)
    await store.delete_uses(connection, tenant_id, user_id, too_many(after))
    return burst


async def forget(connection: Connection, tenant_id: str, user_id: str) -> None:
    """Forget a user's apps, so that they are learned anew."""
    known = await store.uses_of(connection, tenant_id, user_id=user_id)
    await store.delete_uses(connection, tenant_id, user_id, known)


async def purge(connection: Connection, *, now: datetime) -> int:
    """Forget apps that were not used for long, a bounded number; return how many."""
    return await store.system_purge_uses(connection, before=now - LIFE)
