"""How a session in its present context is judged, and what a context's stand becomes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from sys import intern
from typing import Any, Final, TypeAlias

import msgspec

from risk.contexts.model import Change, Context, level_min, nearest, ordered
from risk.inline.forks import spot_of
from risk.inline.orders import SessionFinding, SessionLogout
from risk.inline.proofs import outdated_by
from risk.inline.shown import asks_more, has_shown, together, without_shown
from risk.model import Level
from risk.policies.ages import Judge, asks_for_newer
from risk.policies.facts import RequestFacts
from risk.scoring.model import Features, Score, Scorer
from risk.scoring.rules import news
from risk.verdict import Decision, Scope, Verdict, strongest

REASONS_MAX: Final = 20
#: an end that a rule wants for the user, and that only the session's risk speaks for
KEPT_TO_SESSION: Final = "kept_to_session"
#: a step-up that is not finished by then is given up: the next request of the context asks anew
STEP_UP_LIFE: Final = timedelta(seconds=120)
_NOT_KEPT: Final[dict[str, Any]] = {}
_UNCHANGED: Final = Score(
    value=0.0, level=Level.LOW, contributions=(), reasons=(), scorer="unchanged"
)


class StandState(StrEnum):
    """What was settled about one context of one session."""

    #: the first context of the session
    ANCHOR = "anchor"
    #: let pass without a proof
    ACCEPTED = "accepted"
    #: has to prove itself
    ASKED = "asked"
    #: proved itself
    PASSED = "passed"
    #: was asked and refused
    REFUSED = "refused"
    DENIED = "denied"
    TERMINATED = "terminated"


#: where the session may go on
KNOWN_STATES: Final = (StandState.ANCHOR, StandState.ACCEPTED, StandState.PASSED)
_ACCEPTED: Final = frozenset(KNOWN_STATES)
#: nothing brings a context back from here; the session has to begin anew
_FINAL: Final = frozenset({StandState.REFUSED, StandState.TERMINATED})
STATE_OF: Final[Mapping[Decision, StandState]] = {
    Decision.ALLOW: StandState.ACCEPTED,
    Decision.STEP_UP: StandState.ASKED,
    Decision.DENY: StandState.DENIED,
    Decision.TERMINATE: StandState.TERMINATED,
}


#: state, level, and when it was settled so
StandMark: TypeAlias = tuple[str, str, datetime]


class Stand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was settled about one context of one session, as it is stored and travels to the writer.

    level: of the risk it was settled at. context: as rendered by `render_context`. step_up_id: of
    the one step-up it was asked for, "" without; acr, amr_any_of, max_age (seconds): what that has
    to reach. shown_acr, shown_amr: what was reached here, at this level or a higher one.
    was_accepted: before more was asked of it, or it was kept out: other contexts are compared with
    it all the same. proven_at: of a proof that came before what it is now; None: there was none.
    auth_time: of the proof that a PASSED brings. outdated: this ASKED wants a newer proof than of
    then. session_level: of the session alone; changes: names of those it was settled for. beside:
    key of what an ACCEPTED was compared with. ends: (issuer, sid) when the session ends with it;
    logout: where it ends; finding: what is told. These eight are not stored.
    """

    tenant_id: str
    session_id: str
    context_key: str
    state: str
    level: str
    decision: str
    scope: str
    at: datetime
    since: datetime
    reasons: tuple[str, ...] = ()
    step_up_id: str = ""
    acr: str = ""
    amr_any_of: tuple[str, ...] = ()
    max_age: int = 0
    shown_acr: tuple[str, ...] = ()
    shown_amr: tuple[str, ...] = ()
    was_accepted: bool = False
    proven_at: datetime | None = None
    trace_id: str = ""
    app_id: str = ""
    context: dict[str, Any] = {}
    auth_time: datetime | None = None
    outdated: datetime | None = None
    session_level: str = ""
    changes: tuple[str, ...] = ()
    beside: str = ""
    ends: tuple[str, str] | None = None
    logout: SessionLogout | None = None
    finding: SessionFinding | None = None

    @property
    def mark(self) -> StandMark:
        """What differs from the stand that was there before."""
        return self.state, self.level, self.at

    def without_context(self) -> Stand:
        """Return it for memory, where contexts are held apart, and texts are shared."""
        return msgspec.structs.replace(
            self,
            context=_NOT_KEPT,
            changes=(),
            beside="",
            logout=None,
            finding=None,
            tenant_id=intern(self.tenant_id),
            state=intern(self.state),
            level=intern(self.level),
            decision=intern(self.decision),
            scope=intern(self.scope),
            acr=intern(self.acr),
            app_id=intern(self.app_id),
        )

    @property
    def is_accepted(self) -> bool:
        """Whether the session may go on here as it is."""
        return self.state in _ACCEPTED

    @property
    def is_known(self) -> bool:
        """Whether other contexts are compared with this one.

        INVARIANT: a session that was accepted somewhere has a known context: with none, the next
        one that comes would be its first, wherever that is.
        """
        return self.is_accepted or self.was_accepted

    @property
    def last_proof_at(self) -> datetime | None:
        """When somebody proved themselves here the last time; None: nobody did."""
        return self.at if self.state == StandState.PASSED else self.proven_at

    @property
    def is_final(self) -> bool:
        """Whether this context of the session is over for good."""
        return self.state in _FINAL

    def is_given_up(self, now: datetime) -> bool:
        """Whether it waits for a step-up that nobody finished in time. Requirement STEP-8."""
        return self.state == StandState.ASKED and now - self.at > STEP_UP_LIFE


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A stand as it is stored now, and whether this very call made it so."""

    stand: Stand
    is_new: bool


def _changes_nothing(known: Stand, wanted: Stand) -> bool:
    if wanted.state == StandState.ASKED and known.state == StandState.ASKED:
        return is_joined(known, wanted)
    if wanted.state == StandState.ASKED and known.state == StandState.PASSED:
        is_newer = wanted.outdated is None or known.at > wanted.outdated
        is_level = Level[wanted.level] <= Level[known.level]
        return is_newer and is_level and has_shown(known, wanted)
    is_denied_again = wanted.state == StandState.DENIED and known.state == StandState.DENIED
    return is_denied_again or wanted.state in {StandState.ACCEPTED, StandState.ANCHOR}


def is_joined(known: Stand, wanted: Stand) -> bool:
    """Return whether a step-up that was asked for is the one that is wanted. Raises nothing."""
    return not known.is_given_up(wanted.at) and not asks_more(wanted, known)


def outdoes(known: Stand, wanted: Stand, *, is_live: bool) -> bool:
    """Return whether an end becomes a wider one: of the session that goes on still, of the user."""
    is_wider = Scope[wanted.scope.upper()] > Scope[known.scope.upper()]
    is_more = is_wider or (is_live and wanted.ends is not None)
    return is_more and wanted.state == StandState.TERMINATED


def settle(known: Stand | None, wanted: Stand, *, is_live: bool = False) -> Settled:
    """Return what a stand becomes. Raises nothing; the order of equal requests does not matter.

    One step-up per (session, context): a second request joins the first, until that is given up,
    or more is asked for. What was passed is asked again only at a higher level, for more, or when
    it is too long ago. An end is the end; is_live: not of the session yet.
    """
    if known is None:
        return Settled(stand=wanted, is_new=True)
    keeps = Settled(stand=known, is_new=False)
    is_over = known.is_final and not outdoes(known, wanted, is_live=is_live)
    if is_over or _changes_nothing(known, wanted):
        return keeps
    kept = msgspec.structs.replace(
        wanted,
        since=known.since,
        was_accepted=known.is_known,
        proven_at=known.last_proof_at,
    )
    if _goes_on(known, wanted):
        is_proven = wanted.state == known.state == StandState.PASSED
        kept = msgspec.structs.replace(
            kept,
            level=max(Level[known.level], Level[wanted.level]).name if is_proven else kept.level,
            shown_acr=together(known.shown_acr, wanted.shown_acr),
            shown_amr=together(known.shown_amr, wanted.shown_amr),
        )
    return Settled(stand=kept, is_new=True)


def _goes_on(known: Stand, wanted: Stand) -> bool:
    """Return whether what was shown here before still counts: not for what is worse than that."""
    asking = {StandState.ASKED, StandState.PASSED}
    is_worse = wanted.state == StandState.ASKED and Level[wanted.level] > Level[known.level]
    return {known.state, wanted.state} <= asking and not is_worse


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that is known when a request of a live session is judged.

    facts: for the policies; level and changes are filled in here. features: for the scorer, the
    same way. other_apps: of the session, besides the one that is asked for. here: None when the
    caller says nothing about the request. accepted: contexts the session was accepted in, by their
    keys. stand: what was settled about this one; out_of_app: about the app alone here. fork,
    binding: how bad it is what the session's use over time and the proofs of its key say, LOW is
    well. blocked_by: name of a zone. is_review: nobody asked.
    """

    now: datetime
    facts: RequestFacts
    other_apps: tuple[str, ...] = ()
    here: Context | None = None
    accepted: Mapping[str, Context] = field(default_factory=dict)
    stand: Stand | None = None
    out_of_app: Stand | None = None
    fork: Level = Level.LOW
    binding: Level = Level.LOW
    blocked_by: str | None = None
    features: Features = field(default_factory=Features)
    is_review: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One judgement. before: what `here` was compared with. accepts: it joins what is accepted.

    level: of the session, never below what the changes themselves say. facts: as policies saw them.
    """

    verdict: Verdict
    level: Level
    score: Score
    facts: RequestFacts
    changes: tuple[Change, ...] = ()
    before: Context | None = None
    accepts: bool = False
    is_anchor: bool = False


def judge(situation: Situation, policies: Judge, scorer: Scorer) -> Judged:
    """Judge a request of a live session. Raises nothing of its own.

    A change from an exempt place is none. What was passed before stays passed up to the level it
    was passed at; what was ended stays ended.
    """
    before, changes = changes_of(situation)
    score, level = _scored(situation, scorer, changes)
    named = tuple(each.value for each in changes)
    facts = replace(situation.facts, level=level, changes=named)
    verdicts = [policies.judge_session(facts, (facts.app_id,) if facts.app_id else ())]
    if situation.blocked_by is not None:
        blocked = (f"blocked_by:{situation.blocked_by}",)
        verdicts.append(Verdict(decision=Decision.DENY, scope=Scope.SESSION, reasons=blocked))
    verdict = _reaching(strongest(verdicts), facts)
    stand = situation.stand
    # A proof counts with its age: whoever gives one gives it for the session.
    passed = stand if stand is not None and stand.state == StandState.PASSED else None
    since = outdated_by(situation.binding, situation.now)
    if passed is None or not (
        (since is not None and passed.at <= since) or asks_for_newer(verdict, facts, policies)
    ):
        verdict = with_stand(verdict, stand, facts)
    verdict = with_stand(verdict, situation.out_of_app, facts)
    verdict = _with_other_apps(verdict, situation, facts, policies)
    if changes and verdict.decision is not Decision.ALLOW:
        told = dict.fromkeys((*verdict.reasons, *(f"{name}_changed" for name in named)))
        verdict = replace(verdict, reasons=tuple(told)[:REASONS_MAX])
    is_let_pass = verdict.decision is Decision.ALLOW and verdict.would_have is None
    return Judged(
        verdict=verdict,
        level=level,
        score=score,
        facts=facts,
        changes=changes,
        before=before,
        accepts=situation.here is not None and is_let_pass and level is Level.LOW,
        is_anchor=not situation.accepted,
    )


def changes_of(situation: Situation) -> tuple[Context | None, tuple[Change, ...]]:
    """Return what the present context was compared with, and the changes; () for none."""
    here, stand = situation.here, situation.stand
    if here is None:
        return None, ((Change.BINDING_LOST,) if situation.binding > Level.LOW else ())
    is_settled = stand is not None and stand.is_accepted
    before: Context | None = None
    found: set[Change] = set()
    if situation.accepted and not is_settled:
        before, changes = nearest(situation.accepted.values(), here)
        found.update(changes)
    if situation.fork > Level.LOW and not _is_owner(situation, here):
        found.add(Change.FORK)
    if situation.facts.exempt:
        found.clear()
    if situation.binding > Level.LOW:
        found.add(Change.BINDING_LOST)
    return before, ordered(found - {Change.NONE})


def _is_owner(situation: Situation, here: Context) -> bool:
    """Return whether a fork is not this client's doing: it was there first, or proved itself.

    Where two devices take turns, that is told by the device; a clone has the same one.
    """
    stand = situation.stand
    if stand is not None and stand.state in {StandState.ANCHOR, StandState.PASSED}:
        return True
    device = spot_of(here).device
    known = {spot_of(each).device for each in situation.accepted.values()}
    return situation.fork is Level.HIGH and bool(device) and device in known


def _scored(
    situation: Situation, scorer: Scorer, changes: tuple[Change, ...]
) -> tuple[Score, Level]:
    if not changes:
        return _UNCHANGED, Level.LOW
    named = tuple(each.value for each in changes)
    seen = situation.features
    score = scorer.score(replace(seen, changes=named, behaviours=news(seen.behaviours, named)))
    floor = max(
        level_min(changes),
        situation.binding,
        situation.fork if Change.FORK in changes else Level.LOW,
    )
    return score, max(score.level, floor)


def _reaching(verdict: Verdict, facts: RequestFacts) -> Verdict:
    """Return the verdict, of the user only where the hub holds user or device at HIGH.

    Everything else that rules look at comes with the request: addresses, agents, signals, the app.
    Who may ask about a session could say of it what ends all sessions of its user; so what is said
    there ends the session, and no more. Source: threat-protection §2.1, §17 row 34.
    """
    is_wide = verdict.decision is Decision.TERMINATE and verdict.scope is Scope.USER
    if not is_wide or max(facts.user_level, facts.device_level) is Level.HIGH:
        return verdict
    return replace(verdict, scope=Scope.SESSION, reasons=(*verdict.reasons, KEPT_TO_SESSION))


def with_stand(verdict: Verdict, stand: Stand | None, facts: RequestFacts) -> Verdict:
    """Return the verdict of a context with what was settled about it before. Raises nothing."""
    if stand is None:
        return verdict
    if stand.is_final and (stand.scope != "app" or stand.app_id == (facts.app_id or "")):
        ended = Verdict(
            decision=Decision.TERMINATE,
            scope=Scope.APP if stand.scope == "app" else Scope.SESSION,
            reasons=stand.reasons,
            trace_id=stand.trace_id or None,
        )
        return strongest([verdict, ended])
    is_passed = stand.state == StandState.PASSED and worst_level(facts) <= Level[stand.level]
    return without_shown(verdict, stand, facts) if is_passed else verdict


def _with_other_apps(
    verdict: Verdict, situation: Situation, facts: RequestFacts, policies: Judge
) -> Verdict:
    """Return the verdict with what fails at the session's other apps: told, and of no effect here.

    A strict app prompts when it is asked for itself; a lax one beside it does not.
    """
    if not situation.other_apps or not (facts.changes or situation.is_review):
        return verdict
    others = policies.judge_session(replace(facts, app_id=None), situation.other_apps)
    elsewhere = tuple(each for each in others.violations if each.app_ids)
    return replace(verdict, violations=(*verdict.violations, *elsewhere)) if elsewhere else verdict


def worst_level(facts: RequestFacts) -> Level:
    """Return the worst of the risks of session, user and device. Raises nothing."""
    return max(facts.level, facts.user_level, facts.device_level)
