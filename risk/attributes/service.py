"""Use cases of rules over attributes. Every change wakes the caches of their kind."""

from __future__ import annotations

from risk.attributes import store
from risk.attributes.model import (
    KIND,
    RULES_MAX,
    AttributeRule,
    Compiled,
    check_rule,
    compile_rules,
)
from risk.sql.store import Connection
from runtime.errors import Conflict, NotFound
from runtime.feed import bump


async def add_rule(connection: Connection, rule: AttributeRule) -> AttributeRule:
    """Add a rule. Raises Invalid, or Conflict for a taken name and beyond RULES_MAX."""
    check_rule(rule)
    others = await store.list_rules(connection, rule.tenant_id)
    if any(each.name == rule.name for each in others):
        raise Conflict("A rule of this name exists.")
    if len(others) >= RULES_MAX:
        raise Conflict(f"A tenant has at most {RULES_MAX} rules over attributes.")
    await store.add_rule(connection, rule)
    await bump(connection, rule.tenant_id, KIND)
    return rule


async def list_rules(connection: Connection, tenant_id: str) -> list[AttributeRule]:
    """Return all rules of a tenant by id."""
    return await store.list_rules(connection, tenant_id)


async def get_rule(connection: Connection, tenant_id: str, rule_id: str) -> AttributeRule:
    """Return one rule. Raises NotFound."""
    for rule in await store.list_rules(connection, tenant_id):
        if rule.rule_id == rule_id:
            return rule
    raise NotFound("No such rule.")


async def delete_rule(connection: Connection, tenant_id: str, rule_id: str) -> None:
    """Forget a rule. Raises NotFound."""
    if not await store.delete_rule(connection, tenant_id, rule_id):
        raise NotFound("No such rule.")
    await bump(connection, tenant_id, KIND)


async def compiled(connection: Connection, tenant_id: str) -> Compiled:
    """Return the rules of a tenant, ready to be asked."""
    return compile_rules(await store.list_rules(connection, tenant_id))
