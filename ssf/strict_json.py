"""Reading JSON objects that came from outside, strictly.

Two readers of one text must never see two meanings, so everything ambiguous is refused: repeated
member names, invalid UTF-8, lone surrogates, NaN, numbers out of range. NUL is refused as well,
because not every database stores it, and so is nesting beyond JSON_DEPTH_MAX, because later
readers recurse (no registered message needs more than eight levels).
"""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ssf.errors import RemoteProtocolError

_DECODE: Final = msgspec.json.Decoder().decode
_ESCAPED_NUL: Final = b"\\u0000"
JSON_DEPTH_MAX: Final = 32


class _RefusedJSONError(ValueError):
    """Well-formed, but a member name repeats, a string holds NUL, or the nesting is too deep."""


def parse_object(
    raw: bytes, *, bytes_max: int, error: Callable[[str], RemoteProtocolError]
) -> dict[str, Any]:
    """Read one JSON object without duplicate member names at any level.

    raw: UTF-8 text of at most bytes_max bytes. error: makes the error to raise from a description.
    Raises what `error` makes, and nothing else. Source: RFC 7493; requirement SET-51.
    """
    if len(raw) > bytes_max:
        raise error(f"more than {bytes_max} bytes of JSON")
    try:
        value = _DECODE(raw)
        if not isinstance(value, dict):
            raise error("not a JSON object")
        # The second scan only compares member counts; msgspec keeps the last of a repeated name.
        _DUPLICATE_SCAN(raw.decode())
        # Ordinary messages pass these two cheap tests; only suspects pay for the walk.
        if raw.count(b"{") + raw.count(b"[") > JSON_DEPTH_MAX or _ESCAPED_NUL in raw:
            _check_tree(value, JSON_DEPTH_MAX)
    except _RefusedJSONError as cause:
        raise error(str(cause)) from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise error("not well-formed JSON") from None
    return value


def _check_members(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _RefusedJSONError("duplicate member names")


_DUPLICATE_SCAN: Final = json.JSONDecoder(object_pairs_hook=_check_members).decode


def _check_tree(value: object, levels_left: int) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise _RefusedJSONError("NUL in a string")
    elif isinstance(value, dict | list):
        if levels_left == 0:
            raise _RefusedJSONError(f"nested deeper than {JSON_DEPTH_MAX} levels")
        for item in value:
            _check_tree(item, levels_left - 1)
        if isinstance(value, dict):
            for member in value.values():
                _check_tree(member, levels_left - 1)
