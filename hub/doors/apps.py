"""The apps of a tenant in memory, as the doors look at them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final

import actions.registry.service
from actions.model import App, AppKind
from hub.inline.fallback import DATABASE_TROUBLE
from hub.node import Node
from runtime.caller import Caller
from runtime.errors import Forbidden
from runtime.feed import ConfigCache

#: of one tenant; apps beyond are unknown to the doors
APPS_MAX: Final = 10_000
#: said in the reasons where an app was asked for that nobody registered
APP_UNKNOWN: Final = "app_unknown"
PAGE: Final = 200
#: a question waits no longer for apps that changed; reading them goes on in the background
READ_LIMIT_S: Final = 0.250

Apps = ConfigCache[Mapping[str, App]]


def app_cache(node: Node) -> Apps:
    """Return the apps by id, kept by the configuration feed."""
    return ConfigCache(node.feed, "apps", partial(_load, node))


async def apps_known(apps: Apps, tenant_id: str) -> Mapping[str, App] | None:
    """Return the apps, as they were where the present ones cannot be read in time; None: never.

    INVARIANT: a question about a session is not kept from its own deadline and fallback because
    somebody registered an app. Raises nothing of the database's.
    """
    known = apps.current(tenant_id)
    if known is not None:
        return known
    try:
        async with asyncio.timeout(READ_LIMIT_S):
            return await apps.get(tenant_id)
    except (TimeoutError, *DATABASE_TROUBLE):
        return apps.peek(tenant_id)


async def check_may_ask(apps: Apps, caller: Caller, app_id: str) -> None:
    """Raise Forbidden where the caller's own app keeps it from asking about another one (AZH-11).

    An app asks about itself; gateways and identity providers stand in front of others.
    """
    if caller.app_id in (None, app_id):
        return
    own = await _own_app(apps, caller)
    if own is None or own.kind is AppKind.RP:
        raise Forbidden("This client may ask about its own app only.")


async def app_asked_for(apps: Apps, caller: Caller, named: str | None) -> str | None:
    """Return the app a caller asks about: the one it names, else its own where that is all it may.

    None: none in particular. Raises Forbidden as `check_may_ask`.
    """
    if named is not None:
        await check_may_ask(apps, caller, named)
        return named
    own = await _own_app(apps, caller)
    return own.app_id if own is not None and own.kind is AppKind.RP else None


async def is_unknown_app(apps: Apps, tenant_id: str, app_id: str | None) -> bool:
    """Return whether an app is named that nobody registered, as far as can be told.

    Raises nothing.
    """
    if app_id is None:
        return False
    known = await apps_known(apps, tenant_id)
    return known is not None and app_id not in known


async def is_idp(apps: Apps, caller: Caller) -> bool:
    """Return whether the caller is an identity provider: who owns the accounts it speaks of."""
    own = await _own_app(apps, caller)
    return own is not None and own.kind is AppKind.IDP


async def vouches(apps: Apps, caller: Caller) -> bool:
    """Return whether a caller's word about a sign-in counts for the user: no app, or an IdP."""
    return caller.app_id is None or await is_idp(apps, caller)


async def _own_app(apps: Apps, caller: Caller) -> App | None:
    if caller.app_id is None:
        return None
    return (await apps_known(apps, caller.tenant_id) or {}).get(caller.app_id)


async def _load(node: Node, tenant_id: str) -> Mapping[str, App]:
    found: dict[str, App] = {}
    after = ""
    async with node.database.snapshot() as connection:
        for _ in range(APPS_MAX // PAGE):
            page = await actions.registry.service.list_apps(
                connection, tenant_id, after=after, limit=PAGE
            )
            found |= {app.app_id: app for app in page}
            if len(page) < PAGE:
                break
            after = page[-1].app_id
    return found
