"""The OpenID Connect back-channel logout endpoint of an application.

Source: OpenID Connect Back-Channel Logout 1.0 §2.5 to §2.8; requirements BCL-3 to BCL-11.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from conformance.peers.errors import KeysUnavailableError, TokenError
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import AppOptions
from conformance.peers.peer import json_response, media_type, read_body
from conformance.peers.people import Directory, Selection
from conformance.peers.sessions import SessionBook
from conformance.peers.trust import (
    IssuerKeys,
    TokenIds,
    audiences,
    check_lifetime,
    required_text,
    verified_claims,
)

BCL_PATH = "/backchannel-logout"
LOGOUT_TYP = "logout+jwt"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
FORM = "application/x-www-form-urlencoded"
LIFETIME_S_MAX = 120  # BCL-7: at most two minutes.
TOKEN_BYTES_MAX = 64 * 1024


class BackChannelLogout:
    """Ends the sessions that a valid logout token names."""

    def __init__(
        self, *, keys: IssuerKeys, people: Directory, book: SessionBook, ledger: Ledger
    ) -> None:
        self._keys = keys
        self._people = people
        self._book = book
        self._ledger = ledger
        self._token_ids = TokenIds()

    async def answer(self, request: Request, options: AppOptions) -> Response:
        """Answer one logout request: 200, or 400 with the reason."""
        body = await read_body(request, TOKEN_BYTES_MAX)
        try:
            claims = await self._claims(request, body, options)
            selection = self._select(claims)
        except TokenError as problem:
            return self._refuse(400, problem.description, problem.requirement)
        except KeysUnavailableError:
            return self._refuse(503, "the signer's keys cannot be fetched", "BCL-9")
        jti = str(claims["jti"])
        ended = self._book.end(selection, by="bcl", request_id=jti)
        outcome = Outcome.EFFECT if ended else Outcome.REPEAT
        self._ledger.record(
            "bcl.accepted",
            outcome,
            request_id=jti,
            ended=ended,
            sub=claims.get("sub"),
            sid=claims.get("sid"),
        )
        return Response(status_code=200, headers={"cache-control": "no-store"})

    async def _claims(
        self, request: Request, body: bytes, options: AppOptions
    ) -> Mapping[str, Any]:
        if media_type(request) != FORM:
            raise TokenError("the body is no form", "BCL-8")
        tokens = parse_qs(body.decode("ascii", "replace")).get("logout_token", [])
        if len(tokens) != 1:
            raise TokenError("one logout_token is required", "BCL-8")
        claims = await verified_claims(
            tokens[0].encode(), typ=LOGOUT_TYP, keys=self._keys, jwks_url=options.jwks_url
        )
        if claims.get("iss") != options.hub:
            raise TokenError("iss is not the one this client is registered with", "BCL-9")
        if (options.client_id or options.name) not in audiences(claims):
            raise TokenError("aud is not this client", "BCL-9")
        if "nonce" in claims:
            raise TokenError("a logout token has no nonce", "BCL-5")
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
            raise TokenError("events lacks the logout event", "BCL-3")
        expires_at_s = check_lifetime(claims, lifetime_s_max=LIFETIME_S_MAX, requirement="BCL-9")
        if not self._token_ids.take(required_text(claims, "jti", "BCL-3"), expires_at_s):
            raise TokenError("this token was used before", "BCL-9")
        return claims

    def _select(self, claims: Mapping[str, Any]) -> Selection:
        """With sid only that session, without all sessions of sub (BCL-4)."""
        sub, sid = claims.get("sub"), claims.get("sid")
        if not isinstance(sub, str) and not isinstance(sid, str):
            raise TokenError("sub or sid is required", "BCL-4")
        user = self._people.find(sub) if isinstance(sub, str) else None
        user_ids = frozenset({user.user_id} if user else ())
        return Selection(
            user_ids=user_ids if isinstance(sub, str) else None,
            session_ids=frozenset({sid}) if isinstance(sid, str) else None,
        )

    def _refuse(self, status: int, detail: str, requirement: str) -> Response:
        self._ledger.record(
            "bcl.refused",
            Outcome.REFUSED,
            status=status,
            detail=detail,
            requirement=requirement,
        )
        content = {"error": "invalid_request", "error_description": detail}
        return json_response(content, status, Cache_Control="no-store")
