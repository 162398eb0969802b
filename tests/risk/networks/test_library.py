"""Feeds on disk: what is good is used, what is not is refused, and what is in use stays."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from risk.networks.artefact import read_header
from risk.networks.build import build
from risk.networks.feeds import Feed, Outcome, Plan, Report, check_feed
from risk.networks.keeper import Keeper
from risk.networks.library import LOCK, Library, compile_all
from risk.networks.model import DAY_S, IPRecord, StalePolicy
from risk.networks.readers import FeedFormat
from risk.networks.rendering import render_network
from risk.networks.service import TABLE, Networks
from runtime.clock import FixedClock
from runtime.errors import Invalid, Unavailable
from runtime.notify import Notifier
from tests.risk.networks import feeds

NOW = datetime(2026, 11, 28, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
WAIT_S = 30.0

CITY = Feed(feed_id="fed_city", name="city", file="city.mmdb", format=FeedFormat.MMDB, position=1)
IPINFO = Feed(feed_id="fed_info", name="ipinfo", file="i.csv.gz", format=FeedFormat.CSV, position=2)
SPUR = Feed(
    feed_id="fed_spur", name="spur", file="spur.json", format=FeedFormat.JSON_LINES, position=3
)
TOR = Feed(
    feed_id="fed_tor",
    name="tor",
    file="tor.txt",
    format=FeedFormat.PREFIXES,
    categories=("ANONYMIZER_TOR",),
    position=4,
)
ALL = (CITY, IPINFO, SPUR, TOR)


@dataclass
class World:
    """A folder, and what an operator does with it."""

    folder: Path
    clock: FixedClock

    @property
    def library(self) -> Library:
        return Library(self.folder)

    def put(self, name: str, text: str, *, age_s: int = 3600) -> Path:
        path = feeds.write_text(self.library.feeds / name, text)
        return self.aged(path, age_s)

    def aged(self, path: Path, age_s: int = 3600) -> Path:
        os.utime(path, (EPOCH - age_s, EPOCH - age_s))
        return path

    def compile(self, *wanted: Feed, accept_shrunk: Sequence[str] = ()) -> Report:
        plan = Plan(
            folder=str(self.folder),
            now=int(self.clock.now().timestamp()),
            feeds=wanted,
            accept_shrunk=tuple(accept_shrunk),
        )
        return compile_all(plan)

    async def networks(self) -> Networks:
        found = Networks(self.folder, self.clock)
        await found.refresh()
        return found

    async def lookup(self, ip: str) -> IPRecord:
        return (await self.networks()).lookup(ip)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "networks", FixedClock(NOW))
    made.library.make()
    made.aged(feeds.write_mmdb(made.library.feeds / "city.mmdb", feeds.CITY, built_at=1))
    made.put("i.csv.gz", feeds.IPINFO)
    made.aged(feeds.write_lines(made.library.feeds / "spur.json", feeds.SPUR))
    made.put("tor.txt", feeds.TOR)
    return made


def outcomes(report: Report) -> dict[str, str]:
    return {each.name: each.state.outcome.value for each in report.feeds if each.is_new}


async def test_row_43_an_address_is_known_from_several_formats_with_source_and_age(
    world: World,
) -> None:
    report = world.compile(*ALL)
    assert set(outcomes(report).values()) == {"accepted"}
    networks = await world.networks()
    record = networks.lookup("192.0.2.200")
    assert (record.country, record.region, record.asn) == ("DE", "DE-BE", 64501)
    assert record.categories == {"HOSTING"}
    assert record.provenance["country"].source == "city"
    assert record.provenance["asn"].source == "ipinfo"
    assert networks.lookup("203.0.113.8").provenance["categories.ANONYMIZER_TOR"].source == "tor"
    shown = render_network("192.0.2.200", networks, now=EPOCH)
    assert shown["network"]["provenance"]["asn"] == {"source": "ipinfo", "age_s": 3600}
    assert [each["source"] for each in shown["sources"]] == ["city", "ipinfo"]
    assert shown["sources"][1]["says"]["categories"] == ["HOSTING"]
    unknown = render_network("198.18.0.1", networks, now=EPOCH)
    assert unknown["network"]["known"] is False
    assert unknown["sources"] == []


async def test_row_44_a_corrupt_file_is_refused_and_the_old_one_kept(world: World) -> None:
    world.compile(*ALL)
    (world.library.feeds / "city.mmdb").write_bytes(b"not an mmdb at all")
    world.put("i.csv.gz", "network,asn\nx,1\n", age_s=0)
    report = world.compile(*ALL)
    assert outcomes(report) == {"city": "refused", "ipinfo": "refused"}
    assert report.version is None
    reasons = {each.name: each.state.reason for each in report.feeds}
    assert "no sound MMDB" in reasons["city"]
    assert "unreadable" in reasons["ipinfo"]
    assert (await world.lookup("192.0.2.200")).city == "Berlin"
    assert outcomes(world.compile(*ALL)) == {}


async def test_row_44_a_feed_that_lost_nine_tenths_is_refused_unless_told_otherwise(
    world: World,
) -> None:
    many = "".join(f"10.0.{each >> 8}.{each & 255}\n" for each in range(1_000))
    world.put("tor.txt", many)
    world.compile(TOR)
    world.put("tor.txt", many[: len(many) // 10], age_s=0)
    refused = world.compile(TOR)
    (tor,) = refused.feeds
    assert tor.state.outcome is Outcome.REFUSED
    assert "are gone" in tor.state.reason
    assert tor.state.prefixes == 1_000
    assert (await world.lookup("10.0.3.200")).known
    assert world.library.is_due([TOR]) is False
    accepted = world.compile(TOR, accept_shrunk=["fed_tor"])
    assert accepted.feeds[0].state.outcome is Outcome.ACCEPTED
    assert not (await world.lookup("10.0.3.200")).known


async def test_row_44_a_new_file_reaches_who_looks_up_without_a_failed_lookup(
    world: World,
) -> None:
    notifier = Notifier()

    async def present() -> Sequence[Feed]:
        return [TOR]

    networks = Networks(world.folder, world.clock)
    keeper = Keeper(world.folder, clock=world.clock, notifier=notifier, feeds=present)
    followers = [
        asyncio.create_task(networks.follow(notifier)),
        asyncio.create_task(keeper.run()),
    ]
    try:
        async with asyncio.timeout(WAIT_S):
            while not networks.lookup("203.0.113.8").known:  # noqa: ASYNC110 - lookups are the point
                await asyncio.sleep(0)
            world.put("tor.txt", "203.0.113.8\n203.0.113.99\n", age_s=0)
            notifier.wake("config")
            while not networks.lookup("203.0.113.99").known:
                assert networks.lookup("203.0.113.8").known
                await asyncio.sleep(0)
    finally:
        for task in followers:
            task.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


async def test_what_did_not_change_is_not_read_and_nothing_is_published(world: World) -> None:
    first = world.compile(*ALL)
    assert world.library.is_due(ALL) is False
    second = world.compile(*ALL)
    assert first.version is not None
    assert second.version is None
    assert second.prefixes == first.prefixes
    assert outcomes(second) == {}


async def test_a_changed_setting_is_published_without_reading_the_file_again(
    world: World,
) -> None:
    world.compile(*ALL)
    later = msgspec.structs.replace(CITY, position=9, stale=StalePolicy.DROP)
    wanted = (later, IPINFO, SPUR, TOR)
    assert world.library.is_due(wanted)
    report = world.compile(*wanted)
    assert outcomes(report) == {}
    assert report.version is not None
    assert (await world.lookup("192.0.2.1")).provenance["country"].source == "ipinfo"


async def test_other_categories_mean_that_the_file_is_read_again(world: World) -> None:
    world.compile(TOR)
    changed = msgspec.structs.replace(TOR, categories=("SOME_VPN",))
    assert outcomes(world.compile(changed)) == {"tor": "accepted"}
    assert "SOME_VPN" in (await world.lookup("203.0.113.8")).categories


async def test_a_deleted_feed_is_forgotten(world: World) -> None:
    world.compile(*ALL)
    world.compile(TOR)
    assert not (await world.lookup("192.0.2.1")).known
    assert {each.name.partition(".")[0] for each in world.library.sources.iterdir()} == {"fed_tor"}
    world.compile()
    assert not (await world.lookup("203.0.113.8")).known
    assert world.library.is_due([]) is False


async def test_a_missing_file_is_told_and_what_it_said_before_stays(world: World) -> None:
    world.compile(TOR)
    (world.library.feeds / "tor.txt").unlink()
    report = world.compile(TOR)
    assert report.feeds[0].state.outcome is Outcome.MISSING
    assert "there is no file tor.txt" in report.feeds[0].state.reason
    assert (await world.lookup("203.0.113.8")).known


async def test_a_stale_feed_is_asked_last(world: World) -> None:
    world.aged(world.library.feeds / "city.mmdb", 60 * DAY_S)
    world.compile(*ALL)
    networks = await world.networks()
    record = networks.lookup("192.0.2.1")
    assert record.provenance["country"].source == "ipinfo"
    assert record.provenance["latitude"].source == "city"
    assert [source.is_stale(EPOCH) for source in networks.sources] == [True, False, False, False]


async def test_a_damaged_table_is_refused_and_the_one_in_memory_stays(world: World) -> None:
    world.compile(TOR)
    networks = await world.networks()
    version = networks.version
    damaged = bytearray((world.folder / TABLE).read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    made = world.folder / "made"
    made.write_bytes(damaged)
    made.replace(world.folder / TABLE)
    assert await networks.refresh() is False
    assert networks.version == version
    assert networks.lookup("203.0.113.8").known


async def test_a_table_without_a_folder_or_a_file_knows_nothing(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        networks = Networks(folder, FixedClock(NOW))
        assert await networks.refresh() is False
        assert networks.lookup("192.0.2.1") == IPRecord(ip="192.0.2.1", known=False)
        assert networks.version is None


def test_two_do_not_compile_at_once(world: World) -> None:
    with (world.folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert world.compile(TOR).is_busy
    assert not world.compile(TOR).is_busy


def test_a_file_whose_reader_died_is_not_read_again_and_again(world: World) -> None:
    world.compile(TOR)
    state = world.library.state_of("fed_tor")
    assert state is not None
    world.put("tor.txt", "203.0.113.99\n", age_s=0)
    seen = world.library.seen(TOR)
    died = msgspec.structs.replace(state, outcome=Outcome.READING, seen=seen)
    world.library.keep_state("fed_tor", died)
    assert world.library.is_due([TOR]) is False
    assert outcomes(world.compile(TOR)) == {}


async def test_a_compiler_that_dies_is_told_of(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="died"):
        await build(Plan(folder=str(tmp_path / "file"), now=EPOCH, feeds=(TOR,)))


def test_states_that_cannot_be_read_count_as_absent(world: World) -> None:
    (world.library.sources / "fed_tor.json").write_text("{")
    assert world.library.state_of("fed_tor") is None
    assert world.library.is_due([TOR])
    world.compile(TOR)
    assert read_header(world.folder / TABLE).sources[0].name == "tor"


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "Große Liste"}, "/name"),
        ({"file": "../secret.key"}, "/file"),
        ({"file": "/etc/passwd"}, "/file"),
        ({"file": ".hidden"}, "/file"),
        ({"position": -1}, "/position"),
        ({"stale_after_s": 0}, "/stale_after_s"),
        ({"decay_s": -1}, "/decay_s"),
        ({"shrink_max": 1.5}, "/shrink_max"),
        ({"categories": ("lower",)}, "/categories"),
        ({"categories": tuple(f"C{each}" for each in range(17))}, "/categories"),
    ],
)
def test_what_a_feed_may_not_be_is_refused(changes: dict[str, object], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_feed(msgspec.structs.replace(TOR, **changes))
    assert caught.value.pointers[0][0] == pointer
