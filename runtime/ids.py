"""Identifiers: ULIDs with a prefix that names the kind (`usr_01J...`).

A ULID sorts by time of making, so rows land at the right end of their index. Inside one process
ids of the same millisecond still ascend: the random part is increased instead of drawn anew.
"""

from __future__ import annotations

import os
import random
import secrets
import time
import uuid
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_RANDOM_BITS: Final = 80
_TIME_SHIFTS: Final = range(40, -10, -10)
#: the last millisecond a ULID can carry
ULID_MS_MAX: Final = (1 << 48) - 1

PREFIXES: Final = frozenset(
    [
        "usr",
        "svc",
        "fbk",
        "dev",
        "ses",
        "app",
        "prv",
        "cli",
        "str",
        "sig",
        "det",
        "ctn",
        "tsk",
        "evt",
        "pol",
        "zon",
        "fed",
        "key",
        "aud",
        "whk",
        "clr",
        "lvl",
        "chg",
        "pin",
        "lnk",
        "tok",
        "hsl",
        "aus",
        "rly",
        "atr",
        "ups",
        "ord",
        "map",
        "ing",
        "qrn",
        "bgl",
        "sil",
        "sup",
        "rvw",
        "swp",
        "slo",
        "ctx",
        "bhv",
        "sin",
    ]
)


class _Sequence:
    """Last millisecond (also as text) and random part handed out by this process.

    The generator is seeded from the system once: ids must not collide, they need not be secret,
    and a system call per id would cost more than the rest of making one.
    """

    __slots__ = ("draw_bits", "millisecond", "random", "text")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a sequence of its own; a forked process must not go on with its parent's."""
        self.millisecond = 0
        self.text = ""
        self.random = 0
        self.draw_bits = random.Random(secrets.randbits(256)).getrandbits  # noqa: S311 - see above


_LAST: Final = _Sequence()
os.register_at_fork(after_in_child=_LAST.begin)

#: kinds whose id is part of an intake URL: they must not be guessable from a neighbour's
SECRET_PREFIXES: Final = frozenset({"prv"})


def new_id(prefix: str) -> str:
    """Return a fresh id such as `usr_01JD…` (26 characters after the prefix), ascending.

    Raises ValueError for an unknown prefix and for one whose ids must not be guessable.
    """
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix {prefix!r}")
    if prefix in SECRET_PREFIXES:
        raise ValueError(f"ids of {prefix!r} are secret: take new_secret_id()")
    return f"{prefix}_{new_ulid()}"


def new_ulid() -> str:
    """Return a 26 character ULID that is larger than all earlier ones of this process."""
    millisecond, drawn = _next()
    if not _LAST.text:
        _LAST.text = _base32(millisecond, _TIME_SHIFTS)
    # Written out: every signal needs half a dozen ids.
    return (
        f"{_LAST.text}{_PAIRS[drawn >> 70]}{_PAIRS[drawn >> 60 & 1023]}{_PAIRS[drawn >> 50 & 1023]}"
        f"{_PAIRS[drawn >> 40 & 1023]}{_PAIRS[drawn >> 30 & 1023]}{_PAIRS[drawn >> 20 & 1023]}"
        f"{_PAIRS[drawn >> 10 & 1023]}{_PAIRS[drawn & 1023]}"
    )


def ulid_from_ms(millisecond: int) -> str:
    """Return the smallest ULID of a millisecond since 1970; times beyond the range are cut."""
    return _base32(min(max(millisecond, 0), ULID_MS_MAX), _TIME_SHIFTS) + "0" * 16


def ulid_ms(ulid: str) -> int:
    """Return the millisecond since 1970 that a ULID was made in. Raises ValueError for others."""
    value = 0
    for character in ulid[:10]:
        value = value * 32 + _ALPHABET.index(character)
    return value


def new_uuid_urn() -> str:
    """Return `urn:uuid:…` for a request or a message, time-ordered like the ids."""
    millisecond, drawn = _next()
    return uuid.UUID(int=(millisecond << _RANDOM_BITS) | drawn, version=4).urn


def _base32(value: int, shifts: range) -> str:
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in shifts])


def _next() -> tuple[int, int]:
    millisecond = time.time_ns() // 1_000_000
    if millisecond <= _LAST.millisecond:
        millisecond = _LAST.millisecond
        _LAST.random += 1 + _LAST.draw_bits(16)
    else:
        _LAST.millisecond = millisecond
        _LAST.text = ""
        # The top bit stays free, so that increments within one millisecond cannot overflow.
        _LAST.random = _LAST.draw_bits(_RANDOM_BITS - 1)
    return millisecond, _LAST.random & ((1 << _RANDOM_BITS) - 1)


def new_secret_id(prefix: str) -> str:
    """Return an unguessable id: 128 random bits. For ids that are part of an intake URL."""
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix {prefix!r}")
    value = secrets.randbits(128)
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


def new_token(prefix: str) -> str:
    """Return a bearer secret with 256 random bits, printable, with a prefix for scanners."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"
