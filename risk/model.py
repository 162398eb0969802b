"""The words of risk: levels, signals, detections, clearances, pins, assessments. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final

from runtime.errors import Invalid
from ssf.events.registry import Event
from ssf.subject import Subject

RISK_REASON_CHARS_MAX: Final = 500
#: what a risk reason may hold besides letters and digits
REASON_MARKS: Final = " -,."
REASON_CHARS_MAX: Final = 500
REASONS_MAX: Final = 20
#: sightings kept per detection: the first and the newest of them
SIGHTINGS_MAX: Final = 32
CORROBORATION_WINDOW: Final = timedelta(hours=24)
ADMIN_PIN_LIFE: Final = timedelta(hours=24)
DEFAULT_RISK_REASON: Final = "override.by.admin"

#: what is said through our own API, not by a provider
ADMIN_ISSUER: Final = "urn:signalhub:admin"
ADMIN_SOURCE_CLASS: Final = "admin"

#: what the hub found in what callers told it of sessions and of sign-ins
SESSIONS_ISSUER: Final = "urn:signalhub:sessions"
SIGN_INS_ISSUER: Final = "urn:signalhub:sign-ins"
#: INVARIANT: all of this rests on the word of whoever may ask for decisions (`sessions.evaluate`):
#: contexts, sign-ins, and the baselines they are compared with. It is one source.
CALLER_ISSUERS: Final = frozenset({SESSIONS_ISSUER, SIGN_INS_ISSUER})


class Level(IntEnum):
    """How bad it is; ordered. The wire and the database use the names."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class EntityKind(StrEnum):
    """What a finding can be about, and what names can stand for."""

    USER = "user"
    DEVICE = "device"
    SESSION = "session"
    APP = "app"
    SERVICE_ACCOUNT = "service_account"


class SignalMode(StrEnum):
    """What the word of a provider leads to."""

    ENFORCE = "enforce"
    #: recorded and shown as `would_have`; never part of the level
    LOG_ONLY = "log_only"
    #: not assessed
    NONE = "none"


class DetectionState(StrEnum):
    """Where a detection stands; only ACTIVE counts."""

    ACTIVE = "active"
    REMEDIATED = "remediated"
    DISMISSED = "dismissed"
    CONFIRMED_SAFE = "confirmed_safe"
    CONFIRMED_COMPROMISED = "confirmed_compromised"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


class SignalOutcome(StrEnum):
    """What became of a signal (the `state` of its mark)."""

    ASSESSED = "assessed"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A normalised inbound fact: one verified SET of one provider.

    occurred_at: event_timestamp, else toe, else iat (SET-18). level_cap: the highest level the
    provider's word can lead to, None for no cap.
    """

    tenant_id: str
    signal_id: str
    iss: str
    source_class: str
    level_cap: Level | None
    mode: SignalMode
    event: Event
    sub_id: Subject
    occurred_at: datetime
    received_at: datetime
    txn: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One time a finding was reported."""

    signal_id: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A typed, levelled finding about one entity by one issuer.

    Append-only: every change is a new row with the next revision. Reports of the same finding
    join one detection as sightings (ascending, at most SIGHTINGS_MAX), so that a repeated report
    is no new cause. `level` is what was claimed, before confidence and cap.
    clears_on: remedies, each of which closes it (`risk.catalogue`). confidence: 0 to 1.
    """

    tenant_id: str
    detection_id: str
    revision: int
    name: str
    source_class: str
    mode: SignalMode
    entity_kind: EntityKind
    entity_id: str
    related: tuple[str, ...]
    level: Level
    confidence: float
    issuer: str
    sightings: tuple[Sighting, ...]
    detected_at: datetime
    reasons: tuple[str, ...]
    clears_on: tuple[str, ...]
    state: DetectionState
    state_at: datetime
    state_by: str

    @property
    def occurred_at(self) -> datetime:
        """When it was last seen."""
        return self.sightings[-1].occurred_at

    @property
    def since(self) -> datetime:
        """When it was first seen, as far as no remedy came later."""
        return self.sightings[0].occurred_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """An issuer's word that a cause is remedied.

    level: findings above it are closed; None closes all (so "now MEDIUM" closes an older HIGH).
    mode: the word of a log_only issuer closes only what that issuer said itself.
    """

    tenant_id: str
    entity_id: str
    issuer: str
    remedy: str
    level: Level | None
    mode: SignalMode
    occurred_at: datetime
    signal_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An admin's override of the computed level; until: None for no end."""

    tenant_id: str
    entity_id: str
    level: Level
    until: datetime | None
    reason: str
    set_by: str
    set_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminWord:
    """What an administrator sets for a user. by: the client or person, shown in pin and history."""

    level: Level
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A detection that supports the present level, told to people. For a pin the id is its own.

    signal_ids: that reported it.
    """

    detection_id: str
    name: str
    level: Level
    issuer: str
    summary: str
    signal_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a change means for one user, and what policy says about it.

    causes: the detections that support the present level, nothing else. actions: to be done;
    would_have: what would have been done, were it not for monitor mode or a log_only provider.
    identifiers: the user's subject identifiers as JSON objects. occurred_at, received_at: of the
    earliest signal behind this change; for changes by time both are the time of assessment.
    """

    tenant_id: str
    user_id: str
    trace_id: str
    previous_level: Level
    level: Level
    score: float
    reasons: tuple[str, ...]
    causes: tuple[Cause, ...]
    actions: frozenset[str]
    would_have: frozenset[str]
    rule: str
    mode: str
    identifiers: tuple[dict[str, object], ...]
    label: str
    occurred_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMark:
    """What became of one signal.

    state: a value of SignalOutcome. alias_keys: normal forms of the subjects nobody knows yet.
    """

    tenant_id: str
    signal_id: str
    state: str
    detail: str
    alias_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssessResult:
    """The outcome of one batch: assessments for the pipeline, one mark per signal in order.

    reviews: how many sessions wait for being judged because of it.
    """

    assessments: tuple[Assessment, ...]
    marks: tuple[SignalMark, ...]
    reviews: int = 0


def parse_level(value: object) -> Level:
    """Read a level from JSON: exactly LOW, MEDIUM or HIGH. Raises Invalid."""
    if not isinstance(value, str) or value not in Level.__members__:
        raise Invalid(
            "riskLevel is LOW, MEDIUM or HIGH.", pointers=(("/riskLevel", "LOW, MEDIUM or HIGH"),)
        )
    return Level[value]


def parse_risk_reason(value: object) -> str:
    """Read the reason given with a risk level, as practitioners know its rules. Raises Invalid."""
    if value is None or value == "":
        return DEFAULT_RISK_REASON
    if not isinstance(value, str) or not all(
        character.isalnum() or character in REASON_MARKS for character in value
    ):
        rule = "letters, digits, spaces, hyphens, commas and full stops"
        raise Invalid(f"riskReason has {rule}.", pointers=(("/riskReason", rule),))
    if len(value) > RISK_REASON_CHARS_MAX:
        raise Invalid(
            f"riskReason has at most {RISK_REASON_CHARS_MAX} characters.",
            pointers=(("/riskReason", f"at most {RISK_REASON_CHARS_MAX} characters"),),
        )
    return value
