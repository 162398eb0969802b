"""From rows to a table, and from tables to one. For a process of its own: it takes its time.

compile_feed: rows of one feed ─▶ flatten: the narrowest range wins ─▶ a table of one source
merge_tables: tables of one source each ─▶ cut where any of them changes ─▶ one table
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from risk.networks.artefact import (
    CHUNK_BYTES,
    HELD_MAX,
    Content,
    Header,
    MappedTable,
    Ranges,
    RecordHeap,
    map_table,
    write_table,
)
from risk.networks.model import V4_BITS, V6_BITS, Said, Source

#: rows of one feed; the largest of today's vendors' have fewer
ROWS_MAX: Final = 40_000_000
_V6_HALF: Final = 64
_V6_LOW: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One range of a feed, both ends included, and what the feed says of it."""

    first: int
    last: int
    is_v6: bool
    said: Said


#: a range's first and last address, and the number of its record
Span: TypeAlias = tuple[int, int, int]


class TooManyRowsError(Exception):
    """A feed is larger than any that is known."""


class _Spans:
    """Ranges of one family as they come, in little memory; given back in order."""

    def __init__(self, *, is_v6: bool) -> None:
        self._halves = 2 if is_v6 else 1
        item = "Q" if is_v6 else "I"
        #: the halves of the first and last address one after the other
        self._ends = array(item)
        self._numbers = array("I")
        self._bits = V6_BITS if is_v6 else V4_BITS
        self._is_sorted = True
        self._last = -1

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, first: int, last: int, number: int) -> None:
        self._is_sorted = self._is_sorted and first > self._last
        self._last = last
        if self._halves == 1:
            self._ends.extend((first, last))
        else:
            self._ends.extend(
                (first >> _V6_HALF, first & _V6_LOW, last >> _V6_HALF, last & _V6_LOW)
            )
        self._numbers.append(number)

    def _at(self, index: int) -> Span:
        ends, number = self._ends, self._numbers[index]
        if self._halves == 1:
            return ends[2 * index], ends[2 * index + 1], number
        high, low, last_high, last_low = ends[4 * index : 4 * index + 4]
        return high << _V6_HALF | low, last_high << _V6_HALF | last_low, number

    def __iter__(self) -> Iterator[Span]:
        """Yield by first address, the widest of those first, equal ones as they came."""
        if self._is_sorted:
            return map(self._at, range(len(self)))
        return map(self._at, sorted(range(len(self)), key=self._key))

    def _key(self, index: int) -> int:
        first, last, _ = self._at(index)
        return (first + 1 << self._bits) - last


def flatten(spans: Iterable[Span]) -> Iterator[tuple[int, int]]:
    """Yield where what is said changes, as (start, number), 0 for silence; ascending.

    spans: by first address, the widest first. Of ranges around an address the narrowest wins, of
    equal ones the last. Raises nothing.
    """
    open_spans: list[tuple[int, int]] = []
    for first, last, number in spans:
        yield from _close(open_spans, before=first)
        open_spans.append((last, number))
        yield first, number
    yield from _close(open_spans, before=None)


def _close(open_spans: list[tuple[int, int]], *, before: int | None) -> Iterator[tuple[int, int]]:
    """Yield what holds again after each span that ends, for those that end before an address."""
    while open_spans and (before is None or open_spans[-1][0] < before):
        ended, _ = open_spans.pop()
        # What ended inside the one that is closed never comes back.
        while open_spans and open_spans[-1][0] <= ended:
            open_spans.pop()
        yield ended + 1, open_spans[-1][1] if open_spans else 0


def compile_feed(path: Path, source: Source, rows: Iterable[Row], *, now: int) -> Source:
    """Write the table of one feed; return the source with its number of prefixes.

    Raises what reading the rows raises, TooManyRowsError, OSError; then nothing was written.
    """
    heap = RecordHeap(path.parent)
    try:
        v4, v6 = _Spans(is_v6=False), _Spans(is_v6=True)
        for row in rows:
            (v6 if row.is_v6 else v4).add(row.first, row.last, heap.add(row.said))
            if len(v4) + len(v6) > ROWS_MAX:
                raise TooManyRowsError(f"more than {ROWS_MAX:,} rows")
        source = msgspec.structs.replace(source, prefixes=len(v4) + len(v6))
        content = Content(
            v4=_ranges(flatten(v4), V4_BITS),
            v6=_ranges(flatten(v6), V6_BITS),
            combinations=array("I", range(1, len(heap.offsets))),
            offsets=heap.offsets,
            records=_pieces(heap),
        )
        write_table(path, _header((source,), now), content)
    finally:
        heap.close()
    return source


def _ranges(marks: Iterable[tuple[int, int]], bits: int) -> Ranges:
    ranges = Ranges(is_v6=bits == V6_BITS)
    for start, number in marks:
        if start >> bits == 0:
            ranges.mark(start, number)
    return ranges


def _pieces(heap: RecordHeap) -> Iterator[bytes]:
    heap.file.flush()
    heap.file.seek(0)
    while piece := heap.file.read(CHUNK_BYTES):
        yield piece


def merge_tables(
    path: Path, parts: Sequence[Path], sources: Sequence[Source], *, now: int
) -> tuple[str, Header]:
    """Merge tables of one source each into one, in the order they are asked; return its version.

    sources: what is to be said of each part. Raises TableCorruptError, OSError; then nothing was
    written.
    """
    tables = [map_table(part) for part in parts]
    try:
        header = _header(tuple(sources), now)
        combinations = Combinations(len(tables))
        bases = _bases(tables)
        v4 = _merge_family(tables, bases, combinations, is_v6=False)
        v6 = _merge_family(tables, bases, combinations, is_v6=True)
        offsets = array("Q", [0])
        for table in tables:
            end = offsets[-1]
            offsets.extend(end + each for each in table.offsets[1:])
        content = Content(
            v4=v4,
            v6=v6,
            combinations=combinations.numbers,
            offsets=offsets,
            records=_records(tables),
        )
        return write_table(path, header, content), header
    finally:
        for table in tables:
            table.close()


def _bases(tables: Sequence[MappedTable]) -> list[int]:
    """Return what to add to a record's number of each table in the merged one."""
    bases, base = [], 0
    for table in tables:
        bases.append(base)
        base += len(table.offsets) - 1
    return bases


def _records(tables: Sequence[MappedTable]) -> Iterator[memoryview]:
    for table in tables:
        length = table.offsets[-1]
        for at in range(0, length, CHUNK_BYTES):
            with table.records[at : min(at + CHUNK_BYTES, length)] as piece:
                yield piece


class Combinations:
    """Which records hold together; equal ones are numbered once as far back as is remembered."""

    def __init__(self, sources: int, *, held_max: int = HELD_MAX) -> None:
        self.numbers = array("I")
        self._held_max = held_max
        self._sources = sources
        self._count = 0
        self._held: dict[tuple[int, ...], int] = {(0,) * sources: 0}

    def number_of(self, records: tuple[int, ...]) -> int:
        """Return the number of a combination, 0 for silence of all."""
        number = self._held.get(records)
        if number is None:
            if len(self._held) > self._held_max:
                self._held = {(0,) * self._sources: 0}
            self.numbers.extend(records)
            self._count += 1
            number = self._held[records] = self._count
        return number


def _merge_family(
    tables: Sequence[MappedTable],
    bases: Sequence[int],
    combinations: Combinations,
    *,
    is_v6: bool,
) -> Ranges:
    ranges = Ranges(is_v6=is_v6)
    present = [0] * len(tables)
    streams = [
        _marks(table, base, at, is_v6=is_v6)
        for at, (table, base) in enumerate(zip(tables, bases, strict=True))
    ]
    begun = 0
    for start, at, record in heapq.merge(*streams):
        if start != begun:
            # Only once all that begins there is known: a combination that never holds costs space.
            ranges.mark(begun, combinations.number_of(tuple(present)))
            begun = start
        present[at] = record
    ranges.mark(begun, combinations.number_of(tuple(present)))
    return ranges


def _marks(
    table: MappedTable, base: int, at: int, *, is_v6: bool
) -> Iterator[tuple[int, int, int]]:
    # A table of one source numbers its combinations as its records.
    for start, number in table.boundaries(is_v6=is_v6):
        yield start, at, base + number if number else 0


def _header(sources: tuple[Source, ...], now: int) -> Header:
    return Header(
        byteorder=sys.byteorder,
        built_at=now,
        prefixes=sum(each.prefixes for each in sources),
        sources=sources,
        sections={},
    )
