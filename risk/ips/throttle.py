"""Who called the risk events API too often, in memory."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import Final

from risk.ips.model import CALLS_PER_WINDOW_MAX
from runtime.caller import Caller
from runtime.errors import TooManyRequests

REFUSED_HELD_MAX: Final = 10_000


class Refusals:
    """Who called too often and until when, so that a flood does not reach the database."""

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    def check(self, caller: Caller, now: datetime) -> None:
        """Raise TooManyRequests while the caller has to wait."""
        until = self._until.get((caller.tenant_id, caller.client_id))
        if until is not None and now < until:
            raise too_many((until - now).total_seconds())

    def note(self, caller: Caller, until: datetime) -> None:
        """Let the caller wait until then."""
        self._until[caller.tenant_id, caller.client_id] = until
        if len(self._until) > REFUSED_HELD_MAX:
            self._until.popitem(last=False)


def too_many(wait_s: float) -> TooManyRequests:
    """Return the refusal of a call that comes too soon."""
    return TooManyRequests(
        f"At most {CALLS_PER_WINDOW_MAX} calls per minute are taken.", retry_after_s=wait_s
    )
