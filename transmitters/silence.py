"""Which receivers keep pushes waiting, and how many places those may have.

A push that gets no answer for a moment has left its place in the window to others, and has one of
the places for silent work (see `runtime.lanes`). Those are few: without shares of them one client
whose receivers never answer would have them all, and then the window, and stop everybody's SETs.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from runtime.lanes import SILENT, SILENT_AFTER_S, WINDOW, Busy
from transmitters.delivery.model import PushTarget, PushWork

#: pushes that wait for an answer for longer than a moment; with the window they are as many as the
#: client for pushes has connections
SILENT_MAX: Final = 192
#: streams remembered that answered at once
QUICK_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class _Share:
    """At so many doubtful pushes to a host, of a client, a tenant, or in all, no more begin.

    Doubtful are those that are silent, and all over streams that fail. Of others a whole window may
    have begun before the first of it turns out to be silent.
    """

    to_host: int
    of_client: int
    of_tenant: int
    of_all: int

    def leaves_room(self, *, host: int, client: int, tenant: int, total: int) -> bool:
        """Tell whether one more may begin beside those."""
        return (
            host < self.to_host
            and client < self.of_client
            and tenant < self.of_tenant
            and total < self.of_all
        )


#: Streams that fail, those that nobody knows, and those that answered at once the last time. What
#: the former can take, a window included, leaves room for the latter. To a host there are
#: `runtime.outbound.CONNECTIONS_PER_HOST_MAX` connections, and others may have receivers there.
_FAILING: Final = _Share(to_host=8, of_client=24, of_tenant=48, of_all=96)
_UNKNOWN: Final = _Share(to_host=24, of_client=48, of_tenant=80, of_all=SILENT_MAX - WINDOW)
_QUICK: Final = _Share(to_host=144, of_client=144, of_tenant=144, of_all=SILENT_MAX + WINDOW)


class Silence:
    """What this process knows of how its receivers answer."""

    def __init__(self) -> None:
        self._under_way: dict[str, PushTarget] = {}
        self._quick: dict[Hashable, None] = {}

    def begun(self, work: PushWork) -> None:
        """Note that a push is sent."""
        self._under_way[work.lane] = work.target

    def over(self, work: PushWork) -> None:
        """Note that it is sent no more."""
        self._under_way.pop(work.lane, None)

    def learn(self, target: PushTarget, answered_after_s: float | None) -> None:
        """Note how long the answer took, None when none came."""
        stream = (target.tenant_id, target.stream_id)
        self._quick.pop(stream, None)
        if answered_after_s is not None and answered_after_s < SILENT_AFTER_S:
            self._quick[stream] = None
            if len(self._quick) > QUICK_MAX:
                del self._quick[next(iter(self._quick))]

    def now(self, busy: Busy) -> Doubtful:
        """Return the doubtful pushes under way."""
        doubtful = Doubtful(self)
        for lane, target in self._under_way.items():
            if target.failures or busy.get(lane) == SILENT:
                doubtful.add(target)
        return doubtful

    def share_of(self, target: PushTarget) -> _Share:
        """Return what a stream may have of the places for silent pushes."""
        if target.failures:
            return _FAILING
        return _QUICK if (target.tenant_id, target.stream_id) in self._quick else _UNKNOWN


class Doubtful:
    """The pushes of one moment that may not be answered."""

    def __init__(self, silence: Silence) -> None:
        self._silence = silence
        self._total = 0
        self._to_host: Tally[str] = Tally()
        self._of_tenant: Tally[str] = Tally()
        self._of_client: Tally[tuple[str, str]] = Tally()

    def add(self, target: PushTarget) -> None:
        """Count one more."""
        self._total += 1
        self._to_host[_host(target)] += 1
        self._of_tenant[target.tenant_id] += 1
        self._of_client[target.tenant_id, target.client_id] += 1

    def leaves_room(self, target: PushTarget) -> bool:
        """Tell whether one more SET may go out over the stream."""
        if not self._total:
            return True
        return self._silence.share_of(target).leaves_room(
            host=self._to_host[_host(target)],
            client=self._of_client[target.tenant_id, target.client_id],
            tenant=self._of_tenant[target.tenant_id],
            total=self._total,
        )


def _host(target: PushTarget) -> str:
    """Return scheme, host and port of the endpoint: what connections are kept for."""
    return "/".join(target.endpoint_url.split("/", 3)[:3]).lower()
