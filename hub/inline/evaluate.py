"""May this session go on? The one function behind every front door."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import State

from hub.decisions import count_decision, denials, judge_session
from hub.inline.model import Answer, SessionQuestion
from hub.node import Node
from risk.sessions import service as sessions
from risk.sessions.model import Session
from risk.verdict import Decision, Scope, Verdict, strongest
from runtime.caller import Caller

USER_MISMATCH: Final = "session_user_mismatch"


async def evaluate(state: State, caller: Caller, question: SessionQuestion) -> Answer:
    """Return the decision about a session.

    state: of the application (`node`, `denied_users`, `risk`). Raises database errors: whoever asks
    takes them for a no, or for what the policy falls back to.
    """
    node: Node = state.node
    session = await _find(node, question)
    user_ids = {session.user_id} if session else set()
    verdict = strongest(
        [
            judge_session(session, node.clock.now()),
            *_judge_owner(session, question),
            *await denials(state, question.tenant_id, user_ids),
        ]
    )
    count_decision(caller, "session", verdict)
    if session is None:
        return Answer(verdict=verdict, trace_id=verdict.trace_id)
    return Answer(
        verdict=verdict,
        user_id=session.user_id,
        session_id=session.session_id,
        iss=session.iss,
        sid=session.sid,
        trace_id=verdict.trace_id,
    )


def _judge_owner(session: Session | None, question: SessionQuestion) -> list[Verdict]:
    if session is None or question.user_id in (None, session.user_id):
        return []
    return [Verdict(decision=Decision.DENY, scope=Scope.SESSION, reasons=(USER_MISMATCH,))]


async def _find(node: Node, question: SessionQuestion) -> Session | None:
    async with node.database.snapshot() as connection:
        return await sessions.find_session(
            connection,
            question.tenant_id,
            iss=question.iss,
            sid=question.sid,
            cookie_sha256=question.cookie_sha256,
        )
