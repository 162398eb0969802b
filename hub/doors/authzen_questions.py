"""What an AuthZEN question asks of the hub, and the verdict on it.

    subject session            ─▶ that session
    subject user + session_id  ─▶ that session, if it is the user's
    a resource type of a rule  ─▶ rules over attributes, and for sessions both
    subject user               ─▶ the user: contained, or at HIGH
    any other                  ─▶ false

Source: standards AZH-1 to AZH-7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from starlette.datastructures import State

from hub.decisions import count_decision, count_unknown, denials
from hub.doors.apps import APP_UNKNOWN, Apps, check_may_ask, is_unknown_app
from hub.doors.authzen_model import Entity, Evaluation
from hub.doors.reading import Read, read_context
from hub.inline.evaluate import evaluate
from hub.inline.model import TEXT_CHARACTERS_MAX, Answer, SessionQuestion
from risk import explanation
from risk.attributes.model import Compiled
from risk.entities import service as entities
from risk.entities.model import Reference, parse_reference
from risk.model import EntityKind, Level
from risk.policy import PolicyMode
from risk.routes import session_issuer
from risk.sessions.model import check_key
from risk.verdict import Decision, Scope, Verdict, strongest
from runtime.caller import Caller
from runtime.errors import Forbidden, Invalid
from runtime.sharing import shared_text
from ssf.errors import SubjectError
from ssf.subject import email, opaque

APP: Final = "app"
SESSION: Final = "session"
USER: Final = "user"
#: an issuer that nobody has: whose session it is cannot be said
NO_ISSUER: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict as AuthZEN tells it. is_single: about a session, so that its trace may be told."""

    answer: Answer
    of_session: bool = False


async def judge(state: State, caller: Caller, asked: Evaluation, now: datetime) -> Judged:
    """Return the verdict on one question. Raises Forbidden for an app the caller may not ask about.

    Raises database errors.
    """
    read = read_context(asked.context)
    reasons = [*read.reasons]
    app = await _app(state, caller, asked, reasons)
    session_id = read.texts.get("session_id") or _string(asked.subject, "session_id")
    rules: Compiled = await state.attribute_rules.get(caller.tenant_id)
    by_rules = rules.judge(asked.raw())
    if asked.subject.type == SESSION or (asked.subject.type == USER and session_id):
        answer = await _judge_session(state, caller, asked, read=read, app=app, now=now)
        if by_rules is not None:
            # A session that is good does not open what the rules keep closed.
            answer = replace(answer, verdict=strongest([answer.verdict, by_rules]))
        return Judged(answer=_with_reasons(answer, reasons), of_session=True)
    if by_rules is not None:
        verdict = by_rules
        # What the rules say is all there is to say: the same question has the same bytes.
        reasons = []
    elif asked.subject.type == USER:
        verdict = await _judge_user(state, caller, asked.subject.id)
    else:
        verdict = _denied("subject_type_unknown", Scope.APP)
    count_decision(caller, "subject", verdict)
    return Judged(answer=_with_reasons(Answer(verdict=verdict), reasons))


async def _app(state: State, caller: Caller, asked: Evaluation, reasons: list[str]) -> str | None:
    """Return the app that is asked for; None when it is unknown, or the resource is none."""
    if asked.resource.type != APP:
        return None
    apps: Apps = state.apps
    await check_may_ask(apps, caller, asked.resource.id)
    if not await is_unknown_app(apps, caller.tenant_id, asked.resource.id):
        return asked.resource.id
    count_unknown("app")
    reasons.append(APP_UNKNOWN)
    return None


async def _judge_session(
    state: State,
    caller: Caller,
    asked: Evaluation,
    *,
    read: Read,
    app: str | None,
    now: datetime,
) -> Answer:
    user_id: str | None = None
    sid = asked.subject.id
    if asked.subject.type == USER:
        sid = read.texts.get("session_id") or _string(asked.subject, "session_id") or ""
        user_id = await _user_id(state, caller.tenant_id, asked.subject.id) or ""
    said = _string(asked.subject, "iss") or read.texts.get("iss")
    question = SessionQuestion(
        tenant_id=caller.tenant_id,
        at=read.at or now,
        iss=await _issuer(state, caller, said),
        sid=_known_form(sid),
        user_id=user_id,
        chain=read.chain,
        user_agent=shared_text(read.texts.get("ua")),
        ja4=read.texts.get("ja4"),
        accept_language=read.texts.get("accept_lang"),
        device_id=read.device_id,
        device_token_hash=read.device_token_hash,
        signals=read.signals,
        app=app or caller.app_id,
        method=_string(asked.resource, "method") or asked.action.name[:TEXT_CHARACTERS_MAX],
        path=_path(_string(asked.resource, "path")),
        dbsc_proof=read.dbsc_proof,
    )
    return await evaluate(state, caller, question)


async def _issuer(state: State, caller: Caller, said: str | None) -> str | None:
    """Return whose session it is; None where nobody says so and the id has to do."""
    try:
        return await session_issuer(caller, state.risk, said)
    except Forbidden:
        return NO_ISSUER
    except Invalid:
        return None


def _known_form(sid: str) -> str | None:
    """Return a session id that may be known; one that cannot be registered is nobody's."""
    try:
        check_key(NO_ISSUER, sid)
    except Invalid:
        return None
    return sid


async def _judge_user(state: State, caller: Caller, alias: str) -> Verdict:
    """Return what the hub says about a user: contained is DENY, and so is HIGH where enforced."""
    user_id = await _user_id(state, caller.tenant_id, alias)
    if user_id is None:
        return _denied("user_unknown", Scope.USER)
    denied = await denials(state, caller.tenant_id, {user_id})
    if denied:
        return denied[0]
    async with state.node.database.snapshot() as connection:
        found = await explanation.user_risk(connection, caller.tenant_id, user_id)
    if found.level is not Level.HIGH:
        return Verdict(decision=Decision.ALLOW, scope=Scope.USER)
    high = _denied("user_risk_high", Scope.USER)
    mode: PolicyMode = await state.policy_modes.get(caller.tenant_id)
    if mode is PolicyMode.ENFORCE:
        return high
    return replace(high, decision=Decision.ALLOW, mode=mode, would_have=high.decision)


async def _user_id(state: State, tenant_id: str, alias: str) -> str | None:
    """Return the user with that alias; None when nobody has it, or several do."""
    references = _references(alias)
    if not references:
        return None
    async with state.node.database.snapshot() as connection:
        found = await entities.resolve_all(connection, tenant_id, references, kind=EntityKind.USER)
    user_ids = {user_id for user_id in found.values() if user_id}
    return user_ids.pop() if len(user_ids) == 1 else None


def _references(alias: str) -> list[Reference]:
    """Return what an alias may mean: a reference of ours, or the bare name others use."""
    try:
        return [parse_reference(alias)]
    except Invalid:
        pass
    found: list[Reference] = []
    for name in (email, opaque):
        try:
            found.append(Reference(subject=name(alias)))
        except SubjectError:
            continue
    if 0 < len(alias) <= TEXT_CHARACTERS_MAX and "\0" not in alias:
        found.append(Reference(external_id=alias))
    return found


def _string(entity: Entity, name: str) -> str | None:
    value = entity.properties.get(name)
    return value if isinstance(value, str) and len(value) <= TEXT_CHARACTERS_MAX else None


def _path(path: str | None) -> str | None:
    """Return a path without its query, which is nobody's business here (FWA-24)."""
    return None if path is None else path.partition("?")[0].partition("#")[0]


def _denied(reason: str, scope: Scope) -> Verdict:
    return Verdict(decision=Decision.DENY, scope=scope, reasons=(reason,))


def _with_reasons(answer: Answer, reasons: list[str]) -> Answer:
    if not reasons:
        return answer
    verdict = replace(answer.verdict, reasons=(*answer.verdict.reasons, *reasons))
    return replace(answer, verdict=verdict)
