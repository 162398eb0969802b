"""HTTP of OAuth: token, revocation, introspection, metadata.

Errors are those of RFC 6749 §5.2, not problem details: the standard prescribes the body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.auth import SCOPES
from hub.oauth import store
from hub.oauth.assertions import ALGORITHMS
from hub.oauth.certificates import METHOD
from hub.oauth.external import ForeignTokens
from hub.oauth.proving import Prover
from hub.oauth.resources import METADATA_PATH, is_resource, resource_identifier
from hub.oauth.server import (
    AUTH_METHODS,
    GRANT_TYPE,
    UNAUTHORIZED,
    Grant,
    Proof,
    Refusal,
    TokenRequest,
    authenticate,
    grant_token,
    one_way_only,
)
from hub.oauth.tokens import LIFETIME_S, AccessTokens, Clients
from hub.store import Client, add_audit
from runtime.audit import AuditNote
from runtime.clock import Clock, from_epoch_s
from runtime.database import Database
from runtime.errors import NotFound
from runtime.feed import ConfigCache, bump
from runtime.keyring import ACCESS_TOKEN, Keyring
from ssf.jwks import render_jwks

FORM: Final = "application/x-www-form-urlencoded"
FORM_BYTES_MAX: Final = 8 * 1024
METADATA_MAX_AGE_S: Final = 60
REVOCATIONS: Final = "revoked_tokens"
_NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache"}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthDeps:
    """What these routes run on, placed into `app.state.oauth`."""

    db: Database
    clock: Clock
    tokens: AccessTokens
    clients: ConfigCache[Clients]
    prover: Prover
    foreign: ForeignTokens
    with_certificates: bool


async def issue_token(request: Request) -> Response:
    """Give a client an access token for at most an hour.

    Source: RFC 6749 §4.4, §5; RFC 9068; requirements INT-21, OA-1, OA-2.
    """
    deps: OAuthDeps = request.app.state.oauth
    tenant_id: str = request.scope["tenant"]
    try:
        granted, resource, proof = await _grant(request, deps)
    except Refusal as refusal:
        return _refused(refusal)
    token = await deps.tokens.issue(
        tenant_id,
        granted.client.client_id,
        granted.scopes,
        resource=resource,
        thumbprint=proof.thumbprint if proof else None,
    )
    log.info("token.issued", tenant_id=tenant_id, client_id=granted.client.client_id)
    return _answer(
        {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": LIFETIME_S,
            "scope": " ".join(granted.scopes),
        }
    )


async def revoke_token(request: Request) -> Response:
    """Revoke an access token of the calling client: 200, also for one that is not valid.

    A token of somebody else is left alone, and nothing tells that it exists. Source: RFC 7009.
    """
    deps: OAuthDeps = request.app.state.oauth
    tenant_id: str = request.scope["tenant"]
    try:
        client, token = await _asked_about(request, deps)
    except Refusal as refusal:
        return _refused(refusal)
    claims = await deps.tokens.claims(tenant_id, token)
    if claims is not None and claims.client_id == client.client_id:
        note = AuditNote(
            tenant_id=tenant_id,
            actor=client.client_id,
            action="token.revoke",
            ref=claims.jti,
            detail={},
        )
        async with deps.db.transaction() as connection:
            await add_audit(connection, note, now=deps.clock.now())
            await store.add_revoked(
                connection,
                tenant_id,
                jti=claims.jti,
                client_id=client.client_id,
                expires_at=from_epoch_s(claims.exp),
            )
            await bump(connection, tenant_id, REVOCATIONS)
        # Here at once; the other processes read it within a second.
        await deps.tokens.forget(tenant_id)
    return Response(status_code=200, headers=_NO_STORE)


async def introspect_token(request: Request) -> Response:
    """Tell whether a token is valid and what it allows; of other clients only to an admin.

    Source: RFC 7662.
    """
    deps: OAuthDeps = request.app.state.oauth
    tenant_id: str = request.scope["tenant"]
    try:
        client, token = await _asked_about(request, deps)
    except Refusal as refusal:
        return _refused(refusal)
    claims = await deps.tokens.claims(tenant_id, token)
    caller = None if claims is None else await deps.tokens.caller(tenant_id, token)
    may_know = caller is not None and (
        caller.client_id == client.client_id or "admin.read" in client.scopes
    )
    if claims is None or caller is None or not may_know:
        return _answer({"active": False})
    return _answer(
        {
            "active": True,
            "token_type": "Bearer",
            **msgspec.to_builtins(claims),
            "scope": " ".join(sorted(caller.scopes)),
        }
    )


async def server_metadata(request: Request) -> Response:
    """Serve the metadata of the authorization server. Source: RFC 8414; requirement INT-20."""
    issuer: str = request.app.state.issuer(request.scope["tenant"])
    with_certificates = request.app.state.oauth.with_certificates
    methods = [name for name in AUTH_METHODS if name != METHOD or with_certificates]
    return _answer(
        {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/oauth/token",
            "revocation_endpoint": f"{issuer}/oauth/revoke",
            "introspection_endpoint": f"{issuer}/oauth/introspect",
            "global_token_revocation_endpoint": f"{issuer}/v1/global-token-revocation",
            "global_token_revocation_endpoint_auth_methods_supported": [
                "Bearer",
                "global-token-revocation+jwt",
            ],
            "jwks_uri": f"{issuer}/oauth/jwks.json",
            "scopes_supported": sorted(SCOPES),
            "response_types_supported": [],
            "grant_types_supported": [GRANT_TYPE],
            "tls_client_certificate_bound_access_tokens": with_certificates,
            **{
                f"{endpoint}_endpoint_{name}": value
                for endpoint in ("token", "revocation", "introspection")
                for name, value in (
                    ("auth_methods_supported", methods),
                    ("auth_signing_alg_values_supported", sorted(ALGORITHMS)),
                )
            },
        },
        cache=f"public, max-age={METADATA_MAX_AGE_S}",
    )


async def token_keys(request: Request) -> Response:
    """Serve the keys that sign access tokens, and nothing else. Source: RFC 7517 §5."""
    keyring: Keyring = request.app.state.node.keyring
    keys = await keyring.published(request.scope["tenant"], purposes=(ACCESS_TOKEN,))
    return _answer(render_jwks(keys), cache=f"public, max-age={METADATA_MAX_AGE_S}")


async def resource_metadata(request: Request) -> Response:
    """Serve the metadata of a protected resource: the issuer, SSF, or an endpoint of SSF.

    `resource` is the identifier that was asked for. Raises NotFound for what is no resource.
    Source: RFC 9728 §2, §3; requirements OA-5, INT-30.
    """
    deps: OAuthDeps = request.app.state.oauth
    tenant_id: str = request.scope["tenant"]
    issuer: str = request.app.state.issuer(tenant_id)
    path = request.path_params.get("path", "")
    path = f"/{path}" if path else ""
    if not is_resource(path):
        raise NotFound("No such resource.")
    scopes = (scope for scope in SCOPES if not path or scope.startswith("ssf."))
    return _answer(
        {
            "resource": resource_identifier(issuer, path),
            "authorization_servers": [issuer, *await deps.foreign.issuers(tenant_id)],
            "tls_client_certificate_bound_access_tokens": deps.with_certificates,
            "scopes_supported": sorted(scopes),
            "bearer_methods_supported": ["header"],
            "resource_name": "Signalhub",
        },
        cache=f"public, max-age={METADATA_MAX_AGE_S}",
    )


async def _grant(request: Request, deps: OAuthDeps) -> tuple[Grant, str | None, Proof | None]:
    """Return what the request gets, for which resource alone, and by which proof.

    Raises Refusal, Unavailable.
    """
    async with _proving(request, deps) as (asked, clients):
        granted = grant_token(asked, clients)
    resource = _resource(asked, request.app.state.issuer(request.scope["tenant"]))
    deps.prover.count_token(granted.client)
    return granted, resource, asked.proof


async def _asked_about(request: Request, deps: OAuthDeps) -> tuple[Client, str]:
    """Return who asks, and about which token. Raises Refusal, Unavailable."""
    async with _proving(request, deps) as (asked, clients):
        client = authenticate(asked, clients)
    token = asked.form.get("token")
    if not token:
        raise _invalid_request("The parameter token is missing.")
    return client, token


@asynccontextmanager
async def _proving(
    request: Request, deps: OAuthDeps
) -> AsyncIterator[tuple[TokenRequest, Mapping[str, Client]]]:
    """Yield the request as far as it is proven, and the clients; count it if it fails inside."""
    tenant_id: str = request.scope["tenant"]
    asked = await _read(request)
    address = request.client.host if request.client else ""
    attempt = deps.prover.begin(tenant_id, asked, place=address)
    clients = await _clients_of(deps, tenant_id, attempt.claimed)
    try:
        one_way_only(asked)
        issuer = request.app.state.issuer(tenant_id)
        certificate: bytes | None = request.scope.get("certificate")
        proven = await deps.prover.prove(asked, clients, issuer=issuer, certificate=certificate)
        yield proven, clients
    except Refusal as refusal:
        if refusal.status == UNAUTHORIZED:
            deps.prover.failed(attempt)
        raise


def _resource(asked: TokenRequest, issuer: str) -> str | None:
    """Return what alone the token is to be for, None for all. Source: RFC 8707 §2."""
    resource = asked.form.get("resource")
    if resource is None or resource == issuer:
        return None
    if not resource.startswith(issuer) or not is_resource(resource.removeprefix(issuer)):
        text = "The resource is none of this tenant's."
        raise Refusal(400, {"error": "invalid_target", "error_description": text}, {})
    return resource


async def _clients_of(deps: OAuthDeps, tenant_id: str, claimed: str) -> Mapping[str, Client]:
    """Return the clients by id; looked up anew when the one that asks is not among them."""
    known = (await deps.clients.get(tenant_id)).by_id
    if claimed in known or not claimed:
        return known
    # Perhaps another process has just added it. Such looks are shared and limited in their rate.
    return (await deps.clients.get(tenant_id, fresh=True)).by_id


async def _read(request: Request) -> TokenRequest:
    """Read the form of a request; every parameter once, the body bounded. Raises Refusal."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise _invalid_request(f"Send the body as {FORM}.")
    body = await request.body()
    if len(body) > FORM_BYTES_MAX:
        raise _invalid_request(f"The body is larger than {FORM_BYTES_MAX} bytes.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict"
        )
    except ValueError:
        raise _invalid_request("The body is no form.") from None
    if any(count > 1 for count in Counter(name for name, _ in pairs).values()):
        raise _invalid_request("Send each parameter once.")
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise _invalid_request("Send one Authorization header.")
    return TokenRequest(form=dict(pairs), authorization=headers[0] if headers else None)


def _invalid_request(text: str) -> Refusal:
    return Refusal(400, {"error": "invalid_request", "error_description": text}, {})


def _refused(refusal: Refusal) -> Response:
    return Response(
        msgspec.json.encode(refusal.body),
        status_code=refusal.status,
        media_type="application/json",
        headers={**_NO_STORE, **refusal.headers},
    )


def _answer(body: Mapping[str, object], *, cache: str | None = None) -> Response:
    headers = _NO_STORE if cache is None else {"cache-control": cache}
    return Response(msgspec.json.encode(body), media_type="application/json", headers=headers)


ROUTES: Final = (
    Route("/oauth/token", issue_token, methods=["POST"]),
    Route("/oauth/revoke", revoke_token, methods=["POST"]),
    Route("/oauth/introspect", introspect_token, methods=["POST"]),
    Route("/.well-known/oauth-authorization-server", server_metadata, methods=["GET"]),
    Route(METADATA_PATH, resource_metadata, methods=["GET"]),
    Route(METADATA_PATH + "/{path:path}", resource_metadata, methods=["GET"]),
    Route("/oauth/jwks.json", token_keys, methods=["GET"]),
)
