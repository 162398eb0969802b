"""What was answered before: asked when policy is asked anew about what is known already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from actions import store
from actions.batch import key_of
from actions.model import Action, ContainmentOrder
from actions.store import Connection

NAMES: Final = frozenset(Action)


async def answered(
    connection: Connection, orders: Sequence[ContainmentOrder]
) -> set[tuple[str, str]]:
    """Return (tenant, user) whose causes were answered already with what is ordered, or more.

    Also where a person has ended that answer since: nobody is contained twice for one thing.
    """
    keys = {(order.tenant_id, order.user_id) for order in orders if order.actions}
    held = {key_of(one): one for one in await store.containments_of(connection, keys)}
    causes = await store.causes_of(connection, held)
    found: set[tuple[str, str]] = set()
    for order in orders:
        wanted = {cause.detection_id for cause in order.causes}
        if any(
            (one.tenant_id, one.user_id) == (order.tenant_id, order.user_id)
            and order.actions & NAMES <= one.actions
            and wanted <= {cause.detection_id for cause in causes[key]}
            for key, one in held.items()
        ):
            found.add((order.tenant_id, order.user_id))
    return found
