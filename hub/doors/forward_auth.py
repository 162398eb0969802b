"""Forward authentication: a gateway asks with the request it holds, and is answered by a status.

    gateway ─▶ /v1/forward-auth?dialect=…&app=… ─▶ cookie or header ─▶ evaluate ─▶ 200, 302, 40x

Whatever is wrong with the gateway itself is 403 and `X-Signalhub-Decision: ERROR`, never 401, which
would send people to sign in for ever (FWA-21). Source: standards §19.2.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from actions.fronting import Fallback, ForwardAuthSetting, SessionHeader, UnknownSession
from actions.model import App, AppKind
from hub.decisions import EVALUATE_SCOPE, count_unknown
from hub.doors.apps import Apps, check_may_ask, is_unknown_app
from hub.doors.forward_auth_model import (
    ERROR,
    FALLBACK,
    FORBIDDEN,
    NO_SESSION,
    OK,
    Dialect,
    Original,
    Reply,
    Wanted,
    acr_values,
    expired_cookie,
    is_undecided,
    is_unknown,
    keep_out,
    max_age,
    parse_original,
    return_address,
    session_cookies,
    step_up_challenge,
    verdict_headers,
    with_parameters,
)
from hub.inline.evaluate import evaluate
from hub.inline.model import TEXT_CHARACTERS_MAX, Answer, SessionQuestion
from risk.sessions.model import SID_BYTES_MAX
from risk.verdict import Decision
from runtime.caller import Caller
from runtime.errors import Refused
from runtime.sharing import shared_text

PATH: Final = "/v1/forward-auth"
#: a gateway waits no longer, and neither do people
DECISION_S: Final = 2.0
UNAVAILABLE: Final = 503
SIGN_IN: Final = 'Bearer realm="signalhub", error="invalid_token"'
PAGE: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Not allowed</title>"
    "<h1>Not allowed</h1><p>Access was refused. Ask your administrator if this surprises you.</p>"
)

log = structlog.get_logger()
_answers_total = Counter(
    "hub_doors_forward_auth_total", "Answers to gateways.", ["dialect", "decision"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question of a gateway. idp: the identity provider to send browsers to, if it is clear."""

    caller: Caller
    dialect: Dialect
    app: App
    original: Original
    #: the gateway's word for the session, where it is trusted
    session_header: str | None

    @property
    def setting(self) -> ForwardAuthSetting:
        """How the app is guarded; defaults where nothing was set."""
        return self.app.forward_auth or ForwardAuthSetting()


class _Misconfigured(Refused):
    """The gateway asks in a way that cannot be answered; its operator has to change something."""

    status = FORBIDDEN


class ForwardAuth:
    """The endpoint, an ASGI application: it takes every method there is (FWA-20)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one question of a gateway."""
        request = Request(scope, receive)
        response = await _respond(request)
        await response(scope, receive, send)


async def _respond(request: Request) -> Response:
    try:
        asked = await _asked(request)
    except Refused as error:
        log.warning("forward_auth.refused", tenant_id=request.scope["tenant"], reason=error.detail)
        return _response(Reply(status=FORBIDDEN, headers=[("x-signalhub-decision", ERROR)]))
    try:
        async with asyncio.timeout(DECISION_S):
            reply = await _reply(request.app.state, asked)
    except Exception:
        # Whatever it is, somebody stands at a door: the app's own rule says what happens to them.
        log.warning(
            "forward_auth.failed",
            tenant_id=asked.caller.tenant_id,
            app_id=asked.app.app_id,
            exc_info=True,
        )
        reply = _fall_back(asked)
    decision = dict(reply.headers)["x-signalhub-decision"]
    _answers_total.labels(asked.dialect.value, decision).inc()
    return _response(reply, wants_page=asked.original.is_page)


async def _asked(request: Request) -> Asked:
    """Return what the gateway asks. Raises Refused for whatever is wrong with the gateway."""
    caller: Caller = request.state.caller
    caller.require(EVALUATE_SCOPE)
    tail = request.scope["path"].removeprefix(PATH)
    named = _named(request, with_query=not tail)
    if named.get("dialect") not in set(Dialect):
        raise _Misconfigured("dialect is none of nginx, traefik, caddy, haproxy, envoy")
    dialect = Dialect(named["dialect"])
    apps: Apps = request.app.state.apps
    known = await apps.get(caller.tenant_id)
    own = known.get(caller.app_id or "")
    app_id = named.get("app") or ("" if own is None or own.kind is not AppKind.RP else own.app_id)
    await check_may_ask(apps, caller, app_id)
    if await is_unknown_app(apps, caller.tenant_id, app_id):
        count_unknown("app")
        raise _Misconfigured("app names no app of this tenant")
    query = request.scope["query_string"].decode("latin-1")
    original = parse_original(
        request.scope["headers"],
        dialect=dialect,
        method=request.method,
        tail=(tail or "/") + (f"?{query}" if tail and query else ""),
    )
    return Asked(
        caller=caller,
        dialect=dialect,
        app=known[app_id],
        original=original,
        session_header=_session_header(request, own),
    )


def _named(request: Request, *, with_query: bool) -> dict[str, str]:
    """Return dialect and app.

    INVARIANT: below the endpoint's own path, which is where Envoy asks, the query is the end
    user's: it names nothing there. The gateway's headers do.
    """
    found: dict[str, str] = {}
    for name in ("dialect", "app"):
        said = request.headers.get(f"x-signalhub-{name}")
        if with_query:
            said = request.query_params.get(name) or said
        if said:
            found[name] = said
    return found


def _session_header(request: Request, own: App | None) -> str | None:
    """Return the session that a trusted gateway names (FWA-22, EGW-73)."""
    setting = own.forward_auth if own is not None else None
    if setting is None or setting.session_header is not SessionHeader.TRUSTED:
        return None
    sid = request.headers.get("x-signalhub-session")
    return sid if sid and sid.isprintable() and len(sid.encode()) <= SID_BYTES_MAX else None


async def _reply(state: State, asked: Asked) -> Reply:
    for name, digest in session_cookies(asked.original, asked.setting.cookies):
        answer = await _decided(state, asked, cookie_sha256=digest)
        if is_undecided(answer):
            return _fall_back(asked, answer)
        if not is_unknown(answer):
            return await _render(state, asked, answer, cookie=name)
    if asked.session_header is not None:
        answer = await _decided(state, asked, sid=asked.session_header)
        if is_undecided(answer):
            return _fall_back(asked, answer)
        if not is_unknown(answer):
            return await _render(state, asked, answer, cookie=None)
    return await _without_session(state, asked)


async def _decided(
    state: State, asked: Asked, *, cookie_sha256: str | None = None, sid: str | None = None
) -> Answer:
    original = asked.original
    return await evaluate(
        state,
        asked.caller,
        SessionQuestion(
            tenant_id=asked.caller.tenant_id,
            at=state.node.clock.now(),
            sid=sid,
            cookie_sha256=cookie_sha256,
            chain=original.chain,
            user_agent=shared_text(original.user_agent),
            accept_language=original.accept_language,
            ja4=original.ja4,
            app=asked.app.app_id,
            method=original.method,
            path=original.path[:TEXT_CHARACTERS_MAX],
        ),
    )


async def _render(state: State, asked: Asked, answer: Answer, *, cookie: str | None) -> Reply:
    """Return what the verdict means to this gateway (FWA-30 to FWA-33)."""
    decision = answer.verdict.decision
    if decision is Decision.ALLOW:
        reply = Reply(status=OK)
        if asked.setting.tells_user:
            reply.headers.append(("x-signalhub-user", answer.user_id))
            reply.headers.append(("x-signalhub-session-id", answer.session_id))
    elif decision is Decision.STEP_UP:
        location = await _location(state, asked, "step_up_url", answer)
        wanted = Wanted(location=location, challenge=step_up_challenge(answer))
        reply = keep_out(asked.dialect, asked.original, wanted)
    elif decision is Decision.TERMINATE:
        location = await _location(state, asked, "sign_out_url", answer)
        location = location or await _location(state, asked, "sign_in_url", answer)
        reply = keep_out(
            asked.dialect, asked.original, Wanted(location=location, challenge=SIGN_IN)
        )
        if cookie is not None and asked.setting.clears_cookie:
            is_https = asked.original.origin.startswith("https:")
            expired = expired_cookie(cookie, asked.setting, is_https=is_https)
            reply.headers.append(("set-cookie", expired))
    else:
        reply = Reply(status=FORBIDDEN)
    reply.headers.extend(verdict_headers(answer))
    return reply


async def _without_session(state: State, asked: Asked) -> Reply:
    """Return what happens to requests of nobody the hub knows (FWA-34)."""
    if asked.setting.unknown_session is UnknownSession.ALLOW:
        reply = Reply(status=OK)
    else:
        location = await _location(state, asked, "sign_in_url", None)
        wanted = Wanted(location=location, challenge=SIGN_IN)
        reply = keep_out(asked.dialect, asked.original, wanted)
    reply.headers.append(("x-signalhub-decision", NO_SESSION))
    return reply


async def _location(state: State, asked: Asked, name: str, answer: Answer | None) -> str | None:
    """Return one of the registered URLs with what it needs to know; None where there is none.

    It is the app's own, else that of the identity provider whose session it is; without a session
    that of the only provider that has one.
    """
    url: str | None = getattr(asked.setting, name)
    parameter = asked.setting.return_parameter
    if url is None:
        settings = await _provider_settings(state, asked.caller.tenant_id, answer)
        found = [each for each in settings if getattr(each, name) is not None]
        if len(found) != 1:
            return None
        url, parameter = getattr(found[0], name), found[0].return_parameter
    parameters: dict[str, str | None] = {}
    if name == "step_up_url" and answer is not None:
        parameters = {
            "acr_values": acr_values(answer),
            "max_age": str(max_age(answer)),
            "step_up": answer.step_up_id or None,
        }
    back = return_address(asked.original, asked.setting)
    return with_parameters(url or "", {**parameters, parameter: back})


async def _provider_settings(
    state: State, tenant_id: str, answer: Answer | None
) -> list[ForwardAuthSetting]:
    known = await state.apps.get(tenant_id)
    return [
        app.forward_auth
        for app in known.values()
        if app.kind is AppKind.IDP
        and app.forward_auth is not None
        and (answer is None or app.issuer == answer.iss)
    ]


def _fall_back(asked: Asked, answer: Answer | None = None) -> Reply:
    """Return what the app's rule says when the hub cannot decide (FWA-35).

    answer: what the policies fall back to; where that is ALLOW, it is one.
    """
    fallback = asked.setting.fallback
    is_allowed = answer is not None and answer.verdict.decision is Decision.ALLOW
    status = OK if is_allowed or fallback is Fallback.ALLOW else FORBIDDEN
    if status != OK and fallback is Fallback.ERROR and asked.dialect is Dialect.ENVOY:
        status = UNAVAILABLE
    return Reply(status=status, headers=[("x-signalhub-decision", FALLBACK)])


def _response(reply: Reply, *, wants_page: bool = False) -> Response:
    has_page = wants_page and reply.status == FORBIDDEN
    response = Response(
        PAGE if has_page else b"",
        status_code=reply.status,
        media_type="text/html" if has_page else None,
        headers={"cache-control": "no-store"},
    )
    for name, value in reply.headers:
        response.headers.append(name, value)
    return response


ROUTES: Final = (Route(PATH, ForwardAuth()), Route(f"{PATH}/{{tail:path}}", ForwardAuth()))
