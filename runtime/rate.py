"""Rates: how often somebody may do something, counted in the memory of one process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: beyond, whoever was quiet for longest is forgotten
NAMES_MAX: Final = 10_000


class TokenBuckets:
    """One token bucket per name: `burst` at once, then `per_s` in the long run."""

    def __init__(self, *, per_s: float, burst: float, names_max: int = NAMES_MAX) -> None:
        """per_s, burst: both above 0. names_max: how many names are remembered."""
        self._per_s = per_s
        self._burst = burst
        self._names_max = names_max
        #: what is left, and when that was so
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now_s: float, *, cost: float = 1.0) -> float:
        """Take one token; return 0.0, or the seconds until there is one when there is none.

        now_s: any clock, as long as it is always the same. cost: how many tokens to take instead,
        at most the burst. Raises nothing.
        """
        left = self._left(name, now_s)
        taken = left >= cost
        self._buckets[name] = (left - cost if taken else left, now_s)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._names_max:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (cost - left) / self._per_s

    def wait_s(self, name: str, now_s: float) -> float:
        """Return what `take` would, and take nothing. Raises nothing."""
        left = self._left(name, now_s)
        return 0.0 if left >= 1.0 else (1.0 - left) / self._per_s

    def _left(self, name: str, now_s: float) -> float:
        left, seen_s = self._buckets.get(name, (self._burst, now_s))
        # A clock that was set back refills nothing.
        return min(self._burst, left + max(0.0, now_s - seen_s) * self._per_s)
