"""Who may sit in the scorer's seat, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from risk.scoring.model import Scorer
from risk.scoring.rules import RuleScorer

DEFAULT_SCORER: Final = "rules"

SCORERS: Final[Mapping[str, Callable[[], Scorer]]] = MappingProxyType({"rules": RuleScorer})


def scorer_named(name: str) -> Scorer:
    """Return the scorer of that name. Raises ValueError for one that nobody knows."""
    if name not in SCORERS:
        raise ValueError(f"no scorer is named {name!r}: use one of {', '.join(sorted(SCORERS))}")
    return SCORERS[name]()
