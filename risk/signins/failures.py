"""How many sign-ins failed of late, in memory: by user and address, and by address.

Failures at a user's account count only against whoever comes from the same address, so that an
attacker elsewhere makes nothing harder for the user. An address counts as a whole only until
somebody succeeds from it: behind an office's address some people always mistype. Each process
counts what it is told.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

WINDOW: Final = timedelta(hours=1)
#: keys held by one process; those that failed longest ago go first
HELD_MAX: Final = 50_000
COUNTED_MAX: Final = 1_000
#: failures of an address that mean nothing by themselves
ADDRESS_FREE: Final = 10

_Key = tuple[str, str, str]


class Failures:
    """Counts of failed sign-ins since the last success or hour."""

    def __init__(self, *, held_max: int = HELD_MAX) -> None:
        self._held_max = held_max
        self._counts: OrderedDict[_Key, tuple[int, datetime]] = OrderedDict()

    def of(self, tenant_id: str, user: str, ip: str, now: datetime) -> int:
        """Return how many failures weigh on a sign-in. user: any stable name. Raises nothing."""
        by_user = self._count((tenant_id, user, ip), now)
        by_address = self._count((tenant_id, "", ip), now) - ADDRESS_FREE if ip else 0
        return max(by_user, by_address)

    def failed(self, tenant_id: str, user: str, ip: str, now: datetime) -> None:
        """Count a failure."""
        for key in ((tenant_id, user, ip), (tenant_id, "", ip)):
            count = self._count(key, now)
            self._counts[key] = (min(count + 1, COUNTED_MAX), now)
            self._counts.move_to_end(key)
        while len(self._counts) > self._held_max:
            self._counts.popitem(last=False)

    def succeeded(self, tenant_id: str, user: str, ip: str) -> None:
        """Forget what failed before."""
        for key in ((tenant_id, user, ip), (tenant_id, "", ip)):
            self._counts.pop(key, None)

    def _count(self, key: _Key, now: datetime) -> int:
        count, at = self._counts.get(key, (0, now))
        return count if now - at <= WINDOW else 0
