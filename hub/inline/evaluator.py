"""The evaluator behind every front door: memory first, SQL when cold, one write when it matters.

    held answer? ─▶ session, stands ─▶ place ─▶ levels ─▶ judge ─▶ ALLOW: written behind the answer
                                                              └─▶ else: one stand, before the answer

Unchanged context: an answer that was given before stands while levels, policies and the session
are what they were. Past the deadline, or without the facts, the stated fallback decides and is
counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from hub.decisions import judge_session
from hub.denied import DeniedUsers
from hub.inline.behind import Behind
from hub.inline.bound import new_challenge, read_proof
from hub.inline.case import (
    Asked,
    Case,
    Held,
    answer_of,
    asked_of,
    context_of,
    features_of,
    nowhere,
    occurrence_of,
    plain_answer,
    recorded_of,
    stand_of,
    trail_of,
)
from hub.inline.finding import finding_of
from hub.inline.model import Answer, SessionQuestion
from hub.inline.place import Placing
from hub.node import Node
from risk.baselines.memory import Recorder
from risk.behaviours.history import History
from risk.contexts.parsing import believed_at, bounded_chain
from risk.inline.memory import Live, LiveSessions, is_proven
from risk.inline.model import (
    STATE_OF,
    STEP_UP_LIFE,
    Situation,
    StandState,
    judge,
    spot_of,
)
from risk.inline.proofs import Proof
from risk.inline.service import PROVE, SETTLE
from risk.levels.memory import Levels
from risk.model import Level
from risk.policies.compiled import CompiledPolicies
from risk.policies.facts import RequestFacts, RequestKind
from risk.scoring.service import scorer_named
from risk.verdict import Decision, Scope, Verdict, strongest
from risk.zones.origin import Origin
from runtime.caller import Caller
from runtime.errors import Unavailable
from runtime.feed import ConfigCache
from runtime.ids import new_id

#: for the write before an answer that is no ALLOW
WRITE_LIMIT_S: Final = 2.0
#: the key of a question that says nothing about its context
NO_CONTEXT: Final = "none"
USER_MISMATCH: Final = "session_user_mismatch"
UNDECIDED: Final = "undecided"
_FALLBACK: Final = Verdict(decision=Decision.DENY, scope=Scope.SESSION, reasons=(UNDECIDED,))

log = structlog.get_logger()
_fallbacks_total = Counter(
    "hub_inline_fallbacks_total", "Decisions that the fallback took, by reason.", ["reason"]
)
_unrecorded_total = Counter(
    "hub_inline_unrecorded_total", "Answers other than ALLOW that could not be written first."
)
_seconds = Histogram(
    "hub_inline_evaluate_seconds",
    "Duration of one decision about a live session, by whether its answer was held.",
    ["held"],
    buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1),
)
_HELD_SECONDS: Final = _seconds.labels("yes")
_JUDGED_SECONDS: Final = _seconds.labels("no")


class Evaluator:
    """Decides about live sessions, for one process."""

    def __init__(
        self,
        node: Node,
        *,
        denied_users: DeniedUsers,
        policies: ConfigCache[CompiledPolicies],
        placing: Placing,
        history: History,
        recorder: Recorder,
    ) -> None:
        """history: of users. recorder: of what turned out to be good of them."""
        self._node = node
        self._denied = denied_users
        self._policies = policies
        self._placing = placing
        self._history = history
        self._recorder = recorder
        self._scorer = scorer_named(node.config.scorer)
        self._deadline_s = node.config.evaluate_deadline_ms / 1000
        self.live = LiveSessions(node.database, node.changes)
        self.levels = Levels(node.database, node.changes)
        self.behind = Behind(node.writer, self.live.written)

    async def evaluate(self, caller: Caller, question: SessionQuestion) -> Answer:
        """Return the decision about a session. Raises Invalid for a chain that is no chain."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        asked = asked_of(caller, question)
        answer = await self._held(question, asked)
        is_held = answer is not None
        if answer is None:
            answer = await self._decide_in_time(caller, question, asked)
        (_HELD_SECONDS if is_held else _JUDGED_SECONDS).observe(loop.time() - started)
        return answer

    # --- answers that are held ------------------------------------------------------------------

    async def _held(self, question: SessionQuestion, asked: Asked) -> Answer | None:
        live = self.live.peek(
            question.tenant_id, question.iss, question.sid, question.cookie_sha256
        )
        held: Held | None = None if live is None else live.answers.get(asked)
        if live is None or held is None or held.stamp != self._stamp(live):
            return None
        now = self._node.clock.now()
        session = live.session
        is_over = held.until is not None and now > held.until
        if is_over or not session.is_live(now) or question.user_id not in (None, session.user_id):
            return None
        if await self._denied.among(session.tenant_id, (session.user_id,)):
            return None
        if session.binding is not None and (question.dbsc_proof or not held.is_proven(live, now)):
            return None
        if held.spot is not None and live.asked_last != asked.context:
            live.asked_last = asked.context
            if trail_of(live).step(held.spot, now):
                return None
        return held.answer

    def _stamp(self, live: Live) -> Hashable:
        """Return what has to stay the same for an answer to stay the same; None is never equal."""
        session = live.session
        user_level = self.levels.peek(session.tenant_id, session.user_id)
        device_level = (
            self.levels.peek(session.tenant_id, session.device_id)
            if session.device_id
            else Level.LOW
        )
        if user_level is None or device_level is None:
            return object()
        version = self._node.feed.version(session.tenant_id, "policies")
        return (
            version,
            self._placing.version(session.tenant_id),
            user_level,
            device_level,
            live.trail.level if live.trail else Level.LOW,
        )

    # --- deciding -------------------------------------------------------------------------------

    async def _decide_in_time(
        self, caller: Caller, question: SessionQuestion, asked: Asked
    ) -> Answer:
        try:
            async with asyncio.timeout(self._deadline_s):
                case = await self._open(caller, question, asked)
        except TimeoutError:
            return await self._fall_back(question, "deadline")
        except Unavailable:
            return await self._fall_back(question, "unavailable")
        if isinstance(case, Answer):
            return case
        return await self._conclude(case)

    async def _fall_back(self, question: SessionQuestion, reason: str) -> Answer:
        """Let the policies' fallback decide about a session we know; nobody else goes on.

        Whether a session exists, and whether its user is contained, is not a matter of policy.
        """
        _fallbacks_total.labels(reason).inc()
        log.warning("decision.fell_back", tenant_id=question.tenant_id, reason=reason)
        live = self.live.peek(
            question.tenant_id, question.iss, question.sid, question.cookie_sha256
        )
        now = self._node.clock.now()
        if live is None or not live.session.is_live(now):
            return Answer(verdict=_FALLBACK)
        policies = await self._policies.get(question.tenant_id)
        facts = RequestFacts(kind=RequestKind.SESSION, level=Level.LOW, app_id=question.app)
        app_ids = (question.app,) if question.app else ()
        return plain_answer(policies.default_verdict(facts, app_ids), live)

    async def _open(self, caller: Caller, question: SessionQuestion, asked: Asked) -> Answer | Case:
        """Find the facts; an Answer when they decide by themselves."""
        now = self._node.clock.now()
        live = await self.live.find(
            question.tenant_id, question.iss, question.sid, question.cookie_sha256
        )
        if live is None or not live.session.is_live(now):
            session = live.session if live else None
            return plain_answer(judge_session(session, now), live)
        session = live.session
        base = [judge_session(session, now)]
        if question.user_id not in (None, session.user_id):
            base.append(
                Verdict(decision=Decision.DENY, scope=Scope.SESSION, reasons=(USER_MISMATCH,))
            )
        denied = await self._denied.among(session.tenant_id, (session.user_id,))
        base += [
            Verdict(
                decision=Decision.DENY, scope=Scope.USER, reasons=("quarantined",), trace_id=trace
            )
            for trace in denied.values()
        ]
        verdict = strongest(base)
        if verdict.decision is not Decision.ALLOW:
            return plain_answer(verdict, live)
        place = await self._placing.judge(question.tenant_id, bounded_chain(question.chain))
        return await self._case(caller, question, asked, live, place)

    async def _case(
        self,
        caller: Caller,
        question: SessionQuestion,
        asked: Asked,
        live: Live,
        place: Origin,
    ) -> Case:
        session, now = live.session, self._node.clock.now()
        here = context_of(caller, question, place, believed_at(question.at, now))
        ids = {session.user_id, *([session.device_id] if session.device_id else [])}
        levels = await self.levels.of(session.tenant_id, ids)
        trail = trail_of(live)
        if here is not None:
            live.asked_last = asked.context
            trail.step(spot_of(here), now)
        key = here.key() if here is not None else NO_CONTEXT
        app_id = question.app or caller.app_id or session.app_id or ""
        if app_id:
            live.apps = live.apps | {app_id}
        seen = None if here is None else occurrence_of(here, live, app_id, place.record, now)
        view = (
            None
            if seen is None
            else await self._history.view(session.tenant_id, session.user_id, seen)
        )
        facts = RequestFacts(
            kind=RequestKind.SESSION,
            level=Level.LOW,
            behaviours=view.behaviours if view else {},
            user_level=levels[session.user_id],
            device_level=levels[session.device_id] if session.device_id else Level.LOW,
            zones=place.zones,
            app_id=app_id or None,
            record=place.record,
            posture=question.signals,
            amr=session.amr,
            acr=session.acr,
            auth_age_s=(
                None if session.auth_time is None else (now - session.auth_time).total_seconds()
            ),
            issuer=session.iss,
            exempt=place.is_exempt,
        )
        situation = Situation(
            now=now,
            facts=facts,
            other_apps=tuple(sorted(live.apps - {app_id})),
            here=here,
            accepted=live.accepted,
            stand=live.stands.get(key),
            fork=trail.level,
            binding=await self._binding(question, live, key, now),
            blocked_by=place.blocked_by,
            features=features_of(facts, place.record, view, now),
        )
        policies = await self._policies.get(session.tenant_id)
        return Case(
            live=live,
            asked=asked,
            key=key,
            seen=seen,
            situation=situation,
            judged=judge(situation, policies, self._scorer),
        )

    async def _binding(
        self, question: SessionQuestion, live: Live, key: str, now: datetime
    ) -> Level:
        """Return how bad it is what a key-bound session proves: LOW is well."""
        jwk = live.session.binding
        if jwk is None:
            return Level.LOW
        if question.dbsc_proof is None:
            return Level.LOW if is_proven(live, key, now) else Level.MEDIUM
        proof = read_proof(
            question.dbsc_proof, jwk, live.session.session_id, self._node.box, now=now
        )
        if proof is None:
            return Level.HIGH
        item = Proof(
            tenant_id=question.tenant_id,
            session_id=live.session.session_id,
            proof_id=proof,
            context_key=key,
            at=now,
        )
        if not await self._node.writer.submit(PROVE, item):
            # Somebody showed this very proof before: one of the two has copied it.
            return Level.HIGH
        live.proven[key] = now
        return Level.LOW

    # --- writing and answering ------------------------------------------------------------------

    async def _conclude(self, case: Case) -> Answer:
        verdict = case.judged.verdict
        answer = answer_of(case, new_id("chg") if case.is_told else verdict.trace_id)
        if case.live.session.binding is not None:
            challenge = new_challenge(case.live.session, self._node.box, case.situation.now)
            answer = replace(answer, challenge=challenge)
        if case.is_first:
            self.behind.note(recorded_of(case))
            if case.judged.level is Level.HIGH:
                self.behind.note(finding_of(case, answer.trace_id))
        if verdict.decision is Decision.ALLOW:
            if case.judged.accepts and case.situation.stand is None and case.situation.here:
                state = StandState.ANCHOR if case.judged.is_anchor else StandState.ACCEPTED
                stand = stand_of(case, state, answer.trace_id)
                case.live.stand(stand, case.situation.here)
                case.live.pending.add(stand.context_key)
                self.behind.note(stand)
                self._learn(case)
            elif case.is_newly_proven:
                self._learn(case)
            self._keep(case, answer)
            return answer
        return await self._settle(case, answer)

    def _learn(self, case: Case) -> None:
        """Let what is good of the user enter the baseline: let pass at LOW, or proven."""
        case.live.learned.add(case.key)
        if case.seen is not None:
            session = case.live.session
            self._recorder.note(session.tenant_id, session.user_id, case.seen)

    async def _settle(self, case: Case, answer: Answer) -> Answer:
        """Write what is no ALLOW before it is answered; a step-up is asked for once."""
        verdict = case.judged.verdict
        wanted = stand_of(case, STATE_OF[verdict.decision], answer.trace_id)
        known = case.situation.stand
        is_same = known is not None and known.state == wanted.state
        if known is not None and (
            known.is_final or (is_same and not known.is_given_up(case.situation.now))
        ):
            settled, is_new = known, False
        else:
            try:
                async with asyncio.timeout(WRITE_LIMIT_S):
                    result = await self._node.writer.submit(SETTLE, wanted)
            except (TimeoutError, Unavailable):
                # It stays what it is: nobody is allowed anything because a disk is full.
                _unrecorded_total.inc()
                return answer
            settled, is_new = result.stand, result.is_new
            case.live.stand(settled, case.situation.here or nowhere(case))
        if settled.state == StandState.PASSED and verdict.decision is Decision.STEP_UP:
            # Another process heard of the proof meanwhile.
            allowed = replace(verdict, decision=Decision.ALLOW, reasons=("stepped_up",))
            return replace(answer, verdict=allowed, max_age=None, acr=None)
        until = None
        if settled.state == StandState.ASKED:
            until = settled.at + STEP_UP_LIFE
            answer = replace(
                answer,
                step_up_id=settled.step_up_id,
                is_first_asked=is_new,
                trace_id=settled.trace_id or answer.trace_id,
            )
        self._keep(case, replace(answer, is_first_asked=False), until)
        return answer

    def _keep(self, case: Case, answer: Answer, until: datetime | None = None) -> None:
        spot = spot_of(case.situation.here) if case.situation.here else None
        case.live.keep(case.asked, Held(answer, self._stamp(case.live), spot, case.key, until))
