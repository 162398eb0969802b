"""The application of an api process: one route table, pure ASGI middleware, dependencies.

TenantFront ─▶ BearerAuthentication ─▶ ErrorBoundary ─▶ BodyLimit ─▶ routes (hot ones first)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import risk.routes
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

import receivers.registry.service
import receivers.routes
import transmitters.routes
from hub import health, store
from hub.admin import openapi
from hub.admin import routes as admin_routes
from hub.auth import BearerAuthentication
from hub.errors import ErrorBoundary, render_exception
from hub.limits import BodyLimit
from hub.node import Node
from hub.store import Tenant
from hub.tenancy import TenantFront, tenant_issuer
from receivers.keys import IssuerKeys
from receivers.service import ReceiversDeps
from runtime.caller import Caller
from runtime.feed import ConfigCache
from runtime.outbound import Outbound
from transmitters.keys import SigningKeys
from transmitters.service import TransmitterDeps


def make_app(node: Node, outbound: Outbound) -> ASGIApp:
    """Return the application that serves everything this hub serves over HTTP."""
    app = Starlette(
        routes=[
            *receivers.routes.ROUTES,
            *transmitters.routes.ROUTES,
            *risk.routes.ROUTES,
            *admin_routes.ROUTES,
            *health.ROUTES,
            openapi.ROUTE,
        ],
        exception_handlers={HTTPException: render_exception},
    )
    # /ssf/streams/ is not /ssf/streams: a redirect would lose the body of a POST.
    app.router.redirect_slashes = False
    _place_dependencies(app, node, outbound)
    callers: ConfigCache[Mapping[str, Caller]] = ConfigCache(
        node.feed, "clients", partial(_load_callers, node)
    )
    tenants: ConfigCache[dict[str, Tenant]] = ConfigCache(
        node.feed, "tenants", partial(_load_tenants, node)
    )
    inner = ErrorBoundary(BodyLimit(app))
    return TenantFront(BearerAuthentication(inner, callers=callers), tenants=tenants)


def _place_dependencies(app: Starlette, node: Node, outbound: Outbound) -> None:
    issuer = partial(tenant_issuer, node.config.issuer)
    app.state.node = node
    app.state.issuer = issuer
    app.state.receivers = ReceiversDeps(
        profiles=receivers.registry.service.profile_cache(node.feed, node.database, node.box),
        keys=IssuerKeys(outbound, dev_insecure=node.config.dev_insecure),
        writer=node.writer,
        clock=node.clock,
    )
    app.state.transmitters = TransmitterDeps(
        db=node.database,
        writer=node.writer,
        notifier=node.notifier,
        clock=node.clock,
        keys=SigningKeys(node.keyring),
        box=node.box,
        issuer=issuer,
        allow_http=node.config.dev_insecure,
    )


async def _load_callers(node: Node, tenant_id: str) -> Mapping[str, Caller]:
    async with node.database.snapshot() as connection:
        clients = await store.list_clients(connection, tenant_id)
    return {
        client.token_hash: Caller(
            tenant_id=tenant_id,
            client_id=client.client_id,
            scopes=frozenset(client.scopes),
            app_id=client.app_id,
        )
        for client in clients
    }


async def _load_tenants(node: Node, _tenant_id: str) -> dict[str, Tenant]:
    async with node.database.snapshot() as connection:
        return {tenant.tenant_id: tenant for tenant in await store.system_list_tenants(connection)}
