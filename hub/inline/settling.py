"""How a case ends: what is written before the answer, what behind it, and what is kept.

    ALLOW ─▶ written behind the answer      anything else ─▶ one stand, before the answer

What a session begins with is written before its answer, too: all others are compared with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

import msgspec
from prometheus_client import Counter

from hub.alerting import About, Alerts
from hub.inline.behind import Joining, Note
from hub.inline.bound import new_challenge
from hub.inline.case import (
    Case,
    Held,
    answer_of,
    logout_of,
    nowhere,
    recorded_of,
    stand_of,
    trail_of,
)
from hub.inline.fallback import DATABASE_TROUBLE
from hub.inline.finding import finding_of
from hub.inline.model import Answer
from hub.operations import LOG_OUT_SESSION, SETTLE, TELL_FINDING
from risk.baselines.memory import Recorder
from risk.inline.forks import spot_of
from risk.inline.live import Live
from risk.inline.model import (
    STATE_OF,
    STEP_UP_LIFE,
    Settled,
    Stand,
    StandState,
    is_joined,
    outdoes,
)
from risk.inline.orders import SessionFinding, SessionLogout, UsedApp
from risk.verdict import Decision
from runtime.errors import Unavailable
from runtime.ids import new_id
from runtime.secrets import SecretBox
from runtime.sharing import shared
from runtime.writer import Writer

#: for the write before an answer that is no ALLOW
WRITE_LIMIT_S: Final = 2.0
#: for the write of what a session begins with; after that it is written behind the answer
FIRST_LIMIT_S: Final = 0.250

_unrecorded_total = Counter(
    "hub_inline_unrecorded_total", "Answers other than ALLOW that could not be written first."
)


class Settling:
    """Concludes cases, for one process. stamp: of the world, as far as a session's answers go."""

    def __init__(  # noqa: PLR0913 - a part each, all by name
        self,
        writer: Writer,
        box: SecretBox,
        *,
        alerts: Alerts,
        recorder: Recorder,
        stamp: Callable[[Live], Hashable],
        wake: Callable[[Iterable[str]], None],
        joined: Callable[[Joining, Settled], None],
    ) -> None:
        """wake: whoever works off what was just committed. joined: hears how a joining ended."""
        self._wake = wake
        self._joined = joined
        self._writer = writer
        self._box = box
        self._recorder = recorder
        self._stamp = stamp
        self._alerts = alerts

    async def conclude(self, case: Case, note: Callable[[Note], None]) -> Answer | None:
        """Write, learn and keep what came of a case, and return its answer.

        None: the session began elsewhere meanwhile, and the case has to be judged anew. note:
        writes the rest, behind the answer. What cannot be written is counted, and the answer
        stands; where nobody waits for one, raises Unavailable and database errors instead.
        """
        verdict = case.judged.verdict
        answer = answer_of(case, new_id("chg") if case.is_told else verdict.trace_id)
        if case.live.session.binding is not None:
            challenge = new_challenge(case.live.session, self._box, case.situation.now)
            answer = replace(answer, challenge=challenge)
        is_let_pass = verdict.decision is Decision.ALLOW
        if is_let_pass and not await self._accept(case, answer, note):
            return None
        for alert in self._alerts.found(verdict, _about(case, answer.trace_id)):
            note(alert)
        if case.is_first:
            note(recorded_of(case))
        if is_let_pass and case.live.open(case.situation.facts.app_id):
            note(_opened(case))
        found = finding_of(case, answer.trace_id)
        if not is_let_pass:
            return await self._settle(case, answer, found, note)
        if found is not None:
            case.live.find_at_high(found.mark)
            note(found)
        _log_out(case, logout_of(case, answer.trace_id), note)
        self._keep(case, answer)
        return answer

    async def _accept(self, case: Case, answer: Answer, note: Callable[[Note], None]) -> bool:
        """Let a context that was let pass join what the session is accepted in, if it may.

        Return whether it may still pass: not where the session began elsewhere meanwhile.
        """
        if case.judged.accepts and case.situation.stand is None and case.situation.here:
            state = StandState.ANCHOR if case.judged.is_anchor else StandState.ACCEPTED
            stand = stand_of(case, state, answer.trace_id)
            case.live.stand(stand, case.situation.here, is_pending=True)
            joining = Joining(stand, case.live.session.user_id, case.seen)
            if state is StandState.ANCHOR:
                return await self._begin(case, joining, note)
            note(joining)
        elif case.is_newly_proven:
            self._learn(case)
        return True

    async def _begin(self, case: Case, anchor: Joining, note: Callable[[Note], None]) -> bool:
        """Write what a session begins with; return whether it does begin there.

        INVARIANT: whoever is asked next, in any process, compares with it. Were it written behind
        the answer, whoever stole the secret could be settled first, as what the owner is then
        compared with.
        """
        try:
            async with asyncio.timeout(FIRST_LIMIT_S):
                settled = await self._writer.submit(SETTLE, anchor.stand)
        except (Unavailable, *DATABASE_TROUBLE):
            if case.situation.is_review:
                raise
            note(anchor)
            return True
        self._joined(anchor, settled)
        return settled.is_new

    def _learn(self, case: Case) -> None:
        """Let what the user proved enter the baseline."""
        case.live.learn(case.key)
        if case.seen is not None:
            session = case.live.session
            self._recorder.note(session.tenant_id, session.user_id, case.seen)

    async def _settle(
        self,
        case: Case,
        answer: Answer,
        found: SessionFinding | None,
        note: Callable[[Note], None],
    ) -> Answer:
        """Write what is no ALLOW before it is answered; a step-up is asked for once."""
        verdict = case.judged.verdict
        wanted = stand_of(case, STATE_OF[verdict.decision], answer.trace_id)
        wanted = msgspec.structs.replace(wanted, finding=found)
        is_of_app = wanted.context_key != case.key
        known = case.situation.out_of_app if is_of_app else case.situation.stand
        if known is not None and _repeats(known, wanted):
            settled, is_new = known, False
            await self._repeat(case, wanted, note)
        else:
            try:
                async with asyncio.timeout(WRITE_LIMIT_S):
                    result = await self._writer.submit(SETTLE, wanted)
            except (Unavailable, *DATABASE_TROUBLE):
                if case.situation.is_review:
                    raise
                # It stays what it is: nobody is allowed anything because a disk is full.
                _unrecorded_total.inc()
                return answer
            settled, is_new = result.stand, result.is_new
            self._follow(case, wanted)
            case.live.stand(settled, case.situation.here or nowhere(case))
        if settled.state == StandState.PASSED and verdict.decision is Decision.STEP_UP:
            # Another process heard of the proof meanwhile.
            allowed = replace(verdict, decision=Decision.ALLOW, reasons=("stepped_up",))
            return replace(answer, verdict=allowed, max_age=None, acr=None)
        until = None
        if settled.state == StandState.ASKED:
            until = settled.at + STEP_UP_LIFE
            answer = replace(
                _asking(answer, settled, wanted),
                step_up_id=settled.step_up_id,
                is_first_asked=is_new,
                trace_id=settled.trace_id or answer.trace_id,
            )
        self._keep(case, replace(answer, is_first_asked=False), until)
        return answer

    def _follow(self, case: Case, wanted: Stand) -> None:
        """Remember what was committed with a stand, and wake who carries it out."""
        if wanted.logout is not None:
            case.live.log_out(case.key, wanted.logout.app_ids)
            self._wake(LOG_OUT_SESSION.wakes)
        if wanted.finding is not None:
            case.live.find_at_high(wanted.finding.mark)
            self._wake(TELL_FINDING.wakes)

    async def _repeat(self, case: Case, wanted: Stand, note: Callable[[Note], None]) -> None:
        """Do what else follows where the stand is known already: a finding before the answer."""
        _log_out(case, wanted.logout, note)
        if wanted.finding is None:
            return
        case.live.find_at_high(wanted.finding.mark)
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                await self._writer.submit(TELL_FINDING, wanted.finding)
        except (Unavailable, *DATABASE_TROUBLE):
            # The answer stands: it is told behind it, or when the context comes again.
            note(wanted.finding)

    def _keep(self, case: Case, answer: Answer, until: datetime | None = None) -> None:
        here, live = case.situation.here, case.live
        spot = trail_of(live).known(spot_of(here)) if here else None
        if case.until is not None:
            until = min(case.until, until or case.until)
        live.keep(case.asked, Held(answer, shared(self._stamp(live)), spot, case.key, until))


def _opened(case: Case) -> UsedApp:
    """Return that the session was let into its app."""
    session = case.live.session
    return UsedApp(
        tenant_id=session.tenant_id,
        session_id=session.session_id,
        app_id=case.situation.facts.app_id or "",
        at=case.situation.now,
        is_opened=True,
    )


def _repeats(known: Stand, wanted: Stand) -> bool:
    """Return whether it is settled already of a session that goes on, as far as is known here."""
    if known.is_final:
        return not outdoes(known, wanted, is_live=True)
    is_same = known.state == wanted.state
    return is_same and (known.state != StandState.ASKED or is_joined(known, wanted))


def _asking(answer: Answer, settled: Stand, wanted: Stand) -> Answer:
    """Return an answer that asks for what the step-up has to reach that it joins."""

    def asked(stand: Stand) -> tuple[str, tuple[str, ...], int]:
        return stand.acr, stand.amr_any_of, stand.max_age

    if asked(settled) == asked(wanted):
        return answer
    acr, amr_any_of, max_age = asked(settled)
    verdict = replace(answer.verdict, acr=acr or None, amr_any_of=amr_any_of, max_age=max_age)
    return replace(answer, verdict=verdict, acr=verdict.acr, max_age=max_age)


def _log_out(case: Case, wanted: SessionLogout | None, note: Callable[[Note], None]) -> None:
    """Log out, behind the answer, where policies end the session at other apps; once."""
    if wanted is not None and case.live.log_out(wanted.context_key, wanted.app_ids):
        note(wanted)


def _about(case: Case, trace_id: str | None) -> About:
    session = case.live.session
    return About(
        tenant_id=session.tenant_id,
        of="session",
        key=session.session_id,
        session_id=session.session_id,
        user_id=session.user_id,
        app_id=case.situation.facts.app_id or "",
        trace_id=trace_id or "",
        at=case.situation.now,
    )
