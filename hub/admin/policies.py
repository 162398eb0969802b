"""The entity risk policy: one per tenant, with ordered rules."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

import risk.policies.service as policies_service
from hub.admin.bodies import Body
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from risk.policy import PolicyMode, render_policy
from runtime.errors import NotFound

POLICY_ID: Final = "entity-risk"


class PolicyChange(Body):
    """The whole policy anew: its mode and all its rules, the catch-all is ours."""

    mode: str
    rules: list[dict[str, Any]] = Field(max_length=100)


class PresetBody(Body):
    """Which preset, and whether it acts or only says what it would have done."""

    name: str = "standard"
    mode: PolicyMode = PolicyMode.MONITOR


async def list_policies(admin: Admin, listing: Listing) -> list[Document]:
    """Return the policies: there is one."""
    return [] if listing.after >= POLICY_ID else [await read_policy(admin, POLICY_ID)]


async def read_policy(admin: Admin, policy_id: str) -> Document:
    """Return the entity risk policy."""
    if policy_id != POLICY_ID:
        raise NotFound("No such policy.")
    async with admin.node.database.snapshot() as connection:
        stored = await policies_service.get_policy(connection, admin.tenant_id)
    return _policy(stored)


async def change_policy(admin: Admin, policy_id: str, body: PolicyChange) -> Document:
    """Replace the rules; they apply from the next assessment on."""
    if policy_id != POLICY_ID:
        raise NotFound("No such policy.")
    async with admin.node.database.transaction() as connection:
        stored = await policies_service.set_policy(
            connection, admin.tenant_id, body.model_dump(), now=admin.now
        )
    return _policy(stored)


async def apply_preset(admin: Admin, _id: str, body: PresetBody) -> Document:
    """Replace the rules by a preset."""
    async with admin.node.database.transaction() as connection:
        stored = await policies_service.apply_preset(
            connection, admin.tenant_id, body.name, mode=body.mode, now=admin.now
        )
    return _policy(stored)


def _policy(stored: Any) -> Document:
    return {
        "id": POLICY_ID,
        **render_policy(stored.policy),
        "version": stored.version,
        "skipped": list(stored.skipped),
    }


KINDS: Final = (
    Kind(
        name="policies",
        item="policy",
        summary="the entity risk policy: ordered rules, the first match decides",
        list_page=list_policies,
        read=read_policy,
        change=change_policy,
        change_body=PolicyChange,
        replace=change_policy,
        actions=(
            Action(
                name="preset",
                summary="Replace the rules by a preset.",
                perform=apply_preset,
                body=PresetBody,
                on_kind=True,
                example={"name": "standard", "mode": "enforce"},
            ),
        ),
    ),
)
