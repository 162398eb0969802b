"""What a reader is told about a feed, and what it says when it gives up."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FeedFormat(StrEnum):
    """The shapes of files that are read."""

    MMDB = "mmdb"  # MaxMind DB, with the members of MaxMind, DB-IP or IPinfo
    CSV = "csv"  # with a header line: IPinfo and the like
    JSON_LINES = "json_lines"  # one object per line with its address: Spur and the like
    IP2PROXY = "ip2proxy"  # the CSV of IP2Proxy, without a header
    GEOFEED = "geofeed"  # RFC 8805; also the list of iCloud Private Relay's egresses
    PREFIXES = "prefixes"  # one address, network or range per line; also Tor's exit lists


class FeedUnreadableError(Exception):
    """A feed's file is corrupt, or not of the shape that it is said to be. The text says why."""


class FeedShape(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a feed before it is read.

    categories: what is claimed of every address in it. built_at: when its file was made, seconds
    since 1970, for members that say "so many days ago".
    """

    format: FeedFormat
    built_at: int
    categories: tuple[str, ...] = ()
