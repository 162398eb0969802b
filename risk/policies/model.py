"""A policy as it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from risk.policies.documents import SessionPolicy
from risk.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """The entity risk policy of a tenant.

    version: 0 for the default that nobody stored. skipped: what is wrong with stored rules that
    can no longer be read; the others still apply.
    """

    policy: Policy
    version: int
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSessionPolicy:
    """A policy of sessions or sign-ins. skipped: what is wrong with rules that cannot be read."""

    policy: SessionPolicy
    skipped: tuple[str, ...] = ()
