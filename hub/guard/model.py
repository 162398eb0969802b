"""When a provider runs away, and what is told of it. Pure rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from risk.model import Assessment, Level

#: contracts §6 Guards
QUARANTINE_WINDOW: Final = timedelta(minutes=5)
QUARANTINE_USERS_MIN: Final = 10
QUARANTINE_PER_CENT: Final = 10
HARM_WINDOW: Final = timedelta(hours=1)
BREAK_GLASS_MAX: Final = 100
REASON_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """A user who became HIGH on the word of an issuer."""

    tenant_id: str
    iss: str
    user_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """How many users became HIGH on the word of an issuer: in five minutes, and in an hour."""

    lately: int
    hourly: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """A provider that the hub stopped believing. marked: users in the window; of `users`."""

    tenant_id: str
    quarantine_id: str
    provider_id: str
    iss: str
    marked: int
    users: int
    at: datetime
    told_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """A user who is never logged out or quarantined automatically.

    user: a reference as in APIs (contracts §5); who is named may be unknown yet.
    """

    tenant_id: str
    entry_id: str
    user: str
    reason: str
    added_at: datetime


def harms(
    assessments: Iterable[Assessment], signal_ids: Collection[str], now: datetime
) -> list[Harm]:
    """Return who became HIGH just now, and on whose word.

    signal_ids: of the batch. Only those whose word came in it are answerable, not who said
    something before that now counts in addition. Raises nothing.
    """
    ids = frozenset(signal_ids)
    return [
        Harm(tenant_id=made.tenant_id, iss=iss, user_id=made.user_id, at=now)
        for made in assessments
        if made.level is Level.HIGH and made.previous_level is not Level.HIGH
        for iss in sorted({cause.issuer for cause in made.causes if cause.signal_ids & ids})
    ]


def is_runaway(marked: int, users: int) -> bool:
    """Return whether an issuer is to be quarantined. users: of the tenant. Raises nothing.

    Source: contracts §6 Guards; requirement SSF-SEC-5.
    """
    return marked >= QUARANTINE_USERS_MIN and marked * 100 >= users * QUARANTINE_PER_CENT


def message(quarantine: Quarantine) -> str:
    """Return what an admin is told. Raises nothing."""
    return (
        f"The provider {quarantine.provider_id} ({quarantine.iss}) marked {quarantine.marked} of "
        f"{quarantine.users} users HIGH within five minutes and is quarantined: it is listened to, "
        "nothing is done on its word, and what was done on its word alone is undone. Look at it, "
        "then lift the quarantine."
    )
