"""When a user opens more apps than ever, at once. Pure rules.

An app is new as long as the user was not seen to use it: at a sign-in for it, or with a session at
a door. Somebody who came to an account looks through what it opens; whoever has just come to the
company does so, too, and may open more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Limit:
    """So many new apps in a window are suspicious: of a user whose apps are known, of others."""

    window: timedelta
    apps_min: int
    learning_min: int


#: at once; and by and by, so that whoever takes care to stay below the first is seen, too
LIMITS: Final = (
    Limit(timedelta(minutes=5), 15, 25),
    Limit(timedelta(hours=1), 40, 60),
)
#: a user's apps are known when the first of them was used that long ago
LEARNED_AFTER: Final = timedelta(days=7)
#: kept of one user; those that were not used for longest go first
APPS_MAX: Final = 500
#: an app that was not used for longer is new again
LIFE: Final = timedelta(days=180)
#: that an app is still used is written no more often than this
NOTED_EVERY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedApp:
    """One app that a user opened. app: any stable name. trace_id: of the sign-in, None without."""

    tenant_id: str
    user_id: str
    app: str
    at: datetime
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """When an app was first and last used by a user."""

    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """A user opened suspiciously many new apps. apps: how many, within `window` up to `at`."""

    tenant_id: str
    user_id: str
    apps: int
    window: timedelta
    at: datetime
    trace_id: str | None


def is_news(known: Use | None, at: datetime) -> bool:
    """Return whether it is worth writing that an app is used. Raises nothing."""
    return known is None or at - known.last_at >= NOTED_EVERY


def opened(
    known: Mapping[str, Use], items: Sequence[OpenedApp]
) -> tuple[dict[str, Use], Burst | None]:
    """Return all apps of a user with what was just opened, and whether that was too much.

    items: of one user, at least one. A burst is found once: when the last app it takes is opened;
    that of the shorter window where it is both. Raises nothing.
    """
    after = dict(known)
    for item in items:
        use = after.get(item.app, Use(item.at, item.at))
        after[item.app] = Use(min(use.first_at, item.at), max(use.last_at, item.at))
    newest = max(items, key=lambda item: item.at)
    is_learning = all(newest.at - use.first_at < LEARNED_AFTER for use in known.values())
    for limit in LIMITS:
        start = newest.at - limit.window
        least = limit.learning_min if is_learning else limit.apps_min
        before = sum(use.first_at > start for use in known.values())
        now = sum(use.first_at > start for use in after.values())
        if before < least <= now:
            burst = Burst(
                tenant_id=newest.tenant_id,
                user_id=newest.user_id,
                apps=now,
                window=limit.window,
                at=newest.at,
                trace_id=newest.trace_id,
            )
            return after, burst
    return after, None


def too_many(uses: Mapping[str, Use]) -> list[str]:
    """Return the apps beyond APPS_MAX, those not used for longest. Raises nothing."""
    by_age = sorted(uses, key=lambda app: (uses[app].last_at, app))
    return by_age[: max(0, len(uses) - APPS_MAX)]
