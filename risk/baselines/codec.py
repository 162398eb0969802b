"""A baseline as bytes: small, versioned, and read back whatever wrote them.

Words and places are written once and referred to by number, so that a hundred occurrences take
about two kilobytes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from risk.baselines.model import Baseline, Count, Occurrence

#: the form that is written; an unknown one reads as no baseline, and is learned anew
VERSION: Final = 1
NONE: Final = -1


class _Place(msgspec.Struct, frozen=True, array_like=True):
    asn: int | None
    country: str | None
    region: str | None
    city: str | None
    latitude: float | None
    longitude: float | None
    accuracy_km: float | None
    is_shared: bool


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """recent: (epoch milliseconds, then numbers of words and places, NONE for none)."""

    version: int
    events: int
    words: list[str]
    places: list[_Place]
    recent: list[tuple[int, int, int, int, int, int, int]]
    counts: dict[str, dict[str, Count]]


class _Version(msgspec.Struct, array_like=True):
    version: int


class _Words:
    """Numbers for words, each written once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, word: str | None) -> int:
        """Return the number of a word."""
        return NONE if word is None else self.numbers.setdefault(word, len(self.numbers))


def encode(baseline: Baseline) -> bytes:
    """Return a baseline as bytes. Raises nothing."""
    words = _Words()
    places: dict[_Place, int] = {}
    recent = [
        (
            round(seen.at.timestamp() * 1000),
            words.number(seen.ip),
            places.setdefault(_place_of(seen), len(places)),
            words.number(seen.device),
            words.number(seen.ua),
            words.number(seen.app),
            words.number(seen.session),
        )
        for seen in baseline.recent
    ]
    return msgspec.msgpack.encode(
        _Stored(
            version=VERSION,
            events=baseline.events,
            words=list(words.numbers),
            places=list(places),
            recent=recent,
            counts={name: dict(values) for name, values in baseline.counts.items() if values},
        )
    )


def decode(body: bytes) -> Baseline:
    """Read a baseline; one of an unknown version, or that is damaged, is nothing known.

    Nothing known means learning, and never "known good". Raises nothing.
    """
    try:
        if msgspec.msgpack.decode(body, type=_Version).version != VERSION:
            return Baseline()
        stored = msgspec.msgpack.decode(body, type=_Stored)
        return Baseline(
            recent=tuple(_occurrence(stored, row) for row in stored.recent),
            counts=stored.counts,
            events=stored.events,
        )
    except (msgspec.MsgspecError, IndexError, OverflowError, ValueError):
        return Baseline()


def _place_of(seen: Occurrence) -> _Place:
    return _Place(
        asn=seen.asn,
        country=seen.country,
        region=seen.region,
        city=seen.city,
        latitude=seen.latitude,
        longitude=seen.longitude,
        accuracy_km=seen.accuracy_km,
        is_shared=seen.is_shared,
    )


def _occurrence(stored: _Stored, row: tuple[int, ...]) -> Occurrence:
    at_ms, ip, place, *others = row
    device, ua, app, session = (None if each == NONE else stored.words[each] for each in others)
    where = stored.places[place]
    return Occurrence(
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        ip=stored.words[ip],
        asn=where.asn,
        country=where.country,
        region=where.region,
        city=where.city,
        latitude=where.latitude,
        longitude=where.longitude,
        accuracy_km=where.accuracy_km,
        is_shared=where.is_shared,
        device=device,
        ua=ua,
        app=app,
        session=session,
    )
