"""Tests of ssf.strict_json."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import SETError
from ssf.strict_json import JSON_DEPTH_MAX, holds_nul, parse_object

TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4)
    ),
    max_leaves=12,
)


def error(description: str) -> SETError:
    return SETError("invalid_request", description, requirement="SET-51")


def read(raw: bytes, bytes_max: int = 65536) -> dict[str, Any]:
    return parse_object(raw, bytes_max=bytes_max, error=error)


@pytest.mark.requirement("SET-51")
@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":{"a":[{"b":1,"b":1}]}}',
        b'{ "a" : 1 , "b" : 2 , "a" : 3 }',
    ],
)
def test_a_repeated_member_name_is_refused_at_any_level(raw: bytes) -> None:
    with pytest.raises(SETError, match="duplicate member names") as caught:
        read(raw)
    assert caught.value.requirement == "SET-51"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a":1}{}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\x01"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_text_that_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(SETError, match=r"not well-formed JSON|more than"):
        read(raw)


@pytest.mark.parametrize("raw", [b"[]", b'"a"', b"null", b"7"])
def test_a_json_value_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(SETError, match="not a JSON object"):
        read(raw)


def test_the_size_limit_is_inclusive() -> None:
    assert read(b'{"a":1}', bytes_max=7) == {"a": 1}
    with pytest.raises(SETError, match="more than 6 bytes"):
        read(b'{"a":1}', bytes_max=6)


def test_nesting_beyond_the_limit_is_refused() -> None:
    within = b'{"a":' * JSON_DEPTH_MAX + b"1" + b"}" * JSON_DEPTH_MAX
    assert read(within)
    with pytest.raises(SETError, match="nested deeper"):
        read(b'{"a":[' + within + b"]}")


def test_many_shallow_objects_are_not_deep() -> None:
    raw = b'{"a":[' + b",".join([b'{"b":1}'] * 100) + b"]}"
    assert len(read(raw)["a"]) == 100


def test_nul_is_refused_but_text_about_its_escape_is_not() -> None:
    with pytest.raises(SETError, match="NUL"):
        read(b'{"a":"x\\u0000"}')
    with pytest.raises(SETError, match="NUL"):
        read(b'{"a\\\\\\u0000":1}')
    assert read(b'{"a":"\\\\u0000"}') == {"a": "\\u0000"}


def texts_in(value: object) -> str:
    """Join all strings of a tree."""
    if isinstance(value, dict):
        return "".join(map(texts_in, [*value.keys(), *value.values()]))
    if isinstance(value, list):
        return "".join(map(texts_in, value))
    return value if isinstance(value, str) else ""


@given(
    value=st.dictionaries(st.text(), TREES, max_size=5),
    ascii_only=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", " : ")]),
)
def test_what_another_library_writes_is_read_unchanged(
    value: dict[str, Any],
    ascii_only: bool,  # noqa: FBT001 - drawn by hypothesis
    separators: tuple[str, str],
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    has_nul = "\0" in texts_in(value)
    assert holds_nul(raw) == has_nul
    if has_nul:
        with pytest.raises(SETError, match="NUL"):
            read(raw)
    else:
        assert read(raw) == value


@given(
    st.dictionaries(st.text("abc", min_size=1), TREES, min_size=1, max_size=4),
    st.data(),
)
def test_any_repeated_name_is_found(value: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    again = json.dumps(data.draw(TREES))
    raw = f"{json.dumps(value)[:-1]},{json.dumps(name)}:{again}}}".encode()
    with pytest.raises(SETError):
        read(raw)


@given(st.binary())
def test_arbitrary_bytes_raise_only_the_given_error(raw: bytes) -> None:
    with suppress(SETError):
        assert isinstance(read(raw), dict)
