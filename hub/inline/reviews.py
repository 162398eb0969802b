"""Sessions nobody uses at the moment: judged because of what was found out, by the same judge.

    signal, level, edit ─▶ review noted ─▶ wake ─▶ Reviews, in one api process ─▶ Evaluator.review

The sessions were found in the database, whoever holds them. All that a review leads to is committed
before the review is forgotten; what fails is tried again, a bounded number of times. One process at
a time works reviews off; should two overlap, a context is settled once all the same.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter

from hub.inline.asking import last_seen, question_of
from hub.inline.behind import Note
from hub.inline.evaluator import Evaluator
from hub.inline.fallback import DATABASE_TROUBLE
from hub.inline.model import Answer
from hub.node import Node
from risk.contexts.model import Context
from risk.contexts.stored import restore_context
from risk.inline.live import Live
from risk.reviews import store
from risk.reviews.model import EDITS, SWEPT, Review, ReviewCause, ReviewDone, put_off
from risk.reviews.service import FINISH_REVIEW, PUT_OFF_REVIEW, TOPIC
from risk.verdict import Decision, Scope
from runtime.errors import Unavailable
from runtime.queue import LeaseKeeper
from runtime.turns import in_turn

LEASE_KIND: Final = "reviews"
#: the one bucket that stands for "works reviews off"
LEADER_BUCKET: Final = 0
BATCH_MAX: Final = 64
LOOK_AGAIN_S: Final = 0.5
#: nothing about the session changed: what it is still allowed is no news
_OF_NO_CONTEXT: Final = EDITS | {ReviewCause.LEVEL}
#: it is the user or the device that is judged, also where the session was never seen in use
_OF_WHOM: Final = frozenset({ReviewCause.LEVEL, ReviewCause.GROUPS})

log = structlog.get_logger()
_reviews_total = Counter(
    "hub_inline_signal_reviews_total",
    "Sessions judged without a request.",
    ["cause", "decision"],
)
_given_up_total = Counter(
    "hub_inline_reviews_given_up_total",
    "Sessions that could not be judged without a request, however often that was tried.",
    ["cause"],
)


@dataclass(frozen=True, slots=True)
class _Made:
    """A review that was made, and what has to be written before it is forgotten."""

    done: ReviewDone
    notes: Sequence[Note] = ()
    answers: Sequence[Answer] = ()


class Reviews:
    """Works off the sessions that signals want judged."""

    def __init__(self, node: Node, evaluator: Evaluator) -> None:
        self._node = node
        self._evaluator = evaluator
        self._working = asyncio.Lock()

    async def run(self) -> None:
        """Hold the lease and work, until cancelled; trouble is logged."""
        node = self._node
        leases = LeaseKeeper(LEASE_KIND, node.config.name, writer=node.writer, clock=node.clock)
        renewed = asyncio.Event()
        keeping = asyncio.create_task(leases.run(renewed))
        try:
            await renewed.wait()
            while True:
                seen = node.notifier.count(TOPIC)
                try:
                    if LEADER_BUCKET in leases.buckets():
                        await self.work_off()
                except Unavailable as error:
                    # What waits is judged in a moment.
                    log.warning("session.review_failed", reason=error.detail)
                except Exception:
                    # The outermost step of this loop: what waits is still there.
                    log.warning("session.review_failed", exc_info=True)
                await node.notifier.wait(TOPIC, LOOK_AGAIN_S, since=seen)
        finally:
            keeping.cancel()

    async def work_off(self) -> int:
        """Judge every session that is due now; return how many. Raises database errors."""
        done = 0
        while judged := await self.turn():
            done += judged
        return done

    async def turn(self) -> int:
        """Judge up to BATCH_MAX sessions that are due; return of how many something became.

        Raises database errors, and Unavailable when nobody can write.
        """
        async with self._working:
            due = await self._due()
            if not due:
                return 0
            # What was committed with the reviews has to be known here, too.
            await self._node.changes.refresh()
            if any(each.cause in SWEPT for each in due):
                await self._node.feed.refresh()
            judged = _once(due)
            await self._prepare([each for each in due if each.review_id in judged])
            made: list[tuple[Review, _Made]] = []
            failed: list[tuple[Review, Exception]] = []
            for review in due:
                try:
                    made.append((review, await self._in_turn(review, judged)))
                except Exception as error:  # noqa: BLE001 - one must not keep the others waiting
                    failed.append((review, error))
                    if isinstance(error, (Unavailable, *DATABASE_TROUBLE)):
                        # Perhaps the same trouble waits for all: they stay as they are.
                        break
            count = len(made) + len(failed)
            written = await asyncio.gather(*(self._finish(*each) for each in made))
            failed += [each for each in written if each is not None]
            await asyncio.gather(*(self._put_off(*each) for each in failed))
            return count

    async def _due(self) -> list[Review]:
        now = self._node.clock.now()
        async with self._node.database.snapshot() as connection:
            return await store.system_due_reviews(connection, now=now, limit=BATCH_MAX)

    async def _prepare(self, due: Sequence[Review]) -> None:
        """Read what they need together: one by one costs more than judging them."""
        named: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for review in due:
            named[review.tenant_id].append((review.iss, review.sid))
        for tenant_id, names in named.items():
            try:
                await self._evaluator.prepare(tenant_id, names)
            except Exception:
                # It may be one of them: each reads for itself what is not there now.
                log.warning("session.review_failed", tenant_id=tenant_id, exc_info=True)

    async def _finish(self, review: Review, made: _Made) -> tuple[Review, Exception] | None:
        """Write what a review led to, then forget it; return why that was not possible."""
        try:
            await self._evaluator.behind.write_now(made.notes)
            await self._node.writer.submit(FINISH_REVIEW, made.done)
        except Exception as error:  # noqa: BLE001 - it is put off with the others
            return review, error
        for answer in made.answers:
            _tell(review, answer)
        return None

    async def _put_off(self, review: Review, error: Exception) -> None:
        """Let a review wait that failed, or set it aside when that was often enough."""
        again = put_off(review, self._node.clock.now())
        about = {
            "tenant_id": review.tenant_id,
            "review_id": review.review_id,
            "session_id": review.session_id,
            "cause": review.cause.value,
            "attempts": review.attempts + 1,
        }
        if again is not None:
            # Nobody is to blame when core or the database is away for a moment.
            if isinstance(error, Unavailable):
                log.warning("session.review_failed", **about, reason=error.detail)
            else:
                log.warning("session.review_failed", **about, exc_info=error)
            await self._node.writer.submit(PUT_OFF_REVIEW, again)
            return
        await self._node.writer.submit(FINISH_REVIEW, _done(review))
        _given_up_total.labels(review.cause.value).inc()
        log.error("session.review_given_up", **about, exc_info=error)

    async def _in_turn(self, review: Review, judged: Collection[str]) -> _Made:
        if review.review_id not in judged:
            return _Made(_done(review))
        notes: list[Note] = []
        try:
            answers = await self._judge(review, notes.append)
        except BaseException:
            # It is judged again: alerts, records and logouts that were noted once are noted again.
            self._evaluator.behind.give_up(notes)
            raise
        verdicts = [answer.verdict for answer in answers]
        done = msgspec.structs.replace(
            _done(review),
            acted=any(each.decision is not Decision.ALLOW for each in verdicts),
            would_have=any(each.would_have is not None for each in verdicts),
        )
        return _Made(done, notes, answers)

    async def _judge(self, review: Review, note: Callable[[Note], None]) -> list[Answer]:
        """Return what becomes of the session; nothing when there is nothing to judge it by.

        After an edit of policies, zones or groups it is asked about for each of its apps, of which
        there are `APPS_MAX` at most, each in a turn of its own. note: takes what is to be written.
        """
        if review.cause is ReviewCause.UNKNOWN:
            raise ValueError("a review of another release, with a cause that is not known here")
        live = await self._evaluator.live.find(review.tenant_id, review.iss, review.sid, None)
        now = self._node.clock.now()
        if live is None or live.session.session_id != review.session_id:
            return []
        if not live.session.is_live(now):
            return []
        here = _where(review, live)
        if here is None and review.cause not in _OF_WHOM:
            return []
        at = min(here.at, now) if here is not None and review.context else now
        caller, question = question_of(live.session, here, at)
        answers: list[Answer] = []
        for app in _apps(review, live, question.app):
            about = msgspec.structs.replace(question, app=app)
            async with in_turn():
                answers.append(await self._evaluator.review(caller, about, note))
            verdict = answers[-1].verdict
            if verdict.decision is Decision.TERMINATE and verdict.scope is not Scope.APP:
                break
        return answers


def _tell(review: Review, answer: Answer) -> None:
    decision = answer.verdict.decision
    _reviews_total.labels(review.cause.value, decision.name).inc()
    is_told = bool(review.new)
    if review.cause in _OF_NO_CONTEXT:
        is_told = answer.verdict.would_have is not None
    (log.info if is_told or decision is not Decision.ALLOW else log.debug)(
        "session.context_changed",
        tenant_id=review.tenant_id,
        session_id=review.session_id,
        user_id=answer.user_id,
        causes=[review.cause.value],
        old=dict(review.old) or dict(answer.old),
        new=dict(review.new) or dict(answer.new),
        decision=decision.name,
        would_have=answer.verdict.would_have and answer.verdict.would_have.name,
        reasons=answer.verdict.reasons,
        trace_id=answer.trace_id,
        signal_trace_id=review.trace_id,
    )


def _done(review: Review) -> ReviewDone:
    """Return that a review is over, as far as is known before it."""
    return ReviewDone(
        tenant_id=review.tenant_id,
        review_id=review.review_id,
        sweep_id=review.trace_id if review.cause in SWEPT else "",
    )


def _once(due: Sequence[Review]) -> set[str]:
    """Return what to judge: a session whose levels moved more than once, only for the last time."""
    moved = {each.session_id: each for each in due if each.cause is ReviewCause.LEVEL}
    return {
        each.review_id
        for each in due
        if each.cause is not ReviewCause.LEVEL or moved[each.session_id] is each
    }


def _apps(review: Review, live: Live, app: str | None) -> list[str | None]:
    """Return about which apps a session is judged."""
    if review.cause not in EDITS or not live.apps:
        return [app]
    return [*sorted(live.apps)]


def _where(review: Review, live: Live) -> Context | None:
    """Return the context to judge: that of the report, else the last one it was accepted in."""
    if review.context:
        return restore_context({**review.context, "told_by": review.told_by}, review.at)
    return last_seen(live)
