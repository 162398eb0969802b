"""The only source of time.

Times inside are aware UTC datetimes. Tests move the clock by writing an offset in seconds into
the file named by `SIGNALHUB_TEST_CLOCK_FILE` (honoured in development mode only).
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

CLOCK_FILE_VARIABLE = "SIGNALHUB_TEST_CLOCK_FILE"
CLOCK_FILE_REREAD_S = 0.05
CLOCK_OFFSET_MAX = timedelta(days=36_525)


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the present moment, aware UTC. Raises nothing."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present moment, aware UTC. Raises nothing."""
        return datetime.fromtimestamp(time.time(), tz=UTC)  # noqa: TID251 - this is the clock


class ShiftedClock:
    """The machine's clock plus an offset read from a file, for tests that travel in time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = timedelta()
        self._read_at = float("-inf")

    def now(self) -> datetime:
        """Return the shifted moment, aware UTC. A missing or broken file means no offset."""
        if time.monotonic() - self._read_at > CLOCK_FILE_REREAD_S:
            self._read_at = time.monotonic()
            self._offset = _read_offset(self._path)
        return SystemClock().now() + self._offset


def _read_offset(path: Path) -> timedelta:
    try:
        offset = timedelta(seconds=float(path.read_text() or 0))
    except (OSError, ValueError, OverflowError):
        return timedelta()
    return offset if abs(offset) <= CLOCK_OFFSET_MAX else timedelta()


class FixedClock:
    """A clock that stands still until moved; for unit tests and replays."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        """Return the set moment. Raises nothing."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`."""
        self.at += timedelta(seconds=seconds)


def system_clock(*, dev_insecure: bool) -> Clock:
    """Return the process's clock: shifted when a test asks for it in development mode."""
    path = os.environ.get(CLOCK_FILE_VARIABLE)
    return ShiftedClock(Path(path)) if dev_insecure and path else SystemClock()


def moment_of_epoch(seconds: int) -> datetime:
    """Return the aware UTC moment of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def epoch_s(moment: datetime) -> int:
    """Return whole seconds since 1970, rounded down (a SET's `iat` must not be in the future)."""
    return int(moment.timestamp())


def from_epoch_s(seconds: float) -> datetime:
    """Return the aware UTC moment of seconds since 1970."""
    return datetime.fromtimestamp(seconds, tz=UTC)
