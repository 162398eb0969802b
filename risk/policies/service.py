"""Use cases of the entity risk policy: read, replace, apply a preset. The others: `sessions`."""

from __future__ import annotations

from datetime import datetime

from risk.policies import store
from risk.policies.model import StoredPolicy
from risk.policy import PolicyMode, parse_policy, preset
from risk.sql.store import Connection
from runtime.feed import bump


async def get_policy(connection: Connection, tenant_id: str) -> StoredPolicy:
    """Return the tenant's policy. Raises nothing."""
    return await store.read_policy(connection, tenant_id)


async def set_policy(
    connection: Connection, tenant_id: str, document: object, *, now: datetime
) -> StoredPolicy:
    """Replace the tenant's policy by a JSON document (`risk.policy.parse_policy`). Raises Invalid.

    It applies from the next assessment on; whoever changes it for people begins a sweep with it.
    """
    await store.write_policy(connection, tenant_id, parse_policy(document), now=now)
    await bump(connection, tenant_id, "policies")
    return await store.read_policy(connection, tenant_id)


async def apply_preset(
    connection: Connection, tenant_id: str, name: str, *, mode: PolicyMode, now: datetime
) -> StoredPolicy:
    """Replace the tenant's policy by a preset ("standard"). Raises Invalid."""
    await store.write_policy(connection, tenant_id, preset(name, mode=mode), now=now)
    await bump(connection, tenant_id, "policies")
    return await store.read_policy(connection, tenant_id)
