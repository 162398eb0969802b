"""Looking an address up: bisection in the mapped table, then what its feeds say, merged.

A `View` is a table as of a moment: which feeds are stale follows from that moment, so a process
takes a new view of the same table now and then.
"""

from __future__ import annotations

import socket
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from risk.networks.artefact import MappedTable
from risk.networks.model import (
    IP_CHARS_MAX,
    V4_BITS,
    IPRecord,
    Said,
    Source,
    asked_order,
    merge,
    packed,
    unpacked,
)

#: merged answers kept by a view; the oldest goes first. More would be a burden to free at once.
MERGED_MAX: Final = 1_024
_LOW: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one feed says of an address, as it is; merged or not."""

    source: Source
    said: Said


class View:
    """A table as of `now` (seconds since 1970). Lookups touch memory only and never raise."""

    def __init__(self, table: MappedTable | None, now: int) -> None:
        self.table = table
        self.now = now
        self._sources = table.header.sources if table else ()
        self._order = asked_order(self._sources, now)
        self._merged: OrderedDict[int, dict[str, Any]] = OrderedDict()

    def lookup(self, ip: str) -> IPRecord:
        """Return what is known of an address; text that is no address is unknown. Never raises."""
        raw = packed(ip)
        if raw is None or self.table is None:
            return IPRecord(ip=ip[:IP_CHARS_MAX] if raw is None else unpacked(raw), known=False)
        number, start, after = self._find(self.table, raw)
        if number == 0:
            return IPRecord(ip=unpacked(raw), known=False)
        fields = self._merged.get(number)
        if fields is None:
            fields = self._merge(self.table, number)
        return IPRecord(ip=unpacked(raw), known=True, prefix=_prefix(raw, start, after), **fields)

    def statements(self, ip: str) -> tuple[Statement, ...]:
        """Return what every feed says of an address, in the order they are asked. Never raises."""
        raw = packed(ip)
        if raw is None or self.table is None:
            return ()
        number, _, _ = self._find(self.table, raw)
        late = [at for at in range(len(self._sources)) if at not in self._order]
        words = self._words(self.table, number, (*self._order, *late))
        return tuple(Statement(source=source, said=said) for source, said in words)

    def _merge(self, table: MappedTable, number: int) -> dict[str, Any]:
        words = self._words(table, number, self._order)
        fields = self._merged[number] = merge(words, self.now)
        if len(self._merged) > MERGED_MAX:
            self._merged.popitem(last=False)
        return fields

    def _words(
        self, table: MappedTable, number: int, order: tuple[int, ...]
    ) -> list[tuple[Source, Said]]:
        """Return what feeds say in a combination, in the order they are asked."""
        if number == 0:
            return []
        sources = self._sources
        first = (number - 1) * len(sources)
        records = table.combinations[first : first + len(sources)]
        return [(sources[at], table.said(records[at])) for at in order if records[at]]

    def _find(self, table: MappedTable, raw: bytes) -> tuple[int, int, int | None]:
        """Return the combination at an address, where its range begins, and where the next does."""
        address = int.from_bytes(raw)
        if len(raw) * 8 == V4_BITS:
            starts = table.v4_starts
            at = bisect_right(starts, address) - 1
            if at < 0:
                return 0, 0, None
            after = starts[at + 1] if at + 1 < len(starts) else None
            return table.v4_ids[at], starts[at], after
        high, low = table.v6_high, table.v6_low
        half = address >> 64
        first = bisect_left(high, half)
        last = bisect_right(high, half, first)
        at = bisect_right(low, address & _LOW, first, last) - 1
        if at < 0:
            return 0, 0, None
        after = high[at + 1] << 64 | low[at + 1] if at + 1 < len(high) else None
        return table.v6_ids[at], high[at] << 64 | low[at], after


def _prefix(raw: bytes, start: int, after: int | None) -> str:
    """Return the widest network around an address that lies within a range."""
    bits = len(raw) * 8
    address = int.from_bytes(raw)
    end = after or 1 << bits
    # A block of 2**n addresses holds the neighbour outside exactly if they differ below bit n only.
    width = bits if start == 0 else (address ^ (start - 1)).bit_length() - 1
    if end != 1 << bits:
        width = min(width, (address ^ end).bit_length() - 1)
    base = address >> width << width
    family = socket.AF_INET if bits == V4_BITS else socket.AF_INET6
    return f"{socket.inet_ntop(family, base.to_bytes(bits // 8))}/{bits - width}"
