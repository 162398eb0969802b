"""Expressions of policy rules: CEL, checked and limited (docs/policies.md, ADR 0025).

    source ─▶ check ─▶ Expression ─▶ holds(activate(facts)) ─▶ True | False | ExpressionError

The language is the library's; this is the one module that knows it. The library is loaded when the
first expression is met: a hub without expressions does not pay for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from risk.model import Level
from risk.policies.facts import FACT_ITEMS_MAX, RequestFacts
from risk.policies.syntax import Shape, measure

CHARS_MAX: Final = 1_000
NODES_MAX: Final = 200
DEPTH_MAX: Final = 24
#: nodes that one evaluation visits at most; a node inside a macro counts once per element
COST_MAX: Final = 10_000
MESSAGE_CHARS_MAX: Final = 300
#: checked expressions that are remembered: reading a policy again compiles nothing
KEPT_MAX: Final = 4_096
#: functions of the language that are refused: compiling a pattern has no useful limit
REFUSED_FUNCTIONS: Final = frozenset({"matches"})


class ExpressionError(Exception):
    """The expression cannot be used, or gave no answer; the message says why, for its author."""


#: variable -> (type in the library's words, its value). A list is at most `FACT_ITEMS_MAX` long.
_VARIABLES: Final[Mapping[str, tuple[str, Callable[[RequestFacts], Any]]]] = MappingProxyType(
    {
        "kind": ("STRING", lambda facts: str(facts.kind)),
        "level": ("INT", lambda facts: int(facts.level)),
        "user_level": ("INT", lambda facts: int(facts.user_level)),
        "device_level": ("INT", lambda facts: int(facts.device_level)),
        "LOW": ("INT", lambda _facts: int(Level.LOW)),
        "MEDIUM": ("INT", lambda _facts: int(Level.MEDIUM)),
        "HIGH": ("INT", lambda _facts: int(Level.HIGH)),
        "zones": ("LIST", lambda facts: _listed(facts.zones)),
        "groups": ("LIST", lambda facts: _listed(facts.groups)),
        "detections": ("LIST", lambda facts: _listed(facts.detections)),
        "changes": ("LIST", lambda facts: _listed(facts.changes)),
        "amr": ("LIST", lambda facts: _listed(facts.amr)),
        "acr": ("STRING", lambda facts: facts.acr or ""),
        # Unknown is long ago: a rule that asks for a recent sign-in is not satisfied by silence.
        "auth_age_s": (
            "DOUBLE",
            lambda facts: float("inf") if facts.auth_age_s is None else float(facts.auth_age_s),
        ),
        "app": ("STRING", lambda facts: facts.app_id or ""),
        "issuer": ("STRING", lambda facts: facts.issuer or ""),
        "exempt": ("BOOL", lambda facts: facts.exempt),
        "posture": ("TEXTS", lambda facts: _mapped(facts.posture)),
        "behaviours": ("TEXTS", lambda facts: _mapped(facts.behaviours)),
        "ip": ("STRING", lambda facts: facts.record.ip if facts.record else ""),
        "asn": ("INT", lambda facts: (facts.record.asn if facts.record else None) or 0),
        "organisation": ("STRING", lambda facts: _of_record(facts, "organisation")),
        "country": ("STRING", lambda facts: _of_record(facts, "country")),
        "region": ("STRING", lambda facts: _of_record(facts, "region")),
        "city": ("STRING", lambda facts: _of_record(facts, "city")),
        "operator": ("STRING", lambda facts: _of_record(facts, "operator")),
        "categories": (
            "LIST",
            lambda facts: _listed(facts.record.categories) if facts.record else [],
        ),
        "extra": ("ANYTHING", lambda facts: dict(facts.extra)),
    }
)
VARIABLES: Final = tuple(_VARIABLES)
#: of rules over attributes: what a question says
ATTRIBUTES: Final = ("subject", "action", "resource", "context")


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression. names: the variables it uses."""

    source: str
    names: frozenset[str]
    _program: Any

    def holds(self, activation: Any) -> bool:
        """Tell whether it is true. activation: of `activate`. Raises ExpressionError."""
        try:
            value = self._program.eval(activation).value()
        except Exception as error:  # RuntimeError, and whatever it is made of
            raise ExpressionError(_short(error)) from error
        if value is True or value is False:
            return bool(value)
        raise ExpressionError(_short(value))


@functools.lru_cache(maxsize=KEPT_MAX)
def check(source: str) -> Expression:
    """Compile an expression. Raises ExpressionError: syntax, types, a limit, a refused function."""
    if not 0 < len(source) <= CHARS_MAX:
        raise ExpressionError(f"1 to {CHARS_MAX} characters")
    return _checked(source, _environment(), list_items=FACT_ITEMS_MAX, names=_VARIABLES)


@functools.lru_cache(maxsize=KEPT_MAX)
def check_attributes(source: str) -> Expression:
    """Compile an expression over ATTRIBUTES. Raises ExpressionError, as `check` does.

    Lists in a question are as long as its sender likes, so macros over them are too expensive.
    """
    if not 0 < len(source) <= CHARS_MAX:
        raise ExpressionError(f"1 to {CHARS_MAX} characters")
    return _checked(source, _attributes(), list_items=COST_MAX, names=ATTRIBUTES)


def activate_attributes(question: Mapping[str, Any]) -> Any:
    """Return the values of a question: ATTRIBUTES, each an object. Raises ExpressionError."""
    try:
        return _attributes().Activation({name: question[name] for name in ATTRIBUTES})
    except Exception as error:
        raise ExpressionError(_short(error)) from error


def _checked(
    source: str, environment: Any, *, list_items: int, names: Collection[str]
) -> Expression:
    try:
        program = environment.compile(source)
        is_bool = program.return_type() == _library().Type.BOOL
        shape = measure(program.serialize(), list_items=list_items)
    except Exception as error:
        raise ExpressionError(_short(error)) from error
    if not is_bool:
        raise ExpressionError(f"it gives {program.return_type()!r}, not BOOL")
    _check_shape(shape)
    return Expression(source=source, names=shape.names & set(names), _program=program)


def activate(facts: RequestFacts, names: Iterable[str]) -> Any:
    """Return the values of these variables, for all expressions. Raises ExpressionError."""
    try:
        return _environment().Activation({name: _VARIABLES[name][1](facts) for name in names})
    except Exception as error:
        raise ExpressionError(_short(error)) from error


def _check_shape(shape: Shape) -> None:
    if shape.has_nested_macros:
        raise ExpressionError("too expensive: a macro (all, exists, map, filter) inside a macro")
    for what, found, most in (
        ("nodes", shape.nodes, NODES_MAX),
        ("levels of nesting", shape.depth, DEPTH_MAX),
        ("steps", shape.cost, COST_MAX),
    ):
        if found > most:
            raise ExpressionError(f"too expensive: {found} {what}, at most {most}")
    for name in sorted(shape.functions & REFUSED_FUNCTIONS):
        raise ExpressionError(f"{name}() is not available: use startsWith, endsWith or contains")


@functools.cache
def _library() -> Any:
    from cel_expr_python import cel  # noqa: PLC0415 - 9 MB, for hubs whose policies have expressions

    return cel


@functools.cache
def _attributes() -> Any:
    types = _library().Type
    anything = types.Map(types.STRING, types.DYN)
    return _library().NewEnv(variables=dict.fromkeys(ATTRIBUTES, anything))


@functools.cache
def _environment() -> Any:
    types = _library().Type
    kinds = {
        "BOOL": types.BOOL,
        "INT": types.INT,
        "DOUBLE": types.DOUBLE,
        "STRING": types.STRING,
        "LIST": types.List(types.STRING),
        "TEXTS": types.Map(types.STRING, types.STRING),
        "ANYTHING": types.Map(types.STRING, types.DYN),
    }
    return _library().NewEnv(
        variables={name: kinds[kind] for name, (kind, _) in _VARIABLES.items()}
    )


def _listed(values: Iterable[str]) -> list[str]:
    listed = list(values)
    return listed if len(listed) <= FACT_ITEMS_MAX else sorted(listed)[:FACT_ITEMS_MAX]


def _mapped(values: Mapping[str, str]) -> dict[str, str]:
    if len(values) <= FACT_ITEMS_MAX:
        return dict(values)
    return {name: values[name] for name in sorted(values)[:FACT_ITEMS_MAX]}


def _of_record(facts: RequestFacts, name: str) -> str:
    return (getattr(facts.record, name) if facts.record else None) or ""


def _short(error: object) -> str:
    return str(error).removesuffix(" [INVALID_ARGUMENT]")[:MESSAGE_CHARS_MAX]
