"""The table's file: how it is laid out, written and mapped into memory.

    magic, length of the header, header (JSON: sources, sections), sections, SHA-256 of all before

Sections, each an array in the byte order of the machine, aligned to 8 bytes:

    v4_starts u32, v4_ids u32            where a range begins, and its combination
    v6_high u64, v6_low u64, v6_ids u32  the same, the starts in two halves
    combinations u32                     per combination and source: a record's number, or 0
    offsets u64                          where records begin; record n lies between n - 1 and n
    records                              `Said` in MessagePack

Combination 0 is nobody's. A range ends where the next begins. A file is written beside its place,
made durable and renamed; the one before stays as `….previous`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from risk.networks.model import Said, Source

MAGIC: Final = b"SHIPTAB1"
DIGEST_BYTES: Final = 32
ALIGNMENT: Final = 8
#: many thousand times what sixteen sources need
HEADER_BYTES_MAX: Final = 1024 * 1024
#: what is hashed or copied at once
CHUNK_BYTES: Final = 4 * 1024 * 1024
PREVIOUS: Final = ".previous"
#: lookups remembered for finding equal records again; beyond, some are stored twice
HELD_MAX: Final = 4_000_000

ITEM_TYPES: Final[dict[str, Literal["I", "Q", "B"]]] = {
    "v4_starts": "I",
    "v4_ids": "I",
    "v6_high": "Q",
    "v6_low": "Q",
    "v6_ids": "I",
    "combinations": "I",
    "offsets": "Q",
    "records": "B",
}


class TableCorruptError(Exception):
    """A file is no table, or not the one that was written. The text says what is wrong."""


class Section(msgspec.Struct, frozen=True):
    """Where a section lies in the file, in bytes."""

    offset: int
    length: int


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a table says of itself. byteorder: of the machine that wrote it."""

    byteorder: str
    built_at: int
    prefixes: int
    sources: tuple[Source, ...]
    sections: dict[str, Section]


class Ranges:
    """Starts of ranges of one family, ascending, and what holds from each on."""

    def __init__(self, *, is_v6: bool) -> None:
        self.is_v6 = is_v6
        self.high = array("Q")
        self.low = array("Q") if is_v6 else array("I")
        self.ids = array("I")

    def mark(self, start: int, number: int) -> None:
        """Say that from `start` on `number` holds. Starts never go down; the last word counts."""
        ids = self.ids
        if ids and self._last_start() == start:
            self._drop_last()
        if (ids[-1] if ids else 0) == number:
            return
        if self.is_v6:
            self.high.append(start >> 64)
            self.low.append(start & 0xFFFF_FFFF_FFFF_FFFF)
        else:
            self.low.append(start)
        ids.append(number)

    def _last_start(self) -> int:
        return (self.high[-1] << 64 | self.low[-1]) if self.is_v6 else self.low[-1]

    def _drop_last(self) -> None:
        self.low.pop()
        self.ids.pop()
        if self.is_v6:
            self.high.pop()


class RecordHeap:
    """Records in a temporary file: equal ones are kept once, as far back as is remembered."""

    def __init__(self, folder: Path, *, held_max: int = HELD_MAX) -> None:
        self._held_max = held_max
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close
        self.offsets = array("Q", [0])
        self._numbers: dict[bytes, int] = {}
        self._encoder = msgspec.msgpack.Encoder()

    def add(self, said: Said) -> int:
        """Keep a record and return its number, from 1."""
        encoded = self._encoder.encode(said)
        number = self._numbers.get(encoded)
        if number is None:
            if len(self._numbers) >= self._held_max:
                self._numbers.clear()
            self.file.write(encoded)
            self.offsets.append(self.offsets[-1] + len(encoded))
            number = self._numbers[encoded] = len(self.offsets) - 1
        return number

    def close(self) -> None:
        """Give the space back."""
        self.file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a table is made of; `records` are the pieces that `offsets` number, in order."""

    v4: Ranges
    v6: Ranges
    combinations: array[int]
    offsets: array[int]
    records: Iterable[bytes | memoryview]


def write_table(path: Path, header: Header, content: Content) -> str:
    """Write a table to its place, durable and whole or not at all; return its version.

    header: its sections are filled in here. Raises OSError.
    """
    arrays: dict[str, array[int]] = {
        "v4_starts": content.v4.low,
        "v4_ids": content.v4.ids,
        "v6_high": content.v6.high,
        "v6_low": content.v6.low,
        "v6_ids": content.v6.ids,
        "combinations": content.combinations,
        "offsets": content.offsets,
    }
    lengths = {name: len(each) * each.itemsize for name, each in arrays.items()}
    lengths["records"] = content.offsets[-1]
    encoded = msgspec.json.encode(_placed(header, lengths))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest = _write(file, encoded, [*arrays.values()], content.records)
            file.flush()
            os.fsync(file.fileno())
        publish(Path(name), path)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()
    return digest.hex()[:16]


def publish(made: Path, path: Path) -> None:
    """Put a finished file in its place, and keep the one before. Raises OSError."""
    previous = path.with_name(path.name + PREVIOUS)
    if path.exists():
        spare = path.with_name(f".{path.name}-spare")
        with suppress(FileNotFoundError):
            spare.unlink()
        os.link(path, spare)
        spare.replace(previous)
    made.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _placed(header: Header, lengths: dict[str, int]) -> Header:
    """Return the header with its sections, whose place depends on how long the header is."""
    width = 0
    while True:
        # The numbers in the header move what they number; it settles after two or three rounds.
        at, sections = _aligned(len(MAGIC) + 8 + width), {}
        for name, length in lengths.items():
            sections[name] = Section(at, length)
            at = _aligned(at + length)
        placed = msgspec.structs.replace(header, sections=sections)
        if (needed := len(msgspec.json.encode(placed))) <= width:
            return placed
        width = needed


def _write(
    file: IO[bytes],
    header: bytes,
    arrays: list[array[int]],
    records: Iterable[bytes | memoryview],
) -> bytes:
    digest = hashlib.sha256()
    written = 0

    def put(piece: bytes | memoryview) -> None:
        nonlocal written
        digest.update(piece)
        written += file.write(piece)

    def pad() -> None:
        put(bytes(_aligned(written) - written))

    put(MAGIC)
    put(len(header).to_bytes(8, "little"))
    put(header)
    pad()
    # A header that got shorter while it settled leaves a gap before the first section.
    first = msgspec.json.decode(header, type=Header).sections["v4_starts"].offset
    put(bytes(first - written))
    for each in arrays:
        whole = memoryview(each).cast("B")
        for at in range(0, len(whole), CHUNK_BYTES):
            put(whole[at : at + CHUNK_BYTES])
        pad()
    for piece in records:
        put(piece)
    pad()
    found = digest.digest()
    file.write(found)
    return found


def _aligned(at: int) -> int:
    return -(-at // ALIGNMENT) * ALIGNMENT


class MappedTable:
    """A table's file in memory. Made by `map_table`; safe for many readers, never changes."""

    def __init__(self, path: Path, mapped: mmap.mmap, header: Header, version: str) -> None:
        self.path = path
        self.header = header
        self.version = version
        self._mapped = mapped
        self._whole = memoryview(mapped)
        self._views: dict[str, memoryview] = {}
        for name, item in ITEM_TYPES.items():
            part = header.sections[name]
            self._views[name] = self._whole[part.offset : part.offset + part.length].cast(item)
        self.v4_starts = self._views["v4_starts"]
        self.v4_ids = self._views["v4_ids"]
        self.v6_high = self._views["v6_high"]
        self.v6_low = self._views["v6_low"]
        self.v6_ids = self._views["v6_ids"]
        self.combinations = self._views["combinations"]
        self.offsets = self._views["offsets"]
        self.records = self._views["records"]

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return len(self._mapped)

    def said(self, number: int) -> Said:
        """Return the record of a number from 1 on."""
        return _DECODER.decode(self.records[self.offsets[number - 1] : self.offsets[number]])

    def boundaries(self, *, is_v6: bool) -> Iterator[tuple[int, int]]:
        """Yield where ranges begin and the combination from there on, ascending."""
        if not is_v6:
            yield from zip(self.v4_starts, self.v4_ids, strict=True)
            return
        for high, low, number in zip(self.v6_high, self.v6_low, self.v6_ids, strict=True):
            yield high << 64 | low, number

    def close(self) -> None:
        """Unmap the file; nobody may look anything up any more."""
        for view in self._views.values():
            view.release()
        self._whole.release()
        self._mapped.close()


_DECODER: Final = msgspec.msgpack.Decoder(Said)


def map_table(path: Path) -> MappedTable:
    """Map a table's file, and read all of it once: it is whole, and then in the page cache.

    Takes a while for a large file; not for an event loop. Raises TableCorruptError, OSError.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) + 8 + DIGEST_BYTES:
            raise TableCorruptError(f"{path} is too short for a table")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _checked(path, mapped, size)
    except BaseException:
        # What holds views of it is gone with the exception's frames, or soon after.
        with suppress(BufferError):
            mapped.close()
        raise


def read_header(path: Path) -> Header:
    """Read what a table says of itself, and nothing else. Raises TableCorruptError, OSError."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 8)
        length = int.from_bytes(start[len(MAGIC) :], "little")
        if start[: len(MAGIC)] != MAGIC or length > HEADER_BYTES_MAX:
            raise TableCorruptError(f"{path} is no table of this version")
        return _header_of(path, file.read(length))


def _header_of(path: Path, encoded: bytes) -> Header:
    try:
        return msgspec.json.decode(encoded, type=Header)
    except msgspec.DecodeError as error:
        raise TableCorruptError(f"{path} has an unreadable header") from error


def _checked(path: Path, mapped: mmap.mmap, size: int) -> MappedTable:
    if mapped[: len(MAGIC)] != MAGIC:
        raise TableCorruptError(f"{path} is no table of this version")
    digest = hashlib.sha256()
    with memoryview(mapped) as whole:
        for at in range(0, size - DIGEST_BYTES, CHUNK_BYTES):
            digest.update(whole[at : min(at + CHUNK_BYTES, size - DIGEST_BYTES)])
    if digest.digest() != mapped[size - DIGEST_BYTES :]:
        raise TableCorruptError(f"{path} is damaged: its checksum is another")
    length = int.from_bytes(mapped[len(MAGIC) : len(MAGIC) + 8], "little")
    if length > HEADER_BYTES_MAX:
        raise TableCorruptError(f"{path} has a header of {length} bytes")
    header = _header_of(path, mapped[len(MAGIC) + 8 : len(MAGIC) + 8 + length])
    if header.byteorder != sys.byteorder:
        raise TableCorruptError(f"{path} was made on a {header.byteorder}-endian machine")
    if set(header.sections) != set(ITEM_TYPES):
        raise TableCorruptError(f"{path} has other sections than this version reads")
    return MappedTable(path, mapped, header, digest.hexdigest()[:16])
