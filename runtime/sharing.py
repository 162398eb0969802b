"""One object in memory in the place of many equal ones, for what is kept per session or user.

A hundred thousand sessions have a handful of different answers, groups and states of the world.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from sys import intern
from typing import Final, TypeVar, cast

#: different values that are remembered; of rarer ones everybody keeps their own
SHARED_MAX: Final = 4_096

ValueT = TypeVar("ValueT", bound=Hashable)


def shared(value: ValueT) -> ValueT:
    """Return an equal value that others keep too, where there is one. Raises nothing.

    value: never changes. Equal values have to mean the same, so members keep to their types.
    """
    return cast("ValueT", _known(value))


def shared_text(text: str | None) -> str | None:
    """Return an equal text that others keep too; None stays None. Raises nothing.

    It is forgotten with the last one who keeps it, however many there are.
    """
    return None if text is None else intern(text)


@lru_cache(SHARED_MAX)
def _known(value: Hashable) -> Hashable:
    return value
