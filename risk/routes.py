"""HTTP of risk: a user's level in the short form, and sessions.

Scopes: `risk.read` to look, `risk.write` to set, `sessions.write` for sessions (contracts §8, §9).
Errors are raised and rendered by hub; `request.scope["tenant"]` is of no concern here, because the
caller belongs to one tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from risk import explanation, rendering, service
from risk.deps import RiskDeps
from risk.model import AdminWord, Assessment, parse_level, parse_risk_reason
from risk.sessions import service as sessions
from risk.sessions.anchor import placed
from risk.sessions.model import (
    REFUSALS,
    EndSession,
    check_key,
    parse_session,
    render_session,
)
from runtime.audit import AuditNote
from runtime.caller import Caller
from runtime.deadlocks import repeated
from runtime.errors import Forbidden, Invalid, NotFound
from runtime.paging import page_limit
from ssf.errors import RemoteProtocolError
from ssf.strict_json import parse_object

__all__ = [
    "ROUTES",
    "RiskDeps",
    "entered",
    "json_answer",
    "json_object",
    "listed",
    "page_of",
    "session_issuer",
    "user_of",
]

READ_SCOPES: Final = ("risk.read", "risk.write")
WRITE_SCOPES: Final = ("risk.write",)
SESSION_SCOPES: Final = ("sessions.write",)
SESSION_READ_SCOPES: Final = (
    "sessions.read",
    "sessions.write",
    "sessions.evaluate",
    "risk.read",
)
OK: Final = 200
CREATED: Final = 201
NO_CONTENT: Final = 204
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200
CURSOR_CHARS_MAX: Final = 64
BY_CHARS_MAX: Final = 200
REF_CHARS_MAX: Final = 255
#: what the hub lets pass to its routes at all
BODY_BYTES_MAX: Final = 1024 * 1024


# --- a user's level -----------------------------------------------------------------------------


async def get_short_risk(request: Request) -> Response:
    """Answer the level of a user in the short, familiar form."""
    caller, deps = entered(request, READ_SCOPES)
    async with deps.db.snapshot() as connection:
        found = await explanation.user_risk(connection, caller.tenant_id, user_of(request))
    return json_answer(rendering.render_short(found))


async def put_short_risk(request: Request) -> Response:
    """Set the level of a user: 201 the first time anything is said about the user, then 200.

    Body `{riskLevel: LOW|MEDIUM|HIGH, riskReason?: at most 500 characters}`; the answer shows the
    effective level, which may differ, and why. Source: contracts §6.
    """
    caller, deps = entered(request, WRITE_SCOPES)
    body = await json_object(request)
    word = AdminWord(
        level=parse_level(body.get("riskLevel")),
        reason=parse_risk_reason(body.get("riskReason")),
        by=caller.client_id[:BY_CHARS_MAX],
    )
    now = deps.clock.now()
    tenant_ids = {caller.tenant_id}
    note = AuditNote(
        tenant_id=caller.tenant_id,
        actor=caller.client_id,
        action="user.risk",
        ref=user_of(request)[:REF_CHARS_MAX],
        detail={"riskLevel": word.level.name, "riskReason": word.reason},
    )

    async def written() -> tuple[Assessment, bool]:
        async with deps.db.transaction() as connection:
            await deps.add_audit(connection, note, now=now)
            await deps.lock(connection, tenant_ids)
            caps = await deps.caps(connection, tenant_ids)
            made, created = await service.set_user_risk(
                connection, caller.tenant_id, user_of(request), word, caps=caps, now=now
            )
            await deps.respond(connection, [made], now=now)
            return made, created

    made, created = await repeated(written)
    deps.responded()
    return json_answer(rendering.render_set(made), status=CREATED if created else OK)


# --- sessions -----------------------------------------------------------------------------------


async def put_session(request: Request) -> Response:
    """Register a session, or say something new about it: 201, then 200.

    The issuer is that of the caller's app; a caller without an app names it in `iss`.
    """
    caller, deps = entered(request, SESSION_SCOPES)
    body = await json_object(request)
    iss = await session_issuer(caller, deps, body.get("iss"))
    item = parse_session(
        body,
        tenant_id=caller.tenant_id,
        iss=iss,
        sid=request.path_params["sid"],
        now=deps.clock.now(),
    )
    item = msgspec.structs.replace(
        item,
        told_by=caller.client_id,
        vouches=await deps.vouches(caller),
        context=placed(item.context, deps.record_of),
    )
    result = await deps.writer.submit(deps.put_session, item)
    if result.refusal:
        raise REFUSALS[result.refusal]
    shown: dict[str, object] = {
        "sid": item.sid,
        "iss": item.iss,
        "session_id": result.session_id,
        "user_id": result.user_id,
    }
    if result.device_id:
        shown["device_id"] = result.device_id
    return json_answer(shown, status=CREATED if result.created else OK)


async def get_session(request: Request) -> Response:
    """Answer one session; `?iss=` when the caller has no app."""
    caller, deps = entered(request, SESSION_READ_SCOPES)
    iss = await session_issuer(caller, deps, request.query_params.get("iss"))
    check_key(iss, request.path_params["sid"])
    async with deps.db.snapshot() as connection:
        found = await sessions.get_session(
            connection, caller.tenant_id, iss=iss, sid=request.path_params["sid"]
        )
    return json_answer(render_session(found, deps.clock.now()))


async def delete_session(request: Request) -> Response:
    """End a session; 204, also when it had ended before."""
    caller, deps = entered(request, SESSION_SCOPES)
    iss = await session_issuer(caller, deps, request.query_params.get("iss"))
    check_key(iss, request.path_params["sid"])
    item = EndSession(
        tenant_id=caller.tenant_id,
        iss=iss,
        sid=request.path_params["sid"],
        at=deps.clock.now(),
    )
    if not await deps.writer.submit(sessions.END_SESSION, item):
        raise NotFound("No such session.")
    return Response(status_code=NO_CONTENT)


async def list_sessions(request: Request) -> Response:
    """List the sessions of a user, newest first: `?user=&cursor=&limit=`."""
    caller, deps = entered(request, SESSION_READ_SCOPES)
    cursor, limit = page_of(request)
    async with deps.db.snapshot() as connection:
        found = await sessions.list_sessions(
            connection,
            caller.tenant_id,
            user=request.query_params.get("user", ""),
            after=cursor,
            limit=limit,
        )
    now = deps.clock.now()
    items = [render_session(each, now) for each in found]
    return listed(items, limit, [each.session_id for each in found])


# --- reading requests, writing answers ----------------------------------------------------------


def entered(request: Request, scopes: Sequence[str]) -> tuple[Caller, RiskDeps]:
    """Return who asks, and what the routes need. Raises Unauthorized, Forbidden."""
    caller: Caller = request.state.caller
    caller.require(*scopes)
    deps: RiskDeps = request.app.state.risk
    return caller, deps


def user_of(request: Request) -> str:
    """Return the reference that the address holds."""
    user: str = request.path_params["user"]
    return user


async def session_issuer(caller: Caller, deps: RiskDeps, said: object) -> str:
    """Return whose session it is. An app speaks about its own sessions only.

    said: the issuer in the request. Raises Forbidden for another app's, Invalid without one.
    """
    own = await deps.app_issuer(caller.tenant_id, caller.app_id) if caller.app_id else None
    if own is not None:
        if said not in (None, own):
            raise Forbidden("An app speaks about sessions of its own issuer only.")
        return own
    if not isinstance(said, str):
        raise Invalid("iss is needed: the issuer of the session.", pointers=(("/iss", "a string"),))
    return said


async def json_object(request: Request) -> dict[str, Any]:
    """Return the body, read as strictly as a SET. Raises Invalid."""
    return parse_json(await request.body())


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return a body, read as strictly as a SET. Raises Invalid."""
    try:
        return parse_object(raw, bytes_max=BODY_BYTES_MAX, error=_unacceptable)
    except RemoteProtocolError as error:
        raise Invalid(f"The body is not acceptable: {error.description}.") from error


def _unacceptable(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid_request", description, requirement="PD-3")


def page_of(request: Request) -> tuple[str, int]:
    """Return cursor and limit of a list. Raises Invalid."""
    cursor = request.query_params.get("cursor", "")
    if len(cursor) > CURSOR_CHARS_MAX or not cursor.isprintable():
        raise Invalid("The cursor is not one of ours.", pointers=(("cursor", "unreadable"),))
    wanted = request.query_params.get("limit", str(PAGE_DEFAULT))
    return cursor, page_limit(wanted, most=PAGE_MAX)


def listed(items: Sequence[object], limit: int, cursors: Sequence[str]) -> Response:
    """Answer a page; a full one says where to go on."""
    page: dict[str, object] = {"items": items}
    if len(items) == limit:
        page["next_cursor"] = cursors[-1]
    return json_answer(page)


def json_answer(body: object, *, status: int = OK) -> Response:
    """Answer a JSON document that nobody keeps."""
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


async def session(request: Request) -> Response:
    """Serve one session by method."""
    return await _SESSION_METHODS[request.method](request)


async def short_risk(request: Request) -> Response:
    """Serve the short form of a user's risk by method."""
    return await _SHORT_RISK_METHODS[request.method](request)


_SESSION_METHODS: Final = {
    "PUT": put_session,
    "GET": get_session,
    "HEAD": get_session,
    "DELETE": delete_session,
}
_SHORT_RISK_METHODS: Final = {
    "PUT": put_short_risk,
    "GET": get_short_risk,
    "HEAD": get_short_risk,
}

#: Session routes first: they are the busy ones. References hold slashes (`iss_sub:https://…|…`).
ROUTES: Final = (
    Route("/v1/sessions/{sid:path}", session, methods=["PUT", "GET", "DELETE"]),
    Route("/v1/sessions", list_sessions, methods=["GET"]),
    Route("/api/v1/users/{user:path}/risk", short_risk, methods=["GET", "PUT"]),
)
