"""When to try again: exponential back-off, jitter over the upper half, bounded on every side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Retry rule. Times in seconds; `attempts_max` counts the first attempt too."""

    first_s: float
    ceiling_s: float
    attempts_max: int
    factor: float = 2.0

    def delay_s(
        self, attempts: int, *, jitter: float, retry_after_s: float | None = None
    ) -> float | None:
        """Return the wait before the next attempt, or None when the budget is used up.

        attempts: how many were made, at least 1. jitter: uniform in [0, 1), drawn by the caller.
        retry_after_s: what the other side asked for; honoured as a lower bound, capped at a day.
        Raises nothing. Source: RFC 9110 §10.2.3; requirement PUSH-44.
        """
        if attempts >= self.attempts_max:
            return None
        exponent = min(attempts - 1, 32)
        bound = min(self.ceiling_s, self.first_s * self.factor**exponent)
        delay = bound / 2 + bound / 2 * jitter
        if retry_after_s is not None:
            delay = max(delay, min(retry_after_s, 86_400.0))
        return delay
