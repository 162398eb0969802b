"""Lists of objects as tables for people, one value as a word for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

#: columns of a list, in this order, as far as the kind has them
COLUMNS: Final = (
    "id", "name", "label", "kind", "source", "method", "status", "state", "code", "level", "mode",
    "issuer", "iss", "url", "event_type", "actor", "action", "ref", "target", "user_id", "app_id",
    "client_id", "stream_id", "attempts", "scopes", "events_delivered", "received_at", "at",
    "created_at", "detail", "reason",
)  # fmt: skip
#: columns that say how many there are: each is long
COUNTED: Final = frozenset({"events_delivered"})
COLUMN_GAP: Final = "  "


def table(items: Sequence[dict[str, Any]]) -> str:
    """Return the items as aligned columns. Nothing is cut off: ids are there to be copied."""
    if not items:
        return "none\n"
    columns = [name for name in COLUMNS if any(_fits(item.get(name)) for item in items)]
    rows = [columns, *([_column(name, item.get(name)) for name in columns] for item in items)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = (
        COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def _fits(value: Any) -> bool:
    return value is not None and not isinstance(value, dict)


def _column(name: str, value: Any) -> str:
    return str(len(value)) if name in COUNTED and isinstance(value, list) else cell(value)


def cell(value: Any) -> str:
    """Return one value as a script takes it."""
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return "" if value is None else str(value)
