"""Global Token Revocation, as endpoint: somebody asks us to log a user out everywhere.

    POST /v1/global-token-revocation {"sub_id": …}
      bearer token with scope `logout`, or ─┐
      JWT of a provider that may_revoke ────┴▶ whose? ─▶ guards ─▶ one transaction: audit, logouts
                                       planned, sessions of the index ended ─▶ commit ─▶ 204
                                       └▶ held, or a break-glass user: nothing ended ─▶ 422

It is no quarantine: the user may sign in again at once (docs/adr says why). Source:
draft-parecki-oauth-global-token-revocation-05 §3; requirements GTR-4 to GTR-11, GTR-14, GTR-15,
GTR-20 to GTR-22.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import actions.notices
import actions.service
import hub.guard.service as guard
import risk.service
from actions.gtr import TYP
from actions.messages import Event
from actions.model import ContainmentOrder, Planned, PlanOutcome
from actions.requests import decide_request
from hub import pipeline, store
from hub.auth import Stranger
from hub.node import Node
from hub.oauth.store import use_assertion
from hub.user_logouts import order_for
from receivers.model import ProviderMode, ProviderProfile, ProviderStatus, is_in_scope
from receivers.service import ReceiversDeps
from risk.entities import service as entities
from risk.entities.model import Reference, parse_identifiers
from risk.model import EntityKind
from risk.routes import json_object
from runtime.audit import AuditNote
from runtime.caller import Caller
from runtime.clock import epoch_s, from_epoch_s
from runtime.database import serialize
from runtime.deadlocks import repeated
from runtime.errors import Forbidden, Invalid, NotFound, Refused, Unauthorized
from runtime.ids import new_id
from ssf.errors import SETError
from ssf.jose import check_header, split_jws, verify
from ssf.subject import parse_subject

SCOPE: Final = "logout"
PATH: Final = "/v1/global-token-revocation"
NO_CONTENT: Final = 204
JSON_MEDIA_TYPE: Final = "application/json"
#: requirement GTR-22
CLOCK_SKEW_S: Final = 60
#: a JWT that is good for longer would have to be remembered for longer
LIFETIME_MAX_S: Final = 3_600
JTI_CHARACTERS_MAX: Final = 255
REASON: Final = "Somebody asked to log this user out everywhere."
#: what the audit says of a request that a break-glass user was spared
SPARED: Final = "spared"
#: admins are told of a break-glass user once in this time, however often somebody asks
TOLD_EVERY_S: Final = 3_600

log = structlog.get_logger()


class UnsupportedMediaType(Refused):
    """The body is not JSON."""

    status = 415


class Held(Refused):
    """The blast-radius guard waits for a person."""

    status = 422


class Spared(Refused):
    """A break-glass user is not logged out, whoever asks."""

    status = 422


class _Claims(msgspec.Struct, frozen=True, kw_only=True):
    iss: str
    aud: str | list[str]
    exp: int | float
    jti: str
    sub: str
    iat: int | float | None = None
    nbf: int | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Who asks. provider: None for a client of ours. jti_hash, until: of its JWT, used once."""

    tenant_id: str
    name: str
    provider: ProviderProfile | None = None
    jti_hash: str = ""
    until: datetime | None = None


async def revoke(request: Request) -> Response:
    """Begin to log a user out everywhere; 204 after the commit (GTR-7).

    Raises what hub renders: Unauthorized (401), Forbidden (403), Invalid (400), NotFound (404),
    Held and Spared (422). Requirement GTR-8.
    """
    node: Node = request.app.state.node
    now = node.clock.now()
    asker = await _asker(request, now)
    subject = await _subject(request, asker)
    references = [Reference(subject=each) for each in parse_identifiers([subject], "/sub_id")]
    if asker.provider is not None and not is_in_scope(
        parse_subject(subject), asker.provider.subject_scope
    ):
        raise Forbidden("This provider may not speak about this user.")

    async def begun() -> Planned | None:
        async with node.database.transaction() as connection:
            return await _begin(connection, asker, references, now=now)

    planned = await repeated(begun)
    # After the commit: a refusal that is raised inside undoes the audit entry and the used JWT.
    node.notifier.wake_all(sorted(pipeline.TOPICS))
    if planned is None:
        raise Spared("This user is on the break-glass list: an administrator takes it off first.")
    if planned.outcome is PlanOutcome.HELD:
        raise Held("Too many users were logged out of late: an administrator has to approve.")
    return Response(status_code=NO_CONTENT, headers={"cache-control": "no-store"})


async def _begin(
    connection: AsyncConnection, asker: _Asker, references: list[Reference], *, now: datetime
) -> Planned | None:
    """Store the request in one transaction with all that follows from it at once.

    Sessions end only where the guards let the logout begin; None: of a break-glass user.
    """
    tenant_id = asker.tenant_id
    user_id = await _user(connection, tenant_id, references)
    await serialize(connection, "audit", tenant_id)
    if asker.provider is not None and asker.until is not None:
        is_new = await use_assertion(
            connection,
            tenant_id,
            client_id=asker.provider.provider_id,
            jti_hash=asker.jti_hash,
            expires_at=asker.until,
        )
        if not is_new:
            raise Unauthorized("The access token is not valid.", code="invalid_token")
    await pipeline.lock_tenants(connection, {tenant_id})
    issuer = asker.provider.issuer if asker.provider else asker.name
    order = await order_for(
        connection,
        (tenant_id, user_id),
        cause=(issuer, "logout requested"),
        reasons=(REASON,),
        trace_id=new_id("evt"),
        now=now,
    )
    (order,) = await guard.softened(connection, [order])
    planned = None if order.exempt else await _log_out(connection, order, asker, now=now)
    if planned is None:
        await _tell(connection, order, asker, now=now)
    outcome = planned.outcome.value if planned else SPARED
    await store.add_audit(connection, _note(asker, user_id, outcome), now=now)
    return planned


async def _log_out(
    connection: AsyncConnection, order: ContainmentOrder, asker: _Asker, *, now: datetime
) -> Planned:
    tenant_id = order.tenant_id
    counts = {tenant_id: await risk.service.count_users(connection, tenant_id)}
    (planned,) = await actions.service.plan(
        connection, [order], user_counts=counts, now=now, decider=decide_request
    )
    ended = await pipeline.end_sessions(connection, [planned], now=now)
    log.info(
        "logout.requested",
        tenant_id=tenant_id,
        user_id=order.user_id,
        by=asker.name,
        sessions_ended=ended.total(),
        containment_id=planned.containment_id,
        outcome=planned.outcome.value,
    )
    return planned


async def _tell(
    connection: AsyncConnection, order: ContainmentOrder, asker: _Asker, *, now: datetime
) -> None:
    """Tell admins that somebody wanted a break-glass user logged out."""
    name = order.label or order.user_id
    await actions.notices.tell(
        connection,
        order.tenant_id,
        Event.SPARED,
        notice_id=f"bgs_{order.user_id}_{int(epoch_s(now) // TOLD_EVERY_S)}",
        facts={
            "user_id": order.user_id,
            "label": order.label,
            "asked_by": asker.name,
            "trace_id": order.trace_id,
            "message": f"{asker.name} asked to log {name} out everywhere. Nothing was done: it is a"
            " break-glass user.",
        },
        now=now,
    )


async def _user(connection: AsyncConnection, tenant_id: str, references: list[Reference]) -> str:
    found = await entities.resolve_all(connection, tenant_id, references, kind=EntityKind.USER)
    user_ids = {user_id for user_id in found.values() if user_id}
    if not user_ids:
        raise NotFound("No such user.")
    if len(user_ids) > 1:
        raise Invalid("The subject names more than one user.", pointers=(("/sub_id", "one user"),))
    return user_ids.pop()


async def _subject(request: Request, asker: _Asker) -> object:
    """Return the subject of the body. Raises UnsupportedMediaType, Invalid. GTR-2, GTR-15."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON_MEDIA_TYPE:
        raise UnsupportedMediaType(f"Send the body as {JSON_MEDIA_TYPE}.")
    body: Mapping[str, Any] = await json_object(request)
    if "sub_id" in body:
        return body["sub_id"]
    if asker.provider is not None and asker.provider.legacy_subject:
        return body.get("subject")
    raise Invalid("sub_id is needed.", pointers=(("/sub_id", "a subject identifier"),))


async def _asker(request: Request, now: datetime) -> _Asker:
    """Return who asks. Raises Unauthorized, Forbidden."""
    caller: Caller = request.state.caller
    if isinstance(caller, Stranger):
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.count(".") == 2:  # noqa: PLR2004 - parts of a JWS
            try:
                return await _provider(request, token.strip(), now)
            except (SETError, msgspec.MsgspecError, ValueError) as refusal:
                log.info("logout.refused", tenant_id=caller.tenant_id, reason=str(refusal))
    caller.require(SCOPE)
    return _Asker(tenant_id=caller.tenant_id, name=caller.client_id)


async def _provider(request: Request, token: str, now: datetime) -> _Asker:
    """Verify the JWT of a provider (GTR-22).

    Raises Forbidden for one that may not revoke, SETError, MsgspecError or ValueError for a JWT
    that proves nothing, Unavailable while its keys are unknown.
    """
    deps: ReceiversDeps = request.app.state.receivers
    tenant_id: str = request.scope["tenant"]
    jws = split_jws(token.encode("ascii"))
    claims = _decode(jws.payload)
    known = (await deps.profiles.get(tenant_id)).values()
    provider = next((each for each in known if each.issuer == claims.iss and each.may_revoke), None)
    if provider is None:
        raise ValueError("no provider that may revoke has this iss")
    check_header(jws.header, typ=TYP, algorithms=provider.algorithms)
    key = await deps.keys.key_for(provider, jws.header, now=now)
    await asyncio.to_thread(verify, jws, key)
    _check(claims, own_url=request.app.state.issuer(tenant_id) + PATH, now_s=epoch_s(now))
    is_believed = provider.status is ProviderStatus.ACTIVE and provider.mode is ProviderMode.ENFORCE
    if not is_believed:
        raise Forbidden("This provider is not acted upon at present.")
    return _Asker(
        tenant_id=tenant_id,
        name=provider.provider_id,
        provider=provider,
        jti_hash=hashlib.sha256(claims.jti.encode("utf-8", "surrogatepass")).hexdigest(),
        until=from_epoch_s(claims.exp + CLOCK_SKEW_S),
    )


def _check(claims: _Claims, *, own_url: str, now_s: float) -> None:
    """Check times, audience and id. Raises ValueError. Requirements GTR-21, GTR-22."""
    if claims.aud not in (own_url, [own_url]):
        raise ValueError("aud is not this endpoint alone")
    if not now_s - CLOCK_SKEW_S < claims.exp <= now_s + LIFETIME_MAX_S:
        raise ValueError("expired, or good for too long")
    if max(claims.nbf or 0, claims.iat or 0) > now_s + CLOCK_SKEW_S:
        raise ValueError("not valid yet")
    if not 0 < len(claims.jti) <= JTI_CHARACTERS_MAX or not claims.sub:
        raise ValueError("jti or sub is empty, or jti too long")


def _note(asker: _Asker, user_id: str, outcome: str) -> AuditNote:
    return AuditNote(
        tenant_id=asker.tenant_id,
        actor=asker.name,
        action="user.logout",
        ref=user_id,
        detail={"by": "provider" if asker.provider else "client", "outcome": outcome},
    )


_decode: Final = msgspec.json.Decoder(_Claims).decode

ROUTES: Final = (Route(PATH, revoke, methods=["POST"]),)
