"""Bodies of the kind `policies`, and what its parts share."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

import actions.registry.service as apps_service
import risk.zones.service as zones_service
from hub.admin.bodies import Body, Name
from risk.policies.documents import (
    GLOBAL_SESSION_ID,
    SESSION_PROTECTION_ID,
    PolicyKind,
    SessionPolicy,
)
from risk.policies.replay import DAYS_MAX
from risk.policies.review import References
from risk.policy import PolicyMode
from risk.sql.store import Connection

POLICY_ID: Final = "entity-risk"
ENTITY_RISK: Final = "entity_risk"
RULES_MAX: Final = 100
APPS_PAGE: Final = 200
OF_ENTITY: Final = frozenset({"type", "mode", "rules"})
#: members that every policy shows; None where its kind has none
SHOWN: Final = ("type", "name", "apps", "mode", "fallback", "rules", "detection", "enforcement")
#: types of which a tenant has one -> its id
SINGLETONS: Final = {
    ENTITY_RISK: POLICY_ID,
    PolicyKind.GLOBAL_SESSION.value: GLOBAL_SESSION_ID,
    PolicyKind.SESSION_PROTECTION.value: SESSION_PROTECTION_ID,
}


class PolicyBody(Body):
    """A policy; which members it has depends on its type. The catch-all is ours.

    What a change leaves out stays; what a replacement leaves out falls back to its default. sweep:
    whether live sessions, or users at risk, are judged again because of it.
    """

    type: str | None = None
    name: Name | None = None
    apps: list[str] | None = Field(default=None, max_length=200)
    mode: str | None = None
    fallback: str | None = None
    rules: list[dict[str, Any]] | None = Field(default=None, max_length=RULES_MAX)
    detection: dict[str, Any] | None = None
    enforcement: dict[str, Any] | None = None
    sweep: bool = True

    def given(self) -> dict[str, Any]:
        """Return the members that are there."""
        return {name: getattr(self, name) for name in SHOWN if getattr(self, name) is not None}


class AppliedPolicy(PolicyBody):
    """A policy to be there, whether it is new or not: named by its id, its type or its name."""

    id: str | None = None


class PresetBody(Body):
    """Which preset, and whether it acts or only says what it would have done."""

    name: str = "standard"
    mode: PolicyMode = PolicyMode.MONITOR
    sweep: bool = True


class ReplayBody(Body):
    """A policy to try on the requests of the last days; `version`: as it was stored then."""

    policy: AppliedPolicy
    version: int | None = Field(default=None, ge=1)
    days: int = Field(default=7, ge=1, le=DAYS_MAX)


def named(name: str | None, present: list[SessionPolicy]) -> str | None:
    """Return the id of the policy for apps of this name."""
    return next(
        (
            each.policy_id
            for each in present
            if each.kind is PolicyKind.APP_SIGN_IN and each.name == name
        ),
        None,
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
