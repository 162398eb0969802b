"""What a feed is: which file it is read from, how, and what its word counts. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from risk.networks.categories import NAME
from risk.networks.model import DAY_S, Source, StalePolicy
from risk.networks.readers.shape import FeedFormat, FeedShape
from runtime.errors import Invalid

NAME_CHARS_MAX: Final = 100
FILE_CHARS_MAX: Final = 128
CATEGORIES_MAX: Final = 16
POSITION_MAX: Final = 10_000
STALE_AFTER_S_MAX: Final = 3_650 * DAY_S
REASON_CHARS_MAX: Final = 500
#: a feed with fewer prefixes may shrink as it likes: small lists come and go
SHRINK_FROM: Final = 100
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
#: a plain name: a feed is read from the feeds' folder and from nowhere else
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Feed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feed. position: feeds are asked in its order, the smallest first.

    shrink_max: the share of prefixes a new file may lack; one with less left is refused.
    """

    feed_id: str
    name: str
    file: str
    format: FeedFormat
    categories: tuple[str, ...] = ()
    position: int = 100
    stale_after_s: int = 30 * DAY_S
    stale: StalePolicy = StalePolicy.LAST
    decay_s: int = 0
    shrink_max: float = 0.5

    def shape(self, built_at: int) -> FeedShape:
        """Return what its reader is told."""
        return FeedShape(format=self.format, built_at=built_at, categories=self.categories)

    def source(self, *, built_at: int, prefixes: int) -> Source:
        """Return what the table is told."""
        return Source(
            name=self.name,
            feed_id=self.feed_id,
            built_at=built_at,
            prefixes=prefixes,
            stale_after_s=self.stale_after_s,
            stale=self.stale,
            decay_s=self.decay_s,
        )

    def may_become(self, prefixes: int, before: int) -> bool:
        """Return whether a new file may have so many prefixes after one with `before`."""
        return before < SHRINK_FROM or prefixes >= before * (1 - self.shrink_max)


def check_feed(feed: Feed) -> Feed:
    """Return the feed. Raises Invalid, with a pointer to what is wrong."""
    rules = (
        (
            "/name",
            len(feed.name) <= NAME_CHARS_MAX and _matches(_NAME, feed.name),
            "a-z, 0-9, _, -",
        ),
        (
            "/file",
            len(feed.file) <= FILE_CHARS_MAX and _matches(_FILE, feed.file),
            "a plain file name: it is read from the feeds' folder",
        ),
        ("/position", 0 <= feed.position <= POSITION_MAX, f"0 to {POSITION_MAX}"),
        ("/stale_after_s", 0 < feed.stale_after_s <= STALE_AFTER_S_MAX, "seconds, up to ten years"),
        ("/decay_s", 0 <= feed.decay_s <= STALE_AFTER_S_MAX, "seconds, 0 for never"),
        ("/shrink_max", 0 <= feed.shrink_max <= 1, "a share, 0 to 1"),
        ("/categories", len(feed.categories) <= CATEGORIES_MAX, f"at most {CATEGORIES_MAX}"),
        (
            "/categories",
            all(_matches(NAME, category) for category in feed.categories),
            "names such as ANONYMIZER_TOR",
        ),
    )
    problems = tuple((pointer, wanted) for pointer, holds, wanted in rules if not holds)
    if problems:
        raise Invalid("The feed is not acceptable.", pointers=problems)
    return feed


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.fullmatch(text) is not None


class Outcome(StrEnum):
    """What came of the newest file of a feed."""

    READING = "reading"  # or whoever read it died of it
    ACCEPTED = "accepted"
    REFUSED = "refused"
    MISSING = "missing"


class FeedState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a feed's files on this machine. Times in seconds since 1970.

    seen: the file last looked at, and the shape it was read in. prefixes, built_at: of the last
    one that was accepted, which is the one in use.
    """

    outcome: Outcome
    at: int
    seen: str = ""
    reason: str = ""
    prefixes: int = 0
    built_at: int = 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be compiled. accept_shrunk: ids of feeds that may have become smaller."""

    folder: str
    now: int
    feeds: tuple[Feed, ...]
    accept_shrunk: tuple[str, ...] = ()


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one feed. is_new: its file was read; else nothing about it had changed."""

    feed_id: str
    name: str
    state: FeedState
    is_new: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a compilation. version: of the table that was published; None: none was.

    is_busy: another one was running, and nothing was done.
    """

    feeds: tuple[Imported, ...] = ()
    version: str | None = None
    prefixes: int = 0
    took_s: float = 0.0
    is_busy: bool = False
