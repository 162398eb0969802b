"""Conversions of whole columns: what goes to the driver, and what comes from it.

Part of `runtime.statements`: a type's conversion goes over all values of a batch at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa

from runtime.columns import TIME_TEXT_CHARS, UTCDateTime, time_text

Conversion: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
#: (position, conversion of all its values) of the columns or parameters that need one
Conversions: TypeAlias = tuple[tuple[int, Conversion], ...]


def bound(value: Any, bind: sa.BindParameter[Any] | None, dialect: sa.Dialect) -> Any:
    """Return a constant as the driver takes it. Raises nothing of its own."""
    convert = None if bind is None else bind_conversion(bind.type, dialect)
    return value if convert is None else convert((value,))[0]


def bind_conversion(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Conversion | None:
    """Return how values of a type go to the driver; None: as they are. Raises nothing."""
    if dialect.name == "sqlite":
        if isinstance(kind, UTCDateTime):
            return _time_texts
        if isinstance(kind, sa.JSON) and kind.none_as_null:
            return _json_texts
    return _over_all(kind.dialect_impl(dialect).bind_processor(dialect))


def result_conversion(
    kind: sa.types.TypeEngine[Any], dialect: sa.Dialect, told: object
) -> Conversion | None:
    """Return how values of a type come from the driver; None: as they are. Raises nothing."""
    if dialect.name == "sqlite":
        if isinstance(kind, UTCDateTime):
            return _times
        if isinstance(kind, sa.JSON):
            return _json_values
    return _over_all(kind.dialect_impl(dialect).result_processor(dialect, told))


def _over_all(convert: Callable[[Any], Any] | None) -> Conversion | None:
    return None if convert is None else lambda values: list(map(convert, values))


# --- times and documents are texts in SQLite; a call per value would cost more than the value ---


def _time_texts(values: Sequence[datetime | None]) -> list[str | None]:
    texts: list[str | None] = []
    last: datetime | None = None
    text: str | None = None
    for value in values:
        # Most columns of a batch say when it was handled, row after row.
        if value is not last:
            last = value
            text = (
                value.isoformat(" ", "microseconds")[:TIME_TEXT_CHARS]
                if value is not None and value.tzinfo is UTC
                else time_text(value)
            )
        texts.append(text)
    return texts


def _times(texts: Sequence[str | None]) -> list[datetime | None]:
    read = datetime.fromisoformat
    return [None if text is None else read(f"{text}+00:00") for text in texts]


def _json_texts(values: Sequence[Any]) -> list[str | None]:
    encode = msgspec.json.encode
    return [None if value is None else encode(value).decode() for value in values]


def _json_values(texts: Sequence[Any]) -> list[Any]:
    # A document that is a bare number comes back as one: SQLite takes JSON for a numeric type.
    joined = ",".join(["null" if text is None else str(text) for text in texts])
    values: list[Any] = msgspec.json.decode(f"[{joined}]")
    return values


def converted(rows: Sequence[Any], conversions: Conversions) -> list[tuple[Any, ...]]:
    """Return rows with these columns converted. Raises what a conversion raises."""
    if not rows or not conversions:
        return [tuple(row) for row in rows]
    return list(zip(*columns_of(rows, conversions), strict=True))


def columns_of(rows: Iterable[Sequence[Any]], conversions: Conversions) -> list[Sequence[Any]]:
    """Return rows as converted columns; none without rows. Raises what a conversion raises."""
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    if columns:
        for place, convert in conversions:
            columns[place] = convert(columns[place])
    return columns
