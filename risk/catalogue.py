"""The kinds of finding we know, what ends each of them, and how long each lasts. Pure data.

A remedy is the name of an event that ends a cause. Every kind of finding lists the remedies that
end it, and no other does: a logout never clears a breached password.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from risk.model import Level

DEVICE_HEALTHY: Final = "device_healthy"
PARTNER_LOWERED: Final = "partner_lowered"
ACCOUNT_ENABLED: Final = "account_enabled"
SESSION_RISK_LOWERED: Final = "session_risk_lowered"
ADMIN_LOWERED: Final = "admin_lowered"
CONFIRMED_SAFE: Final = "confirmed_safe"
CREDENTIAL_CHANGED: Final = "credential_changed:"
#: names of a tenant's own, for findings and for remedies
_OWN_NAME: Final = re.compile(r"x_[a-z0-9_]{1,60}")

#: what an administrator says of a user; no event can
ADMIN_REPORTED: Final = "admin_reported_user_risk"

PASSWORD: Final = "password"  # noqa: S105 - the name of a credential type, no secret
CREDENTIAL_TYPE_CHARS_MAX: Final = 64

#: INVARIANT: these end only what the same issuer said; a healthy word of another changes nothing
_BOUND_TO_ISSUER: Final = frozenset(
    {DEVICE_HEALTHY, PARTNER_LOWERED, ACCOUNT_ENABLED, SESSION_RISK_LOWERED, ADMIN_LOWERED}
)

CONFIDENCE_MIN: Final = 0.5
#: ageing of findings without a time of their own; HIGH never ages (threat model §1.3)
LIFE_OF_LEVEL: Final[Mapping[Level, timedelta | None]] = MappingProxyType(
    {Level.LOW: timedelta(days=30), Level.MEDIUM: timedelta(days=14), Level.HIGH: None}
)


def credential_changed(credential_type: str) -> str:
    """Return the remedy "a credential of this type was changed or removed"."""
    return CREDENTIAL_CHANGED + credential_type[:CREDENTIAL_TYPE_CHARS_MAX]


def bound_to_issuer(remedy: str) -> bool:
    """Return whether the remedy ends only what the same issuer said."""
    return remedy in _BOUND_TO_ISSUER or is_own_name(remedy)


def is_own_name(name: str) -> bool:
    """Return whether this is a name that a tenant made up: `x_` and lower-case words."""
    return _OWN_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingType:
    """One kind of finding.

    floor: while it is open at HIGH, no pin gets below HIGH. confidence_min: below it the level
    sinks one step. life: None for the life of its level. mitre: ATT&CK technique ids.
    """

    name: str
    title: str
    mitre: tuple[str, ...]
    floor: bool = False
    confidence_min: float = CONFIDENCE_MIN
    life: timedelta | None = None


_TYPES: Final = (
    FindingType(
        name="device_compromised",
        title="Device compromised",
        mitre=("T1204", "T1078"),
        floor=True,
    ),
    FindingType(name="device_at_risk", title="Device at risk", mitre=("T1204",)),
    FindingType(
        name="device_not_compliant",
        title="Device not compliant",
        mitre=("T1562", "T1078"),
        floor=True,
    ),
    FindingType(
        name="partner_reported_risk",
        title="Risk reported by a security events provider",
        mitre=("T1078",),
    ),
    FindingType(
        name="session_influenced_user_risk",
        title="Session at high risk",
        mitre=("T1539", "T1550.004"),
    ),
    FindingType(
        name="password_compromised",
        title="Password compromised",
        mitre=("T1589.001", "T1078"),
        floor=True,
    ),
    FindingType(
        name="credential_compromised",
        title="Credential compromised",
        mitre=("T1589.001", "T1078"),
    ),
    FindingType(
        name="credential_change_required",
        title="Credential change required",
        mitre=("T1110", "T1078"),
    ),
    FindingType(name="account_hijacked", title="Account hijacked", mitre=("T1078",)),
    FindingType(name="account_fraudulent", title="Account part of a bulk attack", mitre=("T1585",)),
    FindingType(name="account_disabled", title="Account disabled", mitre=("T1531",)),
    FindingType(
        name="assurance_lowered",
        title="Assurance level lowered",
        mitre=("T1556",),
        life=timedelta(hours=24),
    ),
    FindingType(
        name="recovery_activated",
        title="Account recovery started",
        mitre=("T1098",),
        life=timedelta(hours=72),
    ),
    FindingType(
        name="recovery_information_changed",
        title="Recovery information changed",
        mitre=("T1098",),
        life=timedelta(hours=72),
    ),
    FindingType(
        name=ADMIN_REPORTED,
        title="Risk reported by an administrator",
        mitre=("T1078",),
    ),
)

FINDING_TYPES: Final[Mapping[str, FindingType]] = MappingProxyType(
    {finding.name: finding for finding in _TYPES}
)


@functools.lru_cache(maxsize=1024)
def finding_type(name: str) -> FindingType:
    """Return what we know of a kind of finding; a tenant's own kind has no floor and no life.

    Raises nothing: what was found once is told even when its name is in no catalogue any more.
    """
    known = FINDING_TYPES.get(name)
    if known is not None:
        return known
    return FindingType(
        name=name, title=name.removeprefix("x_").replace("_", " ").capitalize(), mitre=()
    )


def life(name: str, level: Level) -> timedelta | None:
    """Return how long a finding counts after it was last seen; None without end."""
    return finding_type(name).life or LIFE_OF_LEVEL[level]
