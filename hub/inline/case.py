"""One question about a session on its way to an answer: values and pure steps. No I/O."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from hub.decisions import judge_session, quarantined
from hub.inline.model import Answer, Risk, SessionQuestion
from risk.baselines.model import Occurrence, hour_of_week, session_mark, short
from risk.behaviours.history import View, with_place
from risk.contexts.model import (
    SEVERE,
    Change,
    Context,
    causes_of,
    changed_values,
    ciphers_of,
)
from risk.contexts.parsing import bounded, bounded_chain
from risk.contexts.stored import render_context
from risk.inline.forks import Spot, Trail
from risk.inline.keys import app_key
from risk.inline.live import Live
from risk.inline.model import (
    Judged,
    Situation,
    Stand,
    StandState,
    worst_level,
)
from risk.inline.orders import SessionLogout
from risk.inline.proofs import outdated_by
from risk.networks.model import IPRecord
from risk.policies.facts import RequestFacts
from risk.policies.recorded import RecordedContext, encode
from risk.posture.model import with_reported
from risk.scoring.model import Features
from risk.sessions.model import Session
from risk.verdict import Decision, Scope, Verdict, strongest
from risk.zones.origin import Origin
from runtime.caller import Caller
from runtime.ids import new_id
from runtime.sharing import shared

USER_MISMATCH: Final = "session_user_mismatch"
_NO_VALUES: Final[Mapping[str, str]] = {}


class Asked(NamedTuple):
    """What makes two questions about one session the same. context: all but the app.

    app_unknown: as long as nobody registered it, an app is another one.
    """

    app: str | None
    context: Hashable
    app_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One judgement with everything that belongs to it.

    until: when it has to be judged anew although nothing but time has passed; None: never.
    """

    live: Live
    asked: Asked
    key: str
    situation: Situation
    judged: Judged
    seen: Occurrence | None = None
    until: datetime | None = None

    @property
    def is_first(self) -> bool:
        """Whether this context was never judged for this app, as far as this process knows."""
        asked = (self.key, self.situation.facts.app_id)
        return self.situation.here is not None and asked not in self.live.noted

    @property
    def is_newly_proven(self) -> bool:
        """Whether a step-up was passed here and the baseline does not know yet."""
        stand = self.situation.stand
        is_passed = stand is not None and stand.state == StandState.PASSED
        return is_passed and self.key not in self.live.learned

    @property
    def is_told(self) -> bool:
        """Whether there is anything to tell apart from "as before"."""
        verdict = self.judged.verdict
        is_quiet = verdict.decision is Decision.ALLOW and verdict.would_have is None
        return bool(self.judged.changes) or not is_quiet


@dataclass(frozen=True, slots=True)
class Held:
    """An answer in memory, the state of the world it was given in, and where it was asked.

    until: when the step-up it asks for is given up, or a proof is too old for what rules want.
    """

    answer: Answer
    stamp: Hashable
    spot: Spot | None
    key: str
    until: datetime | None = None


def recorded_of(case: Case) -> RecordedContext:
    """Return a judged case as it is kept for trying policies on it. Raises nothing."""
    session, situation = case.live.session, case.situation
    mark = case.key, situation.facts.app_id
    case.live.note(*mark)
    return RecordedContext(
        tenant_id=session.tenant_id,
        context_id=new_id("ctx"),
        user_id=session.user_id,
        session_id=session.session_id,
        at=situation.now,
        facts=encode(case.judged.facts, tuple(sorted(case.live.apps))),
        decision=case.judged.verdict.would_have or case.judged.verdict.decision,
        mark=mark,
    )


def base_verdict(
    question: SessionQuestion, session: Session, now: datetime, denied: str | None
) -> Verdict:
    """Return what no policy changes: is it a session, of whom, and is its user contained?

    denied: trace id of the user's quarantine; None: there is none. Raises nothing.
    """
    verdicts = [judge_session(session, now)]
    if question.user_id not in (None, session.user_id):
        mismatch = (USER_MISMATCH,)
        verdicts.append(Verdict(decision=Decision.DENY, scope=Scope.SESSION, reasons=mismatch))
    if denied is not None:
        verdicts.append(quarantined(denied))
    return strongest(verdicts)


def asked_of(caller: Caller, question: SessionQuestion) -> Asked:
    """Return what makes the question the same as another one. Raises nothing."""
    return Asked(
        question.app,
        (
            caller.client_id,
            question.chain,
            question.user_agent,
            question.ja4,
            question.device_token_hash,
            question.device_id,
            tuple(question.signals.items()),
        ),
        question.app_unknown,
    )


def context_of(
    caller: Caller, question: SessionQuestion, place: Origin, at: datetime, live: Live
) -> Context | None:
    """Return the context of a question, with what is reported of the session's device.

    None when the question says nothing about it.
    """
    said = (
        question.chain,
        question.user_agent,
        question.ja4,
        question.device_token_hash,
        question.device_id,
        question.signals,
    )
    if not any(said):
        return None
    return bounded(
        Context(
            ip=place.client_ip,
            chain=bounded_chain(question.chain),
            user_agent=question.user_agent or "",
            ja4=question.ja4 or "",
            accept_language=question.accept_language or "",
            device_token_hash=question.device_token_hash or "",
            device_id=question.device_id or "",
            signals=with_reported(question.signals, live.posture),
            app_id="" if question.app_unknown else question.app or "",
            method=question.method or "",
            path_class=question.path or "",
            at=at,
            told_by=caller.client_id,
            record=place.record,
        )
    )


def occurrence_of(
    here: Context, live: Live, app_id: str, record: IPRecord, now: datetime
) -> Occurrence | None:
    """Return a context as baselines keep it; None without an address to tell places by."""
    if not here.ip:
        return None
    session = live.session
    seen = Occurrence(
        at=now,
        ip=here.ip,
        device=short(here.device_token_hash or here.device_id),
        ua=here.ua_family or None,
        app=app_id or None,
        session=session_mark(session.iss, session.sid, session.session_id),
        tls=ciphers_of(here.ja4) or None,
    )
    return with_place(seen, record)


def features_of(
    facts: RequestFacts, record: IPRecord, view: View | None, now: datetime
) -> Features:
    """Return what the scorer is told besides the changes. Raises nothing."""
    known = Features(
        record=record,
        user_level=facts.user_level,
        device_level=facts.device_level,
        hour=hour_of_week(now),
    )
    if view is None:
        return known
    return replace(
        known,
        behaviours=view.behaviours,
        familiar=view.familiar,
        peer_familiar=view.peer_familiar,
        org_familiar=view.org_familiar,
        is_learning=view.is_learning,
        org_is_learning=view.org_is_learning,
    )


def nowhere(case: Case) -> Context:
    """Return the context of a question that says nothing about it. Raises nothing."""
    return Context(ip="", at=case.situation.now)


def trail_of(live: Live) -> Trail:
    """Return the trail of a session; it begins here. Raises nothing."""
    if live.trail is None:
        live.trail = Trail()
    return live.trail


def plain_answer(verdict: Verdict, live: Live | None) -> Answer:
    """Return a verdict as the answer about a session; None is unknown. Raises nothing."""
    if live is None:
        return Answer(verdict=verdict, trace_id=verdict.trace_id)
    session = live.session
    return Answer(
        verdict=verdict,
        user_id=session.user_id,
        session_id=session.session_id,
        iss=session.iss,
        sid=session.sid,
        trace_id=verdict.trace_id,
    )


def answer_of(case: Case, trace_id: str | None) -> Answer:
    """Return the answer to a judged case. trace_id: what joins it to what follows."""
    judged, here = case.judged, case.situation.here
    old, new = (
        changed_values(judged.before, here)
        if judged.changes and judged.before is not None and here is not None
        else (_NO_VALUES, _NO_VALUES)
    )
    verdict, score = shared(judged.verdict), judged.score
    risk = (
        shared(Risk(level=judged.level, score=score.value, reasons=score.reasons)) if here else None
    )
    return replace(
        plain_answer(verdict, case.live),
        risk=risk,
        changed=tuple(each.value for each in judged.changes if each is not Change.NONE),
        causes=causes_of(judged.changes),
        old=old,
        new=new,
        trace_id=trace_id,
        acr=verdict.acr,
        max_age=verdict.max_age,
    )


def stand_of(case: Case, state: StandState, trace_id: str | None) -> Stand:
    """Return what is to be settled about the context of a case. Raises nothing."""
    situation, verdict, session = case.situation, case.judged.verdict, case.live.session
    return Stand(
        tenant_id=session.tenant_id,
        session_id=session.session_id,
        context_key=_stand_key(case, state),
        state=state.value,
        level=worst_level(case.judged.facts).name,
        decision=verdict.decision.name,
        scope=verdict.scope.name.lower(),
        at=situation.now,
        since=situation.now,
        reasons=verdict.reasons,
        step_up_id=new_id("sup") if state is StandState.ASKED else "",
        acr=verdict.acr or "",
        amr_any_of=verdict.amr_any_of,
        max_age=verdict.max_age or 0,
        trace_id=trace_id or "",
        app_id=situation.facts.app_id or "",
        context=render_context(situation.here) if situation.here else {},
        outdated=_outdated(situation) if state is StandState.ASKED else None,
        session_level=case.judged.level.name,
        changes=tuple(each.value for each in case.judged.changes),
        beside=_beside(case) if state is StandState.ACCEPTED else "",
        ends=(session.iss, session.sid) if _ends_all(case, state) else None,
        logout=None if verdict.decision is Decision.ALLOW else logout_of(case, trace_id),
    )


def _stand_key(case: Case, state: StandState) -> str:
    is_of_app = case.judged.verdict.scope is Scope.APP
    if is_of_app and state in {StandState.DENIED, StandState.TERMINATED}:
        return app_key(case.key, case.situation.facts.app_id or "")
    return case.key


def _beside(case: Case) -> str:
    """Return the key of the context that the present one was compared with; "" for none."""
    before, accepted = case.judged.before, case.situation.accepted
    return next((key for key, each in accepted.items() if each is before), "")


def _outdated(situation: Situation) -> datetime | None:
    """Return the newest proof that does not do; None: any that another process knows of does."""
    known = situation.stand
    passed_at = known.at if known and known.state == StandState.PASSED else None
    both = (passed_at, outdated_by(situation.binding, situation.now))
    return max((each for each in both if each is not None), default=None)


def _ends_all(case: Case, state: StandState) -> bool:
    """Return whether the session is over, and not only a context that came to it."""
    is_wide = case.judged.verdict.scope > Scope.APP
    return state is StandState.TERMINATED and is_wide and _is_its_own(case)


def _is_of_user(case: Case) -> bool:
    """Return whether all sessions of the user are over, this one whoever uses it."""
    verdict = case.judged.verdict
    return verdict.decision is Decision.TERMINATE and verdict.scope is Scope.USER


def _is_its_own(case: Case) -> bool:
    """Return whether it is the client that the session began with, as far as can be told.

    Whoever came to its secret with another device or browser is stopped where they are; the owner
    goes on, unless it is the user who is not trusted.
    """
    if _is_of_user(case):
        return True
    stand = case.situation.stand
    is_known = stand is not None and stand.is_accepted
    return case.situation.is_review or is_known or SEVERE.isdisjoint(case.judged.changes)


def logout_of(case: Case, trace_id: str | None) -> SessionLogout | None:
    """Return what has to be logged out: the session, or the apps whose policies end it there."""
    verdict, session = case.judged.verdict, case.live.session
    if not _is_its_own(case):
        return None
    app_ids: tuple[str, ...] | None = None
    if verdict.decision is not Decision.TERMINATE or verdict.scope is Scope.APP:
        app_ids = tuple(
            sorted(
                {
                    app_id
                    for each in verdict.violations
                    if each.is_enforced and each.decision is Decision.TERMINATE
                    for app_id in each.app_ids
                }
            )
        )
        if not app_ids:
            return None
    return SessionLogout(
        tenant_id=session.tenant_id,
        user_id=session.user_id,
        session_id=session.session_id,
        iss=session.iss,
        sid=session.sid,
        context_key=case.key,
        app_ids=app_ids,
        at=case.situation.now,
        reasons=verdict.reasons,
        trace_id=trace_id or "",
        of_user=_is_of_user(case),
    )
