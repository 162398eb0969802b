"""Policies: entity risk, global session, session protection, and sign-in policies of apps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from pydantic import Field

import actions.registry.service as apps_service
import risk.policies.service as policies_service
import risk.zones.service as zones_service
from hub.admin.bodies import Body, Name
from hub.admin.examples_policies import POLICY_EXAMPLE
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from hub.replays import Replays
from risk.policies import sessions
from risk.policies.documents import (
    GLOBAL_SESSION_ID,
    SESSION_PROTECTION_ID,
    PolicyKind,
    SessionPolicy,
    parse_policy,
    render_policy,
)
from risk.policies.model import StoredPolicy, StoredSessionPolicy
from risk.policies.replay import DAYS_MAX, with_proposed
from risk.policies.review import References, check_references, warnings
from risk.policy import PolicyMode
from risk.policy import render_policy as render_entity_policy
from risk.sql.store import Connection
from runtime.errors import Invalid, NotFound

POLICY_ID: Final = "entity-risk"
ENTITY_RISK: Final = "entity_risk"
RULES_MAX: Final = 100
APPS_PAGE: Final = 200
_OF_ENTITY: Final = frozenset({"type", "mode", "rules"})
#: members that every policy shows; None where its kind has none
_SHOWN: Final = ("type", "name", "apps", "mode", "fallback", "rules", "detection", "enforcement")
#: types of which a tenant has one -> its id
SINGLETONS: Final = {
    ENTITY_RISK: POLICY_ID,
    PolicyKind.GLOBAL_SESSION.value: GLOBAL_SESSION_ID,
    PolicyKind.SESSION_PROTECTION.value: SESSION_PROTECTION_ID,
}


class PolicyBody(Body):
    """A policy; which members it has depends on its type. The catch-all is ours.

    What a change leaves out stays; what a replacement leaves out falls back to its default.
    """

    type: str | None = None
    name: Name | None = None
    apps: list[str] | None = Field(default=None, max_length=200)
    mode: str | None = None
    fallback: str | None = None
    rules: list[dict[str, Any]] | None = Field(default=None, max_length=RULES_MAX)
    detection: dict[str, Any] | None = None
    enforcement: dict[str, Any] | None = None

    def given(self) -> dict[str, Any]:
        """Return the members that are there."""
        return {name: getattr(self, name) for name in _SHOWN if getattr(self, name) is not None}


class AppliedPolicy(PolicyBody):
    """A policy to be there, whether it is new or not: named by its id, its type or its name."""

    id: str | None = None


class PresetBody(Body):
    """Which preset, and whether it acts or only says what it would have done."""

    name: str = "standard"
    mode: PolicyMode = PolicyMode.MONITOR


class ReplayBody(Body):
    """A policy to try on the requests of the last days; `version`: as it was stored then."""

    policy: AppliedPolicy
    version: int | None = Field(default=None, ge=1)
    days: int = Field(default=7, ge=1, le=DAYS_MAX)


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
    return show_policy(made)


async def change_policy(admin: Admin, policy_id: str, body: PolicyBody) -> Document:
    """Change members of a policy; a list of rules is replaced as a whole."""
    current = {
        name: value
        for name, value in (await read_policy(admin, policy_id)).items()
        if name in _SHOWN and value is not None
    }
    if policy_id == POLICY_ID:
        current = {name: value for name, value in current.items() if name in _OF_ENTITY}
    return await _set(admin, policy_id, current | body.given())


async def replace_policy(admin: Admin, policy_id: str, body: PolicyBody) -> Document:
    """Replace a policy; it applies from the next assessment or request on."""
    return await _set(admin, policy_id, body.given())


async def apply_policy(admin: Admin, _id: str, body: AppliedPolicy) -> Document:
    """Add or replace a policy, whichever it takes."""
    policy_id = body.id or SINGLETONS.get(body.type or "")
    if policy_id is None:
        async with admin.node.database.snapshot() as connection:
            found = await sessions.list_policies(connection, admin.tenant_id)
        policy_id = _named(body.name, [each.policy for each in found])
    if policy_id is None:
        return await create_policy(admin, body)
    return await _set(admin, policy_id, body.given())


async def delete_policy(admin: Admin, policy_id: str) -> None:
    """Delete a policy for apps: they fall back to the default."""
    async with admin.node.database.transaction() as connection:
        if policy_id == POLICY_ID:
            raise Invalid("Every tenant has this policy; change it, or apply a preset.")
        await sessions.delete_policy(connection, admin.tenant_id, policy_id)


async def apply_preset(admin: Admin, _id: str, body: PresetBody) -> Document:
    """Replace the rules by a preset: entity risk, global session and session protection."""
    async with admin.node.database.transaction() as connection:
        stored = await policies_service.apply_preset(
            connection, admin.tenant_id, body.name, mode=body.mode, now=admin.now
        )
        others = await sessions.apply_preset(
            connection, admin.tenant_id, body.name, mode=body.mode, now=admin.now
        )
    return {**_entity(stored), "session_policies": [show_policy(each) for each in others]}


async def replay_policy(admin: Admin, _id: str, body: ReplayBody) -> Document:
    """Tell what a policy would have done to the requests of the last days; nothing is stored."""
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


async def _proposed(
    connection: Connection, tenant_id: str, body: ReplayBody, present: list[SessionPolicy]
) -> SessionPolicy:
    """Return the policy that is tried: as it is written, or a version that was stored."""
    policy = body.policy
    policy_id = policy.id or SINGLETONS.get(policy.type or "") or _named(policy.name, present)
    if policy_id == POLICY_ID:
        raise Invalid("The entity risk policy is not asked about requests.")
    if body.version is not None:
        return await sessions.get_version(connection, tenant_id, policy_id or "", body.version)
    known = {each.policy_id: each.kind for each in present}
    if policy.id is not None and policy.id not in known:
        raise NotFound(sessions.NO_SUCH_POLICY)
    policy_id = policy_id or "pol_proposed"
    kind = known.get(policy_id, PolicyKind.APP_SIGN_IN)
    return parse_policy(policy.given(), policy_id=policy_id, kind=kind)


def _named(name: str | None, present: list[SessionPolicy]) -> str | None:
    """Return the id of the policy for apps of this name."""
    return next(
        (
            each.policy_id
            for each in present
            if each.kind is PolicyKind.APP_SIGN_IN and each.name == name
        ),
        None,
    )


async def _set(admin: Admin, policy_id: str, given: dict[str, Any]) -> Document:
    async with admin.node.database.transaction() as connection:
        if policy_id != POLICY_ID:
            there = await references_of(connection, admin.tenant_id)
            made = await sessions.set_policy(
                connection, admin.tenant_id, policy_id, given, there=there, now=admin.now
            )
            return show_policy(made)
        if given.pop("type", ENTITY_RISK) != ENTITY_RISK:
            raise Invalid("It keeps its type.", pointers=(("/type", ENTITY_RISK),))
        return _entity(
            await policies_service.set_policy(connection, admin.tenant_id, given, now=admin.now)
        )


async def references_of(connection: Connection, tenant_id: str) -> References:
    """Return what policies of a tenant may refer to."""
    zones = await zones_service.list_all(connection, tenant_id)
    names = frozenset(name for zone in zones for name in (zone.zone_id, zone.name))
    app_ids: list[str] = []
    while True:
        page = await apps_service.list_apps(
            connection, tenant_id, after=app_ids[-1] if app_ids else "", limit=APPS_PAGE
        )
        app_ids += [app.app_id for app in page]
        if len(page) < APPS_PAGE:  # the number of apps is limited
            return References(zones=names, apps=frozenset(app_ids))


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
        **{name: rendered.get(name) for name in _SHOWN},
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
                name="replay",
                summary="Tell what a policy would have done to the requests of the last days.",
                perform=replay_policy,
                body=ReplayBody,
                on_kind=True,
                reads=True,
                example={"policy": POLICY_EXAMPLE, "days": 7},
            ),
        ),
    ),
)
