"""What is asked about a session, and what is answered. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec

from risk.model import Level
from risk.sessions.model import Session
from risk.verdict import Verdict
from runtime.caller import Caller

#: hops of one chain of addresses that are looked at
CHAIN_HOPS_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 1_024
SIGNALS_MAX: Final = 64


class SessionQuestion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whether a session may do what it is about to do. Everything but the tenant may be unknown.

    iss, sid: which session; without iss the sid must be the only one of its name in the tenant.
    cookie_sha256: names it instead, 64 lower-case hexadecimal digits. user_id: whose session the
    caller takes it for; another's is no session of theirs. chain: addresses as texts, client first,
    the hop that connects to us last. ja4, accept_language, user_agent: of the client.
    device_id, device_token_hash, signals: of its device, as the caller says. app: the app id that
    is asked for. path: its class or path, without a query. dbsc_proof: as presented.
    """

    tenant_id: str
    at: datetime
    iss: str | None = None
    sid: str | None = None
    cookie_sha256: str | None = None
    user_id: str | None = None
    chain: tuple[str, ...] = ()
    user_agent: str | None = None
    ja4: str | None = None
    accept_language: str | None = None
    device_id: str | None = None
    device_token_hash: str | None = None
    signals: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    app: str | None = None
    app_unknown: bool = False
    method: str | None = None
    path: str | None = None
    dbsc_proof: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """The risk of what was asked. score: sum of what contributed to it, in points."""

    level: Level
    score: float = 0.0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One decision about a session. user_id, session_id: "" while it is not known.

    iss, sid: of the session that was found. changed: classes of change against what was accepted.
    causes, old, new: what changed, by its familiar name, and the values before and after.
    cache_ttl_ms: how long a door may repeat it for the same question; 0 for not at all.
    step_up_id: of the one step-up this context is asked for; is_first_asked: by this very answer.
    challenge: what the device of a key-bound session has to sign next. rendered: what the hub's own
    door made of this very answer, empty as long as nobody asked there.
    """

    verdict: Verdict
    risk: Risk | None = None
    changed: tuple[str, ...] = ()
    cache_ttl_ms: int = 0
    user_id: str = ""
    session_id: str = ""
    iss: str = ""
    sid: str = ""
    trace_id: str | None = None
    acr: str | None = None
    max_age: int | None = None
    causes: tuple[str, ...] = ()
    old: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    new: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    step_up_id: str = ""
    is_first_asked: bool = False
    challenge: str = ""
    rendered: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)


def app_of(caller: Caller, question: SessionQuestion, session: Session) -> str | None:
    """Return the app that is asked for; None when nobody says. Raises nothing."""
    return question.app or caller.app_id or session.app_id or None
