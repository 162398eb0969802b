"""The application of an api process: one route table, pure ASGI middleware, dependencies.

    EvaluateFront ─▶ PeerFront ─▶ ErrorBoundary ─▶ TenantFront ─▶ IntakeFront ─▶ ErrorBoundary
                 ─▶ BearerAuthentication ─▶ RequestLimits ─▶ routes

EvaluateFront answers questions about sessions itself, IntakeFront pushed SETs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp

import actions.registry.service
import receivers.registry.service
import receivers.routes
import receivers.webhooks.routes
import risk.feedback.routes
import risk.inline.routes
import risk.ips.routes
import risk.lookups.routes
import risk.policies.service
import risk.routes
import transmitters.routes
from actions.model import App
from hub import health, pipeline, revocation, signals, store
from hub.admin import openapi
from hub.admin import routes as admin_routes
from hub.auth import BearerAuthentication, TrustedCaller
from hub.denied import DeniedUsers
from hub.doors import authzen, forward_auth, native
from hub.doors.apps import Apps, app_cache, apps_known, vouches
from hub.doors.front import EvaluateFront, Parts
from hub.doors.heard import Heard
from hub.errors import ErrorBoundary, render_exception
from hub.inline.evaluator import Evaluator
from hub.inline.place import Placing
from hub.inline.reviews import Reviews
from hub.inline.warmth import Load, Warmth
from hub.intake import IntakeFront
from hub.limits import RequestLimits
from hub.node import Node
from hub.oauth import routes as oauth_routes
from hub.oauth.certificates import SPEC_URN, PeerFront
from hub.oauth.external import KIND as FOREIGN_SERVERS
from hub.oauth.external import ForeignTokens, Servers, trusted_servers
from hub.oauth.proving import Prover
from hub.oauth.routes import REVOCATIONS, OAuthDeps
from hub.oauth.store import list_revoked, list_servers
from hub.oauth.tokens import AccessTokens, Clients, caller_of
from hub.operations import PUT_SESSION, SETTLE_STEP_UP
from hub.replays import Replays
from hub.sign_ins import http as sign_ins
from hub.sign_ins.assembly import open_history, open_sign_ins
from hub.sign_ins.evaluator import Origins
from hub.store import Tenant
from hub.tenancy import TenantFront, tenant_issuer
from receivers.keys import IssuerKeys
from receivers.model import ProviderStatus
from receivers.refusals.log import RefusalLog
from receivers.service import Profiles, ReceiversDeps
from risk.attributes import model as attribute_rules
from risk.attributes import service as attribute_rules_service
from risk.behaviours.service import BEHAVIOURS_KIND
from risk.deps import RiskDeps
from risk.ips.memory import IPClaims
from risk.ips.model import Reporter
from risk.model import Assessment, Level, SignalMode
from risk.policies.sessions import policies_cache
from risk.policy import PolicyMode
from risk.zones.service import KIND as ZONES
from risk.zones.service import Zones
from runtime.caller import Caller
from runtime.errors import NotFound
from runtime.feed import ConfigCache
from runtime.outbound import Outbound
from ssf.metadata import OAUTH2_SPEC_URN
from transmitters.deps import StreamDefaults, TransmitterDeps
from transmitters.keys import SigningKeys
from transmitters.subjects.model import ALL

#: how the audit names what was done on the command line
CLI_CLIENT: Final = "cli"


def make_app(
    node: Node, outbound: Outbound, *, origins: Origins | None = None, works: bool = False
) -> ASGIApp:
    """Return the application that serves everything this hub serves over HTTP.

    origins: judges where sign-ins come from; by default by what the hub knows. works: also takes
    its turn at judging sessions nobody asks about.
    """
    routed = _make_routed_app(node, outbound, origins=origins)
    if works:
        node.spawn(routed.state.reviews.run())
    oauth: OAuthDeps = routed.state.oauth
    tenants = _tenants(node)
    node.spawn(routed.state.warmth.run(partial(_active_tenants, tenants)))

    async def callers(tenant_id: str, *, fresh: bool) -> Mapping[str, Caller]:
        return (await oauth.clients.get(tenant_id, fresh=fresh)).by_token

    config = node.config
    authentication = BearerAuthentication(
        RequestLimits(routed),
        callers=callers,
        access_tokens=oauth.tokens.caller,
        foreign_tokens=oauth.foreign.caller,
        requests_per_s=config.client_requests_per_s,
    )
    inner = IntakeFront(ErrorBoundary(authentication), state_of=routed)
    # Outside the boundary once more: for pushed SETs, and because a tenant may have to be read.
    front = TenantFront(inner, tenants=tenants, issuer=config.issuer)
    peers = PeerFront(
        ErrorBoundary(front), trusted=config.trusted_proxies, header=config.client_cert_header
    )
    parts = Parts(peers=peers, tenants=front, authentication=authentication)
    return EvaluateFront(peers, state_of=routed, parts=parts)


def make_trusted_app(node: Node, outbound: Outbound) -> ASGIApp:
    """Return the application for the command line: whoever has the database may do everything."""
    routed = _make_routed_app(node, outbound)
    inner = ErrorBoundary(TrustedCaller(RequestLimits(routed), client_id=CLI_CLIENT))
    return TenantFront(inner, tenants=_tenants(node), issuer=node.config.issuer)


def _make_routed_app(
    node: Node, outbound: Outbound, *, origins: Origins | None = None
) -> Starlette:
    app = Starlette(
        routes=[
            # The busiest first: routes are tried in order.
            *native.ROUTES,
            *authzen.ROUTES,
            *forward_auth.ROUTES,
            *receivers.routes.ROUTES,
            *receivers.webhooks.routes.ROUTES,
            *transmitters.routes.ROUTES,
            *sign_ins.ROUTES,
            *revocation.ROUTES,
            *signals.ROUTES,
            *risk.inline.routes.ROUTES,
            *risk.routes.ROUTES,
            *risk.feedback.routes.ROUTES,
            *risk.lookups.routes.ROUTES,
            *risk.ips.routes.ROUTES,
            *admin_routes.ROUTES,
            *oauth_routes.ROUTES,
            *health.ROUTES,
            openapi.ROUTE,
        ],
        # Inside Starlette's own outermost middleware, which would answer every refusal with 500.
        middleware=[Middleware(ErrorBoundary)],
        exception_handlers={HTTPException: render_exception},
    )
    # /ssf/streams/ is not /ssf/streams: a redirect would lose the body of a POST.
    app.router.redirect_slashes = False
    _place_dependencies(app, node, outbound)
    app.state.history = open_history(node)
    app.state.sign_ins = open_sign_ins(
        node,
        app.state.risk,
        history=app.state.history,
        policies=app.state.session_policies,
        origins=origins or app.state.zones,
    )
    app.state.warmth = Warmth(node.feed, app.state.denied_users, _configured(app))
    app.state.heard = Heard(node.feed)
    app.state.inline = Evaluator(
        node,
        denied_users=app.state.denied_users,
        policies=app.state.session_policies,
        placing=Placing(app.state.zones),
        history=app.state.history,
        recorder=app.state.sign_ins.recorder,
        warmth=app.state.warmth,
    )
    node.spawn(app.state.inline.behind.run())
    app.state.reviews = Reviews(node, app.state.inline)
    return app


def _configured(app: Starlette) -> list[Load]:
    """Return what decisions take from the configuration, by kind of the feed."""
    state = app.state
    return [
        ("policies", state.session_policies.get),
        ("policies", state.policy_modes.get),
        (ZONES, state.zones.compiled),
        (BEHAVIOURS_KIND, state.history.warm),
        ("apps", state.apps.get),
        ("clients", state.oauth.clients.get),
    ]


async def _active_tenants(tenants: ConfigCache[dict[str, Tenant]]) -> list[str]:
    known = await tenants.get("*")
    return [tenant.tenant_id for tenant in known.values() if tenant.status == "active"]


def _tenants(node: Node) -> ConfigCache[dict[str, Tenant]]:
    return ConfigCache(node.feed, "tenants", partial(_load_tenants, node))


def _oauth(
    node: Node, issuer: Callable[[str], str], keys: IssuerKeys, outbound: Outbound
) -> OAuthDeps:
    clients = ConfigCache(node.feed, "clients", partial(_load_clients, node))
    return OAuthDeps(
        db=node.database,
        clock=node.clock,
        clients=clients,
        with_certificates=node.config.with_certificates,
        foreign=ForeignTokens(
            servers=ConfigCache(node.feed, FOREIGN_SERVERS, partial(_load_servers, node)),
            clients=clients,
            keys=keys,
            outbound=outbound,
            clock=node.clock,
            issuer=issuer,
        ),
        prover=Prover(db=node.database, clock=node.clock, keys=keys),
        tokens=AccessTokens(
            keyring=node.keyring,
            clock=node.clock,
            issuer=issuer,
            clients=clients,
            revoked=ConfigCache(node.feed, REVOCATIONS, partial(_load_revoked, node)),
        ),
    )


def _place_dependencies(app: Starlette, node: Node, outbound: Outbound) -> None:
    issuer = partial(tenant_issuer, node.config.issuer)
    app.state.node = node
    app.state.issuer = issuer
    keys = IssuerKeys(outbound, dev_insecure=node.config.dev_insecure)
    app.state.oauth = _oauth(node, issuer, keys, outbound)
    app.state.apps = app_cache(node)
    app.state.attribute_rules = ConfigCache(
        node.feed, attribute_rules.KIND, partial(_load_attribute_rules, node)
    )
    app.state.denied_users = DeniedUsers(node.database, node.changes)
    refusals = RefusalLog(node.writer, node.box)
    node.spawn(refusals.run())
    app.state.receivers = ReceiversDeps(
        profiles=receivers.registry.service.profile_cache(node.feed, node.database, node.box),
        keys=keys,
        writer=node.writer,
        clock=node.clock,
        refusals=refusals,
    )
    app.state.networks = node.networks
    app.state.zones = Zones(
        node.database,
        node.feed,
        networks=node.networks,
        clock=node.clock,
        trusted_proxies=node.config.trusted_proxies,
    )
    app.state.policy_modes = ConfigCache(node.feed, "policies", partial(_load_policy_mode, node))
    app.state.session_policies = policies_cache(node.feed, node.database)
    app.state.replays = Replays(node.database, node.config.database_url)
    app.state.transmitters = TransmitterDeps(
        db=node.database,
        writer=node.writer,
        notifier=node.notifier,
        clock=node.clock,
        keys=SigningKeys(node.keyring),
        box=node.box,
        issuer=issuer,
        add_audit=store.add_audit,
        stream_defaults=partial(_stream_defaults, node),
        default_subjects=partial(_default_subjects, _tenants(node)),
        removal_grace_s=node.config.subject_removal_grace_s,
        inactivity_timeout_s=node.config.inactivity_timeout_s,
        authorization_schemes=(
            (OAUTH2_SPEC_URN, SPEC_URN) if node.config.with_certificates else (OAUTH2_SPEC_URN,)
        ),
        allow_http=node.config.dev_insecure,
        is_stopping=node.stopping.is_set,
    )
    app.state.risk = RiskDeps(
        db=node.database,
        writer=node.writer,
        clock=node.clock,
        lock=pipeline.lock_tenants,
        caps=pipeline.caps_of,
        respond=_respond,
        add_audit=store.add_audit,
        responded=partial(node.notifier.wake_all, pipeline.TOPICS),
        app_issuer=partial(_app_issuer, app.state.apps),
        vouches=partial(vouches, app.state.apps),
        record_of=node.networks.lookup,
        has_app=partial(_has_app, node),
        ip_claims=IPClaims(node.database, node.changes),
        reporter_of=partial(_reporter_of, app.state.receivers.profiles),
        catch_up=node.changes.catch_up,
        put_session=PUT_SESSION,
        settle_step_up=SETTLE_STEP_UP,
    )


async def _default_subjects(tenants: ConfigCache[dict[str, Tenant]], tenant_id: str) -> str:
    tenant = (await tenants.get("*")).get(tenant_id)
    return ALL if tenant is None else tenant.default_subjects


async def _respond(
    connection: AsyncConnection, assessments: Sequence[Assessment], *, now: datetime
) -> None:
    await pipeline.respond(connection, assessments, now=now)


async def _stream_defaults(node: Node, tenant_id: str, app_id: str) -> StreamDefaults:
    """Return what new streams of the app begin with."""
    app = await _find_app(node, tenant_id, app_id)
    if app is None:
        return StreamDefaults()
    return StreamDefaults(subject_formats=app.subject_formats, profile=app.stream_profile)


async def _app_issuer(apps: Apps, tenant_id: str, app_id: str) -> str | None:
    app = (await apps_known(apps, tenant_id) or {}).get(app_id)
    if app is None:
        app = (await apps.get(tenant_id, fresh=True)).get(app_id)
    return app.issuer if app else None


async def _has_app(node: Node, tenant_id: str, app_id: str) -> bool:
    return await _find_app(node, tenant_id, app_id) is not None


async def _find_app(node: Node, tenant_id: str, app_id: str) -> App | None:
    async with node.database.snapshot() as connection:
        try:
            return await actions.registry.service.get_app(connection, tenant_id, app_id)
        except NotFound:
            return None


async def _reporter_of(profiles: Profiles, tenant_id: str, client_id: str) -> Reporter:
    """Return what a client's word about addresses counts; unbound, it is only listened to."""
    bound = next(
        (each for each in (await profiles.get(tenant_id)).values() if each.client_id == client_id),
        None,
    )
    if bound is None:
        return Reporter(name=client_id, issuer=None, mode=SignalMode.LOG_ONLY, level_cap=None)
    is_heard = bound.status is not ProviderStatus.INACTIVE
    return Reporter(
        name=bound.name,
        issuer=bound.issuer,
        mode=SignalMode(bound.mode) if is_heard else SignalMode.NONE,
        level_cap=Level[bound.level_cap] if bound.level_cap else None,
    )


async def _load_policy_mode(node: Node, tenant_id: str) -> PolicyMode:
    async with node.database.snapshot() as connection:
        return (await risk.policies.service.get_policy(connection, tenant_id)).policy.mode


async def _load_attribute_rules(node: Node, tenant_id: str) -> attribute_rules.Compiled:
    async with node.database.snapshot() as connection:
        return await attribute_rules_service.compiled(connection, tenant_id)


async def _load_clients(node: Node, tenant_id: str) -> Clients:
    async with node.database.snapshot() as connection:
        clients = await store.list_clients(connection, tenant_id)
    return Clients(
        by_token={
            client.token_hash: caller_of(client)
            for client in clients
            if client.auth_method == "client_secret"
        },
        by_id={client.client_id: client for client in clients},
        by_external={
            (client.authorization_server_id, client.external_client_id): client
            for client in clients
            if client.authorization_server_id and client.external_client_id
        },
    )


async def _load_servers(node: Node, tenant_id: str) -> Servers:
    async with node.database.snapshot() as connection:
        return trusted_servers(await list_servers(connection, tenant_id), node.box)


async def _load_revoked(node: Node, tenant_id: str) -> frozenset[str]:
    async with node.database.snapshot() as connection:
        return await list_revoked(connection, tenant_id)


async def _load_tenants(node: Node, _tenant_id: str) -> dict[str, Tenant]:
    async with node.database.snapshot() as connection:
        return {tenant.tenant_id: tenant for tenant in await store.system_list_tenants(connection)}
