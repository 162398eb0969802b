"""Counters of the transmitter."""

from __future__ import annotations

from prometheus_client import Counter

attempts_total = Counter(
    "hub_transmitters_attempts_total",
    "SETs pushed, or answered by pollers, by what became of them.",
    ["method", "outcome"],
)
dropped_total = Counter(
    "hub_transmitters_dropped_total", "SETs dropped before they were delivered.", ["reason"]
)
purged_total = Counter(
    "hub_transmitters_purged_total", "Rows deleted after their retention.", ["of"]
)
published_total = Counter("hub_transmitters_published_total", "SETs queued for streams.")
