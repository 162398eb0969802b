"""The front door of sign-ins, and the list of those that were judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.decisions import count_decision, denials, evaluator, judge_user, render_verdict
from hub.doors.apps import Apps, app_asked_for, is_idp, vouches
from hub.node import Node
from hub.sign_ins.evaluator import SignIns, known_users
from hub.sign_ins.model import Asked, Judged
from risk.deps import RiskDeps
from risk.entities import service as entities
from risk.entities.model import Reference, parse_identifiers, parse_reference
from risk.model import EntityKind, Level
from risk.networks.model import IPRecord
from risk.routes import json_object, session_issuer
from risk.signins import store
from risk.signins.model import SignInRecord, parse_question
from risk.verdict import Verdict, strongest
from runtime.caller import Caller
from runtime.errors import Invalid
from runtime.paging import page_limit
from ssf.subject import render_subject

READ_SCOPES: Final = ("risk.read", "risk.write")
PAGE_DEFAULT: Final = 50
CURSOR_CHARS_MAX: Final = 64


async def evaluate_sign_in(request: Request) -> Response:
    """Decide about a sign-in or the enrolment of a factor; unknown members are ignored.

    `{user, ip? | ip_chain?, user_agent?, ja4?, device?, app?, action?, phase?, outcome?, amr?,
    acr?, iss?, sid?}`. Without any word of where or with what, only who it is decides. A client
    of an app of kind `rp` asks about that app.
    """
    caller = evaluator(request)
    body = await json_object(request)
    references = _references(body.get("user"))
    question = parse_question(body)
    apps: Apps = request.app.state.apps
    question = replace(question, app=await app_asked_for(apps, caller, question.app))
    deps: RiskDeps = request.app.state.risk
    iss = await session_issuer(caller, deps, body.get("iss")) if question.sid else None
    node: Node = request.app.state.node
    async with node.database.snapshot() as connection:
        found = await entities.resolve_all(
            connection, caller.tenant_id, references, kind=EntityKind.USER
        )
    user_ids = known_users(found.values())
    verdicts = [
        judge_user(references, user_ids),
        *await denials(request.app.state, caller.tenant_id, user_ids),
    ]
    asked = Asked(
        tenant_id=caller.tenant_id,
        client_id=caller.client_id,
        question=question,
        reference=_name_of(references, user_ids),
        user_ids=user_ids,
        iss=iss,
        of_idp=await is_idp(apps, caller),
        vouched=await vouches(apps, caller),
    )
    sign_ins: SignIns = request.app.state.sign_ins
    if not question.says_where:
        return _answer(caller, strongest(verdicts), {})
    judged = await sign_ins.judge(asked)
    verdict = strongest([*verdicts, judged.verdict])
    shown = _shown(judged)
    await sign_ins.conclude(asked, judged, verdict, _kept(asked, judged, verdict, shown))
    return _answer(caller, verdict, {**shown, "trace_id": verdict.trace_id or judged.trace_id})


def _references(user: object) -> list[Reference]:
    """Return how a body names its user. Raises Invalid."""
    if isinstance(user, str):
        return [parse_reference(user)]
    return [Reference(subject=subject) for subject in parse_identifiers([user], "/user")]


def _name_of(references: list[Reference], user_ids: frozenset[str]) -> str:
    """Return one stable name for the user, also of one nobody knows."""
    if user_ids:
        return min(user_ids)
    first = references[0]
    if first.subject is not None:
        return msgspec.json.encode(render_subject(first.subject), order="sorted").decode()
    return first.entity_id or first.external_id or ""


def _answer(caller: Caller, verdict: Verdict, shown: dict[str, Any]) -> Response:
    count_decision(caller, "sign_in", verdict)
    return render_verdict(verdict, shown)


def _shown(judged: Judged) -> dict[str, Any]:
    """Return what an answer shows of the risk and what policy asks for."""
    score, verdict = judged.score, judged.verdict
    shown: dict[str, Any] = {
        "mode": verdict.mode.value,
        "login_risk": {
            "level": score.level.name,
            "reasons": score.reasons,
            "score": score.value,
            "contributions": [
                {"name": each.name, "points": each.points, "reason": each.reason}
                for each in score.contributions
            ],
            "scorer": score.scorer,
            "learning": judged.view.is_learning,
        },
        "behaviours": dict(judged.view.behaviours),
        "decision_path": judged.path,
    }
    if judged.would_have is not None:
        shown["would_have"] = {
            "decision": judged.would_have.decision.name,
            "level": judged.would_have.level.name,
            "reasons": judged.would_have.reasons,
        }
    asks = {"acr": verdict.acr, "amr_any_of": verdict.amr_any_of, "max_age": verdict.max_age}
    return shown | {name: value for name, value in asks.items() if value not in (None, ())}


def _kept(asked: Asked, judged: Judged, verdict: Verdict, shown: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a sign-in besides its columns: no token, no user agent in full."""
    question = asked.question
    return {
        **shown,
        "reasons": verdict.reasons,
        "app": question.app,
        "amr": question.amr,
        "acr": question.acr,
        "iss": asked.iss if question.sid else None,
        "sid": question.sid,
        **_network(judged.origin.record),
        "zones": sorted(judged.origin.zones),
    }


def _network(record: IPRecord) -> dict[str, Any]:
    """Return what feeds say of the address, or that none of them covers it."""
    return {
        "network_known": record.known,
        "asn": record.asn,
        "country": record.country,
        "region": record.region,
        "city": record.city,
        "categories": sorted(record.categories),
    }


async def list_sign_ins(request: Request) -> Response:
    """Return sign-ins that were judged, newest first; `?user=&level=&cursor=&limit=`."""
    caller: Caller = request.state.caller
    caller.require(*READ_SCOPES)
    query = request.query_params
    cursor, level = query.get("cursor", ""), query.get("level")
    if len(cursor) > CURSOR_CHARS_MAX or not cursor.isprintable():
        raise Invalid("The cursor is not one of ours.", pointers=(("cursor", "unreadable"),))
    if level is not None and level not in Level.__members__:
        raise Invalid("Unknown level.", pointers=(("level", "LOW, MEDIUM or HIGH"),))
    limit = page_limit(query.get("limit", str(PAGE_DEFAULT)), most=store.PAGE_MAX)
    node: Node = request.app.state.node
    async with node.database.snapshot() as connection:
        user_id = None
        if (user := query.get("user")) is not None:
            user_id = await entities.resolve(connection, caller.tenant_id, user)
        found = await store.list_sign_ins(
            connection,
            caller.tenant_id,
            user_id=user_id,
            level=level,
            before=cursor,
            limit=limit,
        )
    page: dict[str, Any] = {"items": [_rendered(each) for each in found]}
    if len(found) == limit:
        page["next_cursor"] = found[-1].sign_in_id
    return Response(
        msgspec.json.encode(page),
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


def _rendered(record: SignInRecord) -> dict[str, Any]:
    return {
        **record.facts,
        "id": record.sign_in_id,
        "trace_id": record.sign_in_id,
        "user_id": record.user_id or None,
        "client_id": record.client_id,
        "at": record.at,
        "action": record.action,
        "phase": record.phase,
        "outcome": record.outcome or None,
        "decision": record.decision,
        "ip": record.ip,
    }


ROUTES: Final = (
    Route("/v1/sign-ins/evaluate", evaluate_sign_in, methods=["POST"]),
    Route("/v1/sign-ins", list_sign_ins, methods=["GET"]),
)
