"""How much the pipeline takes at a time: much when it is alone, little while others wait. Pure.

Core has one event loop and one writer. While a batch of the pipeline runs, nothing that comes in is
committed, so what a batch takes is what an intake may have to wait.
"""

from __future__ import annotations

from typing import Final

#: signals of one batch when nobody waits
SIGNALS_MAX: Final = 128
#: and while somebody does: fewer cost too much each, because every batch reads and commits
SIGNALS_MIN: Final = 16
SIGNALS_BUSY_MAX: Final = 64
#: CPU time that a batch should take while others wait
TURN_S: Final = 0.005


class Pace:
    """Learns how many signals fit into one turn.

    By CPU time: what a slow disk or a neighbour adds does not shrink with the batch.
    """

    def __init__(self) -> None:
        self._fits = SIGNALS_MIN

    def size(self, *, is_busy: bool) -> int:
        """Return how many signals to take. is_busy: others want the writer meanwhile."""
        return self._fits if is_busy else SIGNALS_MAX

    def note(self, signals: int, took_s: float) -> None:
        """Learn from a batch. took_s: CPU time. Raises nothing."""
        if signals < SIGNALS_MIN:
            # Mostly what any batch costs; it says nothing about larger ones.
            return
        fits = round(signals * TURN_S / max(took_s, TURN_S / SIGNALS_MAX))
        self._fits = max(SIGNALS_MIN, min(SIGNALS_BUSY_MAX, 2 * self._fits, fits))
