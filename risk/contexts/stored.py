"""Contexts as they are stored and travel to the writer: JSON objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from risk.contexts.model import Context, NetworkRecord, StoredRecord
from risk.contexts.parsing import bounded

_TEXTS = (
    "ip",
    "user_agent",
    "ja4",
    "accept_language",
    "device_token_hash",
    "device_id",
    "app_id",
    "method",
    "path_class",
    "told_by",
)


def render_context(context: Context) -> dict[str, Any]:
    """Return a context as JSON; empty members are left out. Raises nothing."""
    rendered: dict[str, Any] = {name: getattr(context, name) for name in _TEXTS}
    rendered["chain"] = list(context.chain)
    rendered["signals"] = dict(context.signals)
    rendered["asn"] = context.record.asn
    rendered["country"] = context.record.country
    return {name: value for name, value in rendered.items() if value}


def restore_context(
    stored: Mapping[str, Any], at: datetime, record: NetworkRecord | None = None
) -> Context:
    """Return the context that was stored. record: in place of what was known then.

    Raises nothing on what `render_context` made.
    """
    known = StoredRecord(asn=stored.get("asn"), country=stored.get("country"))
    texts: dict[str, Any] = {name: str(stored.get(name, "")) for name in _TEXTS}
    return bounded(
        Context(
            **texts,
            chain=tuple(stored.get("chain", ())),
            signals=dict(stored.get("signals", {})),
            at=at,
            record=record or known,
        )
    )
