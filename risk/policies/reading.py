"""Reading policies from JSON: every mistake is refused with a pointer to its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

from runtime.errors import Invalid

LIST_ITEMS_MAX: Final = 200
TEXT_CHARS_MAX: Final = 200
NAME_CHARS_MAX: Final = 100


def members(value: object, at: str, known: Iterable[str]) -> Mapping[str, object]:
    """Return an object with known members only. Raises Invalid."""
    if not isinstance(value, dict):
        refuse(at, "an object")
    names = sorted(known)
    for name in value:
        if name not in names:
            refuse(f"{at}/{name}", f"unknown; known are {', '.join(names)}")
    return value


def strings(value: object, at: str, *, allowed: Iterable[str] = ()) -> frozenset[str]:
    """Return a list of texts as a set; `allowed`, if any, are all there are. Raises Invalid."""
    if (
        not isinstance(value, list)
        or len(value) > LIST_ITEMS_MAX
        or not all(isinstance(each, str) and 0 < len(each) <= TEXT_CHARS_MAX for each in value)
    ):
        refuse(at, f"an array of at most {LIST_ITEMS_MAX} strings")
    if names := list(allowed):
        for each in sorted(value):
            one_of(each, names, at)
    return frozenset(value)


def sides(value: object, at: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return (include, exclude) of `{include?: [...], exclude?: [...]}`. Raises Invalid."""
    if value is None:
        return frozenset(), frozenset()
    found = members(value, at, ("include", "exclude"))
    return (
        strings(found.get("include", []), f"{at}/include"),
        strings(found.get("exclude", []), f"{at}/exclude"),
    )


def text(value: object, at: str, *, chars_max: int = NAME_CHARS_MAX) -> str:
    """Return a text that is not empty. Raises Invalid."""
    if not isinstance(value, str) or not 0 < len(value) <= chars_max:
        refuse(at, f"a string of 1 to {chars_max} characters")
    return value


def number(value: object, at: str, *, least: int, most: int) -> int:
    """Return an integer within limits. Raises Invalid."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(at, f"an integer from {least} to {most}")
    return value


def flag(value: object, at: str) -> bool:
    """Return true or false. Raises Invalid."""
    if not isinstance(value, bool):
        refuse(at, "true or false")
    return value


def one_of(value: object, allowed: Iterable[str], at: str) -> str:
    """Return one of the allowed texts. Raises Invalid."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        refuse(at, f"one of {', '.join(names)}")
    return value


def check_unique(values: Iterable[object], what: str, at: str = "/rules") -> None:
    """Raise Invalid unless every value occurs once."""
    listed = list(values)
    if len(set(listed)) != len(listed):
        refuse(at, f"each {what} once")


def refuse(at: str, rule: str) -> NoReturn:
    """Say what is expected, and where. Raises Invalid."""
    raise Invalid(
        f"The policy is not valid: {at or 'the document'}: {rule}.", pointers=((at, rule),)
    )
