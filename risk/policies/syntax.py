"""The size and cost of a checked CEL expression, from its syntax tree in the published wire form.

`cel.expr.CheckedExpr` is a protocol buffer message, inside a `google.protobuf.Any`; of it only the
tree is read (`expr`, field 4).
Field numbers are those of cel-spec, `proto/cel/expr/checked.proto` and `syntax.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_VALUE_OF_ANY: Final = 2
_EXPR_OF_CHECKED: Final = 4
_IDENT, _SELECT, _CALL, _LIST, _STRUCT, _MACRO = 4, 5, 6, 7, 8, 9
_CALL_FUNCTION: Final = 2
#: kind of node -> fields that hold further nodes
_CHILDREN: Final = {_SELECT: (1,), _CALL: (1, 3), _LIST: (1,), _MACRO: (2, 3, 7)}
#: of a comprehension: condition and step, which run once per element
_REPEATED: Final = (5, 6)
_STRUCT_ENTRIES: Final = 2
_ENTRY_NODES: Final = (3, 4)
_NAME: Final = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large an expression is. cost: nodes visited at most. names: identifiers, own ones too."""

    nodes: int
    depth: int
    cost: int
    has_nested_macros: bool
    functions: frozenset[str]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Visit:
    node: bytes
    depth: int
    times: int


def measure(serialised: bytes, *, list_items: int) -> Shape:
    """Measure a serialised expression. list_items: what a macro runs over at most.

    Raises ValueError for bytes that are no such message.
    """
    nodes = depth = cost = 0
    is_nested = False
    functions: set[str] = set()
    names: set[str] = set()
    waiting = [
        _Visit(value, 1, 1)
        for part, checked in _fields(serialised)
        if part == _VALUE_OF_ANY
        for field, value in _fields(checked)
        if field == _EXPR_OF_CHECKED
    ]
    if not waiting:
        raise ValueError("there is no expression in it")
    while waiting:  # the tree is finite: every step goes down
        visit = waiting.pop()
        nodes += 1
        depth = max(depth, visit.depth)
        cost += visit.times
        for kind, body in _fields(visit.node):
            if kind == _IDENT:
                names.update(_texts(body, _NAME))
            elif kind == _CALL:
                functions.update(_texts(body, _CALL_FUNCTION))
            elif kind == _MACRO:
                is_nested = is_nested or visit.times > 1
                waiting += _below(body, _REPEATED, visit, visit.times * list_items)
            for child in _child_bodies(kind, body):
                waiting.append(_Visit(child, visit.depth + 1, visit.times))
    return Shape(
        nodes=nodes,
        depth=depth,
        cost=cost,
        has_nested_macros=is_nested,
        functions=frozenset(functions),
        names=frozenset(names),
    )


def _below(body: bytes, wanted: tuple[int, ...], visit: _Visit, times: int) -> list[_Visit]:
    return [
        _Visit(value, visit.depth + 1, times) for field, value in _fields(body) if field in wanted
    ]


def _child_bodies(kind: int, body: bytes) -> Iterator[bytes]:
    if kind == _STRUCT:
        for field, entry in _fields(body):
            if field == _STRUCT_ENTRIES:
                yield from (value for part, value in _fields(entry) if part in _ENTRY_NODES)
        return
    wanted = _CHILDREN.get(kind, ())
    if wanted:
        yield from (value for field, value in _fields(body) if field in wanted)


def _texts(body: bytes, wanted: int) -> list[str]:
    return [value.decode() for field, value in _fields(body) if field == wanted]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, value) of the fields that have a length; others are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _BYTES:
            length, at = _varint(message, at)
            yield number, message[at : at + length]
            at += length
        elif wire in {_FIXED64, _FIXED32}:
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("not a protocol buffer message")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
        shift += 7
    raise ValueError("not a protocol buffer message")
