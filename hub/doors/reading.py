"""The context of a question as foreign callers fill it: what fits is used, the rest is ignored.

Source: standards AZH-4. Nothing here may raise: a gateway sends what it likes, and a question that
cannot be asked is a user who cannot work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from prometheus_client import Counter

from hub.inline.model import CHAIN_HOPS_MAX, SIGNALS_MAX, TEXT_CHARACTERS_MAX
from risk.sessions.model import parse_moment
from runtime.errors import Invalid

_TEXTS: Final = ("ip", "ua", "ja4", "accept_lang", "session_id", "iss")

_ignored_total = Counter(
    "hub_doors_context_ignored_total", "Members of a context that had the wrong type.", ["name"]
)


@dataclass(slots=True, kw_only=True)
class Read:
    """What was found. ignored: names of members that had the wrong type, in order."""

    texts: dict[str, str] = field(default_factory=dict)
    chain: tuple[str, ...] = ()
    device_id: str | None = None
    device_token_hash: str | None = None
    signals: dict[str, str] = field(default_factory=dict)
    dbsc_proof: str | None = None
    at: datetime | None = None
    ignored: list[str] = field(default_factory=list)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the answer says about what was ignored."""
        return tuple(f"context_ignored:{name}" for name in self.ignored)

    def ignore(self, name: str) -> None:
        """Count a member of the wrong type; name: one of ours, never what the caller wrote."""
        if name not in self.ignored:
            self.ignored.append(name)
            _ignored_total.labels(name).inc()


def read_context(context: Mapping[str, Any]) -> Read:
    """Read the context of a question. Raises nothing."""
    read = Read()
    for name in _TEXTS:
        if (text := _text(read, context.get(name), name)) is not None:
            read.texts[name] = text
    read.chain = _chain(read, context)
    device = _object(read, context.get("device"), "device")
    read.device_id = _text(read, device.get("id"), "device")
    read.device_token_hash = _text(read, device.get("token_hash"), "device")
    read.signals = _signals(read, device.get("signals"))
    dbsc = _object(read, context.get("dbsc"), "dbsc")
    read.dbsc_proof = _text(read, dbsc.get("proof"), "dbsc")
    for name in ("ts", "time"):
        if read.at is None:
            read.at = _moment(read, context.get(name), name)
    return read


def _text(read: Read, value: object, name: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= TEXT_CHARACTERS_MAX:
        return value
    read.ignore(name)
    return None


def _object(read: Read, value: object, name: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    if value is not None:
        read.ignore(name)
    return {}


def _chain(read: Read, context: Mapping[str, Any]) -> tuple[str, ...]:
    hops = context.get("ip_chain")
    if hops is not None:
        if isinstance(hops, list) and len(hops) <= CHAIN_HOPS_MAX and all(map(_is_hop, hops)):
            return tuple(hops)
        read.ignore("ip_chain")
    ip = read.texts.get("ip")
    return (ip,) if ip else ()


def _is_hop(hop: object) -> bool:
    return isinstance(hop, str) and len(hop) <= TEXT_CHARACTERS_MAX


def _signals(read: Read, value: object) -> dict[str, str]:
    given = _object(read, value, "device.signals")
    kept: dict[str, str] = {}
    for name, each in list(given.items())[:SIGNALS_MAX]:
        text = str(each).lower() if isinstance(each, bool) else str(each)
        if isinstance(each, str | int | float) and len(name) + len(text) <= TEXT_CHARACTERS_MAX:
            kept[name] = text
        else:
            read.ignore("device.signals")
    if len(given) > SIGNALS_MAX:
        read.ignore("device.signals")
    return kept


def _moment(read: Read, value: object, name: str) -> datetime | None:
    try:
        return parse_moment(value, name)
    except (Invalid, OverflowError):
        read.ignore(name)
        return None
