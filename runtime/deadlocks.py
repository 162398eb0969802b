"""Transactions that the database ended because two of them waited for each other.

    transaction ─▶ deadlock (40P01) or overtaken (40001) ─▶ nothing was written ─▶ again, twice

The cure is one order of locks for everybody (docs/adr/0039): a tenant's audit, the tenant, then
rows; and one operation per transaction of the writer. This makes harmless what was forgotten. It
costs nothing while nothing goes wrong. SQLite has one writer and knows no deadlocks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
import sqlalchemy as sa
import structlog
from prometheus_client import Counter

#: how often a transaction is tried, the first time included
TRIES_MAX: Final = 3
#: SQLSTATE of a transaction that was undone for the sake of another one
_UNDONE: Final = frozenset({"40001", "40P01"})
#: classes of SQLSTATE that say that a value is wrong or too large
_OF_VALUES: Final = frozenset({"22", "54"})

T = TypeVar("T")

log = structlog.get_logger()
_deadlocks_total = Counter(
    "hub_runtime_deadlocks_total", "Transactions that the database undid for another one's sake."
)


def was_undone(error: BaseException) -> bool:
    """Return whether the database undid a transaction so that another one may go on.

    Whoever runs it again, whole, may succeed: the other one is through. Raises nothing.
    """
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return getattr(cause, "sqlstate", None) in _UNDONE


def may_pass(error: BaseException) -> bool:
    """Return whether a database that is away, overloaded or undecided may be what failed.

    Not when it refused what it was told to do: values, constraints, statements. Raises nothing.
    """
    if isinstance(error, sa.exc.DBAPIError):
        refused = sa.exc.DataError | sa.exc.IntegrityError | sa.exc.ProgrammingError
        of_values = (getattr(error.orig, "sqlstate", None) or "")[:2] in _OF_VALUES
        return not isinstance(error, refused) and not of_values
    return isinstance(error, sa.exc.TimeoutError | asyncpg.PostgresError | OSError)


async def repeated(transaction: Callable[[], Awaitable[T]]) -> T:
    """Run one whole transaction, again when the database undid it; at most TRIES_MAX times.

    transaction: begins it and commits; may run again from the beginning, so it changes nothing
    outside of the database that must not happen twice. Raises what it raises the last time.
    """
    for attempt_number in range(1, TRIES_MAX + 1):
        try:
            return await transaction()
        except Exception as error:
            if not was_undone(error):
                raise
            _deadlocks_total.inc()
            is_last = attempt_number == TRIES_MAX
            log.warning("transaction.undone", attempt_number=attempt_number, is_last=is_last)
            if is_last:
                raise
    raise AssertionError("unreachable")
