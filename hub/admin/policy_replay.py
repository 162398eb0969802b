"""`policies:replay`: what a policy would have done, to requests or to users at risk."""

from __future__ import annotations

from datetime import timedelta

import hub.guard.service as guard
import risk.entities.service as entities
import risk.policies.service as policies_service
from actions.model import containments_max
from hub.admin.kinds import Admin, Document
from hub.admin.policy_bodies import (
    OF_ENTITY,
    POLICY_ID,
    SINGLETONS,
    ReplayBody,
    named,
    references_of,
)
from hub.replays import Replays
from risk.policies import sessions
from risk.policies.documents import PolicyKind, SessionPolicy, parse_policy
from risk.policies.replay import with_proposed
from risk.policies.review import check_references, warnings
from risk.policy import parse_policy as parse_entity_policy
from risk.sql.store import Connection
from runtime.errors import Invalid, NotFound


async def replay_policy(admin: Admin, _id: str, body: ReplayBody) -> Document:
    """Tell what a policy would have done in the last days; nothing is stored."""
    if POLICY_ID in {body.policy.id, SINGLETONS.get(body.policy.type or "")}:
        return await _replay_entity(admin, body)
    async with admin.node.database.snapshot() as connection:
        there = await references_of(connection, admin.tenant_id)
        present = [
            each.policy for each in await sessions.list_policies(connection, admin.tenant_id)
        ]
        proposed = await _proposed(connection, admin.tenant_id, body, present)
    check_references(proposed, there)
    replays: Replays = admin.state.replays
    report = await replays.run(
        admin.tenant_id,
        with_proposed(present, proposed),
        since=admin.now - timedelta(days=body.days),
        until=admin.now,
    )
    shown = {"id": proposed.policy_id, "name": proposed.name, "version": proposed.version}
    return {"policy": shown, "warnings": warnings(proposed), "since_days": body.days, **report}


async def _replay_entity(admin: Admin, body: ReplayBody) -> Document:
    """Ask an entity risk policy about the changes of users' levels; without rules, the present."""
    if body.version is not None:
        raise Invalid("Of this policy no versions are kept.", pointers=(("/version", "none"),))
    given = body.policy.given()
    if strange := sorted(given.keys() - OF_ENTITY - {"name"}):
        raise Invalid("It has no such member.", pointers=((f"/policy/{strange[0]}", "none"),))
    async with admin.node.database.snapshot() as connection:
        stored = await policies_service.get_policy(connection, admin.tenant_id)
        users = await entities.count_users(connection, admin.tenant_id)
        exempt = await guard.break_glass_users(connection, admin.tenant_id)
    policy = parse_entity_policy({"rules": given["rules"]}) if "rules" in given else stored.policy
    replays: Replays = admin.state.replays
    report = await replays.run_levels(
        admin.tenant_id,
        policy,
        since=admin.now - timedelta(days=body.days),
        until=admin.now,
        exempt=exempt,
        contained_max=containments_max(users),
    )
    shown = {
        "id": POLICY_ID,
        "name": POLICY_ID,
        "version": stored.version if "rules" not in given else 0,
    }
    by_group = any(rule.groups_include or rule.groups_exclude for rule in policy.rules)
    told = ["Groups of users are those of today."] if by_group else []
    return {"policy": shown, "warnings": told, "since_days": body.days, **report}


async def _proposed(
    connection: Connection, tenant_id: str, body: ReplayBody, present: list[SessionPolicy]
) -> SessionPolicy:
    """Return the policy that is tried: as it is written, or a version that was stored."""
    policy = body.policy
    policy_id = policy.id or SINGLETONS.get(policy.type or "") or named(policy.name, present)
    if body.version is not None:
        return await sessions.get_version(connection, tenant_id, policy_id or "", body.version)
    known = {each.policy_id: each.kind for each in present}
    if policy.id is not None and policy.id not in known:
        raise NotFound(sessions.NO_SUCH_POLICY)
    policy_id = policy_id or "pol_proposed"
    kind = known.get(policy_id, PolicyKind.APP_SIGN_IN)
    return parse_policy(policy.given(), policy_id=policy_id, kind=kind)
