"""What is answered when the facts of a session cannot be had: never an error, never a guess.

time is up, database gone ─▶ Fallback ─▶ the policies' stated fallback, for a session that is held
                                     └─▶ DENY, undecided, for any other

Whether a session exists, whether its user is contained, and whether it ended where it is asked
about, is not a matter of policy.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import asyncpg
import sqlalchemy.exc
import structlog
from prometheus_client import Counter

from hub.denied import DeniedUsers
from hub.inline.case import base_verdict, context_of, plain_answer
from hub.inline.model import Answer, SessionQuestion, app_of
from hub.inline.place import Placing
from risk.contexts.parsing import bounded_chain
from risk.inline.keys import NO_CONTEXT, app_key
from risk.inline.live import Live
from risk.inline.memory import LiveSessions
from risk.inline.model import with_stand
from risk.model import Level
from risk.policies.compiled import CompiledPolicies
from risk.policies.facts import RequestFacts, RequestKind
from risk.verdict import Decision, Scope, Verdict
from runtime.caller import Caller
from runtime.clock import Clock
from runtime.feed import ConfigCache

UNDECIDED: Final = "undecided"
_UNDECIDED: Final = Verdict(decision=Decision.DENY, scope=Scope.SESSION, reasons=(UNDECIDED,))
#: how a database that is slow, restarting, broken or gone shows itself
DATABASE_TROUBLE: Final = (
    sqlalchemy.exc.SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
)

log = structlog.get_logger()
_fallbacks_total = Counter(
    "hub_inline_fallbacks_total", "Decisions that the fallback took, by reason.", ["reason"]
)


class Reason(StrEnum):
    """Why the facts were not there."""

    #: EVALUATE_DEADLINE_MS was over, with everything in memory
    DEADLINE = "deadline"
    #: the longer limit was over, with something to be read
    COLD = "cold"
    #: who writes cannot be asked
    UNAVAILABLE = "unavailable"
    #: the database answered with an error
    DATABASE = "database"


class Fallback:
    """Decides without facts, from what this process last knew. No I/O."""

    def __init__(
        self,
        live: LiveSessions,
        denied_users: DeniedUsers,
        policies: ConfigCache[CompiledPolicies],
        placing: Placing,
        clock: Clock,
    ) -> None:
        self._live = live
        self._denied = denied_users
        self._policies = policies
        self._placing = placing
        self._clock = clock

    def answer(self, caller: Caller, question: SessionQuestion, reason: Reason) -> Answer:
        """Return the answer to a question that nobody can decide; counted.

        Raises Invalid for a chain that is no chain.
        """
        _fallbacks_total.labels(reason.value).inc()
        log.warning("decision.fell_back", tenant_id=question.tenant_id, reason=reason.value)
        tenant_id = question.tenant_id
        live = self._live.last_known(tenant_id, question.iss, question.sid, question.cookie_sha256)
        policies = self._policies.peek(tenant_id)
        if live is None or policies is None:
            return Answer(verdict=_UNDECIDED)
        denied = self._denied.last_known(tenant_id, live.session.user_id)
        known = base_verdict(question, live.session, self._clock.now(), denied)
        if known.decision is not Decision.ALLOW:
            return plain_answer(known, live)
        app_id = app_of(caller, question, live.session)
        facts = RequestFacts(kind=RequestKind.SESSION, level=Level.LOW, app_id=app_id)
        stated = policies.default_verdict(facts, (app_id,) if app_id else ())
        return plain_answer(self._unless_ended(caller, question, live, stated, facts), live)

    def _unless_ended(
        self,
        caller: Caller,
        question: SessionQuestion,
        live: Live,
        stated: Verdict,
        facts: RequestFacts,
    ) -> Verdict:
        """Return what is stated, or that the session ended where the question comes from.

        Where that is cannot be told before zones were read: then nobody goes on in a session that
        ended anywhere.
        """
        place = self._placing.last_known(question.tenant_id, bounded_chain(question.chain))
        if place is None:
            is_over = any(met.stand.is_final for met in live.met.values())
            return _UNDECIDED if is_over else stated
        here = context_of(caller, question, place, self._clock.now(), live)
        key = NO_CONTEXT if here is None else here.key()
        for each in (key, app_key(key, facts.app_id or "")):
            stand = live.stand_at(each)
            if stand is not None and stand.is_final:
                stated = with_stand(stated, stand, facts)
        return stated
