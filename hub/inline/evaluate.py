"""May this session go on? The one function behind every front door."""

from __future__ import annotations

from starlette.datastructures import State

from hub.decisions import count_decision
from hub.inline.case import Asked
from hub.inline.evaluator import Evaluator
from hub.inline.model import Answer, SessionQuestion
from runtime.caller import Caller


async def evaluate(state: State, caller: Caller, question: SessionQuestion) -> Answer:
    """Return the decision about a session.

    state: of the application (`inline`). Raises Invalid for a chain of addresses that is too long,
    and database errors: whoever asks takes them for a no.
    """
    evaluator: Evaluator = state.inline
    answer = await evaluator.evaluate(caller, question)
    count_decision(caller, "session", answer.verdict, trace_id=answer.trace_id)
    return answer


def held_answer(
    state: State, caller: Caller, question: SessionQuestion, asked: Asked
) -> Answer | None:
    """Return the decision that is held, None when it has to be made. asked: of the question."""
    evaluator: Evaluator = state.inline
    answer = evaluator.held(question, asked)
    if answer is not None:
        count_decision(caller, "session", answer.verdict, trace_id=answer.trace_id)
    return answer
