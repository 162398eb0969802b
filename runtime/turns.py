"""Work behind the answers takes its turns: what nobody waits for leaves most of a process alone.

On SQLite nothing that reads waits for anything, so that without a rest a thousand sessions that are
judged or read anew would hold up every request of the process for a second.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

#: rest after a turn, as a multiple of the time the turn took: a fifth of a process at most
REST_PER_TURN: Final = 4.0
REST_MAX_S: Final = 0.05


def turn_began() -> float:
    """Return a mark for `rest_since`."""
    return time.thread_time()


async def rest_since(began: float) -> None:
    """Let others go first, in proportion to the CPU time since the mark."""
    used_s = time.thread_time() - began
    await asyncio.sleep(min(REST_PER_TURN * used_s, REST_MAX_S))
