"""May this user sign in? Everything that is known, put together once.

    who, denied?      ─▶ one query, memory
    from where        ─▶ Origins (zones, feeds) ─▶ History (baseline, behaviours) ─┐
    who says what     ─▶ IPClaims ─────────────────────────────────────────────────┴▶ Scorer
    policies          ─▶ strongest ─▶ kept (HIGH and what is no ALLOW before the answer) ─▶ answer

`after` with success feeds the baseline, if it had what policy asked for and whoever says so vouches
for users (an identity provider, or a client without an app); with failure it counts.
A name nobody knows is evaluated, and nobody is made of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Protocol

from hub.alerting import About, Alerts
from hub.app_access import RECORD_SIGN_IN
from hub.levels import level_reader
from hub.node import Node
from hub.sign_ins.model import Asked, Judged, WouldHave
from hub.sign_ins.telling import Telling
from risk.baselines.memory import Recorder
from risk.baselines.model import Occurrence, hour_of_week, session_mark, short
from risk.behaviours.history import NETWORK_DIMENSIONS, History, View, with_place
from risk.contexts.agents import parse_agent
from risk.contexts.model import ciphers_of
from risk.entities import service as entities
from risk.entities.model import Reference
from risk.ips.model import IPRisk
from risk.levels.store import read_people
from risk.model import EntityKind, Level
from risk.networks.model import NO_RECORD
from risk.policies.facts import RequestFacts
from risk.scoring.model import Features, Score
from risk.scoring.rules import BEHAVIOURS
from risk.scoring.service import scorer_named
from risk.signins.failures import Failures, place_of
from risk.signins.model import Outcome, SignInRecord
from risk.signins.policy import SignInPolicies, after_proof, is_good
from risk.signins.service import SignInLog
from risk.verdict import Decision, Scope, Verdict
from risk.zones.origin import Origin
from runtime.errors import Invalid
from runtime.ids import new_id
from ssf.errors import SubjectError
from ssf.subject import opaque

_LOCAL: Final = frozenset(
    name for name, novelty in BEHAVIOURS.items() if novelty.dimension in NETWORK_DIMENSIONS
)


class Origins(Protocol):
    """Judges chains of addresses; `risk.zones.service.Zones` does."""

    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Origin:
        """Return where a request comes from. chain: client first. Raises database errors."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Person:
    """What levels and groups the hub knows of. user_id: None for a name nobody knows."""

    user_id: str | None = None
    level: Level = Level.LOW
    device_level: Level = Level.LOW
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """Everything but the word about the address, which counts in two ways."""

    asked: Asked
    person: _Person
    origin: Origin
    here: Occurrence
    view: View
    failures: int
    posture: Mapping[str, str] = field(default_factory=dict)


class SignIns:
    """Judges sign-ins, for one process."""

    def __init__(
        self,
        node: Node,
        *,
        history: History,
        policies: Callable[[str], Awaitable[SignInPolicies]],
        claims: Callable[[str, str], Awaitable[IPRisk]],
        origins: Origins,
    ) -> None:
        """policies: of a tenant; claims: (tenant, address) to what is said of it."""
        self._node = node
        self._levels = level_reader(node.clock)
        self._scorer = scorer_named(node.config.scorer)
        self._history = history
        self._policies = policies
        self._claims = claims
        self._origins = origins
        self.recorder = Recorder(node.writer, history.baselines)
        self.log = SignInLog(node.writer, RECORD_SIGN_IN)
        self.failures = Failures(node.writer, node.database, node.changes)
        self._telling = Telling(node, self.failures)
        self._alerts = Alerts()

    async def judge(self, asked: Asked) -> Judged:
        """Return the verdict of score and policies. Raises database errors."""
        now = self._node.clock.now()
        facts = await self._facts(asked, now)
        claims = IPRisk()
        if facts.here.ip and not facts.origin.is_exempt:
            claims = await self._claims(asked.tenant_id, facts.here.ip)
        policies = await self._policies(asked.tenant_id)
        score, verdict = self._weigh(facts, claims.level, claims.reasons, policies)
        would_have = None
        if verdict.would_have is not None or claims.shadow_reasons != claims.reasons:
            shadow, held = self._weigh(facts, claims.shadow_level, claims.shadow_reasons, policies)
            would_have = WouldHave(
                decision=max(held.decision, held.would_have or Decision.ALLOW),
                level=shadow.level,
                reasons=shadow.reasons,
            )
        return Judged(
            trace_id=new_id("sin"),
            verdict=verdict,
            score=score,
            view=facts.view,
            origin=facts.origin,
            ip_level=claims.level,
            would_have=would_have,
        )

    async def conclude(self, asked: Asked, judged: Judged, verdict: Verdict, facts: Any) -> None:
        """Count, learn and keep what came of it; return when what must be kept is.

        verdict: the whole answer's; facts: of the answer, as JSON. Raises Unavailable when HIGH or
        what is no ALLOW could not be kept.
        """
        now = self._node.clock.now()
        outcome = asked.question.outcome
        if outcome is Outcome.FAILURE:
            self.failures.failed(asked.tenant_id, asked.reference, judged.place(asked), now)
        if outcome is not None:
            await self._telling.guessed(asked, judged, now)
        if outcome is Outcome.SUCCESS and verdict.decision is Decision.ALLOW:
            await self._telling.succeeded(asked, judged, now)
            await self._learn(asked, judged, now)
        record = SignInRecord(
            tenant_id=asked.tenant_id,
            sign_in_id=judged.trace_id,
            user_id=min(asked.user_ids, default=""),
            client_id=asked.client_id,
            at=now,
            action=asked.question.action.value,
            phase=asked.question.phase.value,
            outcome=outcome.value if outcome else "",
            decision=verdict.decision.name,
            level=judged.score.level.name,
            score=judged.score.value,
            ip=judged.origin.client_ip,
            facts=facts,
        )
        if verdict.decision is not Decision.ALLOW or judged.score.level is Level.HIGH:
            await self.log.write(record)
        else:
            self.log.note(record)
        found = self._alerts.found(judged.verdict, _about(asked, judged, now))
        await self._alerts.tell(found, self._node.writer)

    async def _learn(self, asked: Asked, judged: Judged, now: datetime) -> None:
        """Let a success make later sign-ins quieter.

        INVARIANT: nobody's who checks no credentials: with one made-up success a stranger's place
        would be the user's.
        """
        if not asked.vouched:
            return
        place = judged.place(asked)
        await self.failures.succeeded(asked.tenant_id, asked.reference, place, now)
        if is_good(judged.verdict, judged.score.level, asked.question.amr):
            for user_id in asked.user_ids:
                seen = _occurrence(asked, judged.origin, now)
                self.recorder.note(asked.tenant_id, user_id, seen)

    async def _facts(self, asked: Asked, now: datetime) -> _Facts:
        question = asked.question
        person = await self._person(asked)
        origin = await self._origins.judge(asked.tenant_id, question.chain)
        here = _occurrence(asked, origin, now)
        place = place_of(origin.client_ip, question.device)
        view = await self._history.view(asked.tenant_id, person.user_id, here, groups=person.groups)
        if origin.is_exempt:
            view = replace(
                view,
                behaviours={
                    name: value for name, value in view.behaviours.items() if name not in _LOCAL
                },
            )
        return _Facts(
            asked=asked,
            person=person,
            origin=origin,
            here=here,
            view=view,
            failures=await self.failures.of(asked.tenant_id, asked.reference, place, now),
        )

    async def _person(self, asked: Asked) -> _Person:
        device = asked.question.device_id
        async with self._node.database.snapshot() as connection:
            people = await read_people(connection, asked.tenant_id, user_ids=asked.user_ids)
            device_level = Level.LOW
            if device is not None and (named := _device_reference(device)) is not None:
                found = await entities.resolve_all(
                    connection, asked.tenant_id, {named}, kind=EntityKind.DEVICE
                )
                if device_id := found[named]:
                    read = await self._levels(connection, asked.tenant_id, (device_id,))
                    device_level = read[device_id]
        levels = [each.record.level for each in people.values() if each.record]
        return _Person(
            user_id=min(people, default=None),
            level=max(levels, default=Level.LOW),
            device_level=device_level,
            groups=frozenset(group for each in people.values() for group in each.user.groups),
        )

    def _weigh(
        self,
        facts: _Facts,
        ip_level: Level,
        ip_reasons: tuple[str, ...],
        policies: SignInPolicies,
    ) -> tuple[Score, Verdict]:
        """Return the score with a word about the address, and what policies say of it."""
        asked, person, view = facts.asked, facts.person, facts.view
        question, origin = asked.question, facts.origin
        score = self._scorer.score(
            Features(
                behaviours=view.behaviours,
                record=NO_RECORD if origin.is_exempt else origin.record,
                ip_level=ip_level,
                ip_reasons=ip_reasons,
                user_level=person.level,
                device_level=person.device_level,
                familiar=view.familiar,
                peer_familiar=view.peer_familiar,
                org_familiar=view.org_familiar,
                is_learning=view.is_learning,
                org_is_learning=view.org_is_learning,
                hour=hour_of_week(facts.here.at),
                failures=facts.failures,
            )
        )
        is_proved = question.outcome is Outcome.SUCCESS
        verdict = policies.judge_sign_in(
            RequestFacts(
                kind=question.action,
                level=score.level,
                user_level=person.level,
                device_level=person.device_level,
                zones=origin.zones,
                groups=person.groups,
                app_id=question.app,
                record=origin.record,
                behaviours=view.behaviours,
                amr=question.amr,
                acr=question.acr,
                auth_age_s=0.0 if is_proved else None,
                issuer=asked.iss,
                exempt=origin.is_exempt,
            )
        )
        if origin.blocked_by is not None:
            verdict = Verdict(
                decision=Decision.DENY,
                scope=Scope.SESSION,
                reasons=(f"ip_blocked:{origin.blocked_by}",),
            )
        if is_proved:
            verdict = after_proof(verdict, question.amr, question.acr)
        reasons = tuple(dict.fromkeys((*verdict.reasons, *score.reasons)))
        return score, replace(verdict, reasons=reasons)


def _about(asked: Asked, judged: Judged, now: datetime) -> About:
    return About(
        tenant_id=asked.tenant_id,
        of="sign_in",
        key=asked.reference,
        user_id=min(asked.user_ids, default=""),
        app_id=asked.question.app or "",
        trace_id=judged.trace_id,
        at=now,
    )


def _occurrence(asked: Asked, origin: Origin, now: datetime) -> Occurrence:
    question = asked.question
    return with_place(
        Occurrence(
            at=now,
            ip=origin.client_ip,
            device=short(question.device),
            ua=parse_agent(question.user_agent).family or None,
            app=question.app,
            session=session_mark(asked.iss, question.sid) if asked.iss and question.sid else None,
            tls=ciphers_of(question.ja4) or None,
        ),
        origin.record,
    )


def _device_reference(text: str) -> Reference | None:
    """Return how a device's id may be known: by our id, the inventory's, or as an opaque name."""
    if text.startswith("dev_"):
        return Reference(entity_id=text)
    if text.startswith("ext:"):
        return Reference(external_id=text.removeprefix("ext:") or text)
    try:
        return Reference(subject=opaque(text))
    except (SubjectError, Invalid):
        return None


def known_users(found: Collection[str | None]) -> frozenset[str]:
    """Return the users among what names resolved to. Raises nothing."""
    return frozenset(user_id for user_id in found if user_id)
