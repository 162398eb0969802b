"""Use cases of the policies of sessions and sign-ins: read, write, delete, presets, compile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from risk.policies import store
from risk.policies.compiled import CompiledPolicies
from risk.policies.documents import PolicyKind, SessionPolicy, parse_policy, render_policy
from risk.policies.model import StoredSessionPolicy
from risk.policies.presets import DEFAULTS, preset
from risk.policies.review import References, check_ages, check_references
from risk.policies.store import SESSION_POLICIES_MAX, SessionPolicyRow
from risk.policy import PolicyMode
from risk.sql.store import Connection
from runtime.database import Database
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import ConfigCache, ConfigFeed, bump
from runtime.ids import new_id

FEED: str = "policies"
NO_SUCH_POLICY = "No such policy."

log = structlog.get_logger()


async def list_policies(connection: Connection, tenant_id: str) -> list[StoredSessionPolicy]:
    """Return the tenant's policies by id; of the singletons those nobody stored are defaults."""
    stored = {
        row.policy_id: _restored(row)
        for row in await store.read_session_policies(connection, tenant_id)
    }
    missing = {
        policy_id: StoredSessionPolicy(policy=policy)
        for policy_id, policy in DEFAULTS.items()
        if policy_id not in stored
    }
    return [policy for _, policy in sorted((stored | missing).items())]


async def get_policy(connection: Connection, tenant_id: str, policy_id: str) -> StoredSessionPolicy:
    """Return one policy. Raises NotFound."""
    for found in await list_policies(connection, tenant_id):
        if found.policy.policy_id == policy_id:
            return found
    raise NotFound(NO_SUCH_POLICY)


async def compile_policies(connection: Connection, tenant_id: str) -> CompiledPolicies:
    """Return the tenant's policies ready to judge; rules that cannot be read are left out."""
    found = await list_policies(connection, tenant_id)
    for each in found:
        for what in each.skipped:
            log.error("policy_rule.skipped", policy=each.policy.policy_id, reason=what)
    return CompiledPolicies([each.policy for each in found])


def policies_cache(feed: ConfigFeed, database: Database) -> ConfigCache[CompiledPolicies]:
    """Return what this process judges by: tenant to its policies, made anew when they change."""

    async def load(tenant_id: str) -> CompiledPolicies:
        async with database.snapshot() as connection:
            return await compile_policies(connection, tenant_id)

    return ConfigCache(feed, FEED, load)


async def add_app_policy(
    connection: Connection,
    tenant_id: str,
    document: object,
    *,
    there: References,
    now: datetime,
) -> StoredSessionPolicy:
    """Add a policy for apps. Raises Invalid, Conflict: an app has another policy, or too many."""
    policy = parse_policy(document, policy_id=new_id("pol"), kind=PolicyKind.APP_SIGN_IN)
    return await _write(connection, tenant_id, policy, there=there, now=now)


async def set_policy(
    connection: Connection,
    tenant_id: str,
    policy_id: str,
    document: Mapping[str, Any],
    *,
    there: References,
    now: datetime,
) -> StoredSessionPolicy:
    """Replace a policy by a whole document. Raises NotFound, Invalid, Conflict.

    It applies from the next request on; whoever changes it for people begins a sweep with it.
    """
    kind = (await get_policy(connection, tenant_id, policy_id)).policy.kind
    policy = parse_policy(document, policy_id=policy_id, kind=kind)
    return await _write(connection, tenant_id, policy, there=there, now=now)


async def delete_policy(connection: Connection, tenant_id: str, policy_id: str) -> None:
    """Delete a policy for apps. Raises NotFound, Conflict for one that every tenant has."""
    await bump(connection, tenant_id, FEED)
    await get_policy(connection, tenant_id, policy_id)
    if policy_id in DEFAULTS:
        raise Conflict("Every tenant has this policy; change it, or apply a preset.")
    await store.delete_session_policy(connection, tenant_id, policy_id)


async def apply_preset(
    connection: Connection, tenant_id: str, name: str, *, mode: PolicyMode, now: datetime
) -> list[StoredSessionPolicy]:
    """Replace the policies that a preset ("standard") has; those for apps stay. Raises Invalid."""
    return [
        await _write(connection, tenant_id, policy, there=References(), now=now)
        for policy in preset(name, mode=mode)
    ]


async def get_version(
    connection: Connection, tenant_id: str, policy_id: str, version: int
) -> SessionPolicy:
    """Return a policy as it was. Raises NotFound."""
    row = await store.read_session_policy_version(connection, tenant_id, policy_id, version)
    if row is None:
        raise NotFound("No such version of the policy.")
    return _restored(row).policy


async def _write(
    connection: Connection,
    tenant_id: str,
    policy: SessionPolicy,
    *,
    there: References,
    now: datetime,
) -> StoredSessionPolicy:
    # First of all: writers of one tenant's policies take turns here, until their commit.
    await bump(connection, tenant_id, FEED)
    found = {each.policy.policy_id: each for each in await list_policies(connection, tenant_id)}
    present = found.pop(policy.policy_id, None)
    others = [each.policy for each in found.values()]
    _check_apps(policy, others)
    if policy.name in {other.name for other in others}:
        raise Conflict("Another policy has this name.")
    if len(others) >= SESSION_POLICIES_MAX:
        raise Conflict(f"A tenant has at most {SESSION_POLICIES_MAX} policies.")
    check_references(policy, there)
    check_ages(policy)
    if present is not None and _is_same(present, policy):
        return present
    row = SessionPolicyRow(
        policy_id=policy.policy_id,
        kind=policy.kind.value,
        document=render_policy(policy),
        version=0,
    )
    version = await store.write_session_policy(connection, tenant_id, row, now=now)
    return StoredSessionPolicy(policy=replace(policy, version=version))


def _is_same(present: StoredSessionPolicy, policy: SessionPolicy) -> bool:
    is_stored_whole = present.policy.version > 0 and not present.skipped
    return is_stored_whole and render_policy(present.policy) == render_policy(policy)


def _check_apps(policy: SessionPolicy, others: list[SessionPolicy]) -> None:
    """Raise Invalid or Conflict unless each app has one policy, and the default names none."""
    if policy.policy_id in DEFAULTS and policy.app_ids:
        raise Invalid(
            "The default is for the apps that no policy names.", pointers=(("/apps", "none"),)
        )
    taken = {app_id: other.name for other in others for app_id in other.app_ids}
    for app_id in policy.app_ids:
        if app_id in taken:
            raise Conflict(f"The app {app_id} has the policy {taken[app_id]}; it can have one.")


def _restored(row: SessionPolicyRow) -> StoredSessionPolicy:
    """Read a stored policy; a rule that can no longer be read is skipped and reported."""
    kind = PolicyKind(row.kind)
    read = partial(parse_policy, policy_id=row.policy_id, kind=kind)
    document, skipped = dict(row.document), list[str]()
    try:
        policy = read(document)
    except Invalid:
        document["rules"] = []
        for rule in row.document.get("rules") or []:
            try:
                read({"rules": [rule]})
            except Invalid as error:
                skipped.append(error.detail)
            else:
                document["rules"].append(rule)
        policy = _read_or_default(document, row, skipped)
    return StoredSessionPolicy(policy=replace(policy, version=row.version), skipped=tuple(skipped))


def _read_or_default(
    document: dict[str, Any], row: SessionPolicyRow, skipped: list[str]
) -> SessionPolicy:
    kind = PolicyKind(row.kind)
    try:
        return parse_policy(document, policy_id=row.policy_id, kind=kind)
    except Invalid as error:  # not the rules alone: written by a newer release, perhaps
        skipped.append(error.detail)
        unread = SessionPolicy(policy_id=row.policy_id, kind=kind, name=row.policy_id)
        return DEFAULTS.get(row.policy_id, unread)
