"""Whether callers queue for what the node writes: known to all processes of it, at no cost.

On SQLite every write of a node goes through its core process. On PostgreSQL each process writes for
itself, and core, which has to hold back while callers queue, would not hear of it.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import Final

#: so long after callers queued, or kept coming, others still hold back
HOLDS_S: Final = 0.1
_TIMES: Final = struct.Struct("dd")


class Crowd:
    """When callers last queued, and last kept coming; processes forked after it was made share it.

    Times are of `time.monotonic`, which is one clock for all processes of a machine.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _TIMES.size)
        _TIMES.pack_into(self._shared, 0, float("-inf"), float("-inf"))

    def note_crowded(self) -> None:
        """Say that callers queue now. Raises nothing."""
        now = time.monotonic()
        _TIMES.pack_into(self._shared, 0, now, now)

    def note_busy(self) -> None:
        """Say that callers keep coming, if they do not queue. Raises nothing."""
        crowded_at, _ = _TIMES.unpack_from(self._shared)
        _TIMES.pack_into(self._shared, 0, crowded_at, time.monotonic())

    @property
    def is_crowded(self) -> bool:
        """Whether many callers have been waiting of late: then the hub's own work holds back."""
        return time.monotonic() - float(_TIMES.unpack_from(self._shared)[0]) < HOLDS_S

    @property
    def is_busy(self) -> bool:
        """Whether callers keep coming: then other writers take short turns."""
        return time.monotonic() - float(_TIMES.unpack_from(self._shared)[1]) < HOLDS_S
