"""Wake-ups between the loops of one process, and through a bridge between processes.

A wake-up says "look again", never what happened: the database holds the truth, so a lost one only
costs the waiter's time limit. Topics are few and fixed, so nothing grows with traffic.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

TOPICS: Final = frozenset(
    {"signals", "tasks", "deliveries", "polls", "upstreams", "config", "changes", "reviews"}
)
#: only core processes wait for these
CORE_TOPICS: Final = frozenset({"signals"})


class Notifier:
    """Counts wake-ups per topic and releases whoever waits for one."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._forwards: list[Callable[[str], None]] = []

    def forward_to(self, send: Callable[[str], None]) -> None:
        """Also pass every wake-up made here to `send`: the bridge to other processes."""
        self._forwards.append(send)

    def wake(self, topic: str) -> None:
        """Release everybody who waits for `topic`, here and in the other processes."""
        self.deliver(topic)
        for send in self._forwards:
            send(topic)

    def wake_all(self, topics: Iterable[str]) -> None:
        """Wake each of `topics` once."""
        for topic in topics:
            self.wake(topic)

    def deliver(self, topic: str) -> None:
        """Release the waiters of this process only: for wake-ups that came from elsewhere."""
        if topic not in TOPICS:
            raise ValueError(f"unknown topic {topic!r}")
        self._counts[topic] += 1
        for waiter in self._waiters.pop(topic, ()):
            if not waiter.done():
                waiter.set_result(None)

    def count(self, topic: str) -> int:
        """Return a mark to hand to `wait(since=)`, so that nothing between is missed."""
        return self._counts[topic]

    async def wait(self, topic: str, timeout_s: float, *, since: int | None = None) -> bool:
        """Wait for a wake-up of `topic`; return whether one came before the time limit."""
        if since is not None and self._counts[topic] != since:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[topic].add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters[topic].discard(waiter)
        return True
