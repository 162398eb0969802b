"""What is asked about a sign-in, how it is read from JSON, and what is kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from risk.contexts.parsing import JA4_CHARS_MAX
from risk.ips.model import normal_ip
from risk.policies.facts import RequestKind
from runtime.errors import Invalid

USER_AGENT_CHARS_MAX: Final = 1024
DEVICE_ID_CHARS_MAX: Final = 200
TOKEN_HASH_CHARS_MAX: Final = 128
APP_CHARS_MAX: Final = 200
ACR_CHARS_MAX: Final = 200
AMR_MAX: Final = 20
AMR_CHARS_MAX: Final = 50
SID_CHARS_MAX: Final = 512
#: what somebody may want to do
ACTIONS: Final = frozenset({RequestKind.SIGN_IN.value, RequestKind.ENROLL_FACTOR.value})
#: what the change feed calls counts of failures; refs are their names
FAILURES_KIND: Final = "failures"
#: hops a caller may send, and those that are looked at: the last ones
HOPS_SENT_MAX: Final = 1_000
HOPS_MAX: Final = 32

#: What proves more than a password (RFC 8176), unless a policy says what it wants.
STRONG_AMR: Final = frozenset(
    {
        "face", "fpt", "hwk", "iris", "mfa", "otp", "pop", "retina", "sc", "swk", "vbm",
        "phr", "phrh",
    }
)  # fmt: skip


class Phase(StrEnum):
    """When it is asked."""

    BEFORE = "before"
    AFTER = "after"


class Outcome(StrEnum):
    """How the credential check went."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInQuestion:
    """One question. chain: addresses, client first; empty when nobody says.

    outcome: of the check, None before it. sid: of the session that it began.
    """

    chain: tuple[str, ...] = ()
    user_agent: str = ""
    ja4: str = ""
    device_id: str | None = None
    device_token_hash: str | None = None
    app: str | None = None
    action: RequestKind = RequestKind.SIGN_IN
    phase: Phase = Phase.BEFORE
    outcome: Outcome | None = None
    amr: tuple[str, ...] = ()
    acr: str | None = None
    sid: str | None = None

    @property
    def says_where(self) -> bool:
        """Whether there is anything to score."""
        return bool(self.chain or self.user_agent or self.device)

    @property
    def device(self) -> str | None:
        """What the device is known by: its token, else its id."""
        return self.device_token_hash or self.device_id


class SignInRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in as it is kept; item of the operation RECORD_SIGN_IN.

    user_id: "" for a name nobody knows. facts: what the answer said of the risk, as JSON.
    """

    tenant_id: str
    sign_in_id: str
    user_id: str
    client_id: str
    at: datetime
    action: str
    phase: str
    outcome: str
    decision: str
    level: str
    score: float
    ip: str
    facts: dict[str, Any]


def parse_question(body: Mapping[str, object]) -> SignInQuestion:
    """Read the members of a question, the user apart; unknown ones are ignored.

    `{ip? | ip_chain?, user_agent?, ja4?, device?: {id?, token_hash?}, app?, action?, phase?,
    outcome?, amr?, acr?, sid?}`. What a browser sends is cut to size, what the caller builds is
    refused when it is wrong. Raises Invalid with pointers.
    """
    phase = _member(body, "phase", Phase, Phase.BEFORE)
    outcome = _member(body, "outcome", Outcome, None)
    if phase is Phase.AFTER and outcome is None:
        raise _invalid("/outcome", "success or failure, in phase after")
    if phase is Phase.BEFORE and outcome is not None:
        raise _invalid("/outcome", "nothing, in phase before")
    device = body.get("device")
    if device is not None and not isinstance(device, dict):
        raise _invalid("/device", "an object")
    device = device or {}
    user_agent = body.get("user_agent")
    if user_agent is not None and not isinstance(user_agent, str):
        raise _invalid("/user_agent", "a text")
    action = body.get("action", RequestKind.SIGN_IN.value)
    if not isinstance(action, str) or action not in ACTIONS:
        raise _invalid("/action", f"one of {', '.join(sorted(ACTIONS))}")
    return SignInQuestion(
        chain=_chain(body),
        user_agent=(user_agent or "")[:USER_AGENT_CHARS_MAX],
        ja4=_text(body.get("ja4"), "/ja4", JA4_CHARS_MAX) or "",
        device_id=_text(device.get("id"), "/device/id", DEVICE_ID_CHARS_MAX),
        device_token_hash=_text(
            device.get("token_hash"), "/device/token_hash", TOKEN_HASH_CHARS_MAX
        ),
        app=_text(body.get("app"), "/app", APP_CHARS_MAX),
        action=RequestKind(action),
        phase=phase,
        outcome=outcome,
        amr=_amr(body.get("amr")),
        acr=_text(body.get("acr"), "/acr", ACR_CHARS_MAX),
        sid=_text(body.get("sid"), "/sid", SID_CHARS_MAX),
    )


def is_strong(amr: tuple[str, ...]) -> bool:
    """Return whether more than a password was proved. Raises nothing."""
    return not STRONG_AMR.isdisjoint(amr)


def _chain(body: Mapping[str, object]) -> tuple[str, ...]:
    chain = body.get("ip_chain")
    if chain is None:
        ip = body.get("ip")
        return () if ip is None else (str(normal_ip(ip, "/ip")),)
    if not isinstance(chain, list) or len(chain) > HOPS_SENT_MAX:
        raise _invalid("/ip_chain", f"an array of at most {HOPS_SENT_MAX} addresses")
    first = max(0, len(chain) - HOPS_MAX)
    return tuple(
        str(normal_ip(hop, f"/ip_chain/{place}"))
        for place, hop in enumerate(chain)
        if place >= first
    )


def _member(body: Mapping[str, object], name: str, choices: Any, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    try:
        return choices(value)
    except ValueError as error:
        raise _invalid(f"/{name}", f"one of {', '.join(choices)}") from error


def _text(value: object, at: str, chars_max: int) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > chars_max or not value.isprintable():
        raise _invalid(at, f"at most {chars_max} printable characters")
    return value


def _amr(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > AMR_MAX:
        raise _invalid("/amr", f"an array of at most {AMR_MAX} texts")
    return tuple(
        text
        for place, each in enumerate(value)
        if (text := _text(each, f"/amr/{place}", AMR_CHARS_MAX)) is not None
    )


def _invalid(at: str, wanted: str) -> Invalid:
    return Invalid(f"Not valid: {at}: {wanted}.", pointers=((at, wanted),))


class FailureNote(msgspec.Struct, frozen=True, kw_only=True):
    """What one process saw of a count and has to share. clears: what was counted before is gone."""

    tenant_id: str
    name: str
    failed: int
    at: datetime
    clears: bool = False


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How many sign-ins failed, and when the last one did."""

    count: int
    at: datetime


NO_FAILURES: Final = Tally(count=0, at=datetime(1970, 1, 1, tzinfo=UTC))
