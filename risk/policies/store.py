"""Table and named queries: policies."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.policies.model import StoredPolicy
from risk.policy import DEFAULT_POLICY, Policy, render_rule, restore_policy
from runtime.database import (
    JSONDocument,
    UTCDateTime,
    dialect_insert,
    id_column,
    metadata,
    tenant_column,
)
from runtime.ids import new_id
from runtime.statements import Query

ENTITY_RISK: Final = "entity_risk"

policies: Final = sa.Table(
    "policies",
    metadata,
    tenant_column(),
    id_column("policy_id"),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("rules", JSONDocument, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("tenant_id", "kind"),
)


_READ: Final = Query(
    sa.select(policies.c.mode, policies.c.rules, policies.c.version).where(
        policies.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String),
        policies.c.kind == ENTITY_RISK,
    ),
    scalars=["tenant_id"],
)


async def read_policy(connection: AsyncConnection, tenant_id: str) -> StoredPolicy:
    """Return the entity risk policy; a tenant without one has the default, at version 0."""
    rows = await _READ.rows(connection, tenant_id=tenant_id)
    if not rows:
        return StoredPolicy(policy=DEFAULT_POLICY, version=0)
    ((mode, rules, version),) = rows
    policy, skipped = restore_policy(mode, rules)
    return StoredPolicy(policy=policy, version=version, skipped=skipped)


async def write_policy(
    connection: AsyncConnection, tenant_id: str, policy: Policy, *, now: datetime
) -> None:
    """Store the entity risk policy, as the next version."""
    statement = dialect_insert(connection, policies).values(
        tenant_id=tenant_id,
        policy_id=new_id("pol"),
        kind=ENTITY_RISK,
        mode=policy.mode.value,
        rules=[render_rule(rule) for rule in policy.rules],
        version=1,
        updated_at=now,
    )
    newer = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "kind"],
            set_={
                "mode": newer.mode,
                "rules": newer.rules,
                "version": policies.c.version + 1,
                "updated_at": newer.updated_at,
            },
        )
    )
