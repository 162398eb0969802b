"""The Global Token Revocation endpoint, at the IdP and at applications.

Source: draft-parecki-oauth-global-token-revocation-05; requirements GTR-1 to
GTR-8, GTR-20 to GTR-22.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from conformance.peers.errors import (
    KeysUnavailableError,
    TokenError,
    UnknownUserError,
    UnsupportedSubjectError,
)
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import HubOptions
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
from ssf.errors import SubjectError
from ssf.subject import Subject, parse_subject

GTR_PATH = "/global-token-revocation"
GTR_TYP = "global-token-revocation+jwt"
LIFETIME_S_MAX = 300  # GTR-23: five minutes or less.
BEARER = "Bearer "


class RevocationEndpoint:
    """Ends all sessions of a user when the hub asks with a valid token."""

    def __init__(
        self,
        *,
        own_url: str,
        keys: IssuerKeys,
        people: Directory,
        book: SessionBook,
        ledger: Ledger,
    ) -> None:
        self._own_url = own_url
        self._keys = keys
        self._people = people
        self._book = book
        self._ledger = ledger
        self._token_ids = TokenIds()

    async def answer(
        self, request: Request, options: HubOptions, *, issuer: str | None
    ) -> Response:
        """Answer one revocation request; the order of checks is token, media type, body, user.

        issuer: the `iss` that iss_sub subjects must carry here; None for any.
        """
        body = await read_body(request)
        try:
            claims = await self._check_token(request, options)
        except TokenError as problem:
            return self._refuse(401, None, problem.description, problem.requirement)
        except KeysUnavailableError:
            return self._refuse(503, None, "the hub's keys cannot be fetched", "GTR-22")
        jti = str(claims["jti"])
        if media_type(request) != "application/json":
            return self._refuse(415, jti, "the body is no application/json", "GTR-1")
        try:
            selection = self._select(body, options, issuer)
        except (TokenError, SubjectError, UnsupportedSubjectError, msgspec.MsgspecError) as problem:
            return self._refuse(400, jti, str(problem), "GTR-8")
        except UnknownUserError:
            return self._refuse(404, jti, "no such user", "GTR-8")
        ended = self._book.end(selection, by="gtr", request_id=jti)
        outcome = Outcome.EFFECT if ended else Outcome.REPEAT
        self._ledger.record(
            "gtr.accepted", outcome, request_id=jti, ended=ended, users=_users(selection)
        )
        return Response(status_code=204)

    async def _check_token(self, request: Request, options: HubOptions) -> Mapping[str, Any]:
        authorization = request.headers.get("authorization", "")
        if not authorization.startswith(BEARER):
            raise TokenError("no bearer token", "GTR-3")
        claims = await verified_claims(
            authorization.removeprefix(BEARER).encode(),
            typ=GTR_TYP,
            keys=self._keys,
            jwks_url=options.jwks_url,
        )
        if claims.get("iss") != options.hub:
            raise TokenError("iss is not the hub", "GTR-22")
        if audiences(claims) != (self._own_url,):
            raise TokenError("aud is not this endpoint's URL", "GTR-22")
        if "events" in claims:
            raise TokenError("this is an event, no request", "SET-41")
        subject = required_text(claims, "sub", "GTR-21")
        if options.client_id is not None and subject != options.client_id:
            raise TokenError("sub is not this application's id", "GTR-21")
        expires_at_s = check_lifetime(claims, lifetime_s_max=LIFETIME_S_MAX, requirement="GTR-22")
        if not self._token_ids.take(required_text(claims, "jti", "GTR-22"), expires_at_s):
            raise TokenError("this token was used before", "GTR-22")
        return claims

    def _select(self, body: bytes, options: HubOptions, issuer: str | None) -> Selection:
        members = msgspec.json.decode(body, type=dict[str, Any])
        if members.keys() != {"sub_id"}:
            raise TokenError("the body has one member, sub_id", "GTR-2")
        subject: Subject = parse_subject(members["sub_id"])
        return self._people.select(subject, formats=options.formats, issuer=issuer)

    def _refuse(self, status: int, jti: str | None, detail: str, requirement: str) -> Response:
        self._ledger.record(
            "gtr.refused",
            Outcome.REFUSED,
            request_id=jti,
            status=status,
            detail=detail,
            requirement=requirement,
        )
        content = {"error": "invalid_request", "error_description": detail}
        if status == 401:  # noqa: PLR2004 - Unauthorized
            return json_response(content, status, WWW_Authenticate='Bearer error="invalid_token"')
        if status == 503:  # noqa: PLR2004 - Service Unavailable
            return json_response(content, status, Retry_After="1")
        return json_response(content, status)


def _users(selection: Selection) -> list[str]:
    return sorted(selection.user_ids or ())
