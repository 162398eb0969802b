"""HTTP of the AuthZEN Authorization API 1.0: the hub as a policy decision point.

A denial is an answer (200, `decision: false`); 4xx speaks of the request alone (AZ-6). Errors are
raised and become plain text in `hub.errors`. Source: standards §17.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.decisions import evaluator
from hub.doors.authzen_model import (
    EVALUATION_BYTES_MAX,
    EVALUATIONS_BYTES_MAX,
    JSON_DEPTH_MAX,
    Batch,
    Evaluation,
    parse_evaluation,
    parse_evaluations,
)
from hub.doors.authzen_questions import Judged, judge
from hub.errors import request_id_of
from risk.verdict import Decision
from runtime.caller import Caller
from runtime.errors import Forbidden, Invalid
from ssf.errors import RemoteProtocolError
from ssf.strict_json import parse_object

EVALUATION_PATH: Final = "/access/v1/evaluation"
EVALUATIONS_PATH: Final = "/access/v1/evaluations"
METADATA_PATH: Final = "/.well-known/authzen-configuration"
JSON: Final = "application/json"
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
TOO_LARGE: Final = 413


async def evaluate_one(request: Request) -> Response:
    """Answer one question."""
    caller, request_id = _entered(request)
    asked = parse_evaluation(await _body(request, EVALUATION_BYTES_MAX))
    return await _answer_single(request, caller, asked, request_id)


async def evaluate_many(request: Request) -> Response:
    """Answer several questions in their order, by one clock."""
    caller, request_id = _entered(request)
    asked = parse_evaluations(await _body(request, EVALUATIONS_BYTES_MAX))
    if isinstance(asked, Evaluation):
        return await _answer_single(request, caller, asked, request_id)
    state = request.app.state
    answers = await _judge_batch(state, caller, asked, state.node.clock.now())
    return _json({"evaluations": answers}, {"x-request-id": request_id})


async def metadata(request: Request) -> Response:
    """Say what this decision point offers; public. Requirements AZM-1 to AZM-6."""
    issuer: str = request.app.state.issuer(request.scope["tenant"])
    offered = {
        "policy_decision_point": issuer,
        "access_evaluation_endpoint": issuer + EVALUATION_PATH,
        "access_evaluations_endpoint": issuer + EVALUATIONS_PATH,
    }
    return Response(
        msgspec.json.encode(offered),
        media_type=JSON,
        headers={"cache-control": "public, max-age=300"},
    )


def _entered(request: Request) -> tuple[Caller, str]:
    """Return who asks, and the id the answer repeats. Raises Invalid, Unauthorized, Forbidden."""
    request_id = request_id_of(request.scope)
    if request_id is None:
        raise Invalid("X-Request-ID is up to 200 visible ASCII characters.")
    return evaluator(request), request_id


async def _body(request: Request, bytes_max: int) -> dict[str, Any]:
    """Return the body as strictly as I-JSON is meant (AZ-10). Raises Invalid."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON:
        raise Invalid("The Content-Type is not application/json.")
    raw = await request.body()
    if len(raw) > bytes_max:
        raise HTTPException(TOO_LARGE)
    try:
        return parse_object(raw, bytes_max=bytes_max, error=_unacceptable, depth_max=JSON_DEPTH_MAX)
    except RemoteProtocolError as error:
        raise Invalid(f"The body is not acceptable: {error.description}.") from error


def _unacceptable(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid_request", description, requirement="AZ-10")


async def _answer_single(
    request: Request, caller: Caller, asked: Evaluation, request_id: str
) -> Response:
    state = request.app.state
    judged = await judge(state, caller, asked, state.node.clock.now())
    headers = {"x-request-id": request_id}
    if trace_id := judged.answer.trace_id:
        headers["x-signalhub-trace-id"] = trace_id
    return _json(_render(judged, is_single=True), headers)


async def _judge_batch(
    state: State, caller: Caller, asked: Batch, now: datetime
) -> list[dict[str, Any]]:
    """Return one answer per item, cut where the semantic ends it (AZB-6)."""
    answers: list[dict[str, Any]] = []
    for item in asked.items:
        if isinstance(item, str):
            answers.append(_error(BAD_REQUEST, item))
        else:
            try:
                judged = await judge(state, caller, item, now)
                answers.append(_render(judged, is_single=False))
            except Forbidden as error:
                answers.append(_error(FORBIDDEN, error.detail))
        if asked.semantic.ends_at(decision=answers[-1]["decision"]):
            break
    return answers


def _error(status: int, message: str) -> dict[str, Any]:
    return {"decision": False, "context": {"error": {"status": status, "message": message}}}


def _render(judged: Judged, *, is_single: bool) -> dict[str, Any]:
    """Render a verdict. Whoever asks the same twice gets the same bytes in a batch (AZH-9)."""
    answer, verdict = judged.answer, judged.answer.verdict
    context: dict[str, Any] = {
        "decision": verdict.decision.name,
        "scope": verdict.scope.name.lower(),
        "reasons": verdict.reasons,
        "mode": verdict.mode.value,
        "cache_ttl_ms": answer.cache_ttl_ms,
    }
    if verdict.would_have not in (None, verdict.decision):
        context["would_have"] = verdict.would_have.name
    if verdict.decision is Decision.STEP_UP:
        # A space-separated string, as in the specification's own example and in RFC 9470.
        if acr := answer.acr or verdict.acr:
            context["acr_values"] = acr
        max_age = answer.max_age if answer.max_age is not None else verdict.max_age
        context["max_age"] = 0 if max_age is None else max_age
    if is_single and judged.of_session and answer.trace_id:
        context["trace_id"] = answer.trace_id
    # INVARIANT: true for ALLOW alone; whatever else there may be one day is a no (AZH-5).
    return {"decision": verdict.decision is Decision.ALLOW, "context": context}


def _json(body: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(
        msgspec.json.encode(body),
        media_type=JSON,
        headers={"cache-control": "no-store", **headers},
    )


ROUTES: Final = (
    Route(EVALUATION_PATH, evaluate_one, methods=["POST"]),
    Route(EVALUATIONS_PATH, evaluate_many, methods=["POST"]),
    Route(METADATA_PATH, metadata, methods=["GET"]),
)
