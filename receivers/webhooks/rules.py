"""Whether a mapping is one: its form and its bounds. Pure; see `receivers.webhooks.mapping`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from receivers.webhooks.mapping import TEXT_CHARS_MAX, WebhookMapping, is_number
from runtime.errors import Invalid

RULES_MAX: Final = 64
PREDICATES_MAX: Final = 16
SEGMENTS_MAX: Final = 16
TABLE_MAX: Final = 256
DEPTH_MAX: Final = 6
MEMBERS_MAX: Final = 32

_VALUE_WORDS: Final = frozenset({"path", "first", "join", "maybe"})
_PATH_WORDS: Final = frozenset({"path", "table", "ranges", "default", "as", "optional"})
_RULE_WORDS: Final = frozenset({"name", "each", "when", "id", "occurred_at", "subject", "event"})

_Problem: TypeAlias = tuple[str, str]


def compile_mapping(document: object, at: str = "") -> WebhookMapping:
    """Check a mapping and return it ready to be applied. Raises Invalid with pointers."""
    problems = list(_mapping_problems(document, at))
    if problems or not isinstance(document, Mapping):
        raise Invalid("The mapping is not acceptable.", pointers=tuple(problems))
    return WebhookMapping(rules=tuple(document["rules"]), ignore=tuple(document.get("ignore", ())))


def _mapping_problems(document: object, at: str) -> Iterator[_Problem]:
    if not isinstance(document, Mapping):
        yield at or "/", "an object"
        return
    for name in sorted(set(document) - {"rules", "ignore"}):
        yield f"{at}/{name[:64]}", "unknown member"
    rules = document.get("rules")
    if not isinstance(rules, list) or not 0 < len(rules) <= RULES_MAX:
        yield f"{at}/rules", f"an array of 1 to {RULES_MAX} rules"
        return
    for place, rule in enumerate(rules):
        yield from _rule_problems(rule, f"{at}/rules/{place}")
    ignore = document.get("ignore", [])
    if not isinstance(ignore, list) or len(ignore) > RULES_MAX:
        yield f"{at}/ignore", f"an array of at most {RULES_MAX} lists of tests"
        return
    for place, tests in enumerate(ignore):
        yield from _tests_problems(tests, f"{at}/ignore/{place}")


def _rule_problems(rule: object, at: str) -> Iterator[_Problem]:
    if not isinstance(rule, Mapping):
        yield at, "an object"
        return
    for name in sorted(set(rule) - _RULE_WORDS):
        yield f"{at}/{name[:64]}", "unknown member"
    if not isinstance(rule.get("name"), str) or not 0 < len(rule["name"]) <= TEXT_CHARS_MAX:
        yield f"{at}/name", "a name"
    if "each" in rule:
        yield from _path_problems(rule["each"], f"{at}/each")
    yield from _tests_problems(rule.get("when", []), f"{at}/when")
    for name in ("id", "occurred_at"):
        if name in rule:
            yield from _value_problems(rule[name], f"{at}/{name}", DEPTH_MAX)
    yield from _object_problems(rule.get("subject"), f"{at}/subject")
    yield from _event_problems(rule.get("event"), f"{at}/event")


def _event_problems(event: object, at: str) -> Iterator[_Problem]:
    if not isinstance(event, Mapping) or set(event) - {"type", "members"}:
        yield at, "an object with type and members"
        return
    if not isinstance(event.get("type"), str):
        yield f"{at}/type", "the URI of an event type"
    yield from _object_problems(event.get("members", {}), f"{at}/members")


def _object_problems(value: object, at: str) -> Iterator[_Problem]:
    if not isinstance(value, Mapping) or _VALUE_WORDS & set(value):
        yield at, "an object"
    else:
        yield from _value_problems(value, at, DEPTH_MAX)


def _tests_problems(tests: object, at: str) -> Iterator[_Problem]:
    if not isinstance(tests, list) or len(tests) > PREDICATES_MAX:
        yield at, f"an array of at most {PREDICATES_MAX} tests"
        return
    for place, test in enumerate(tests):
        below = f"{at}/{place}"
        words = sorted(_TESTS.keys() & set(test)) if isinstance(test, Mapping) else []
        if len(words) != 1 or len(test) != 2:  # noqa: PLR2004 - a path and a test
            yield below, f"a path and one of {', '.join(sorted(_TESTS))}"
            continue
        yield from _path_problems(test.get("path"), f"{below}/path")
        wanted, is_good = _TESTS[words[0]]
        if not is_good(test[words[0]]):
            yield f"{below}/{words[0]}", wanted


def _value_problems(value: object, at: str, levels_left: int) -> Iterator[_Problem]:
    if _is_scalar(value):
        return
    if levels_left == 0 or not isinstance(value, Mapping | list) or len(value) > MEMBERS_MAX:
        yield at, f"a constant, or at most {MEMBERS_MAX} members in at most {DEPTH_MAX} levels"
    elif isinstance(value, Mapping) and "path" in value:
        yield from _lookup_problems(value, at)
    elif isinstance(value, Mapping) and _VALUE_WORDS & set(value):
        yield from _word_problems(value, at, levels_left)
    else:
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, each in inner:
            yield from _value_problems(each, f"{at}/{str(name)[:64]}", levels_left - 1)


def _word_problems(value: Mapping[str, Any], at: str, levels_left: int) -> Iterator[_Problem]:
    word = min(_VALUE_WORDS & set(value))
    if len(value) != 1 or (word != "maybe" and not isinstance(value[word], list)):
        yield at, f"an object with {word} alone; first and join hold an array"
    else:
        yield from _value_problems(value[word], f"{at}/{word}", levels_left - 1)


def _lookup_problems(value: Mapping[str, Any], at: str) -> Iterator[_Problem]:
    for name in sorted(set(value) - _PATH_WORDS):
        yield f"{at}/{name[:64]}", "unknown member"
    yield from _path_problems(value["path"], f"{at}/path")
    table = value.get("table", {})
    if (
        not isinstance(table, Mapping)
        or len(table) > TABLE_MAX
        or not all(map(_is_scalar, table.values()))
    ):
        yield f"{at}/table", f"an object of at most {TABLE_MAX} constants"
    ranges = value.get("ranges", [])
    if not isinstance(ranges, list) or len(ranges) > TABLE_MAX or not all(map(_is_range, ranges)):
        yield f"{at}/ranges", "an array of {from, to, is}"
    if "table" in value and "ranges" in value:
        yield at, "table or ranges, not both"
    if not _is_scalar(value.get("default", "")):
        yield f"{at}/default", "a constant"
    if value.get("as", "text") != "text":
        yield f"{at}/as", "text"
    if not isinstance(value.get("optional", False), bool):
        yield f"{at}/optional", "true or false"


def _is_range(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"from", "to", "is"}
        and is_number(value["from"])
        and is_number(value["to"])
        and _is_scalar(value["is"])
    )


def _path_problems(path: object, at: str) -> Iterator[_Problem]:
    if (
        not isinstance(path, str)
        or (path != "." and not path.startswith(("/", "./")))
        or len(path) > TEXT_CHARS_MAX
        or path.count("/") > SEGMENTS_MAX
    ):
        yield at, f"a path that begins with / or ./, of at most {SEGMENTS_MAX} segments"


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= TEXT_CHARS_MAX
    return isinstance(value, bool | int | float)


def _are_scalars(value: object) -> bool:
    return isinstance(value, list) and len(value) <= TABLE_MAX and all(map(_is_scalar, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_CHARS_MAX


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


_TESTS: Final[Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    "is": ("a constant", _is_scalar),
    "in": (f"an array of at most {TABLE_MAX} constants", _are_scalars),
    "not_in": (f"an array of at most {TABLE_MAX} constants", _are_scalars),
    "exists": ("true or false", _is_flag),
    "contains": ("a text", _is_text),
    "at_least": ("a number", is_number),
    "below": ("a number", is_number),
}
