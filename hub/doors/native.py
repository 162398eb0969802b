"""The hub's own way to ask about a session: `POST /v1/sessions/{sid}/evaluate`.

Source: threat-protection §2.3, contracts §7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.decisions import EVALUATE_SCOPE, count_unknown, verdict_body, verdict_response
from hub.doors.apps import APP_UNKNOWN, app_asked_for, is_unknown_app
from hub.doors.heard import Heard
from hub.inline.case import asked_of
from hub.inline.evaluate import evaluate, held_answer
from hub.inline.model import (
    CHAIN_HOPS_MAX,
    SIGNALS_MAX,
    TEXT_CHARACTERS_MAX,
    Answer,
    SessionQuestion,
)
from risk.routes import parse_json, session_issuer
from risk.sessions.model import check_key, parse_moment
from runtime.caller import Caller
from runtime.errors import Invalid
from runtime.sharing import shared, shared_text

#: a signed proof with a sealed challenge in it
PROOF_CHARACTERS_MAX: Final = 8_192


async def evaluate_session(request: Request) -> Response:
    """Decide about a session: `{iss?}`, or no body; unknown members are ignored.

    Body: `{iss?, ip? or ip_chain?, ua?, ja4?, accept_lang?, device? {id?, token_hash?, signals?},
    app_id?, method?, path_class?, dbsc? {proof?}, ts?}`. The issuer is that of the caller's app; a
    caller without an app names it in `iss`. A client of an app of kind `rp` asks about that app.
    """
    caller = may_ask(request.state.caller)
    sid: str = request.path_params["sid"]
    body = await decide(request.app.state, caller, sid, await request.body())
    return verdict_response(body)


def may_ask(caller: Caller) -> Caller:
    """Return the caller. Raises Unauthorized or Forbidden without the scope."""
    caller.require(EVALUATE_SCOPE)
    return caller


async def decide(state: State, caller: Caller, sid: str, raw: bytes) -> bytes:
    """Return the answer to a question as JSON; raw: its body. Raises Refused."""
    heard: Heard = state.heard
    name = heard.name(caller, sid, raw)
    known = heard.find(name)
    answer = None if known is None else held_answer(state, caller, *known)
    if answer is None:
        question = await _read(state, caller, sid, raw)
        answer = await evaluate(state, caller, question)
        if state.apps.current(caller.tenant_id) is not None:
            heard.keep(name, question, asked_of(caller, question))
        app_unknown = question.app_unknown
    else:
        app_unknown = known is not None and known[0].app_unknown
    if app_unknown:
        count_unknown("app")
        reasons = (*answer.verdict.reasons, APP_UNKNOWN)
        return render_answer(replace(answer, verdict=replace(answer.verdict, reasons=reasons)))
    # An answer that is held is rendered once.
    if not answer.rendered:
        answer.rendered.append(shared(render_answer(answer)))
    return answer.rendered[0]


async def _read(state: State, caller: Caller, sid: str, raw: bytes) -> SessionQuestion:
    """Return the question of a body. Raises Refused."""
    body = parse_json(raw) if raw else {}
    iss = await session_issuer(caller, state.risk, body.get("iss"))
    check_key(iss, sid)
    device, dbsc = _object(body, "device"), _object(body, "dbsc")
    app_id = await app_asked_for(state.apps, caller, _text(body, "app_id") or None)
    return SessionQuestion(
        tenant_id=caller.tenant_id,
        at=parse_moment(body.get("ts"), "/ts") or state.node.clock.now(),
        iss=iss,
        sid=sid,
        chain=_chain(body),
        user_agent=shared_text(_text(body, "ua")),
        ja4=_text(body, "ja4"),
        accept_language=_text(body, "accept_lang"),
        device_id=_text(device, "id", "/device"),
        device_token_hash=_text(device, "token_hash", "/device"),
        signals=_signals(device.get("signals")),
        app=app_id,
        app_unknown=await is_unknown_app(state.apps, caller.tenant_id, app_id),
        method=_text(body, "method"),
        path=_text(body, "path_class"),
        dbsc_proof=_text(dbsc, "proof", "/dbsc", PROOF_CHARACTERS_MAX),
    )


def render_answer(answer: Answer) -> bytes:
    """Return a decision about a session as JSON. Raises nothing."""
    shown: dict[str, object] = {"cache_ttl_ms": answer.cache_ttl_ms}
    if answer.risk is not None:
        shown["risk"] = {
            "level": answer.risk.level.name,
            "score": answer.risk.score,
            "reasons": answer.risk.reasons,
        }
    if answer.changed:
        shown["changed"] = {
            "causes": answer.causes,
            "classes": answer.changed,
            "old": answer.old,
            "new": answer.new,
        }
    asked = {
        "acr": answer.acr,
        "amr_any_of": answer.verdict.amr_any_of or None,
        "max_age": answer.max_age,
        "trace_id": answer.trace_id or None,
    }
    shown |= {name: value for name, value in asked.items() if value is not None}
    if answer.step_up_id:
        shown["step_up"] = {"id": answer.step_up_id, "new": answer.is_first_asked}
    if answer.challenge:
        shown["dbsc"] = {"challenge": answer.challenge}
    return verdict_body(answer.verdict, shown)


def _chain(body: Mapping[str, object]) -> tuple[str, ...]:
    chain = body.get("ip_chain", [body["ip"]] if body.get("ip") is not None else None)
    if chain is None:
        return ()
    if not isinstance(chain, list) or len(chain) > CHAIN_HOPS_MAX:
        raise _invalid("/ip_chain", f"an array of at most {CHAIN_HOPS_MAX} addresses")
    for index, hop in enumerate(chain):
        if not isinstance(hop, str) or len(hop) > TEXT_CHARACTERS_MAX:
            raise _invalid(f"/ip_chain/{index}", "an address")
    return tuple(chain)


def _object(body: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(f"/{name}", "an object")
    return value


def _text(
    body: Mapping[str, object],
    name: str,
    inside: str = "",
    characters_max: int = TEXT_CHARACTERS_MAX,
) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > characters_max:
        raise _invalid(f"{inside}/{name}", f"a string of at most {characters_max} characters")
    return value


def _signals(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > SIGNALS_MAX:
        raise _invalid("/device/signals", f"an object of at most {SIGNALS_MAX} members")
    return {name: _signal(name, each) for name, each in value.items()}


def _signal(name: str, value: object) -> str:
    """Return a signal as text: posture comes as flags and numbers as well."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str | int | float) or len(text) + len(name) > TEXT_CHARACTERS_MAX:
        raise _invalid("/device/signals", "strings, numbers or booleans")
    return text


def _invalid(at: str, rule: str) -> Invalid:
    return Invalid(f"Not valid: {at}: {rule}.", pointers=((at, rule),))


#: Session ids may hold slashes.
ROUTES: Final = (Route("/v1/sessions/{sid:path}/evaluate", evaluate_session, methods=["POST"]),)
