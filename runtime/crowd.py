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
_TIME: Final = struct.Struct("d")
#: where each time lies: none is written over with an older one that another process read
_CROWDED_AT: Final = 0
_BUSY_AT: Final = _TIME.size


class Crowd:
    """When callers last queued, and last kept coming; processes forked after it was made share it.

    Times are of `time.monotonic`, which is one clock for all processes of a machine.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 2 * _TIME.size)
        for place in (_CROWDED_AT, _BUSY_AT):
            _TIME.pack_into(self._shared, place, float("-inf"))

    def note_crowded(self) -> None:
        """Say that callers queue now. Raises nothing."""
        _TIME.pack_into(self._shared, _CROWDED_AT, time.monotonic())
        self.note_busy()

    def note_busy(self) -> None:
        """Say that callers keep coming, if they do not queue. Raises nothing."""
        _TIME.pack_into(self._shared, _BUSY_AT, time.monotonic())

    @property
    def is_crowded(self) -> bool:
        """Whether many callers have been waiting of late: then the hub's own work holds back."""
        return self._was_lately(_CROWDED_AT)

    @property
    def is_busy(self) -> bool:
        """Whether callers keep coming: then other writers take short turns."""
        return self._was_lately(_BUSY_AT)

    def _was_lately(self, place: int) -> bool:
        (at,) = _TIME.unpack_from(self._shared, place)
        return bool(time.monotonic() - at < HOLDS_S)
