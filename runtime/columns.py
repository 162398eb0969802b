"""Types of columns: times that are always aware UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect

#: a time in SQLite, as in `2026-03-29 12:00:00.123456`; it is UTC and does not say so
TIME_TEXT_CHARS: Final = 26


class UTCDateTime(TypeDecorator[datetime]):
    """Aware UTC datetime with microseconds; a naive value is a bug and refused."""

    impl = sa.DateTime
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.DateTime())

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime refused: times are aware UTC")
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)

    # A batch converts more than a dozen times per signal: on SQLite, where they are texts, that
    # is done in one step each way, to the same text as SQLAlchemy's.

    @override
    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        return time_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    @override
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        if dialect.name == "sqlite":
            return _time_of
        return super().result_processor(dialect, coltype)


def time_text(value: datetime | None) -> str | None:
    """Return a time as SQLite holds it. Raises ValueError for a naive one."""
    if value is None:
        return None
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise ValueError("naive datetime refused: times are aware UTC")
        value = value.astimezone(UTC)
    return value.isoformat(" ", "microseconds")[:TIME_TEXT_CHARS]


def _time_of(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(f"{text}+00:00")
