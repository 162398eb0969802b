"""Reads feeds that are text: CSV, JSON lines, IP2Proxy, geofeeds and plain lists; gzip, too.

One line in a hundred may be unreadable, and is left out; a file with more is not what it is said
to be and is refused.
"""

from __future__ import annotations

import csv
import gzip
import ipaddress
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TextIO, TypeVar

import msgspec

from risk.networks.compiler import Row
from risk.networks.model import DAY_S, V4_BITS, V6_BITS, Said, packed
from risk.networks.readers import documents
from risk.networks.readers.shape import FeedShape, FeedUnreadableError

_ItemT = TypeVar("_ItemT")

LINE_CHARS_MAX: Final = 1024 * 1024
#: of a hundred lines one may be bad, and in any file a few
BAD_SHARE_MAX: Final = 0.01
BAD_LINES_MIN: Final = 10
_MAPPED_FIRST: Final = 0xFFFF << V4_BITS
_COMMENTS: Final = ("#", ";", "//")
_IP2PROXY_COLUMNS_MIN: Final = 4
#: lines of Tor's exit list that say nothing of an address
_TOR_OTHERS: Final = ("ExitNode ", "Published ", "LastStatus ")
_TOR_ADDRESS: Final = "ExitAddress "


def read_csv(path: Path, shape: FeedShape) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header. Raises FeedUnreadableError, OSError."""
    with _open(path) as lines:
        reader = csv.reader(_bounded(path, lines))
        header = next(_csv_rows(path, reader), [])
        names = [name.strip().lower() for name in header]
        if not {"network", "range", "start_ip", "ip", "cidr"} & set(names):
            raise FeedUnreadableError(
                f"{path.name} has no header with a column network, cidr, range, start_ip or ip"
            )

        def row_of(cells: list[str]) -> Row:
            document = dict(zip(names, cells, strict=False))
            first, last, is_v6 = _place(document)
            said = documents.said_of(document, shape.categories)
            return Row(first=first, last=last, is_v6=is_v6, said=said)

        yield from _rows(path, _csv_rows(path, reader), row_of)


def read_json_lines(path: Path, shape: FeedShape) -> Iterator[Row]:
    """Yield the rows of a file of JSON objects. Raises FeedUnreadableError, OSError."""
    decoder = msgspec.json.Decoder(dict[str, object])

    def row_of(line: str) -> Row:
        try:
            document = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error
        first, last, is_v6 = _place(document)
        said = documents.said_of(document, shape.categories)
        return Row(first=first, last=last, is_v6=is_v6, said=said)

    with _open(path) as lines:
        yield from _rows(path, (line for line in _bounded(path, lines) if line.strip()), row_of)


def read_ip2proxy(path: Path, shape: FeedShape) -> Iterator[Row]:
    """Yield the rows of an IP2Proxy CSV (PX1 to PX12). Raises FeedUnreadableError, OSError."""

    def row_of(cells: list[str]) -> Row:
        if len(cells) < _IP2PROXY_COLUMNS_MIN:
            raise ValueError("too few columns")
        return _ip2proxy_row([*cells, *[""] * 16], shape)

    with _open(path) as lines:
        yield from _rows(path, _csv_rows(path, csv.reader(_bounded(path, lines))), row_of)


def _ip2proxy_row(cells: list[str], shape: FeedShape) -> Row:
    first, last = int(cells[0]), int(cells[1])
    if first >= _MAPPED_FIRST and last < _MAPPED_FIRST + (1 << V4_BITS):
        first, last = first - _MAPPED_FIRST, last - _MAPPED_FIRST
    is_v6 = last >> V4_BITS > 0
    if not 0 <= first <= last < 1 << (V6_BITS if is_v6 else V4_BITS):
        raise ValueError("no range")
    # Columns: from, to, type, country, its name, region, city, ISP, domain, usage, ASN, AS,
    # days since last seen, threat, provider.
    names, operator = documents.ip2proxy(cells[2], cells[14], cells[9], shape.categories)
    days = cells[12]
    is_count = days.isascii() and days.isdigit() and len(days) < 6  # noqa: PLR2004 - 273 years
    return Row(
        first=first,
        last=last,
        is_v6=is_v6,
        said=Said(
            asn=documents.asn_of(cells[10]),
            organisation=documents.text_of(cells[11]),
            country=documents.country_of(cells[3]),
            city=documents.text_of(cells[6]),
            categories=names,
            operator=operator,
            seen_at=shape.built_at - int(days) * DAY_S if is_count else None,
        ),
    )


def read_geofeed(path: Path, shape: FeedShape) -> Iterator[Row]:
    """Yield the rows of a geofeed: prefix, country, region, city, … (RFC 8805)."""

    def row_of(cells: list[str]) -> Row:
        first, last, is_v6 = parse_range(cells[0])
        country = documents.country_of(cells[1]) if len(cells) > 1 else None
        region = cells[2] if len(cells) > 2 else None  # noqa: PLR2004 - the third column
        city = cells[3] if len(cells) > 3 else None  # noqa: PLR2004 - the fourth
        said = Said(
            country=country,
            region=documents.region_of(region, country),
            city=documents.text_of(city),
            categories=tuple(sorted(shape.categories)),
        )
        return Row(first=first, last=last, is_v6=is_v6, said=said)

    with _open(path) as lines:
        plain = (line for line in _bounded(path, lines) if not line.startswith("#"))
        yield from _rows(path, _csv_rows(path, csv.reader(plain)), row_of)


def read_prefixes(path: Path, shape: FeedShape) -> Iterator[Row]:
    """Yield the rows of a plain list. Raises FeedUnreadableError, OSError."""
    said = Said(categories=tuple(sorted(shape.categories)))

    def row_of(line: str) -> Row:
        words = line.removeprefix(_TOR_ADDRESS).split("#")[0].split(";")[0].split()
        first, last, is_v6 = parse_range(words[0])
        return Row(first=first, last=last, is_v6=is_v6, said=said)

    with _open(path) as lines:
        plain = (
            line
            for line in map(str.strip, _bounded(path, lines))
            if line and not line.startswith((*_COMMENTS, *_TOR_OTHERS))
        )
        yield from _rows(path, plain, row_of)


def parse_range(text: str) -> tuple[int, int, bool]:
    """Read an address, a network or `first-last`; return both ends and whether it is IPv6.

    Bits of a network beyond its length are ignored. Raises ValueError.
    """
    if "-" in text:
        first, _, last = text.partition("-")
        return _ends(first.strip(), last.strip())
    if "/" in text:
        network = ipaddress.ip_network(text.strip(), strict=False)
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        if mapped is not None and network.prefixlen >= V6_BITS - V4_BITS:
            low = int(mapped)
            return low, low | (1 << V6_BITS - network.prefixlen) - 1, False
        is_v6 = network.version == 6  # noqa: PLR2004 - IPv6
        return int(network.network_address), int(network.broadcast_address), is_v6
    return _ends(text.strip(), text.strip())


def _ends(first: str, last: str) -> tuple[int, int, bool]:
    low, high = packed(first), packed(last)
    if low is None or high is None or len(low) != len(high) or low > high:
        raise ValueError("no range of addresses")
    return int.from_bytes(low), int.from_bytes(high), len(low) * 8 == V6_BITS


def _place(document: Mapping[str, object]) -> tuple[int, int, bool]:
    """Return the range a record is about. Raises ValueError."""
    start, end = document.get("start_ip"), document.get("end_ip")
    if isinstance(start, str) and isinstance(end, str):
        return _ends(start.strip(), end.strip())
    for name in ("network", "cidr", "range", "ip", "start_ip"):
        place = document.get(name)
        if isinstance(place, str):
            return parse_range(place)
    raise ValueError("no address")


def _rows(path: Path, items: Iterable[_ItemT], row_of: Callable[[_ItemT], Row]) -> Iterator[Row]:
    good = bad = 0
    first_bad = ""
    for number, item in enumerate(items, start=1):
        try:
            row = row_of(item)
        except (ValueError, IndexError, TypeError) as error:
            bad += 1
            first_bad = first_bad or f"entry {number}: {error}"
            if bad > BAD_LINES_MIN and good == 0:
                break
            continue
        good += 1
        yield row
    if bad > max(BAD_LINES_MIN, BAD_SHARE_MAX * (good + bad)) or (bad and not good):
        raise FeedUnreadableError(
            f"{path.name}: {bad} of {good + bad} entries are unreadable, {first_bad}"
        )


def _csv_rows(path: Path, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from (cells for cells in reader if cells)
    except csv.Error as error:
        raise FeedUnreadableError(f"{path.name} is no CSV: {error}") from error


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _bounded(path: Path, lines: TextIO) -> Iterator[str]:
    """Yield lines; a file that is no text of lines is refused. Raises FeedUnreadableError."""
    try:
        while line := lines.readline(LINE_CHARS_MAX + 1):
            if len(line) > LINE_CHARS_MAX:
                raise FeedUnreadableError(f"{path.name} has a line that never ends")
            yield line
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FeedUnreadableError(f"{path.name} is damaged: {error}") from error
