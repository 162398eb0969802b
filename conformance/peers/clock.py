"""The peers' only source of time.

It follows the same offset file as the hub (`SIGNALHUB_TEST_CLOCK_FILE`), so that a test which moves
the hub in time moves its peers along; otherwise their tokens would look stale or early to it.
"""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

CLOCK_FILE_VARIABLE = "SIGNALHUB_TEST_CLOCK_FILE"


def now_s() -> float:
    """Return the present moment in seconds since 1970.

    A missing or broken offset file means no offset. Raises nothing.
    """
    return time.time() + _offset_s()  # noqa: TID251 - runtime is out of reach here: this is the clock


def timestamp(at_s: float) -> str:
    """Render seconds since 1970 as an RFC 3339 text in UTC."""
    return datetime.fromtimestamp(at_s, tz=UTC).isoformat(timespec="milliseconds")


def _offset_s() -> float:
    path = os.environ.get(CLOCK_FILE_VARIABLE)
    if not path:
        return 0.0
    try:
        return float(Path(path).read_text(encoding="ascii") or 0)
    except (OSError, ValueError):
        return 0.0
