"""What proves something: the key of a session, and a user who was asked. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import msgspec

from risk.model import Level

#: a context that showed the key is believed for this long
PROOF_LIFE: Final = timedelta(minutes=10)
#: how far the clocks of identity providers may be off when an age is counted
CLOCK_SKEW: Final = timedelta(seconds=5)
_FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a session was shown in a context; item of the operation PROVE.

    proof_id: a proof is good once.
    """

    tenant_id: str
    session_id: str
    proof_id: str
    context_key: str
    at: datetime


class Wanted(Protocol):
    """What was asked for: when, and what it has to reach. max_age: in seconds."""

    @property
    def at(self) -> datetime: ...  # noqa: D102

    @property
    def max_age(self) -> int: ...  # noqa: D102


class Shown(Protocol):
    """The word that a user proved themselves: when it was said, and when it was proven."""

    @property
    def at(self) -> datetime: ...  # noqa: D102

    @property
    def auth_time(self) -> datetime | None: ...  # noqa: D102


def outdated_by(binding: Level, now: datetime) -> datetime | None:
    """Return until when a step-up was passed that no longer stands for the key; None: any does.

    binding: how bad it is what the key's proofs say, LOW is well. A passed step-up stands for the
    key as long as a proof of it would; for a wrong one it never does. Raises nothing.
    """
    if binding is Level.LOW:
        return None
    return _FOR_EVER if binding is Level.HIGH else now - PROOF_LIFE


def is_recent(wanted: Wanted, shown: Shown) -> bool:
    """Return whether a proof is as recent as was asked for; with `max_age` 0, given since.

    Raises nothing. Source: RFC 9470 §6.
    """
    if shown.auth_time is None:
        return False
    if wanted.max_age:
        return shown.at - shown.auth_time <= timedelta(seconds=wanted.max_age) + CLOCK_SKEW
    # An `auth_time` has no fractions of a second (OpenID Connect Core 2).
    return shown.auth_time >= wanted.at.replace(microsecond=0)
