"""The question that a session would ask now, if it asked where it was seen last. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from hub.inline.model import SessionQuestion
from risk.contexts.model import REPORTED_PREFIX, Context
from risk.inline.live import Live
from risk.sessions.model import Session
from runtime.caller import Caller


def last_seen(live: Live) -> Context | None:
    """Return the context that a session was accepted in last; None: in none yet."""
    return next(reversed(live.contexts), None)


def question_of(
    session: Session, here: Context | None, at: datetime
) -> tuple[Caller, SessionQuestion]:
    """Return who asks what about a session. here: None where it was never seen. Raises nothing."""
    caller = Caller(
        tenant_id=session.tenant_id,
        client_id=here.told_by if here else "",
        scopes=frozenset(),
        app_id=None,
    )
    question = SessionQuestion(tenant_id=session.tenant_id, at=at, iss=session.iss, sid=session.sid)
    if here is None:
        return caller, question
    return caller, msgspec.structs.replace(
        question,
        chain=here.chain or ((here.ip,) if here.ip else ()),
        user_agent=here.user_agent or None,
        ja4=here.ja4 or None,
        accept_language=here.accept_language or None,
        device_id=here.device_id or None,
        device_token_hash=here.device_token_hash or None,
        signals=_said(here.signals),
        app=here.app_id or None,
    )


def _said(signals: Mapping[str, str]) -> dict[str, str]:
    """Return the signals without those that are reported apart from requests."""
    return {name: value for name, value in signals.items() if not name.startswith(REPORTED_PREFIX)}
