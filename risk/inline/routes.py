"""HTTP of step-ups: how the one that was asked for ended. Scope: `sessions.write`."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from risk.deps import RiskDeps
from risk.inline.step_ups import STEP_UP_REFUSALS, parse_step_up
from risk.routes import json_object, session_issuer
from runtime.caller import Caller

SCOPE: Final = "sessions.write"
NO_CONTENT: Final = 204


async def settle_step_up(request: Request) -> Response:
    """Hear how a step-up ended: 204 after the commit, also for repeats.

    `{iss?, outcome: passed | refused, auth_time?, acr?, amr?}`. Passed: the context joins those the
    session is accepted in. Refused: the session ends. The issuer is that of the caller's app.
    """
    caller: Caller = request.state.caller
    caller.require(SCOPE)
    deps: RiskDeps = request.app.state.risk
    body = await json_object(request)
    word = parse_step_up(
        body,
        tenant_id=caller.tenant_id,
        iss=await session_issuer(caller, deps, body.get("iss")),
        sid=request.path_params["sid"],
        step_up_id=request.path_params["step_up_id"],
        now=deps.clock.now(),
    )
    refusal = await deps.writer.submit(deps.settle_step_up, word)
    if refusal:
        raise STEP_UP_REFUSALS[refusal]
    # The user is sent back at once, and must not be asked again.
    await deps.catch_up()
    return Response(status_code=NO_CONTENT, headers={"cache-control": "no-store"})


#: Session ids may hold slashes.
ROUTES: Final = (
    Route("/v1/sessions/{sid:path}/step-ups/{step_up_id}", settle_step_up, methods=["POST"]),
)
