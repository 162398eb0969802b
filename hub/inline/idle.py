"""Sessions nobody uses at the moment: judged again when their user's or device's level moves.

    level moved ─▶ change feed ─▶ IdleSessions ─▶ Evaluator, as if the session asked where it is

What is no ALLOW is written, so that the next request is answered at once; an end in the context
that the session was accepted in is the end of the session. Every process reviews what it holds; of
several that hold a session one writes. What nobody holds is in the table of reviews.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter

from hub.inline.asking import last_seen, question_of
from hub.inline.evaluator import Evaluator
from hub.node import Node
from risk.inline.index import Key
from risk.levels.model import LEVELS_KIND
from risk.verdict import Decision
from runtime.changes import Change
from runtime.errors import Unavailable
from runtime.turns import rest_since, turn_began

#: sessions that wait for their review; beyond, the next request is what judges them
DUE_MAX: Final = 10_000

log = structlog.get_logger()
_reviewed_total = Counter(
    "hub_inline_reviews_total", "Idle sessions judged because a level moved.", ["decision"]
)


class IdleSessions:
    """Reviews the sessions this process holds."""

    def __init__(self, node: Node, evaluator: Evaluator) -> None:
        self._node = node
        self._evaluator = evaluator
        self._due: deque[Key] = deque(maxlen=DUE_MAX)
        self._arrived = asyncio.Event()
        node.changes.subscribe(LEVELS_KIND, self)

    async def changed(self, entries: Sequence[Change]) -> None:
        """Note the sessions of these users and devices."""
        for entry in entries:
            self._due.extend(self._evaluator.live.of_entity(entry.tenant_id, entry.ref))
        if self._due:
            self._arrived.set()

    def start_over(self) -> None:
        """Do nothing: the next request of each session is judged with what is true then."""

    async def renew(self) -> None:
        """Do nothing: what waits here is not what is."""

    async def run(self) -> None:
        """Review what is due, again and again, until cancelled; trouble is logged."""
        while True:
            await self._arrived.wait()
            try:
                await self.review()
            except Exception:
                # The outermost step of this loop: the next request judges the session anyway.
                log.warning("session.review_failed", exc_info=True)

    async def review(self) -> None:
        """Judge every session that is due now."""
        self._arrived.clear()
        for key in dict.fromkeys(self._take()):
            began = turn_began()
            try:
                await self._review(key)
            except Unavailable as error:
                log.warning("session.review_failed", reason=error.detail)
            except Exception:
                # One session that cannot be judged must not keep the others waiting.
                log.warning("session.review_failed", exc_info=True)
            await rest_since(began)

    def _take(self) -> list[Key]:
        taken = list(self._due)
        self._due.clear()
        return taken

    async def _review(self, key: Key) -> None:
        tenant_id, iss, sid = key
        live = await self._evaluator.live.find(tenant_id, iss, sid, None)
        if live is None or not live.session.is_live(self._node.clock.now()):
            return
        here, now = last_seen(live), self._node.clock.now()
        answer = await self._evaluator.review(*question_of(live.session, here, now))
        decision = answer.verdict.decision
        _reviewed_total.labels(decision.name).inc()
        (log.debug if decision is Decision.ALLOW else log.info)(
            "session.reviewed",
            tenant_id=tenant_id,
            session_id=live.session.session_id,
            decision=decision.name,
            reasons=answer.verdict.reasons,
            trace_id=answer.trace_id,
        )
