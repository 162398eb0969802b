"""Feeds of IP metadata: which files are read, in which order they are asked, what became of them.

They belong to the whole hub. The files lie in the data folder of each node; what became of them is
that of the node which answers.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec
from pydantic import Field

import risk.networks.administration as feeds_service
from hub.admin.bodies import Body
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from risk.networks.feeds import (
    CATEGORIES_MAX,
    FILE_CHARS_MAX,
    NAME_CHARS_MAX,
    Feed,
    FeedState,
    Report,
)
from risk.networks.keeper import Keeper
from risk.networks.library import Library
from risk.networks.model import DAY_S, SOURCES_MAX, StalePolicy
from risk.networks.readers import FeedFormat
from runtime.clock import moment_of_epoch
from runtime.errors import Conflict
from runtime.ids import new_id

Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
File = Annotated[str, Field(min_length=1, max_length=FILE_CHARS_MAX)]
Categories = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=CATEGORIES_MAX)]


class FeedBody(Body):
    """A feed. file: in the feeds' folder. categories: what it claims of every address in it.

    stale: last, keep or drop, once the file is older than stale_after_s. decay_s: categories last
    seen longer ago are not claimed. shrink_max: the share of prefixes a new file may lack.
    """

    name: Name
    file: File
    format: FeedFormat
    categories: Categories = Field(default_factory=list)
    position: int = 100
    stale_after_s: int = 30 * DAY_S
    stale: StalePolicy = StalePolicy.LAST
    decay_s: int = 0
    shrink_max: float = 0.5


class FeedChange(Body):
    """What to change."""

    name: Name | None = None
    file: File | None = None
    format: FeedFormat | None = None
    categories: Categories | None = None
    position: int | None = None
    stale_after_s: int | None = None
    stale: StalePolicy | None = None
    decay_s: int | None = None
    shrink_max: float | None = None


class CompileBody(Body):
    """accept_shrunk: ids of feeds that have become much smaller, and rightly so."""

    accept_shrunk: Annotated[list[str], Field(max_length=SOURCES_MAX)] = Field(default_factory=list)


async def list_feeds(admin: Admin, listing: Listing) -> list[Document]:
    """Return the feeds by id."""
    found = await feeds_service.read_all(admin.node.database, admin.tenant_id)
    page = [feed for feed in found if feed.feed_id > listing.after][: listing.limit]
    return [await _shown(admin, feed) for feed in page]


async def read_feed(admin: Admin, feed_id: str) -> Document:
    """Return one feed."""
    async with admin.node.database.snapshot() as connection:
        feed = await feeds_service.get(connection, admin.tenant_id, feed_id)
    return await _shown(admin, feed)


async def create_feed(admin: Admin, body: FeedBody) -> Document:
    """Add a feed; its file is read once it is there."""
    return await _put(admin, _feed_of(new_id("fed"), body))


async def replace_feed(admin: Admin, feed_id: str, body: FeedBody) -> Document:
    """Replace a feed's settings."""
    await read_feed(admin, feed_id)
    return await _put(admin, _feed_of(feed_id, body))


async def change_feed(admin: Admin, feed_id: str, body: FeedChange) -> Document:
    """Change what is given of a feed."""
    async with admin.node.database.snapshot() as connection:
        before = await feeds_service.get(connection, admin.tenant_id, feed_id)
    given = body.model_dump(exclude_unset=True, exclude_none=True)
    if "categories" in given:
        given["categories"] = tuple(given["categories"])
    return await _put(admin, msgspec.structs.replace(before, **given))


async def delete_feed(admin: Admin, feed_id: str) -> None:
    """Delete a feed; what it said goes with the next compilation, within a minute."""
    async with admin.node.database.transaction() as connection:
        await feeds_service.delete(connection, admin.tenant_id, feed_id)


async def compile_feeds(admin: Admin, _id: str, body: CompileBody) -> Document:
    """Read what is new on this node, and publish a table if anything changed."""
    folder = admin.node.config.networks_dir
    if folder is None:
        raise Conflict("This process has no data folder.")
    keeper = Keeper(
        folder,
        clock=admin.node.clock,
        notifier=admin.node.notifier,
        feeds=lambda: feeds_service.read_all(admin.node.database, admin.tenant_id),
    )
    report = await keeper.compile(body.accept_shrunk)
    if report.is_busy:
        raise Conflict("A compilation is running; look at the feeds when it is done.")
    return _report(report)


def _report(report: Report) -> Document:
    return {
        "version": report.version,
        "prefixes": report.prefixes,
        "took_s": report.took_s,
        "feeds": [
            {"id": each.feed_id, "name": each.name, **_state(each.state)} for each in report.feeds
        ],
    }


def _feed_of(feed_id: str, body: FeedBody) -> Feed:
    given = body.model_dump()
    return Feed(feed_id=feed_id, **{**given, "categories": tuple(given["categories"])})


async def _put(admin: Admin, feed: Feed) -> Document:
    async with admin.node.database.transaction() as connection:
        stored = await feeds_service.put(connection, admin.tenant_id, feed, now=admin.now)
    return await _shown(admin, stored)


async def _shown(admin: Admin, feed: Feed) -> Document:
    folder = admin.node.config.networks_dir
    state = None
    if folder is not None:
        state = await asyncio.to_thread(Library(folder).state_of, feed.feed_id)
    return {
        "id": feed.feed_id,
        "name": feed.name,
        "file": feed.file,
        "format": feed.format.value,
        "categories": list(feed.categories),
        "position": feed.position,
        "stale_after_s": feed.stale_after_s,
        "stale": feed.stale.value,
        "decay_s": feed.decay_s,
        "shrink_max": feed.shrink_max,
        **_state(state),
    }


def _state(state: FeedState | None) -> Document:
    """Return what became of a feed's files. outcome: of the newest; the rest: of the one in use."""
    return {
        "outcome": state.outcome.value if state else None,
        "reason": (state.reason or None) if state else None,
        "looked_at": moment_of_epoch(state.at) if state else None,
        "prefixes": state.prefixes if state else 0,
        "built_at": moment_of_epoch(state.built_at) if state and state.prefixes else None,
    }


KINDS: Final = (
    Kind(
        name="feeds",
        item="feed",
        summary="feeds of IP metadata: files of vendors, and what became of them",
        list_page=list_feeds,
        read=read_feed,
        create=create_feed,
        create_body=FeedBody,
        change=change_feed,
        change_body=FeedChange,
        replace=replace_feed,
        delete=delete_feed,
        is_owners=True,
        example={
            "name": "tor",
            "file": "tor-exits.txt",
            "format": "prefixes",
            "categories": ["ANONYMIZER_TOR"],
        },
        actions=(
            Action(
                name="compile",
                summary="Read what is new and publish the table of addresses.",
                perform=compile_feeds,
                body=CompileBody,
                on_kind=True,
                outside=True,
                example={"accept_shrunk": []},
            ),
        ),
    ),
)
