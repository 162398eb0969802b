"""Reads MaxMind DB files; only the process that compiles imports the vendor's library.

The library reads the metadata and decodes records, in its Python variant: the variant in C crashes
on damaged files. The tree is walked here, because the library makes an object for each network,
and a record that many networks share is decoded once. Source: MaxMind DB file format 2.0.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from risk.networks.compiler import Row
from risk.networks.model import V4_BITS, V6_BITS, Said
from risk.networks.readers.documents import said_of
from risk.networks.readers.shape import FeedShape, FeedUnreadableError

#: between the tree and the records
SEPARATOR_BYTES: Final = 16
#: records kept decoded; neighbours share them
DECODED_MAX: Final = 100_000
V6: Final = 6


def read(path: Path, shape: FeedShape) -> Iterator[Row]:
    """Yield the networks of an MMDB file. Raises FeedUnreadableError, OSError."""
    import maxminddb  # noqa: PLC0415 - see above
    from maxminddb.decoder import Decoder  # noqa: PLC0415

    try:
        with maxminddb.open_database(str(path), maxminddb.MODE_MMAP) as reader:
            metadata = reader.metadata()
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            base = metadata.search_tree_size + SEPARATOR_BYTES
            decoder = Decoder(mapped, base)

            def said_at(offset: int) -> Said | None:
                document, _ = decoder.decode(base + offset)
                if not isinstance(document, Mapping):
                    return None
                return said_of(document, shape.categories)

            records = _Records(said_at)
            tree = _Tree(mapped, metadata)
            for first, length, offset in tree.networks():
                said = records.at(offset)
                if said is not None:
                    yield _row(first, length, said, bits=tree.bits)
    except (maxminddb.InvalidDatabaseError, ValueError, TypeError, LookupError) as error:
        # What is damaged may be of any type where another was expected.
        raise FeedUnreadableError(f"{path.name} is no sound MMDB: {error}") from error


def _row(first: int, length: int, said: Said, *, bits: int) -> Row:
    last = first | (1 << bits - length) - 1
    # In a tree of IPv6 the IPv4 addresses are ::/96.
    return Row(first=first, last=last, is_v6=last >> V4_BITS > 0, said=said)


class _Records:
    """Records by where they lie, the latest kept decoded."""

    def __init__(self, said_at: Callable[[int], Said | None]) -> None:
        self._said_at = said_at
        self._held: OrderedDict[int, Said | None] = OrderedDict()

    def at(self, offset: int) -> Said | None:
        if offset in self._held:
            return self._held[offset]
        said = self._held[offset] = self._said_at(offset)
        if len(self._held) > DECODED_MAX:
            self._held.popitem(last=False)
        return said


class _Tree:
    """The search tree: nodes of two records, each a node, nothing, or a record's place."""

    def __init__(self, mapped: mmap.mmap, metadata: Any) -> None:
        self._mapped = mapped
        self._count: int = metadata.node_count
        self._bits: int = metadata.record_size
        self._node_bytes = self._bits // 4
        self.bits = V6_BITS if metadata.ip_version == V6 else V4_BITS
        self._ipv4_start = self._start_of_ipv4() if self.bits == V6_BITS else -1

    def _start_of_ipv4(self) -> int:
        node = 0
        for _ in range(V6_BITS - V4_BITS):
            if node >= self._count:
                return -1
            node = self._children(node)[0]
        return node

    def _children(self, node: int) -> tuple[int, int]:
        at = node * self._node_bytes
        both = int.from_bytes(self._mapped[at : at + self._node_bytes])
        if self._bits == 28:  # noqa: PLR2004 - the middle byte holds the high halves of both
            left, middle, right = both >> 32, both >> 24 & 0xFF, both & 0xFFFFFF
            return (middle >> 4) << 24 | left, (middle & 0x0F) << 24 | right
        return both >> self._bits, both & (1 << self._bits) - 1

    def networks(self) -> Iterator[tuple[int, int, int]]:
        """Yield first address, prefix length and the record's place, ascending.

        Aliases of the IPv4 tree are left out. Raises ValueError for a tree that is none.
        """
        todo: list[tuple[int, int, int]] = [(0, 0, 0)]
        # In a tree each node is met once. More means that it winds back into itself.
        visits_left = self._count
        while todo:
            node, depth, prefix = todo.pop()
            if node == self._count:
                continue
            if node > self._count:
                offset = node - self._count - SEPARATOR_BYTES
                if offset < 0:
                    raise ValueError("a network points into the tree")
                yield prefix << self.bits - depth, depth, offset
                continue
            if prefix != 0 and node == self._ipv4_start:
                continue
            visits_left -= 1
            if depth >= self.bits or visits_left < 0:
                raise ValueError("its tree winds back into itself")
            left, right = self._children(node)
            todo.append((right, depth + 1, prefix << 1 | 1))
            todo.append((left, depth + 1, prefix << 1))
