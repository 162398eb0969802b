"""From a vendor's JSON to our events, by data: paths, constants, tables, ranges, predicates. Pure.

A mapping is a JSON object::

    {"rules": [{"name": "infected",
                "each": "/event/devices",                    an array: one signal per element
                "when": [{"path": "/event/joined", "is": true}],
                "id": {"path": "/event/id"},                 the vendor's id of this message
                "occurred_at": {"path": "/event/at"},
                "subject": {"format": "complex", "device": {"format": "opaque", "id": {…}}},
                "event": {"type": "https://…/device-risk-change", "members": {…}}}],
     "ignore": [[{"path": "/type", "is": "ping"}]]}

A value is a constant, `{"path": …}` with `table`, `ranges`, `default`, `as`, `optional`,
`{"first": [values]}`, `{"join": [values]}`, `{"maybe": value}`, which is left out when something in
it is not there, or an object or array of values. A path is a JSON Pointer from the root (`/a/0/b`)
or from the element (`./b`; `.` is the element itself); a segment `[name=value]` is the first
element of an array whose member `name` has that value. Texts compare without regard to case. There
is no code in it, and everything is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeGuard

TEXT_CHARS_MAX: Final = 1_024
#: signals of one message
SIGNALS_MAX: Final = 100
MILLISECONDS_ABOVE: Final = 10**11
EPOCH_S_MAX: Final = 253_402_300_799

#: absent: what a path finds that leads nowhere, or to null
_ABSENT: Final = object()

_Problem: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedSignal:
    """One signal that a message says. vendor_id: None when the message has none."""

    rule: str
    event_type: str
    payload: dict[str, Any]
    sub_id: dict[str, Any]
    occurred_at: datetime | None
    vendor_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookMapping:
    """A checked mapping, ready to be applied."""

    rules: tuple[Mapping[str, Any], ...]
    ignore: tuple[Sequence[Mapping[str, Any]], ...]


class Unmappable(Exception):  # noqa: N818 - an outcome, not a fault
    """The message cannot be mapped. missing: (path or place, what is wrong), at least one."""

    def __init__(self, missing: Sequence[_Problem]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in missing))
        self.missing = tuple(missing)


def apply(mapping: WebhookMapping, message: object) -> tuple[MappedSignal, ...]:
    """Return what a message says; () when it is known to say nothing about risk.

    Raises Unmappable, with what is missing. Nothing of a message is taken when part of it is not
    understood: half of it would look like the whole.
    """
    found: list[MappedSignal] = []
    missing: list[_Problem] = []
    for rule in mapping.rules:
        for item in _items(rule, message):
            if not all(_holds(test, message, item) for test in rule.get("when", ())):
                continue
            if len(found) >= SIGNALS_MAX:
                raise Unmappable([("/", f"more than {SIGNALS_MAX} signals")])
            reader = _Reader(message, item)
            signal = _signal(rule, reader)
            missing += reader.missing
            if signal is not None:
                found.append(signal)
    if missing:
        raise Unmappable(list(dict.fromkeys(missing)))
    if found or any(
        all(_holds(test, message, message) for test in tests) for tests in mapping.ignore
    ):
        return tuple(found)
    raise Unmappable([("/", "no rule of the mapping fits the message")])


# --- applying -----------------------------------------------------------------------------------


class _Reader:
    """Evaluates values for one element of a message, and remembers what was not there."""

    def __init__(self, message: object, item: object) -> None:
        self._message = message
        self._item = item
        self.missing: list[_Problem] = []

    def read(self, value: object) -> Any:
        """Return the value, or _ABSENT when it is optional and not there."""
        if not isinstance(value, Mapping):
            if isinstance(value, list):
                return [each for one in value if (each := self.read(one)) is not _ABSENT]
            return value
        if "path" in value:
            return self._read_path(value)
        if "first" in value:
            return self._first(value["first"])
        if "maybe" in value:
            inner = _Reader(self._message, self._item)
            read = inner.read(value["maybe"])
            return _ABSENT if inner.missing else read
        return self._read_parts(value)

    def _read_parts(self, value: Mapping[str, Any]) -> Any:
        if "join" in value:
            parts = [self.read(each) for each in value["join"]]
            return "".join(str(part) for part in parts if part is not _ABSENT)[:TEXT_CHARS_MAX]
        members = {name: self.read(each) for name, each in value.items()}
        return {name: each for name, each in members.items() if each is not _ABSENT}

    def _first(self, values: Sequence[object]) -> Any:
        told: list[_Problem] = []
        for each in values:
            inner = _Reader(self._message, self._item)
            read = inner.read(each)
            if read is not _ABSENT and not inner.missing:
                return read
            told += inner.missing
        self.missing += told[:1]
        return _ABSENT

    def _read_path(self, value: Mapping[str, Any]) -> Any:
        path: str = value["path"]
        found = find(path, self._message, self._item)
        if found is not _ABSENT and ("table" in value or "ranges" in value):
            known = _looked_up(value, found)
            if known is _ABSENT and "default" not in value:
                self.missing.append((path, f"{str(found)[:64]!r} is not in the table"))
                return _ABSENT
            found = known
        if found is _ABSENT:
            if "default" in value:
                return value["default"]
            if not value.get("optional", False):
                self.missing.append((path, "is not there"))
            return _ABSENT
        if value.get("as") == "text" and not isinstance(found, dict | list):
            found = str(found)
        return found[:TEXT_CHARS_MAX] if isinstance(found, str) else found


def find(path: str, message: object, item: object) -> Any:
    """Return what a path leads to, _ABSENT for nothing and for null. Raises nothing."""
    at: Any = message if path.startswith("/") else item
    for segment in path.split("/")[1:]:
        if segment.startswith("[") and segment.endswith("]") and isinstance(at, list):
            name, _, wanted = _unescaped(segment[1:-1]).partition("=")
            at = next(
                (each for each in at if isinstance(each, dict) and _equal(each.get(name), wanted)),
                _ABSENT,
            )
        elif isinstance(at, dict):
            at = at.get(_unescaped(segment), _ABSENT)
        elif isinstance(at, list) and segment.isascii() and segment.isdigit():
            index = int(segment[:6])
            at = at[index] if index < len(at) else _ABSENT
        else:
            return _ABSENT
    return _ABSENT if at is None else at


def _unescaped(segment: str) -> str:
    return segment.replace("~1", "/").replace("~0", "~")


def _items(rule: Mapping[str, Any], message: object) -> Sequence[object]:
    if "each" not in rule:
        return [message]
    found = find(rule["each"], message, message)
    return found if isinstance(found, list) else []


def _holds(test: Mapping[str, Any], message: object, item: object) -> bool:
    found = find(test["path"], message, item)
    if "exists" in test:
        return (found is not _ABSENT) is test["exists"]
    if "not_in" in test:
        return not any(_equal(found, each) for each in test["not_in"])
    if "is" in test or "in" in test:
        return any(_equal(found, each) for each in test.get("in", [test.get("is")]))
    if "contains" in test:
        wanted: str = test["contains"]
        return isinstance(found, str) and wanted.casefold() in found.casefold()
    if not is_number(found):
        return False
    return bool(found >= test["at_least"] if "at_least" in test else found < test["below"])


def _equal(one: object, other: object) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold() == other.casefold()
    # True is not 1 here.
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _looked_up(value: Mapping[str, Any], found: object) -> Any:
    if "table" in value:
        key = str(found).casefold()
        return next(
            (each for name, each in value["table"].items() if name.casefold() == key), _ABSENT
        )
    if not is_number(found):
        return _ABSENT
    return next(
        (each["is"] for each in value["ranges"] if each["from"] <= found <= each["to"]),
        _ABSENT,
    )


def _signal(rule: Mapping[str, Any], reader: _Reader) -> MappedSignal | None:
    sub_id = reader.read(rule["subject"])
    payload = reader.read(rule["event"].get("members", {}))
    event_type = reader.read(rule["event"]["type"])
    vendor_id = reader.read(rule["id"]) if "id" in rule else _ABSENT
    moment = reader.read(rule["occurred_at"]) if "occurred_at" in rule else _ABSENT
    occurred_at = None
    if moment is not _ABSENT:
        occurred_at = read_moment(moment)
        if occurred_at is None:
            reader.missing.append(("occurred_at", "is no time"))
    if reader.missing:
        return None
    if occurred_at is not None:
        payload["event_timestamp"] = int(occurred_at.timestamp())
    return MappedSignal(
        rule=rule["name"],
        event_type=event_type,
        payload=payload,
        sub_id=sub_id,
        occurred_at=occurred_at,
        vendor_id=None if vendor_id is _ABSENT else str(vendor_id),
    )


def read_moment(value: object) -> datetime | None:
    """Read a time: RFC 3339, or seconds or milliseconds since 1970; None when it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:16])
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            # Vendors that leave the offset out mean UTC.
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            # Overflow: the offset leads out of the years 1 to 9999.
            return None
    if is_number(value):
        seconds = value / 1000 if value > MILLISECONDS_ABOVE else value
        if 0 <= seconds <= EPOCH_S_MAX:
            return datetime.fromtimestamp(seconds, tz=UTC)
    return None


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a JSON value is a number. Raises nothing."""
    return isinstance(value, int | float) and not isinstance(value, bool)
