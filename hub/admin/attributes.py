"""Rules over attributes, which AuthZEN questions about other things than apps are answered by."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

import risk.attributes.service as rules_service
from hub.admin.bodies import Body
from hub.admin.kinds import Admin, Document, Kind, Listing
from risk.attributes.model import KIND, NAME_CHARS_MAX, TYPES_MAX, AttributeRule, Effect
from runtime.ids import new_id


class AttributeRuleBody(Body):
    """A rule. expression: CEL over subject, action, resource and context."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
    resource_types: Annotated[list[str], Field(min_length=1, max_length=TYPES_MAX)]
    effect: Effect = Effect.PERMIT
    expression: str


async def create_rule(admin: Admin, body: AttributeRuleBody) -> Document:
    """Add a rule; it counts from the next question on."""
    rule = AttributeRule(
        tenant_id=admin.tenant_id,
        rule_id=new_id("atr"),
        name=body.name,
        resource_types=tuple(body.resource_types),
        effect=body.effect,
        expression=body.expression,
        created_at=admin.now,
    )
    async with admin.node.database.transaction() as connection:
        return _rule(await rules_service.add_rule(connection, rule))


async def list_rules(admin: Admin, listing: Listing) -> list[Document]:
    """Return rules by id."""
    async with admin.node.database.snapshot() as connection:
        found = await rules_service.list_rules(connection, admin.tenant_id)
    return [_rule(rule) for rule in found if rule.rule_id > listing.after][: listing.limit]


async def read_rule(admin: Admin, rule_id: str) -> Document:
    """Return one rule."""
    async with admin.node.database.snapshot() as connection:
        return _rule(await rules_service.get_rule(connection, admin.tenant_id, rule_id))


async def delete_rule(admin: Admin, rule_id: str) -> None:
    """Forget a rule."""
    async with admin.node.database.transaction() as connection:
        await rules_service.delete_rule(connection, admin.tenant_id, rule_id)


def _rule(rule: AttributeRule) -> Document:
    return {
        "id": rule.rule_id,
        "name": rule.name,
        "resource_types": list(rule.resource_types),
        "effect": rule.effect.value,
        "expression": rule.expression,
        "created_at": rule.created_at,
    }


KINDS: Final = (
    Kind(
        name=KIND,
        item="attribute_rule",
        summary="rules over attributes, for AuthZEN questions about other things than apps",
        list_page=list_rules,
        read=read_rule,
        create=create_rule,
        create_body=AttributeRuleBody,
        delete=delete_rule,
        example={
            "name": "owners read their reports",
            "resource_types": ["report"],
            "effect": "permit",
            "expression": "action.name == 'read' && resource.properties.owner == subject.id",
        },
    ),
)
