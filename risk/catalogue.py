"""The kinds of finding we know, what ends each of them, and how long each lasts. Pure.

What a kind is stands in `risk.finding_type`, the kinds themselves in `risk.catalogue_entries`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from risk.catalogue_entries import ADMIN_REPORTED, ENTRIES
from risk.catalogue_reported import ADMIN_CONFIRMED
from risk.finding_type import (
    ACCOUNT_ENABLED,
    ADMIN_LOWERED,
    CONFIDENCE_MIN,
    CONFIRMED_SAFE,
    CREDENTIAL_CHANGED,
    DEVICE_HEALTHY,
    FACTORS_REVIEWED,
    LIFE_OF_CAUSE,
    PARTNER_LOWERED,
    PASSWORD,
    PHISHING_RESISTANT_SIGN_IN,
    SESSION_RISK_LOWERED,
    SESSIONS_REVOKED,
    SESSIONS_SECURED,
    FindingType,
)
from risk.model import Level

__all__ = [
    "ACCOUNT_ENABLED",
    "ADMIN_CONFIRMED",
    "ADMIN_LOWERED",
    "ADMIN_REPORTED",
    "CONFIDENCE_MIN",
    "CONFIRMED_SAFE",
    "CREDENTIAL_CHANGED",
    "CREDENTIAL_TYPE_CHARS_MAX",
    "DEVICE_HEALTHY",
    "FACTORS_REVIEWED",
    "FINDING_TYPES",
    "LIFE_OF_LEVEL",
    "PARTNER_LOWERED",
    "PASSWORD",
    "PHISHING_RESISTANT_SIGN_IN",
    "SESSIONS_REVOKED",
    "SESSIONS_SECURED",
    "SESSION_RISK_LOWERED",
    "FindingType",
    "bound_to_issuer",
    "confirmed_safe",
    "credential_changed",
    "finding_type",
    "is_own_name",
    "life",
]

#: names of a tenant's own, for findings and for remedies
_OWN_NAME: Final = re.compile(r"x_[a-z0-9_]{1,60}")

CREDENTIAL_TYPE_CHARS_MAX: Final = 64
#: a person's word about one kind of finding of one issuer: `confirmed_safe:{name}`
_SAFE_FOR_A_WHILE: Final = CONFIRMED_SAFE + ":"

#: INVARIANT: these end only what the same issuer said; a healthy word of another changes nothing
_BOUND_TO_ISSUER: Final = frozenset(
    {DEVICE_HEALTHY, PARTNER_LOWERED, ACCOUNT_ENABLED, SESSION_RISK_LOWERED, ADMIN_LOWERED}
)

#: ageing of findings without a time of their own; HIGH never ages (threat model §1.3)
LIFE_OF_LEVEL: Final[Mapping[Level, timedelta | None]] = MappingProxyType(
    {Level.LOW: timedelta(days=30), Level.MEDIUM: timedelta(days=14), Level.HIGH: None}
)


def credential_changed(credential_type: str) -> str:
    """Return the remedy "a credential of this type was changed or removed"."""
    return CREDENTIAL_CHANGED + credential_type[:CREDENTIAL_TYPE_CHARS_MAX]


def confirmed_safe(name: str) -> str:
    """Return the remedy "findings of this kind are false for a while", by a person."""
    return _SAFE_FOR_A_WHILE + name


def bound_to_issuer(remedy: str) -> bool:
    """Return whether the remedy ends only what the same issuer said."""
    return remedy in _BOUND_TO_ISSUER or remedy.startswith(_SAFE_FOR_A_WHILE) or is_own_name(remedy)


def is_own_name(name: str) -> bool:
    """Return whether this is a name that a tenant made up: `x_` and lower-case words."""
    return _OWN_NAME.fullmatch(name) is not None


FINDING_TYPES: Final[Mapping[str, FindingType]] = MappingProxyType(
    {finding.name: finding for finding in ENTRIES}
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


@functools.lru_cache(maxsize=1024)
def life(name: str, level: Level) -> timedelta | None:
    """Return how long a finding counts after it was last seen; None without end."""
    known = finding_type(name)
    return known.life or LIFE_OF_CAUSE.get(known.cause) or LIFE_OF_LEVEL[level]
