"""A baseline as bytes: small, versioned, and read back whatever wrote them.

Words and places are written once and referred to by number, times as steps from one to the next,
weights as logarithms: a hundred occurrences and their counts take about three kilobytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from risk.baselines.model import Baseline, Count, Occurrence

#: the form that is written; an unknown one reads as no baseline, and is learned anew
VERSION: Final = 2
#: forms that are read -> numbers of each occurrence; the first one knew no TLS fingerprints
_ROWS: Final = {1: 7, VERSION: 8}
NONE: Final = -1
#: of a logarithm: a weight is kept to a seventh of a hundredth
LOG_PARTS: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


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
    """recent: (ms since the one before, then numbers of words and places, NONE for none) each.

    counts: dimension to (word, logarithm of the weight, day, days), one after the other.
    """

    version: int
    events: int
    words: list[str]
    places: list[_Place]
    recent: list[int]
    counts: dict[str, list[int]]
    peers: list[str] = []
    withdrawn: list[str] = []


class _Version(msgspec.Struct, array_like=True):
    version: int


_COUNT: Final = 4
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Stored)
_VERSIONS: Final = msgspec.msgpack.Decoder(_Version)


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
    recent: list[int] = []
    before_ms = 0
    for seen in baseline.recent:
        at_ms = (seen.at - _EPOCH) // _MS
        recent += (
            at_ms - before_ms,
            words.number(seen.ip),
            places.setdefault(_place_of(seen), len(places)),
            words.number(seen.device),
            words.number(seen.ua),
            words.number(seen.app),
            words.number(seen.session),
            words.number(seen.tls),
        )
        before_ms = at_ms
    counts = {
        name: [
            part
            for value, count in values.items()
            for part in (
                words.number(value),
                round(math.log2(count.weight) * LOG_PARTS) if count.weight > 0 else NONE,
                count.day,
                count.days,
            )
        ]
        for name, values in baseline.counts.items()
        if values
    }
    return _ENCODER.encode(
        _Stored(
            version=VERSION,
            events=baseline.events,
            words=list(words.numbers),
            places=list(places),
            recent=recent,
            counts=counts,
            peers=list(baseline.peers),
            withdrawn=list(baseline.withdrawn),
        )
    )


def decode(body: bytes) -> Baseline:
    """Read a baseline; one of an unknown version, or that is damaged, is nothing known.

    Nothing known means learning, and never "known good". Raises nothing.
    """
    try:
        if _VERSIONS.decode(body).version not in _ROWS:
            return Baseline()
        stored = _DECODER.decode(body)
        return Baseline(
            recent=tuple(_occurrences(stored)),
            counts={
                name: dict(_counts(stored.words, values)) for name, values in stored.counts.items()
            },
            events=stored.events,
            peers=tuple(stored.peers),
            withdrawn=tuple(stored.withdrawn),
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


def _occurrences(stored: _Stored) -> Iterator[Occurrence]:
    words: list[str | None] = [*stored.words, None]  # NONE is the last one
    places, row, width = stored.places, stored.recent, _ROWS[stored.version]
    at = _EPOCH
    for first in range(0, len(row), width):
        step_ms, ip, place, device, ua, app, session, *tls = row[first : first + width]
        at += step_ms * _MS
        where = places[place]
        yield Occurrence(
            at=at,
            ip=stored.words[ip],
            asn=where.asn,
            country=where.country,
            region=where.region,
            city=where.city,
            latitude=where.latitude,
            longitude=where.longitude,
            accuracy_km=where.accuracy_km,
            is_shared=where.is_shared,
            device=words[device],
            ua=words[ua],
            app=words[app],
            session=words[session],
            tls=words[tls[0]] if tls else None,
        )


def _counts(words: list[str], values: list[int]) -> Iterator[tuple[str, Count]]:
    for first in range(0, len(values), _COUNT):
        word, weight, day, days = values[first : first + _COUNT]
        yield (
            words[word],
            Count(
                weight=0.0 if weight == NONE else 2.0 ** (weight / LOG_PARTS), day=day, days=days
            ),
        )
