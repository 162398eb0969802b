"""Policies: entity risk, global session, session protection, and sign-in policies of apps."""

from __future__ import annotations

from typing import Any, Final

import risk.policies.service as policies_service
from hub.admin.examples_policies import POLICY_EXAMPLE
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from hub.admin.policy_bodies import (
    ENTITY_RISK,
    OF_ENTITY,
    POLICY_ID,
    SHOWN,
    SINGLETONS,
    AppliedPolicy,
    PolicyBody,
    PresetBody,
    ReplayBody,
    named,
    references_of,
)
from hub.admin.policy_replay import replay_policy
from risk.policies import sessions
from risk.policies.documents import PolicyKind, render_policy
from risk.policies.model import StoredPolicy, StoredSessionPolicy
from risk.policies.review import warnings
from risk.policy import render_policy as render_entity_policy
from risk.sql.store import Connection
from risk.sweeps import service as sweeps
from risk.sweeps.model import SweepKind
from risk.sweeps.store import list_sweeps
from runtime.errors import Invalid


async def list_policies(admin: Admin, listing: Listing) -> list[Document]:
    """Return the policies by id; those that nobody stored as their defaults."""
    async with admin.node.database.snapshot() as connection:
        stored = await policies_service.get_policy(connection, admin.tenant_id)
        others = await sessions.list_policies(connection, admin.tenant_id)
    shown = sorted([_entity(stored), *map(show_policy, others)], key=lambda each: str(each["id"]))
    return [each for each in shown if each["id"] > listing.after][: listing.limit]


async def read_policy(admin: Admin, policy_id: str) -> Document:
    """Return one policy."""
    async with admin.node.database.snapshot() as connection:
        if policy_id == POLICY_ID:
            return _entity(await policies_service.get_policy(connection, admin.tenant_id))
        return show_policy(await sessions.get_policy(connection, admin.tenant_id, policy_id))


async def create_policy(admin: Admin, body: PolicyBody) -> Document:
    """Add a policy for apps; of the other types each tenant has its one already."""
    given = body.given()
    if given.setdefault("type", PolicyKind.APP_SIGN_IN.value) != PolicyKind.APP_SIGN_IN.value:
        raise Invalid(
            "A tenant has one policy of this type: change that.",
            pointers=(("/type", PolicyKind.APP_SIGN_IN.value),),
        )
    if "name" not in given:
        raise Invalid("A policy needs a name.", pointers=(("/name", "a string"),))
    async with admin.node.database.transaction() as connection:
        there = await references_of(connection, admin.tenant_id)
        made = await sessions.add_app_policy(
            connection, admin.tenant_id, given, there=there, now=admin.now
        )
        if body.sweep:
            await _sweep(connection, admin, SweepKind.SESSIONS, made.policy.policy_id)
    return show_policy(made)


async def change_policy(admin: Admin, policy_id: str, body: PolicyBody) -> Document:
    """Change members of a policy; a list of rules is replaced as a whole."""
    current = {
        name: value
        for name, value in (await read_policy(admin, policy_id)).items()
        if name in SHOWN and value is not None
    }
    if policy_id == POLICY_ID:
        current = {name: value for name, value in current.items() if name in OF_ENTITY}
    return await _set(admin, policy_id, current | body.given(), is_swept=body.sweep)


async def replace_policy(admin: Admin, policy_id: str, body: PolicyBody) -> Document:
    """Replace a policy; live sessions, or users at risk, are judged again."""
    return await _set(admin, policy_id, body.given(), is_swept=body.sweep)


async def apply_policy(admin: Admin, _id: str, body: AppliedPolicy) -> Document:
    """Add or replace a policy, whichever it takes."""
    policy_id = body.id or SINGLETONS.get(body.type or "")
    if policy_id is None:
        async with admin.node.database.snapshot() as connection:
            found = await sessions.list_policies(connection, admin.tenant_id)
        policy_id = named(body.name, [each.policy for each in found])
    if policy_id is None:
        return await create_policy(admin, body)
    return await _set(admin, policy_id, body.given(), is_swept=body.sweep)


async def delete_policy(admin: Admin, policy_id: str) -> None:
    """Delete a policy for apps: they fall back to the default."""
    async with admin.node.database.transaction() as connection:
        if policy_id == POLICY_ID:
            raise Invalid("Every tenant has this policy; change it, or apply a preset.")
        await sessions.delete_policy(connection, admin.tenant_id, policy_id)
        await _sweep(connection, admin, SweepKind.SESSIONS, policy_id)


async def apply_preset(admin: Admin, _id: str, body: PresetBody) -> Document:
    """Replace the rules by a preset: entity risk, global session and session protection."""
    cause = f"preset:{body.name}"
    async with admin.node.database.transaction() as connection:
        before = await policies_service.get_policy(connection, admin.tenant_id)
        known = await sessions.list_policies(connection, admin.tenant_id)
        stored = await policies_service.apply_preset(
            connection, admin.tenant_id, body.name, mode=body.mode, now=admin.now
        )
        others = await sessions.apply_preset(
            connection, admin.tenant_id, body.name, mode=body.mode, now=admin.now
        )
        if body.sweep and stored.policy != before.policy:
            await _sweep(connection, admin, SweepKind.USERS, cause)
        versions = {each.policy.policy_id: each.policy.version for each in known}
        if body.sweep and any(
            each.policy.version != versions.get(each.policy.policy_id) for each in others
        ):
            await _sweep(connection, admin, SweepKind.SESSIONS, cause)
    return {**_entity(stored), "session_policies": [show_policy(each) for each in others]}


async def _set(admin: Admin, policy_id: str, given: dict[str, Any], *, is_swept: bool) -> Document:
    async with admin.node.database.transaction() as connection:
        if policy_id != POLICY_ID:
            there = await references_of(connection, admin.tenant_id)
            before = await sessions.get_policy(connection, admin.tenant_id, policy_id)
            made = await sessions.set_policy(
                connection, admin.tenant_id, policy_id, given, there=there, now=admin.now
            )
            if is_swept and made.policy.version != before.policy.version:
                await _sweep(connection, admin, SweepKind.SESSIONS, policy_id)
            return show_policy(made)
        if given.pop("type", ENTITY_RISK) != ENTITY_RISK:
            raise Invalid("It keeps its type.", pointers=(("/type", ENTITY_RISK),))
        known = await policies_service.get_policy(connection, admin.tenant_id)
        stored = await policies_service.set_policy(
            connection, admin.tenant_id, given, now=admin.now
        )
        if is_swept and stored.policy != known.policy:
            await _sweep(connection, admin, SweepKind.USERS, POLICY_ID)
        return _entity(stored)


async def _sweep(connection: Connection, admin: Admin, kind: SweepKind, cause: str) -> None:
    await sweeps.request(connection, admin.tenant_id, kind, cause=cause, now=admin.now)


async def show_sweeps(admin: Admin, _id: str, _body: None) -> Document:
    """Tell how far the last sweeps came: of sessions, and of users at risk."""
    async with admin.node.database.snapshot() as connection:
        found = await list_sweeps(connection, admin.tenant_id)
    return {
        "items": [
            {
                "id": each.sweep_id,
                "kind": each.kind.value,
                "cause": each.cause,
                "state": each.state.value,
                "requested_at": each.requested_at,
                "done_at": each.done_at,
                "looked": each.looked,
                "acted": each.acted,
                "would_have": each.would_have,
            }
            for each in found
        ]
    }


def show_policy(stored: StoredSessionPolicy) -> Document:
    """Return a policy of sessions or sign-ins as it is shown."""
    return _shown(
        stored.policy.policy_id,
        render_policy(stored.policy),
        version=stored.policy.version,
        skipped=stored.skipped,
        warned=warnings(stored.policy),
    )


def _entity(stored: StoredPolicy) -> Document:
    rendered = {"type": ENTITY_RISK, "name": POLICY_ID, **render_entity_policy(stored.policy)}
    return _shown(POLICY_ID, rendered, version=stored.version, skipped=stored.skipped, warned=[])


def _shown(
    policy_id: str,
    rendered: dict[str, object],
    *,
    version: int,
    skipped: tuple[str, ...],
    warned: list[str],
) -> Document:
    return {
        "id": policy_id,
        **{name: rendered.get(name) for name in SHOWN},
        "version": version,
        "skipped": list(skipped),
        "warnings": warned,
    }


KINDS: Final = (
    Kind(
        name="policies",
        item="policy",
        summary="policies of entity risk, sessions and sign-ins: first match decides",
        list_page=list_policies,
        read=read_policy,
        create=create_policy,
        create_body=PolicyBody,
        change=change_policy,
        change_body=PolicyBody,
        replace=replace_policy,
        delete=delete_policy,
        example=POLICY_EXAMPLE,
        actions=(
            Action(
                name="preset",
                summary="Replace the rules by a preset.",
                perform=apply_preset,
                body=PresetBody,
                on_kind=True,
                example={"name": "standard", "mode": "enforce"},
            ),
            Action(
                name="apply",
                summary="Add a policy, or replace the one of this id, type or name.",
                perform=apply_policy,
                body=AppliedPolicy,
                on_kind=True,
                example=POLICY_EXAMPLE,
            ),
            Action(
                name="sweeps",
                summary="Tell how far the judging again after the last edits came.",
                perform=show_sweeps,
                on_kind=True,
                reads=True,
            ),
            Action(
                name="replay",
                summary="Tell what a policy would have done to requests or users of late.",
                perform=replay_policy,
                body=ReplayBody,
                on_kind=True,
                reads=True,
                example={"policy": POLICY_EXAMPLE, "days": 7},
            ),
        ),
    ),
)
