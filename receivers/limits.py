"""How fast a provider may send, and how often what it sends may be unproven (PUSH-18).

Counted in the memory of one process, before any cryptography. A sender that is told to wait loses
nothing: it keeps its SET and comes again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from prometheus_client import Counter

from receivers.model import ProviderProfile
from runtime.errors import TooManyRequests
from runtime.rate import TokenBuckets

#: how many seconds' worth of a provider's own limit may come at once
BURST_S: Final = 2.0
#: of one provider and address: what was not proven to be the provider's word
UNPROVEN_PER_S: Final = 100.0
UNPROVEN_AT_ONCE: Final = 1_000.0

_limited_total = Counter(
    "hub_receivers_limited_total",
    "SETs and webhooks that were told to come again later, by why.",
    ["limit"],
)


class IntakeLimits:
    """The rates of all providers, as this process sees them."""

    def __init__(
        self,
        *,
        unproven_per_s: float = UNPROVEN_PER_S,
        unproven_at_once: float = UNPROVEN_AT_ONCE,
    ) -> None:
        #: seconds of a provider's allowance: what one message costs depends on its limit
        self._allowance = TokenBuckets(per_s=1.0, burst=BURST_S)
        self._unproven = TokenBuckets(per_s=unproven_per_s, burst=unproven_at_once)

    def admit(self, provider: ProviderProfile, peer: str, now: datetime) -> None:
        """Pass unless the sender has to wait. peer: its address.

        By address too, so that a stranger cannot silence a provider by sending rubbish in its name.
        Raises TooManyRequests.
        """
        now_s = now.timestamp()
        if wait_s := self._unproven.wait_s(_name(provider, peer), now_s):
            _limited_total.labels("unproven").inc()
            raise TooManyRequests("Too much of this cannot be verified.", retry_after_s=wait_s)
        limit = provider.sets_per_s_max
        if limit is not None and (
            wait_s := self._allowance.take(provider.provider_id, now_s, cost=1.0 / limit)
        ):
            _limited_total.labels("provider").inc()
            raise TooManyRequests(
                f"This provider may send {limit} messages per second.", retry_after_s=wait_s
            )

    def note_unproven(self, provider: ProviderProfile, peer: str, now: datetime) -> None:
        """Count a message whose sender could not be proven. Raises nothing."""
        self._unproven.take(_name(provider, peer), now.timestamp())


def _name(provider: ProviderProfile, peer: str) -> str:
    # Ids of providers are unguessable, so unique among all tenants.
    return f"{provider.provider_id} {peer}"
