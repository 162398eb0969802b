"""The folder of feeds and tables, and what is done in it. Blocking: for a thread or a process.

feeds/            what the operator puts there: the files of vendors
sources/          <feed id>.ipt, the last good table of each feed; <feed id>.json, its state
ip-table.ipt      all of them merged, which every process maps
.lock             held by the one who compiles
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from risk.networks.artefact import PREVIOUS, TableCorruptError, map_table, publish, read_header
from risk.networks.compiler import TooManyRowsError, compile_feed, merge_tables
from risk.networks.feeds import (
    REASON_CHARS_MAX,
    Feed,
    FeedState,
    Imported,
    Outcome,
    Plan,
    Report,
)
from risk.networks.readers import FeedUnreadableError, read_feed
from risk.networks.service import TABLE

FEEDS: Final = "feeds"
SOURCES: Final = "sources"
LOCK: Final = ".lock"
STATE_BYTES_MAX: Final = 64 * 1024


class Library:
    """The folder. Nothing in it is believed: what cannot be read counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.feeds = folder / FEEDS
        self.sources = folder / SOURCES
        self.table = folder / TABLE

    def make(self) -> None:
        """Make the folders. Raises OSError."""
        for each in (self.feeds, self.sources):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def table_of(self, feed_id: str) -> Path:
        """Return where a feed's own table lies."""
        return self.sources / f"{feed_id}.ipt"

    def state_of(self, feed_id: str) -> FeedState | None:
        """Return what became of a feed's files; None for nothing yet. Raises nothing."""
        try:
            with (self.sources / f"{feed_id}.json").open("rb") as file:
                return msgspec.json.decode(file.read(STATE_BYTES_MAX), type=FeedState)
        except (OSError, msgspec.DecodeError):
            return None

    def keep_state(self, feed_id: str, state: FeedState) -> None:
        """Replace a feed's state. Raises OSError."""
        made = self.sources / f".{feed_id}.json"
        made.write_bytes(msgspec.json.encode(state))
        made.replace(self.sources / f"{feed_id}.json")

    def seen(self, feed: Feed) -> str:
        """Return what tells a feed's file, and how it is read, from any other; empty: no file."""
        try:
            status = (self.feeds / feed.file).stat()
        except OSError:
            return ""
        shape = msgspec.json.encode(feed.shape(0))
        told = f"{feed.file} {status.st_mtime_ns} {status.st_size} {status.st_ino}".encode() + shape
        return hashlib.sha256(told).hexdigest()

    def is_due(self, feeds: Sequence[Feed]) -> bool:
        """Return whether compiling would change anything. Raises nothing."""
        states = {feed.feed_id: self.state_of(feed.feed_id) for feed in feeds}
        for feed in feeds:
            state, seen = states[feed.feed_id], self.seen(feed)
            if seen != (state.seen if state else ""):
                return True
        try:
            present = read_header(self.table).sources
        except (OSError, TableCorruptError):
            present = ()
        wanted = tuple(
            feed.source(built_at=state.built_at, prefixes=state.prefixes)
            for feed in ordered(feeds)
            if (state := states[feed.feed_id]) is not None and state.prefixes
        )
        return present != wanted


def ordered(feeds: Sequence[Feed]) -> list[Feed]:
    """Return feeds in the order they are asked."""
    return sorted(feeds, key=lambda feed: (feed.position, feed.name))


def compile_all(plan: Plan) -> Report:
    """Read what is new, keep what is good of it, and publish a table if anything changed.

    A feed that is refused leaves its last good table in use. Raises OSError.
    """
    started = time.monotonic()
    library = Library(Path(plan.folder))
    library.make()
    with _locked(library) as is_mine:
        if not is_mine:
            return Report(is_busy=True)
        feeds = ordered(plan.feeds)
        imported = tuple(_import(library, feed, plan) for feed in feeds)
        _forget_others(library, feeds)
        version, prefixes = _publish(library, feeds, imported, plan.now)
        return Report(
            feeds=imported,
            version=version,
            prefixes=prefixes,
            took_s=round(time.monotonic() - started, 3),
        )


def _import(library: Library, feed: Feed, plan: Plan) -> Imported:
    before = library.state_of(feed.feed_id) or FeedState(outcome=Outcome.MISSING, at=plan.now)
    seen = library.seen(feed)
    is_waived = feed.feed_id in plan.accept_shrunk and before.outcome is Outcome.REFUSED
    if seen == before.seen and seen and not is_waived:
        return Imported(feed_id=feed.feed_id, name=feed.name, state=before, is_new=False)
    if not seen:
        reason = f"there is no file {feed.file} in {library.feeds}"
        state = _after(before, Outcome.MISSING, plan.now, seen="", reason=reason)
    else:
        # If reading it kills this process, the file is not read again and again.
        reading = _after(before, Outcome.READING, plan.now, seen=seen, reason="not read to its end")
        library.keep_state(feed.feed_id, reading)
        state = _read(library, feed, plan, reading)
    library.keep_state(feed.feed_id, state)
    return Imported(feed_id=feed.feed_id, name=feed.name, state=state, is_new=True)


def _after(before: FeedState, outcome: Outcome, now: int, *, seen: str, reason: str) -> FeedState:
    return msgspec.structs.replace(
        before, outcome=outcome, at=now, seen=seen, reason=reason[:REASON_CHARS_MAX]
    )


def _read(library: Library, feed: Feed, plan: Plan, reading: FeedState) -> FeedState:
    """Read a feed's file into a table beside the one in use, and let it take its place if good."""
    candidate = library.sources / f".{feed.feed_id}.candidate"
    file = library.feeds / feed.file
    try:
        built_at = min(int(file.stat().st_mtime), plan.now)
        rows = read_feed(file, feed.shape(built_at))
        made = compile_feed(
            candidate, feed.source(built_at=built_at, prefixes=0), rows, now=plan.now
        )
        is_large = feed.may_become(made.prefixes, reading.prefixes)
        if not is_large and feed.feed_id not in plan.accept_shrunk:
            reason = (
                f"{made.prefixes:,} prefixes after {reading.prefixes:,}: more than "
                f"{feed.shrink_max:.0%} are gone; compile with accept_shrunk if that is right"
            )
            return _after(reading, Outcome.REFUSED, plan.now, seen=reading.seen, reason=reason)
        publish(candidate, library.table_of(feed.feed_id))
    except (FeedUnreadableError, TooManyRowsError, OverflowError, OSError) as error:
        reason = str(error) or type(error).__name__
        return _after(reading, Outcome.REFUSED, plan.now, seen=reading.seen, reason=reason)
    finally:
        with suppress(FileNotFoundError):
            candidate.unlink()
    return FeedState(
        outcome=Outcome.ACCEPTED,
        at=plan.now,
        seen=reading.seen,
        prefixes=made.prefixes,
        built_at=built_at,
    )


def _publish(
    library: Library, feeds: Sequence[Feed], imported: Sequence[Imported], now: int
) -> tuple[str | None, int]:
    """Merge the tables in use, unless the present one says the same already."""
    parts, sources = [], []
    for feed, each in zip(feeds, imported, strict=True):
        if each.state.prefixes:
            parts.append(library.table_of(feed.feed_id))
            sources.append(feed.source(built_at=each.state.built_at, prefixes=each.state.prefixes))
    accepted = any(each.is_new and each.state.outcome is Outcome.ACCEPTED for each in imported)
    if not accepted:
        try:
            present = map_table(library.table)
        except (OSError, TableCorruptError):
            present = None
        if present is not None:
            header = present.header
            present.close()
            if header.sources == tuple(sources):
                return None, header.prefixes
        elif not parts:
            return None, 0
    version, header = merge_tables(library.table, parts, sources, now=now)
    return version, header.prefixes


def _forget_others(library: Library, feeds: Sequence[Feed]) -> None:
    """Delete what belongs to feeds that are no more."""
    kept = {feed.feed_id for feed in feeds}
    for file in library.sources.iterdir():
        name = file.name.removesuffix(PREVIOUS).removesuffix(".ipt").removesuffix(".json")
        if not name.startswith(".") and name not in kept:
            file.unlink()


@contextmanager
def _locked(library: Library) -> Iterator[bool]:
    descriptor = os.open(library.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
