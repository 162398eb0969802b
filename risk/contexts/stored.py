"""Contexts as they are stored and travel to the writer: JSON objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from sys import intern
from types import MappingProxyType
from typing import Any, Final

from risk.contexts.model import Context, NetworkRecord, StoredRecord
from risk.contexts.parsing import bounded
from runtime.sharing import shared

_NO_SIGNALS: Final[Mapping[str, str]] = MappingProxyType({})

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


def kept_context(context: Context) -> Context:
    """Return a context as it is held in memory: what is equal in many is shared. Raises nothing.

    Of its record only what is compared is kept.
    """
    return replace(
        context,
        user_agent=intern(context.user_agent),
        ja4=intern(context.ja4),
        accept_language=intern(context.accept_language),
        app_id=intern(context.app_id),
        method=intern(context.method),
        path_class=intern(context.path_class),
        told_by=intern(context.told_by),
        signals=context.signals or _NO_SIGNALS,
        record=shared(StoredRecord(asn=context.record.asn, country=context.record.country)),
    )
