"""Reads SQL, as SQLAlchemy writes it, for one question: does it name its tenant?

Every table of the hub begins its keys with the tenant. A statement names its tenant when each
table it reads or writes is held to a value: `t.tenant_id = ?`, `… IN (…)`, or equality with
another table that is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import greenlet  # type: ignore[import-untyped]  # it comes without types
import sqlalchemy as sa

from runtime.database import Database, metadata

TABLES = frozenset(metadata.tables)
SYSTEM = "system_"
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \$\d+(?:::[A-Z]+(?:\[\])?)? | [:?]\w*
      | [A-Za-z_]\w* | \d[\w.]* | <> | >= | <= | != | \|\| | :: | [^\s]""",
    re.VERBOSE,
)
_VALUE = re.compile(r"[$?:'].*|\d.*")
_CLAUSE = frozenset(
    re.findall(
        r"\w+",
        """WHERE ON SET GROUP ORDER LIMIT OFFSET UNION RETURNING HAVING JOIN LEFT RIGHT INNER OUTER
        CROSS NATURAL USING FOR INDEXED VALUES SELECT FROM DO CONFLICT AS NOT""",
    )
)


class UnnamedTenantError(AssertionError):
    """A statement reaches rows of more than one tenant."""


@dataclass
class _Reading:
    """What is known while reading. refs: names under which tables appear, by name or alias."""

    refs: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    equal: list[tuple[str, str]] = field(default_factory=list)

    def all_held(self) -> set[str]:
        """Return what is held, directly or by being equal to what is."""
        held = set(self.held)
        for _ in self.equal:
            for pair in self.equal:
                if held.intersection(pair):
                    held.update(pair)
        return held


def check(sql: str) -> None:
    """Raise UnnamedTenantError unless every table in the statement is held to a tenant."""
    tokens = _without_assignments(_TOKEN.findall(sql))
    upper = [token.upper() for token in tokens]
    if upper[:1] == ["INSERT"]:
        place = upper.index("(")
        if "tenant_id" not in tokens[place : upper.index(")", place)]:
            raise UnnamedTenantError(sql)
    reading = _Reading()
    for place, table in _references(tokens, upper):
        if upper[place - 1] != "INTO":
            reading.refs.add(_alias(tokens, upper, place) or table)
    _read_conditions(tokens, upper, reading)
    if missing := reading.refs - reading.all_held():
        raise UnnamedTenantError(f"{sorted(missing)} not held to a tenant in: {sql}")


def _without_assignments(tokens: list[str]) -> list[str]:
    """Leave out what an UPDATE sets: it holds nothing."""
    upper = [token.upper() for token in tokens]
    if upper[:1] != ["UPDATE"]:
        return tokens
    start = upper.index("SET")
    ends = [upper.index(word, start) for word in ("FROM", "WHERE") if word in upper[start:]]
    return tokens[:start] + tokens[min(ends, default=len(tokens)) :]


def _references(tokens: Sequence[str], upper: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield (place, table) wherever a table stands as a table, not as the owner of a column."""
    in_from = [False]
    for place, token in enumerate(tokens):
        word = upper[place]
        if word == "(":
            in_from.append(False)
        elif word == ")" and len(in_from) > 1:
            in_from.pop()
        elif word in {"FROM", "JOIN"}:
            in_from[-1] = True
        elif word in _CLAUSE - {"AS", "INDEXED", "NOT"}:
            in_from[-1] = False
        name = token.strip('"')
        if name not in TABLES or tokens[place + 1 : place + 2] == ["."]:
            continue
        before = upper[place - 1] if place else ""
        if before in {"FROM", "JOIN", "UPDATE", "INTO"} or (before == "," and in_from[-1]):
            yield place, name


def _alias(tokens: Sequence[str], upper: Sequence[str], place: int) -> str | None:
    following = place + 1
    if following < len(tokens) and upper[following] == "AS":
        return tokens[following + 1].strip('"')
    if following < len(tokens) and re.fullmatch(r'[A-Za-z_]\w*|".*"', tokens[following]):
        return None if upper[following] in _CLAUSE else tokens[following].strip('"')
    return None


def _read_conditions(tokens: Sequence[str], upper: Sequence[str], reading: _Reading) -> None:
    for place, token in enumerate(tokens):
        if token != "tenant_id":
            continue
        qualified = place >= 2 and tokens[place - 1] == "."
        owner = tokens[place - 2].strip('"') if qualified else None
        owners = {owner} if owner else set(reading.refs)
        after = upper[place + 1 : place + 3]
        if after[:1] == ["IN"] or after == ["=", "ANY"] or _is_in_tuple(upper, place):
            reading.held |= owners
        elif after[:1] == ["="]:
            _read_equality(tokens, place, owners, reading)


def _read_equality(tokens: Sequence[str], place: int, owners: set[str], reading: _Reading) -> None:
    other = tokens[place + 2]
    if _VALUE.fullmatch(other):
        reading.held |= owners
    elif tokens[place + 3 : place + 5] == [".", "tenant_id"]:
        name = other.strip('"')
        if name in reading.refs or name in TABLES:
            reading.equal += [(each, name) for each in owners]
        else:
            # A list of values or a named part of the statement, whose own tables are checked too.
            reading.held |= owners


def _is_in_tuple(upper: Sequence[str], place: int) -> bool:
    """Return whether `tenant_id` is part of `(a.tenant_id, …) IN (…)`."""
    for end in range(place + 1, min(place + 12, len(upper) - 1)):
        if upper[end] == ")":
            return upper[end + 1] == "IN"
        if upper[end] in {"=", "AND", "WHERE", "FROM", "SELECT"}:
            return False
    return False


@dataclass
class Watcher:
    """Sees every statement of a database. crossings: system functions that span tenants."""

    unnamed: list[str] = field(default_factory=list)
    crossings: set[str] = field(default_factory=set)
    values: list[tuple[str, Any]] = field(default_factory=list)
    count: int = 0

    def watch(self, database: Database) -> None:
        """Look at every statement from now on."""
        for engine in {database.engine, database.reader}:
            sa.event.listen(engine.sync_engine, "before_cursor_execute", self._see)

    def _see(self, _c: Any, _cursor: Any, sql: str, values: Any, _x: Any, _m: Any) -> None:
        self.count += 1
        self.values.append((sql, values))
        try:
            check(sql)
        except UnnamedTenantError as error:
            system = [name for name in _callers() if name.lstrip("_").startswith(SYSTEM)]
            if system:
                self.crossings.add(system[0])
            else:
                self.unnamed.append(f"{error}\nby {' < '.join(list(_callers())[:12])}")

    def mentions(self, value: str, of: str = "") -> bool:
        """Return whether `value` was a parameter of any statement seen that begins with `of`."""
        return any(value in _flat(values) for sql, values in self.values if sql.startswith(of))


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, dict):
        values = values.values()
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        yield values
        return
    for value in values:
        yield from _flat(value)


def _callers() -> Iterator[str]:
    """Yield the names of the functions that led here, across the driver's greenlets."""
    frame: FrameType | None = sys._getframe(1)
    current: Any = greenlet.getcurrent()
    while frame is not None or current is not None:
        while frame is not None:
            yield frame.f_code.co_name
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
