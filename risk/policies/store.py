"""Tables and named queries: the entity risk policy, and those of sessions and sign-ins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

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

#: policies of sessions and sign-ins, whole: document is what `documents.render_policy` gives
session_policies: Final = sa.Table(
    "session_policies",
    metadata,
    tenant_column(),
    id_column("policy_id"),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("document", JSONDocument, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
)

#: every version of them, so that a trial and a record can name one
session_policy_versions: Final = sa.Table(
    "session_policy_versions",
    metadata,
    tenant_column(),
    id_column("policy_id"),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("document", JSONDocument, nullable=False),
    sa.Column("updated_at", UTCDateTime, nullable=False),
)
#: of each policy; older ones are forgotten
VERSIONS_KEPT: Final = 100
#: of a tenant
SESSION_POLICIES_MAX: Final = 500

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicyRow:
    """One policy of sessions or sign-ins as it is stored."""

    policy_id: str
    kind: str
    document: dict[str, Any]
    version: int


_READ_SESSION_POLICIES: Final = Query(
    sa.select(
        session_policies.c.policy_id,
        session_policies.c.kind,
        session_policies.c.document,
        session_policies.c.version,
    )
    .where(session_policies.c.tenant_id == sa.bindparam("tenant_id", type_=sa.String))
    .order_by(session_policies.c.policy_id),
    scalars=["tenant_id"],
)


async def read_session_policies(
    connection: AsyncConnection, tenant_id: str
) -> list[SessionPolicyRow]:
    """Return all that is stored, by id; at most `SESSION_POLICIES_MAX`."""
    rows = await _READ_SESSION_POLICIES.rows(connection, tenant_id=tenant_id)
    return [
        SessionPolicyRow(policy_id=policy_id, kind=kind, document=document, version=version)
        for policy_id, kind, document, version in rows
    ]


async def write_session_policy(
    connection: AsyncConnection, tenant_id: str, row: SessionPolicyRow, *, now: datetime
) -> int:
    """Store a policy as the next version, and return that; the version of the row is ignored."""
    written = {"kind": row.kind, "document": row.document, "updated_at": now}
    statement = dialect_insert(connection, session_policies).values(
        tenant_id=tenant_id, policy_id=row.policy_id, version=1, **written
    )
    version = await connection.scalar(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "policy_id"],
            set_={
                **{name: statement.excluded[name] for name in written},
                "version": session_policies.c.version + 1,
            },
        ).returning(session_policies.c.version)
    )
    assert version is not None  # noqa: S101 - the row is there now
    await connection.execute(
        sa.insert(session_policy_versions).values(
            tenant_id=tenant_id, policy_id=row.policy_id, version=version, **written
        )
    )
    await connection.execute(
        sa.delete(session_policy_versions).where(
            session_policy_versions.c.tenant_id == tenant_id,
            session_policy_versions.c.policy_id == row.policy_id,
            session_policy_versions.c.version <= version - VERSIONS_KEPT,
        )
    )
    return int(version)


async def read_session_policy_version(
    connection: AsyncConnection, tenant_id: str, policy_id: str, version: int
) -> SessionPolicyRow | None:
    """Return one version of a policy, None if there is none of that number."""
    found = await connection.execute(
        sa.select(session_policy_versions.c.kind, session_policy_versions.c.document).where(
            session_policy_versions.c.tenant_id == tenant_id,
            session_policy_versions.c.policy_id == policy_id,
            session_policy_versions.c.version == version,
        )
    )
    row = found.first()
    if row is None:
        return None
    return SessionPolicyRow(policy_id=policy_id, kind=row[0], document=row[1], version=version)


async def delete_session_policy(
    connection: AsyncConnection, tenant_id: str, policy_id: str
) -> None:
    """Remove a policy and its versions."""
    for table in (session_policies, session_policy_versions):
        await connection.execute(
            sa.delete(table).where(table.c.tenant_id == tenant_id, table.c.policy_id == policy_id)
        )
