"""A hub that knows networks: a feed is compiled as an operator's is, and the app serves with it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from hub.app import make_app
from risk.networks.feeds import Feed, Outcome, Plan
from risk.networks.library import Library, compile_all
from risk.networks.readers import FeedFormat
from risk.networks.service import Networks
from tests.hub.conftest import Hub


async def know_networks(hub: Hub, folder: Path, text: str) -> None:
    """Serve the hub with the networks that a CSV file tells of; its time is the hub's."""
    library = Library(folder)
    library.make()
    file = library.feeds / "networks.csv"
    file.write_text(text)
    now = int(hub.clock.now().timestamp())
    os.utime(file, (now, now))
    feed = Feed(feed_id="fed_1", name="examples", file=file.name, format=FeedFormat.CSV, position=1)
    report = compile_all(Plan(folder=str(folder), now=now, feeds=(feed,), accept_shrunk=()))
    assert [each.state.outcome for each in report.feeds] == [Outcome.ACCEPTED]
    networks = Networks(folder, hub.clock)
    await networks.refresh()
    hub.app = make_app(dataclasses.replace(hub.node, networks=networks), hub.outside)
