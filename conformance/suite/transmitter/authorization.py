"""Checks of who may do what: tokens, scopes, challenges. They run once."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

from conformance.suite.checks import Checks, Verdict
from conformance.suite.transmitter.expect import status_is
from conformance.suite.transmitter.party import Transmitter, with_query
from conformance.suite.transmitter.tokens import (
    as_metadata,
    fetch_token,
    find_token_endpoint,
    post_form,
    prove,
    resource_metadata,
)

checks: Checks[Transmitter] = Checks()
check = checks.check

TOKEN_LIFETIME_S_MAX: Final = 3600
OK: Final = 200
UNAUTHORIZED: Final = 401


@check("CTC-4", "INT-21", "OA-1", group="once")
async def client_credentials(tx: Transmitter, v: Verdict) -> None:
    """Client credentials give a short-lived bearer token."""
    answer = tx.token_answer
    if answer is None:
        v.stop("CTC-4", "INT-21", "OA-1", why="run with a static token")
        return
    document = answer.object
    ok = answer.status == OK and isinstance(document.get("access_token"), str)
    v.need(ok, "CTC-4", "OA-1", told=f"200 with access_token: {answer.url} {answer.status}")
    kind = str(document.get("token_type", "")).lower()
    v.must(kind == "bearer", "CTC-4", "OA-1", told=f"token_type is Bearer: {kind}")
    lifetime = document.get("expires_in")
    short = isinstance(lifetime, int) and 0 < lifetime <= TOKEN_LIFETIME_S_MAX
    v.should(short, "CTC-4", "INT-21", told=f"expires_in is at most an hour: {lifetime!r}")


@check("INT-20", "INT-30", "OA-4", "OA-5", "OA-6", group="once")
async def published_oauth_metadata(tx: Transmitter, v: Verdict) -> None:
    """What is published of authorization server and resource is consistent."""
    server = await as_metadata(tx.asker, tx.issuer)
    if server:
        ok = isinstance(server.get("token_endpoint"), str)
        v.must(ok, "INT-20", "OA-4", told="the server metadata names its token endpoint")
        named = server.get("issuer")
        v.must(named == tx.issuer, "OA-4", told=f"its issuer is {tx.issuer}: {named}")
    else:
        v.skip("INT-20", "OA-4", why="no authorization server metadata at the issuer; optional")
    for resource in (tx.issuer, tx.endpoint("configuration_endpoint") or tx.issuer):
        document = await resource_metadata(tx.asker, resource)
        if not document:
            v.skip("INT-30", "OA-5", why=f"no protected resource metadata of {resource}; optional")
            continue
        named = document.get("resource")
        v.must(named == resource, "INT-30", "OA-5", told=f"resource is {resource}: {named}")
        empty = [name for name, value in document.items() if value == []]
        v.must(not empty, "OA-5", told=f"no empty arrays: {empty}")
    bare = await tx.asker.ask("GET", tx.endpoint("configuration_endpoint") or "")
    challenge = bare.headers.get("www-authenticate", "")
    if "resource_metadata=" not in challenge:
        v.skip("OA-6", why="401 names no resource_metadata; it is optional")
        return
    url = challenge.partition('resource_metadata="')[2].partition('"')[0]
    found = await tx.asker.ask("GET", url)
    v.must(found.object.get("resource"), "OA-6", told=f"resource_metadata is there: {found.told()}")


@check("INT-28", "OA-9", "OA-10", group="once")
async def revoked_token(tx: Transmitter, v: Verdict) -> None:
    """A revoked token opens nothing any more, at once."""
    credentials = tx.options.credentials
    endpoint = (await as_metadata(tx.asker, tx.issuer)).get("revocation_endpoint")
    if credentials.client_id is None or not isinstance(endpoint, str):
        v.stop(*v.allowed, why="needs --client-id and a revocation_endpoint")
    token = await tx.with_scope("ssf.read")
    v.need(token, "OA-9", told="a token to revoke is given")
    status_is(v, await tx.manage("GET", token=token), OK, "INT-28")
    form = {"token": token or "", "token_type_hint": "access_token"}
    # An assertion names the server, by its token endpoint, wherever it is sent (OA-2).
    audience = credentials.token_endpoint or await find_token_endpoint(tx.asker, tx.issuer)
    revoked = await post_form(tx.asker, str(endpoint), form, prove(credentials, audience))
    status_is(v, revoked, OK, "OA-9")
    status_is(v, await tx.manage("GET", token=token), UNAUTHORIZED, "INT-28", "OA-10")
    form["token"] = secrets.token_urlsafe(16)
    unknown = await post_form(tx.asker, str(endpoint), form, prove(credentials, audience))
    status_is(v, unknown, OK, "OA-9")


@check("OA-2", "OA-1", group="once")
async def client_authentication(tx: Transmitter, v: Verdict) -> None:
    """A wrong secret is refused, and an assertion is taken once."""
    credentials = tx.options.credentials
    if credentials.client_id is None:
        v.stop(*v.allowed, why="needs --client-id")
    if credentials.client_key is None:
        wrong = replace(credentials, client_secret=secrets.token_urlsafe(16))
        answer = await fetch_token(tx.asker, tx.issuer, wrong)
        status_is(v, answer, {UNAUTHORIZED, 400}, "OA-2", "OA-1")
        error = answer.object.get("error")
        v.must(error == "invalid_client", "OA-1", told=f"error is invalid_client: {answer.told()}")
        return
    endpoint = credentials.token_endpoint or await find_token_endpoint(tx.asker, tx.issuer)
    proof = prove(credentials, endpoint)
    first = await fetch_token(tx.asker, tx.issuer, credentials, proof=proof)
    status_is(v, first, OK, "OA-2")
    again = await fetch_token(tx.asker, tx.issuer, credentials, proof=proof)
    v.should(again.status != OK, "OA-2", told=f"a repeated assertion is refused: {again.status}")


@check("SSF-AUTH-1", "INT-26", "INT-28", "INT-29", group="once")
async def challenges(tx: Transmitter, v: Verdict) -> None:
    """A missing or made-up token is answered with a Bearer challenge."""
    url = tx.endpoint("configuration_endpoint") or ""
    bare = await tx.asker.ask("GET", url)
    status_is(v, bare, UNAUTHORIZED, "SSF-AUTH-1")
    made_up = await tx.call("GET", url, token=f"invalid:{secrets.token_hex(8)}")
    status_is(v, made_up, UNAUTHORIZED, "INT-28")
    for answer in (bare, made_up):
        challenge = answer.headers.get("www-authenticate", "")
        ok = challenge.lower().startswith("bearer")
        v.must(ok, "INT-26", "INT-29", told=f"WWW-Authenticate: Bearer …, it says {challenge!r}")
    told = made_up.headers.get("www-authenticate", "")
    v.must("invalid_token" in told, "INT-29", told=f'error="invalid_token" in {told!r}')


@check("INT-27", "INT-29", group="once")
async def token_in_the_query(tx: Transmitter, v: Verdict) -> None:
    """A token in the query string opens nothing."""
    # Not our real one: a transmitter rightly treats a token it sees there as leaked.
    query = f"access_token={secrets.token_urlsafe(24)}"
    url = with_query(tx.endpoint("configuration_endpoint") or "", query)
    answer = await tx.asker.ask("GET", url)
    refused = answer.status in {400, 401}
    v.must(refused, "INT-27", told=f"a token in the query is refused: {answer.status}")
    v.should(answer.status == 400, "INT-29", told=f"400 invalid_request: {answer.status}")  # noqa: PLR2004


@check("INT-23", "INT-25", "INT-28", "INT-29", "SSF-OP-52", group="once")
async def scopes(tx: Transmitter, v: Verdict) -> None:
    """A token to read does not manage, and is told so before its body is looked at."""
    token = await tx.with_scope("ssf.read")
    if token is None:
        v.stop("INT-23", "INT-25", "INT-28", "INT-29", "SSF-OP-52", why="needs --client-id")
        return
    body, _ = tx.wanted()
    read = await tx.manage("GET", token=token)
    status_is(v, read, OK, "INT-23", "INT-25")
    for answer in (
        await tx.manage("POST", body, token=token),
        await tx.manage("POST", raw=b";{ broken", token=token),
        await tx.manage("PATCH", raw=b";{ broken", token=token),
    ):
        status_is(v, answer, 403, "INT-25", "INT-28", "SSF-OP-52")
        challenge = answer.headers.get("www-authenticate", "")
        v.must(
            "insufficient_scope" in challenge, "INT-29", told=f"insufficient_scope: {challenge!r}"
        )
