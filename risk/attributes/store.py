"""Table and named queries of rules over attributes."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.attributes.model import NAME_CHARS_MAX, AttributeRule, Effect
from runtime.database import JSONDocument, UTCDateTime, id_column, metadata, tenant_column

attribute_rules: Final = sa.Table(
    "attribute_rules",
    metadata,
    tenant_column(),
    id_column("rule_id"),
    sa.Column("name", sa.String(NAME_CHARS_MAX), nullable=False),
    sa.Column("resource_types", JSONDocument, nullable=False),
    sa.Column("effect", sa.String(8), nullable=False),
    sa.Column("expression", sa.Text, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.UniqueConstraint("tenant_id", "name"),
)


async def list_rules(connection: AsyncConnection, tenant_id: str) -> list[AttributeRule]:
    """Return all rules of a tenant by id; there are at most RULES_MAX."""
    rows = await connection.execute(
        sa.select(attribute_rules)
        .where(attribute_rules.c.tenant_id == tenant_id)
        .order_by(attribute_rules.c.rule_id)
    )
    return [_rule(row) for row in rows]


async def add_rule(connection: AsyncConnection, rule: AttributeRule) -> None:
    """Store a new rule."""
    await connection.execute(
        sa.insert(attribute_rules).values(
            tenant_id=rule.tenant_id,
            rule_id=rule.rule_id,
            name=rule.name,
            resource_types=list(rule.resource_types),
            effect=rule.effect.value,
            expression=rule.expression,
            created_at=rule.created_at,
        )
    )


async def delete_rule(connection: AsyncConnection, tenant_id: str, rule_id: str) -> bool:
    """Delete a rule; return whether it existed."""
    result = await connection.execute(
        sa.delete(attribute_rules).where(
            attribute_rules.c.tenant_id == tenant_id, attribute_rules.c.rule_id == rule_id
        )
    )
    return result.rowcount > 0


def _rule(row: sa.Row[Any]) -> AttributeRule:
    return AttributeRule(
        tenant_id=row.tenant_id,
        rule_id=row.rule_id,
        name=row.name,
        resource_types=tuple(row.resource_types),
        effect=Effect(row.effect),
        expression=row.expression,
        created_at=row.created_at,
    )
