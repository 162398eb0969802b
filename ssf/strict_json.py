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

JSON_DEPTH_MAX: Final = 32

_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode


class _RefusedJSONError(ValueError):
    """Well-formed, but a member name repeats, a string holds NUL, or the nesting is too deep."""


def parse_object(
    raw: bytes,
    *,
    bytes_max: int,
    error: Callable[[str], RemoteProtocolError],
    depth_max: int = JSON_DEPTH_MAX,
) -> dict[str, Any]:
    """Read one JSON object without duplicate member names at any level.

    raw: UTF-8 text of at most bytes_max bytes. error: makes the error to raise from a description.
    depth_max: levels of nesting.
    Raises what `error` makes, and nothing else. Source: RFC 7493; requirement SET-51.
    """
    value: dict[str, Any] = _parse(raw, dict, bytes_max=bytes_max, error=error, depth_max=depth_max)
    return value


def parse_array(
    raw: bytes, *, bytes_max: int, error: Callable[[str], RemoteProtocolError]
) -> list[Any]:
    """Read one JSON array as strictly as `parse_object` reads an object."""
    value: list[Any] = _parse(raw, list, bytes_max=bytes_max, error=error)
    return value


def _parse(
    raw: bytes,
    kind: type[dict[str, Any] | list[Any]],
    *,
    bytes_max: int,
    error: Callable[[str], RemoteProtocolError],
    depth_max: int = JSON_DEPTH_MAX,
) -> Any:
    if len(raw) > bytes_max:
        raise error(f"more than {bytes_max} bytes of JSON")
    try:
        value = _DECODE(raw)
        if not isinstance(value, kind):
            raise error("not a JSON object" if kind is dict else "not a JSON array")
        _check_unambiguous(raw, value, depth_max)
    except _RefusedJSONError as cause:
        raise error(str(cause)) from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise error("not well-formed JSON") from None
    return value


def holds_nul(text: bytes) -> bool:
    r"""Tell whether JSON text has a string with NUL, which can only be written as ``\u0000``.

    Escaped backslashes are taken out first, so that text about the escape is not the escape.
    """
    return b"\\u0000" in text and b"\\u0000" in text.replace(b"\\\\", b"")


def _check_unambiguous(raw: bytes, value: object, depth_max: int) -> None:
    if raw.count(b"{") + raw.count(b"[") > depth_max:
        _check_depth(value, depth_max)
    if holds_nul(raw):
        raise _RefusedJSONError("NUL in a string")
    # The decoder keeps the last of a repeated name. When the decoded value, written again, gives
    # the same text, nothing was lost. Usual transmitters pass here, at a third of the scan's cost.
    if _ENCODE(value) != msgspec.json.format(raw, indent=-1):
        _DUPLICATE_SCAN(raw.decode())


def _check_members(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _RefusedJSONError("duplicate member names")


_DUPLICATE_SCAN: Final = json.JSONDecoder(object_pairs_hook=_check_members).decode


def _check_depth(value: object, levels_left: int) -> None:
    if isinstance(value, dict | list):
        if levels_left == 0:
            raise _RefusedJSONError("nested deeper than allowed")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, levels_left - 1)
