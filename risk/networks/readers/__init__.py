"""Feeds of every shape, read into rows: MMDB, CSV, JSON lines, geofeeds, IP2Proxy, plain prefixes.

A reader is a generator of rows; a line it cannot read is counted, and too many of them refuse the
feed. `documents` knows what vendors' members mean, whatever file they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from risk.networks.compiler import Row
from risk.networks.readers import mmdb, text
from risk.networks.readers.shape import FeedFormat, FeedShape, FeedUnreadableError

__all__ = ["FeedFormat", "FeedShape", "FeedUnreadableError", "read_feed"]

_READERS: Final[Mapping[FeedFormat, Callable[[Path, FeedShape], Iterator[Row]]]] = MappingProxyType(
    {
        FeedFormat.MMDB: mmdb.read,
        FeedFormat.CSV: text.read_csv,
        FeedFormat.JSON_LINES: text.read_json_lines,
        FeedFormat.IP2PROXY: text.read_ip2proxy,
        FeedFormat.GEOFEED: text.read_geofeed,
        FeedFormat.PREFIXES: text.read_prefixes,
    }
)


def read_feed(path: Path, shape: FeedShape) -> Iterator[Row]:
    """Yield the rows of a feed's file. Raises FeedUnreadableError and OSError, also midway."""
    rows = 0
    for row in _READERS[shape.format](path, shape):
        rows += 1
        yield row
    if rows == 0:
        raise FeedUnreadableError(f"{path.name} says nothing of any address")
