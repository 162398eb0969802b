"""Work behind the answers takes its turns: what nobody waits for leaves most of a process alone.

On SQLite nothing that reads waits for anything, so that without a rest a thousand sessions that are
judged or read anew would hold up every request of the process for a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from runtime.database import chunks

KeyT = TypeVar("KeyT", bound=tuple[str, ...])

#: rest after a turn, as a multiple of the time the turn took: a fifth of a process at most
REST_PER_TURN: Final = 4.0
REST_MAX_S: Final = 0.05


@asynccontextmanager
async def in_turn() -> AsyncIterator[None]:
    """Do a piece of work, then let others go first, in proportion to the CPU time it took."""
    began = time.thread_time()
    yield
    used_s = time.thread_time() - began
    await asyncio.sleep(min(REST_PER_TURN * used_s, REST_MAX_S))


async def work_in_turns(
    keys: Iterable[KeyT], at_once: int, work: Callable[[str, list[KeyT]], Awaitable[None]]
) -> None:
    """Work on keys, each of which begins with its tenant: so many of one tenant in each turn.

    Raises what `work` raises; what is left then is not done.
    """
    by_tenant: defaultdict[str, list[KeyT]] = defaultdict(list)
    for key in keys:
        by_tenant[key[0]].append(key)
    for tenant_id, mine in by_tenant.items():
        for some in chunks(mine, at_once):
            async with in_turn():
                await work(tenant_id, some)
