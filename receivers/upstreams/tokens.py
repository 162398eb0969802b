"""How we show an upstream who we are: a fixed header, or OAuth tokens, renewed in time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog

from receivers.upstreams.model import Auth, Upstream
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.outbound import Outbound, OutboundAnswer, OutboundRequest
from runtime.secrets import SecretBox
from ssf.errors import RemoteProtocolError
from ssf.oauth import (
    AUTHORIZATION_SERVER_PATH,
    DEFAULT_SCOPE,
    DOCUMENT_BYTES_MAX,
    PROTECTED_RESOURCE_PATH,
    error_of,
    parse_authorization_server,
    parse_scopes,
    parse_token,
    render_token_request,
    resource_metadata_of,
    well_known_url,
)

OK: Final = 200
UNAUTHORIZED: Final = 401
TIMEOUT_S: Final = 10.0
#: a token is not used in its last seconds
MARGIN: Final = timedelta(seconds=30)
REMEMBERED_MAX: Final = 10_000

log = structlog.get_logger()

ValueT = TypeVar("ValueT")
_Place = tuple[str, str, datetime]


class Tokens:
    """The Authorization values for upstreams, in the memory of one process."""

    def __init__(self, outbound: Outbound, *, box: SecretBox, clock: Clock) -> None:
        self._outbound = outbound
        self._box = box
        self._clock = clock
        self._tokens: dict[_Place, tuple[str, datetime]] = {}
        self._scopes: dict[_Place, str] = {}

    async def send(
        self, upstream: Upstream, issuer: str, request: OutboundRequest, *, via: Outbound
    ) -> OutboundAnswer:
        """Send a request with the upstream's Authorization; once more with a fresh token on 401.

        issuer: the upstream's. Raises Unavailable, also when no token is to be had.
        Requirements CRC-3, SSF-AUTH-4, INT-26, INT-27.
        """
        answer = await via.send(await self._authorized(upstream, issuer, request))
        if answer.status != UNAUTHORIZED or upstream.settings.auth not in {Auth.BASIC, Auth.POST}:
            return answer
        # RFC 9110 §15.5.2: the credentials were refused; the token may be revoked or too narrow.
        place = _place(upstream)
        self._tokens.pop(place, None)
        self._scopes.pop(place, None)
        challenge = answer.headers.get("www-authenticate")
        return await via.send(await self._authorized(upstream, issuer, request, challenge))

    async def _authorized(
        self,
        upstream: Upstream,
        issuer: str,
        request: OutboundRequest,
        challenge: str | None = None,
    ) -> OutboundRequest:
        value = await self._authorization(upstream, issuer, challenge)
        if value is None:
            return request
        return OutboundRequest(
            method=request.method,
            url=request.url,
            headers={**request.headers, "authorization": value},
            body=request.body,
            timeout_s=request.timeout_s,
            body_bytes_max=request.body_bytes_max,
        )

    async def _authorization(
        self, upstream: Upstream, issuer: str, challenge: str | None
    ) -> str | None:
        auth = upstream.settings.auth
        if auth is Auth.NONE or upstream.secret_sealed is None:
            return None
        if auth is Auth.HEADER:
            return self._box.open(upstream.secret_sealed)
        place, now = _place(upstream), self._clock.now()
        known = self._tokens.get(place)
        if known is not None and now < known[1]:
            return known[0]
        value, expires_in_s = await self._fetch(upstream, issuer, challenge)
        _remember(
            self._tokens,
            place,
            (f"Bearer {value}", now + max(timedelta(seconds=expires_in_s) - MARGIN, MARGIN / 6)),
        )
        return f"Bearer {value}"

    async def _fetch(
        self, upstream: Upstream, issuer: str, challenge: str | None
    ) -> tuple[str, int]:
        endpoint = upstream.settings.token_endpoint or await self._token_endpoint(issuer)
        scope = await self._scope(upstream, issuer, challenge)
        answer = await self._ask_for_token(upstream, endpoint, scope)
        refused = answer.status != OK
        if refused and upstream.settings.scope is None and error_of(answer.body) == "invalid_scope":
            # The resource names more scopes than this client may have.
            answer = await self._ask_for_token(upstream, endpoint, DEFAULT_SCOPE)
        if answer.status != OK:
            raise Unavailable(
                f"the token endpoint answered {answer.status} {error_of(answer.body) or ''}".strip()
            )
        try:
            token = parse_token(answer.body)
        except RemoteProtocolError as error:
            raise Unavailable(error.description) from error
        log.info(
            "upstream.token_got", tenant_id=upstream.tenant_id, upstream_id=upstream.upstream_id
        )
        return token.value, token.expires_in_s

    async def _ask_for_token(self, upstream: Upstream, endpoint: str, scope: str) -> OutboundAnswer:
        body, headers = render_token_request(
            scope,
            client_id=upstream.settings.client_id or "",
            client_secret=self._box.open(upstream.secret_sealed or ""),
            in_body=upstream.settings.auth is Auth.POST,
        )
        return await self._get(endpoint, method="POST", body=body, headers=headers)

    async def _token_endpoint(self, issuer: str) -> str:
        """Return where the issuer's own authorization server gives tokens (RFC 8414).

        Only there: a client secret must not go wherever a 401 points.
        """
        answer = await self._get(well_known_url(issuer, AUTHORIZATION_SERVER_PATH))
        if answer.status != OK:
            raise Unavailable(
                f"the authorization server's metadata answered {answer.status}: set token_endpoint"
            )
        try:
            return parse_authorization_server(answer.body, issuer)
        except RemoteProtocolError as error:
            raise Unavailable(error.description) from error

    async def _scope(self, upstream: Upstream, issuer: str, challenge: str | None) -> str:
        """Return which scopes to ask for. Requirements INT-22, INT-32."""
        if upstream.settings.scope is not None:
            return upstream.settings.scope
        place = _place(upstream)
        if (known := self._scopes.get(place)) is not None:
            return known
        resource = (upstream.metadata or {}).get("configuration_endpoint")
        places = [
            resource_metadata_of(challenge),
            well_known_url(resource, PROTECTED_RESOURCE_PATH) if resource else None,
            well_known_url(issuer, PROTECTED_RESOURCE_PATH),
        ]
        found = DEFAULT_SCOPE
        for url in dict.fromkeys(filter(None, places)):
            scope = await self._scope_at(url)
            if scope is not None:
                found = scope
                break
        _remember(self._scopes, place, found)
        return found

    async def _scope_at(self, url: str) -> str | None:
        try:
            answer = await self._get(url)
            return parse_scopes(answer.body) if answer.status == OK else None
        except (Unavailable, RemoteProtocolError):
            # Unusable metadata is as good as none (INT-32).
            return None

    async def _get(
        self,
        url: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> OutboundAnswer:
        return await self._outbound.send(
            OutboundRequest(
                method=method,
                url=url,
                headers=headers or {"accept": "application/json"},
                body=body,
                timeout_s=TIMEOUT_S,
                body_bytes_max=DOCUMENT_BYTES_MAX,
            )
        )


def _place(upstream: Upstream) -> _Place:
    # With the time of the last change in it, other credentials start from nothing.
    return upstream.tenant_id, upstream.upstream_id, upstream.updated_at


def _remember(known: dict[_Place, ValueT], place: _Place, value: ValueT) -> None:
    if len(known) >= REMEMBERED_MAX:
        del known[next(iter(known))]
    known[place] = value
