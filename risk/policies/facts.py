"""What the policies of sign-ins and sessions look at: one request, judged by everybody before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from risk.model import Level

#: of each list and map of the facts that expressions see; what is more is left out
FACT_ITEMS_MAX: Final = 200


class RequestKind(StrEnum):
    """What somebody wants to do. Enrolling a factor is a sign-in action of its own."""

    SIGN_IN = "sign_in"
    SESSION = "session"
    ENROLL_FACTOR = "enroll_factor"


class AddressFacts(Protocol):
    """What policies ask about an address; `risk.networks.model.IPRecord` is one."""

    @property
    def ip(self) -> str:
        """The address."""

    @property
    def known(self) -> bool:
        """Whether any feed covers it."""

    @property
    def asn(self) -> int | None:
        """Number of its autonomous system."""

    @property
    def organisation(self) -> str | None:
        """Who holds it."""

    @property
    def country(self) -> str | None:
        """ISO 3166-1 alpha-2."""

    @property
    def region(self) -> str | None:
        """ISO 3166-2."""

    @property
    def city(self) -> str | None:
        """Name of the city."""

    @property
    def categories(self) -> frozenset[str]:
        """What kind of address it is (HOSTING, ANONYMIZER_TOR …)."""

    @property
    def operator(self) -> str | None:
        """Which service runs it (a VPN, a proxy)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """One request. level: login risk of a sign-in, session risk of a session.

    zones: what the origin lies in. app_id: of a sign-in, None for the IdP itself. posture: signals
    of the device. behaviours: name -> POSITIVE | NEGATIVE | UNKNOWN. detections: active findings
    about the user. changes: classes of change since the context before. auth_age_s: since the user
    last proved themselves, None if unknown. exempt: the origin lies in an exempt zone. extra: for
    expressions alone (front doors put what the caller sent there).
    """

    kind: str
    level: Level
    user_level: Level = Level.LOW
    device_level: Level = Level.LOW
    zones: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    app_id: str | None = None
    record: AddressFacts | None = None
    posture: Mapping[str, str] = field(default_factory=dict)
    behaviours: Mapping[str, str] = field(default_factory=dict)
    detections: frozenset[str] = frozenset()
    changes: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()
    acr: str | None = None
    auth_age_s: float | None = None
    issuer: str | None = None
    exempt: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)
