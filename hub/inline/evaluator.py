"""The evaluator behind every front door: memory first, SQL when cold, one write when it matters.

    held answer? ─▶ session, stands ─▶ place ─▶ levels ─▶ judge ─▶ Settling

Unchanged context: an answer that was given before stands while levels, policies and the session
are what they were. The deadline counts where everything is in memory; whoever has to read first
has the longer limit. Past these, or without the facts, the stated fallback decides and is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Hashable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from prometheus_client import Histogram

from hub.alerting import Alerts
from hub.decisions import count_unknown, judge_session
from hub.denied import DeniedUsers
from hub.errors import is_data_error
from hub.inline.behind import Note, behind, joins
from hub.inline.bound import binding_of
from hub.inline.case import (
    Asked,
    Case,
    Held,
    asked_of,
    base_verdict,
    context_of,
    features_of,
    occurrence_of,
    plain_answer,
    trail_of,
)
from hub.inline.fallback import DATABASE_TROUBLE, Fallback, Reason
from hub.inline.model import Answer, SessionQuestion, app_of
from hub.inline.place import Placing
from hub.inline.settling import Settling
from hub.inline.warmth import Warmth
from hub.levels import level_reader
from hub.node import Node
from risk.baselines.memory import Recorder
from risk.behaviours.history import History
from risk.contexts.parsing import believed_at, bounded_chain
from risk.entities.memory import Groups
from risk.inline.forks import Spot, spot_of
from risk.inline.keys import NO_CONTEXT, app_key
from risk.inline.live import Live
from risk.inline.memory import HELD_MAX, LiveSessions
from risk.inline.model import Situation, judge
from risk.inline.orders import UsedApp
from risk.levels.memory import Levels
from risk.model import Level
from risk.policies.compiled import CompiledPolicies
from risk.policies.facts import RequestFacts, RequestKind
from risk.posture.model import facts_of
from risk.scoring.service import scorer_named
from risk.sessions.model import Session
from risk.verdict import Decision
from risk.zones.origin import Origin
from runtime.caller import Caller
from runtime.errors import Unavailable
from runtime.feed import ConfigCache

#: for a decision that has to read a session, a level or a baseline first, or to write a proof
COLD_LIMIT_S: Final = 0.250
#: judgements of one question: another client may be the first of the session meanwhile, once
BEGINNINGS_MAX: Final = 2

_seconds = Histogram(
    "hub_inline_evaluate_seconds",
    "Duration of one decision about a live session, by whether its answer was held.",
    ["held"],
    buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1),
)
_HELD_SECONDS: Final = _seconds.labels("yes")
_JUDGED_SECONDS: Final = _seconds.labels("no")
_COLD_SECONDS: Final = _seconds.labels("cold")


@dataclass(slots=True)
class _Pace:
    """How long one decision may take: longer from where something has to be read or written.

    limit: what is running, as long as it may be extended. is_review: nobody asks, so that nobody
    could show a proof, and the session is not used.
    """

    cold_limit_s: float
    is_review: bool = False
    limit: asyncio.Timeout | None = None
    is_cold: bool = False

    def slow_down(self) -> None:
        """Count this decision as a cold one, and give it the longer limit, once."""
        limit, self.limit = self.limit, None
        if limit is not None:
            limit.reschedule(asyncio.get_running_loop().time() + self.cold_limit_s)
        self.is_cold = True


class Evaluator:
    """Decides about live sessions, for one process."""

    def __init__(  # noqa: PLR0913 - a part each, all by name
        self,
        node: Node,
        *,
        denied_users: DeniedUsers,
        policies: ConfigCache[CompiledPolicies],
        placing: Placing,
        history: History,
        recorder: Recorder,
        warmth: Warmth,
        cold_limit_s: float = COLD_LIMIT_S,
        held_max: int = HELD_MAX,
    ) -> None:
        """history: of users. recorder: of what turned out to be good of them.

        warmth: keeps what is configured in memory. cold_limit_s: of a decision that has to read.
        held_max: sessions in memory.
        """
        self._node = node
        self._denied = denied_users
        self._policies = policies
        self._placing = placing
        self._history = history
        self._warmth = warmth
        self._scorer = scorer_named(node.config.scorer)
        self._deadline_s = node.config.evaluate_deadline_ms / 1000
        self.live = LiveSessions(node.database, node.changes, held_max=held_max)
        self.levels = Levels(node.database, node.changes, level_reader(node.clock))
        self.groups = Groups(node.database, node.changes)
        alerts = Alerts()
        joined = joins(self.live, recorder)
        self.behind = behind(node.writer, self.live, alerts, joined)
        self._cold_limit_s = cold_limit_s
        self._fallback = Fallback(self.live, denied_users, policies, placing, node.clock)
        self._settling = Settling(
            node.writer,
            node.box,
            alerts=alerts,
            recorder=recorder,
            stamp=self._stamp,
            wake=node.notifier.wake_all,
            joined=joined,
        )

    async def evaluate(self, caller: Caller, question: SessionQuestion) -> Answer:
        """Return the decision about a session. Raises Invalid for a chain that is no chain."""
        started = time.perf_counter()
        asked = asked_of(caller, question)
        answer = self.held(question, asked)
        if answer is not None:
            return answer
        pace = _Pace(max(self._deadline_s, self._cold_limit_s))
        answer = await self._decide(caller, question, asked, pace)
        took_s = time.perf_counter() - started
        (_COLD_SECONDS if pace.is_cold else _JUDGED_SECONDS).observe(took_s)
        return answer

    def held(self, question: SessionQuestion, asked: Asked) -> Answer | None:
        """Return the answer that is held, None when there has to be a decision. Raises nothing."""
        started = time.perf_counter()
        answer = self._held(question, asked)
        if answer is not None:
            _HELD_SECONDS.observe(time.perf_counter() - started)
        return answer

    async def prepare(self, tenant_id: str, names: Collection[tuple[str, str]]) -> None:
        """Read what judging these sessions, as (issuer, sid), needs: together, not one by one.

        Raises database errors.
        """
        await self.live.load(tenant_id, names)
        held = [self.live.peek(tenant_id, *name, None) for name in names]
        sessions = [each.session for each in held if each is not None]
        users = {each.user_id for each in sessions}
        await self.levels.of(tenant_id, users | {e.device_id for e in sessions if e.device_id})
        await self.groups.of(tenant_id, users)

    async def review(
        self, caller: Caller, question: SessionQuestion, note: Callable[[Note], None]
    ) -> Answer:
        """Judge a session nobody asks about, as long as it takes.

        note: takes what is to be written besides, before the review is forgotten. Raises database
        errors, and Unavailable when what was decided could not be written.
        """
        pace = _Pace(0.0, is_review=True)
        opened = partial(self._open, caller, question, asked_of(caller, question), pace)
        answer = await self._concluded(opened, note)
        if answer is None:
            raise Unavailable("the session keeps beginning elsewhere")
        return answer

    # --- answers that are held ------------------------------------------------------------------

    def _held(self, question: SessionQuestion, asked: Asked) -> Answer | None:
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
        tenant_id = session.tenant_id
        if not self._denied.holds(tenant_id) or self._denied.last_known(tenant_id, session.user_id):
            return None
        if session.binding is not None and (
            question.dbsc_proof or not live.is_proven(held.key, now)
        ):
            return None
        if held.spot is not None and live.asked_last != asked.context:
            live.asked_last = asked.context
            if self._step(live, held.spot, now):
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
        groups = self.groups.peek(session.tenant_id, session.user_id)
        if user_level is None or device_level is None or groups is None:
            return object()
        version = self._node.feed.version(session.tenant_id, "policies")
        return (
            version,
            self._placing.version(session.tenant_id),
            user_level,
            device_level,
            groups,
            live.trail.level if live.trail else Level.LOW,
        )

    # --- deciding -------------------------------------------------------------------------------

    async def _decide(
        self, caller: Caller, question: SessionQuestion, asked: Asked, pace: _Pace
    ) -> Answer:
        opened = partial(self._open_in_time, caller, question, asked, pace)
        answer = await self._concluded(opened, self.behind.note)
        if answer is None:
            return self._fallback.answer(caller, question, Reason.UNAVAILABLE)
        return answer

    async def _concluded(
        self, opened: Callable[[], Awaitable[Answer | Case]], note: Callable[[Note], None]
    ) -> Answer | None:
        """Judge and settle; None: the session began elsewhere meanwhile, again and again."""
        for _ in range(BEGINNINGS_MAX):
            case = await opened()
            if isinstance(case, Answer):
                return case
            answer = await self._settling.conclude(case, note)
            if answer is not None:
                return answer
        return None

    async def _open_in_time(
        self, caller: Caller, question: SessionQuestion, asked: Asked, pace: _Pace
    ) -> Answer | Case:
        """Find the facts in time, or have the fallback answer."""
        try:
            if not self._warmth.is_ready(question.tenant_id):
                pace.slow_down()
                await self._warmth.ready(question.tenant_id)
            async with asyncio.timeout(self._deadline_s) as pace.limit:
                return await self._open(caller, question, asked, pace)
        except TimeoutError:
            reason = Reason.COLD if pace.is_cold else Reason.DEADLINE
            return self._fallback.answer(caller, question, reason)
        except Unavailable:
            return self._fallback.answer(caller, question, Reason.UNAVAILABLE)
        except DATABASE_TROUBLE as error:
            if is_data_error(error):
                raise
            return self._fallback.answer(caller, question, Reason.DATABASE)

    async def _open(
        self, caller: Caller, question: SessionQuestion, asked: Asked, pace: _Pace
    ) -> Answer | Case:
        """Find the facts; an Answer when they decide by themselves."""
        now = self._node.clock.now()
        named = (question.tenant_id, question.iss, question.sid, question.cookie_sha256)
        live = self.live.peek(*named)
        if live is None:
            pace.slow_down()
            live = await self.live.find(*named)
        if live is None:
            count_unknown("session")
            return plain_answer(judge_session(None, now), live)
        session = live.session
        denied = await self._denied.among(session.tenant_id, (session.user_id,))
        verdict = base_verdict(question, session, now, denied.get(session.user_id))
        if verdict.decision is not Decision.ALLOW:
            return plain_answer(verdict, live)
        place = await self._placing.judge(question.tenant_id, bounded_chain(question.chain))
        return await self._case(caller, question, asked, (live, place), pace)

    async def _case(
        self,
        caller: Caller,
        question: SessionQuestion,
        asked: Asked,
        found: tuple[Live, Origin],
        pace: _Pace,
    ) -> Case:
        live, place = found
        session, now = live.session, self._node.clock.now()
        here = context_of(caller, question, place, believed_at(question.at, now), live)
        ids = {session.user_id, *([session.device_id] if session.device_id else [])}
        if not self._knows(session, ids):
            pace.slow_down()
        levels = await self.levels.of(session.tenant_id, ids)
        groups = await self.groups.of(session.tenant_id, (session.user_id,))
        if here is not None and not pace.is_review:
            live.asked_last = asked.context
            self._step(live, spot_of(here), now)
        key = here.key() if here is not None else NO_CONTEXT
        app_id = app_of(caller, question, session) or ""
        if app_id and not question.app_unknown and live.use(app_id):
            self._note_app(session, app_id, now)
        seen = None if here is None else occurrence_of(here, live, app_id, place.record, now)
        view = (
            None
            if seen is None
            else await self._history.view(
                session.tenant_id,
                session.user_id,
                seen,
                groups=groups[session.user_id],
                reading=pace.slow_down,
            )
        )
        facts = RequestFacts(
            kind=RequestKind.SESSION,
            level=Level.LOW,
            behaviours=view.behaviours if view else {},
            user_level=levels[session.user_id],
            device_level=levels[session.device_id] if session.device_id else Level.LOW,
            zones=place.zones,
            groups=groups[session.user_id],
            app_id=app_id or None,
            record=place.record,
            posture=facts_of(question.signals, live.posture),
            amr=session.amr,
            acr=session.acr,
            auth_age_s=(
                None if session.auth_time is None else (now - session.auth_time).total_seconds()
            ),
            issuer=session.iss,
            exempt=place.is_exempt,
        )
        binding = await binding_of(
            question, live, key, now, self._node, is_review=pace.is_review, wait=pace.slow_down
        )
        situation = Situation(
            now=now,
            facts=facts,
            other_apps=tuple(sorted(live.apps - {app_id})),
            here=here,
            accepted=live.accepted,
            stand=live.stand_at(key),
            out_of_app=live.stand_at(app_key(key, app_id)),
            fork=trail_of(live).level,
            binding=binding,
            blocked_by=place.blocked_by,
            features=features_of(facts, place.record, view, now),
            is_review=pace.is_review,
        )
        policies = await self._policies.get(session.tenant_id)
        return Case(
            live=live,
            asked=asked,
            key=key,
            seen=seen,
            situation=situation,
            until=policies.ages.until(facts.auth_age_s, now),
            judged=judge(situation, policies, self._scorer),
        )

    def _note_app(self, session: Session, app_id: str, now: datetime) -> None:
        self.behind.note(
            UsedApp(
                tenant_id=session.tenant_id, session_id=session.session_id, app_id=app_id, at=now
            )
        )

    def _step(self, live: Live, spot: Spot, now: datetime) -> bool:
        """Note where a session is used, here and soon everywhere; return whether it is a fork."""
        trail, session = trail_of(live), live.session
        is_worse = trail.step(spot, now)
        news = trail.news(session.tenant_id, session.session_id, now)
        if news is not None:
            self.behind.note(news)
        return is_worse

    def _knows(self, session: Session, entity_ids: Collection[str]) -> bool:
        """Return whether levels and groups are in memory."""
        if self.groups.peek(session.tenant_id, session.user_id) is None:
            return False
        return all(self.levels.peek(session.tenant_id, each) is not None for each in entity_ids)
