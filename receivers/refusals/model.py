"""What is kept of a refused SET, and how it is shown. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

#: the newest of each provider and code
KEPT_PER_CODE: Final = 25
LIFE: Final = timedelta(days=30)
TEXT_CHARS_MAX: Final = 500
NAME_CHARS_MAX: Final = 200
DEPTH_MAX: Final = 8
DEFERRED: Final = "deferred"
MASK: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"authorization|secret|passw|token|api_?key|private|cookie|assertion|credentials?$|^jwk$|pin$",
    re.IGNORECASE,
)
_SUBJECT_NAMES: Final = frozenset({"sub", "sub_id", "subject"})
#: a JWT, or credentials as they stand in an Authorization header
_SECRET_VALUE: Final = re.compile(
    r"eyJ[\w-]+\.[\w-]*\.[\w-]*|(?:bearer|basic)\s+\S+", re.IGNORECASE
)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One refused SET on its way into the list. raw_sealed: None when its body was not read."""

    tenant_id: str
    error_id: str
    provider_id: str
    code: str
    requirement: str
    reason: str
    jti: str | None
    event_type: str | None
    peer: str
    raw_sealed: str | None
    size_bytes: int
    at: datetime


class RefusalCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many SETs of a provider were refused with one code since the last note."""

    tenant_id: str
    provider_id: str
    code: str
    count: int
    last_at: datetime


class RefusalBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What one process saw in a while: all are counted, some are kept."""

    kept: tuple[Refusal, ...]
    counts: tuple[RefusalCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFilter:
    """Which refused SETs; None for any. is_open: only those that can be tried again."""

    provider_id: str | None = None
    code: str | None = None
    is_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestError:
    """A refused SET as it is stored. state: open, or replayed once it was taken in after all."""

    error_id: str
    provider_id: str
    code: str
    requirement: str
    reason: str
    jti: str | None
    event_type: str | None
    peer: str
    raw_sealed: str | None
    size_bytes: int
    at: datetime
    state: str
    attempts: int
    tried_at: datetime | None


def shown_text(value: object, chars_max: int = NAME_CHARS_MAX) -> str | None:
    """Return a text from outside as one bounded line that any database stores; None for others."""
    if not isinstance(value, str):
        return None
    return "".join(each if each.isprintable() else "\ufffd" for each in value[:chars_max])


def peek(raw: bytes) -> tuple[str | None, str | None]:
    """Return jti and event type as an unverified SET states them, as far as it can be read."""
    claims = decode(raw)["claims"]
    if not isinstance(claims, Mapping):
        return None, None
    events = claims.get("events")
    event_type = next(iter(events), None) if isinstance(events, Mapping) else None
    return shown_text(claims.get("jti")), shown_text(event_type)


def decode(raw: bytes) -> dict[str, Any]:
    """Return header and claims of a compact JWS, unverified; None for a part nobody can read."""
    parts = [*raw.split(b"."), b"", b""]
    return {"header": _part(parts[0]), "claims": _part(parts[1])}


def _part(encoded: bytes) -> Any:
    try:
        padded = encoded + b"=" * (-len(encoded) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return None


def masked(value: Any, *, with_subjects: bool, depth: int = DEPTH_MAX) -> Any:
    """Return a JSON value without secrets, and without subjects unless asked for.

    What lies deeper than DEPTH_MAX is left out: it is no SET any more. Raises nothing.
    """
    if isinstance(value, dict):
        if not depth:
            return MASK
        return {
            str(shown_text(name)): MASK
            if _is_hidden(name, with_subjects=with_subjects)
            else masked(inner, with_subjects=with_subjects, depth=depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        if not depth:
            return MASK
        return [masked(each, with_subjects=with_subjects, depth=depth - 1) for each in value]
    if isinstance(value, str):
        return MASK if _SECRET_VALUE.search(value) else shown_text(value, TEXT_CHARS_MAX)
    return value


def _is_hidden(name: str, *, with_subjects: bool) -> bool:
    if name in _SUBJECT_NAMES:
        return not with_subjects
    return _SECRET_NAME.search(name) is not None
