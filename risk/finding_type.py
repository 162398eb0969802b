"""What is known of a kind of finding, and the remedies that end a cause. Pure.

A remedy is the name of an event that ends a cause. Every cause class lists the remedies that end
it, and no other does: a logout never clears a breached password (threat model §1.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from risk.model import EntityKind, Level

DEVICE_HEALTHY: Final = "device_healthy"
PARTNER_LOWERED: Final = "partner_lowered"
ACCOUNT_ENABLED: Final = "account_enabled"
SESSION_RISK_LOWERED: Final = "session_risk_lowered"
ADMIN_LOWERED: Final = "admin_lowered"
CONFIRMED_SAFE: Final = "confirmed_safe"
#: the factors of the user were looked through, and none of them is a stranger's
FACTORS_REVIEWED: Final = "factors_reviewed"
#: every session of the user was ended, and who owns the sessions says so
SESSIONS_REVOKED: Final = "sessions_revoked"
#: the user signed in with something that cannot be phished
PHISHING_RESISTANT_SIGN_IN: Final = "phishing_resistant_sign_in"
#: SESSIONS_REVOKED, and no earlier than that PHISHING_RESISTANT_SIGN_IN: no event of its own
SESSIONS_SECURED: Final = "sessions_secured"
CREDENTIAL_CHANGED: Final = "credential_changed:"

PASSWORD: Final = "password"  # noqa: S105 - the name of a credential type, no secret
PASSWORD_CHANGED: Final = CREDENTIAL_CHANGED + PASSWORD

CONFIDENCE_MIN: Final = 0.5
#: classes of sources: two findings of one class may be one and the same observation
NETWORK: Final = "network"
CREDENTIAL: Final = "credential"
SESSION: Final = "session"
DEVICE: Final = "device"
PARTNER: Final = "partner"
USER_REPORT: Final = "user_report"
ADMIN: Final = "admin"
SOURCE_CLASSES: Final = frozenset(
    {NETWORK, CREDENTIAL, SESSION, DEVICE, PARTNER, USER_REPORT, ADMIN}
)


class CauseClass(StrEnum):
    """What kind of thing went wrong: it decides what ends the finding."""

    PASSWORD = "password"  # noqa: S105 - the name of a class, no secret
    CREDENTIAL = "credential"
    SESSION_HIJACK = "session_hijack"
    SESSION_RISK = "session_risk"
    DEVICE = "device"
    PARTNER = "partner"
    ACCOUNT = "account"
    USER_REPORT = "user_report"
    ADMIN = "admin"
    BRUTE_FORCE = "brute_force"
    THREAT_IP = "threat_ip"
    TRAVEL = "travel"
    BEHAVIOUR = "behaviour"


#: what ends a finding of each class, besides CONFIRMED_SAFE, which ends any
REMEDIES: Final[Mapping[CauseClass, tuple[str, ...]]] = MappingProxyType(
    {
        CauseClass.PASSWORD: (PASSWORD_CHANGED,),
        # Of which type, only the event knows: `credential_changed:{type}`.
        CauseClass.CREDENTIAL: (),
        CauseClass.SESSION_HIJACK: (SESSIONS_SECURED,),
        CauseClass.SESSION_RISK: (SESSION_RISK_LOWERED, SESSIONS_SECURED),
        CauseClass.DEVICE: (DEVICE_HEALTHY,),
        CauseClass.PARTNER: (PARTNER_LOWERED,),
        CauseClass.ACCOUNT: (ACCOUNT_ENABLED,),
        CauseClass.USER_REPORT: (FACTORS_REVIEWED,),
        CauseClass.ADMIN: (ADMIN_LOWERED,),
        CauseClass.BRUTE_FORCE: (),
        CauseClass.THREAT_IP: (),
        CauseClass.TRAVEL: (),
        CauseClass.BEHAVIOUR: (),
    }
)
#: causes that time alone ends, whatever their level
LIFE_OF_CAUSE: Final[Mapping[CauseClass, timedelta]] = MappingProxyType(
    {
        CauseClass.BRUTE_FORCE: timedelta(hours=24),
        CauseClass.THREAT_IP: timedelta(days=7),
        CauseClass.TRAVEL: timedelta(hours=72),
    }
)


class Timing(StrEnum):
    """When a kind of finding is usually made."""

    REALTIME = "realtime"
    NEARREALTIME = "nearrealtime"
    OFFLINE = "offline"


class RaisedBy(StrEnum):
    """Who can say it."""

    #: what a provider's event means, by the mappings; and `POST /v1/signals/detections`
    PROVIDER = "provider"
    #: `POST /v1/signals/detections`, and where `by_hub` says so a detector of our own
    SIGNAL = "signal"
    #: the hub's own session check
    HUB = "hub"
    #: an administrator or analyst
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingType:
    """One kind of finding.

    level: what it claims when nobody says otherwise, and the most that a signal may claim. about:
    its entity. source_class: of evidence, for corroboration. tactics, mitre: ATT&CK ids of tactics
    and techniques. floor: while it is open at HIGH, no pin gets below HIGH. confidence_min: below
    it the level sinks one step. life: None for that of its cause, else of its level. fires_when,
    twin: what makes it fire, and what looks alike and must not. alias: the name practitioners know.
    by_hub: a detector of the hub raises it, besides whoever may by raised_by.
    """

    name: str
    title: str
    mitre: tuple[str, ...]
    tactics: tuple[str, ...] = ()
    level: Level = Level.MEDIUM
    about: EntityKind = EntityKind.USER
    source_class: str = PARTNER
    cause: CauseClass = CauseClass.BEHAVIOUR
    timing: Timing = Timing.NEARREALTIME
    raised_by: RaisedBy = RaisedBy.SIGNAL
    by_hub: bool = False
    floor: bool = False
    confidence_min: float = CONFIDENCE_MIN
    life: timedelta | None = None
    fires_when: str = ""
    twin: str = ""
    suggested: str = ""
    alias: str = ""

    @property
    def clears_on(self) -> tuple[str, ...]:
        """The remedies that end it when the signal names none of its own."""
        return (*REMEDIES[self.cause], CONFIRMED_SAFE)

    @property
    def is_raisable(self) -> bool:
        """Whether a signal may raise it by name."""
        return self.raised_by in {RaisedBy.PROVIDER, RaisedBy.SIGNAL}
