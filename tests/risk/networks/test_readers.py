"""Feeds of every shape become rows; what is broken is refused with its reason."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.networks.categories import service
from risk.networks.compiler import Row
from risk.networks.model import DAY_S, Said
from risk.networks.readers import FeedFormat, FeedShape, FeedUnreadableError, read_feed
from risk.networks.readers.documents import said_of
from risk.networks.readers.text import parse_range
from tests.risk.networks import feeds

NOW = 1_800_000_000


def rows(path: Path, kind: FeedFormat, *categories: str) -> dict[str, Said]:
    shape = FeedShape(format=kind, built_at=NOW, categories=categories)
    return {_text(row): row.said for row in read_feed(path, shape)}


def _text(row: Row) -> str:
    make = ipaddress.IPv6Address if row.is_v6 else ipaddress.IPv4Address
    (network, *rest) = ipaddress.summarize_address_range(make(row.first), make(row.last))
    return str(network) if not rest else f"{make(row.first)}-{make(row.last)}"


@pytest.mark.parametrize("size", [24, 28, 32])
def test_mmdb_of_places_is_read_in_both_families(tmp_path: Path, size: int) -> None:
    path = feeds.write_mmdb(tmp_path / "c.mmdb", feeds.CITY, built_at=1, size=size)
    found = rows(path, FeedFormat.MMDB)
    assert found["192.0.2.0/24"] == Said(
        country="DE",
        region="DE-BE",
        city="Berlin",
        latitude=52.5,
        longitude=13.4,
        accuracy_km=20.0,
    )
    assert found["2001:db8::/32"] == Said(country="FR")
    assert len(found) == 3


def test_mmdb_of_anonymous_networks_gives_categories_and_the_operator(tmp_path: Path) -> None:
    path = feeds.write_mmdb(tmp_path / "a.mmdb", feeds.ANONYMOUS, built_at=1)
    found = rows(path, FeedFormat.MMDB)
    assert found["198.51.100.128/25"] == Said(categories=("NORD_VPN", "VPN"), operator="NORD_VPN")
    assert found["203.0.113.7/32"] == Said(categories=("ANONYMIZER_TOR",))
    assert found["2001:db8:1::/48"] == Said(categories=("HOSTING",))


@pytest.mark.parametrize("name", ["ipinfo.csv", "ipinfo.csv.gz"])
def test_csv_with_a_header_is_read(tmp_path: Path, name: str) -> None:
    found = rows(feeds.write_text(tmp_path / name, feeds.IPINFO), FeedFormat.CSV)
    assert found["192.0.2.128/25"] == Said(
        asn=64501,
        organisation="Example Hosting",
        country="DE",
        city="Berlin",
        categories=("HOSTING",),
    )
    assert found["198.51.100.0/24"].operator == "MULLVAD_VPN"
    assert found["2001:db8::/33"].asn == 64503


def test_json_lines_of_spur_are_read(tmp_path: Path) -> None:
    found = rows(feeds.write_lines(tmp_path / "spur.json", feeds.SPUR), FeedFormat.JSON_LINES)
    assert found["203.0.113.9/32"] == Said(
        asn=64504,
        organisation="Example Mobile",
        country="GB",
        region="GB-ENG",
        city="London",
        categories=("MOBILE", "OXYLABS_PROXY", "RESIDENTIAL_PROXY"),
    )
    assert found["2001:db8::9/128"].categories == ("PROTON_VPN",)


def test_ip2proxy_is_read_with_its_days_since_last_seen(tmp_path: Path) -> None:
    found = rows(feeds.write_text(tmp_path / "px.csv", feeds.IP2PROXY), FeedFormat.IP2PROXY)
    vpn = found["203.0.113.64/27"]
    assert vpn.categories == ("EXPRESS_VPN", "HOSTING", "VPN")
    assert vpn.seen_at == NOW - 3 * DAY_S
    assert found["203.0.113.96/32"].categories == ("MOBILE", "RESIDENTIAL_PROXY")
    assert found["2001:db8:3::/124"] == Said(categories=("ANONYMIZER_TOR",))


def test_a_list_of_relay_egresses_is_a_geofeed_with_a_category(tmp_path: Path) -> None:
    path = feeds.write_text(tmp_path / "relay.csv", feeds.RELAY)
    found = rows(path, FeedFormat.GEOFEED, "APPLE_ICLOUD_RELAY_PROXY")
    assert found["172.224.226.0/31"] == Said(
        country="GB", region="GB-EN", city="London", categories=("APPLE_ICLOUD_RELAY_PROXY",)
    )


def test_plain_lists_and_tors_exit_list_are_read(tmp_path: Path) -> None:
    path = feeds.write_text(tmp_path / "tor.txt", feeds.TOR)
    found = rows(path, FeedFormat.PREFIXES, "ANONYMIZER_TOR")
    assert set(found) == {"203.0.113.8/32", "203.0.113.10/32"}


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("192.0.2.9/24", "192.0.2.0", "192.0.2.255"),
        ("192.0.2.1 - 192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("::ffff:192.0.2.0/120", "192.0.2.0", "192.0.2.255"),
        ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
    ],
)
def test_ranges_are_read(text: str, first: str, last: str) -> None:
    low, high, is_v6 = parse_range(text)
    assert (low, high) == (int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last)))
    assert is_v6 is (":" in first)


@pytest.mark.parametrize(
    "text", ["", "x", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::", "192.0.2.0/33", "1.2.3/24"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_range(text)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (FeedFormat.CSV, "a,b\n1,2\n", "no header"),
        (FeedFormat.CSV, "network,asn\n" + "x,1\n" * 20, "unreadable"),
        (FeedFormat.JSON_LINES, '{"ip": "192.0.2.1"}\n' + "{\n" * 11, "11 of 12"),
        (FeedFormat.JSON_LINES, '{"asn": 1}\n', "no address"),
        (FeedFormat.IP2PROXY, "1,2\n", "too few columns"),
        (FeedFormat.IP2PROXY, '"9","1","VPN","DE"\n', "no range"),
        (FeedFormat.PREFIXES, "# nothing\n", "says nothing"),
        (FeedFormat.PREFIXES, "<html>Sign in to download</html>\n", "1 of 1"),
        (FeedFormat.GEOFEED, "\n", "says nothing"),
        (FeedFormat.PREFIXES, "1" * (1024 * 1024 + 2), "never ends"),
        (FeedFormat.CSV, "network,asn\n" + '"' + "x" * 200_000, "no CSV"),
    ],
)
def test_a_file_of_another_shape_is_refused(
    tmp_path: Path, kind: FeedFormat, text: str, reason: str
) -> None:
    path = feeds.write_text(tmp_path / "feed", text)
    with pytest.raises(FeedUnreadableError, match=reason):
        rows(path, kind)


def test_a_cut_off_gzip_file_is_refused(tmp_path: Path) -> None:
    path = feeds.write_text(tmp_path / "feed.gz", feeds.IPINFO)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FeedUnreadableError, match="damaged"):
        rows(path, FeedFormat.CSV)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "feed").write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(FeedUnreadableError, match="damaged"):
        rows(tmp_path / "feed", FeedFormat.PREFIXES)


def test_one_bad_line_in_many_is_left_out(tmp_path: Path) -> None:
    lines = [f"192.0.2.{each}\n" for each in range(200)]
    path = feeds.write_text(tmp_path / "feed", "".join([*lines, "oops\n"]))
    assert len(rows(path, FeedFormat.PREFIXES)) == 200


def test_a_damaged_mmdb_is_refused_or_read_but_never_fails_otherwise(tmp_path: Path) -> None:
    """The library's variant in C crashed the whole process on some of these files."""
    whole = feeds.write_mmdb(tmp_path / "c.mmdb", feeds.CITY, built_at=1).read_bytes()
    chance = random.Random(4)  # noqa: S311 - repeatable
    path = tmp_path / "damaged.mmdb"
    refused = 0
    for _ in range(300):
        damaged = bytearray(
            whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole
        )
        for _ in range(chance.randrange(1, 6)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            rows(path, FeedFormat.MMDB)
        except FeedUnreadableError:
            refused += 1
    assert refused > 50


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
_members = st.sampled_from(
    sorted(
        {"as", "asn", "country", "country_code", "location", "region", "city", "latitude"}
        | {"longitude", "traits", "subdivisions", "client", "tunnels", "risks", "vpn", "tor"}
        | {"infrastructure", "service", "provider_name", "type", "is_anonymous", "last_seen"}
        | {"radius", "names"}
    )
)


@given(st.dictionaries(_members, _json, max_size=8))
def test_no_record_of_a_vendor_makes_the_reader_fail(document: Mapping[str, object]) -> None:
    said = said_of(document)
    assert said.country is None or len(said.country) == 2
    assert said.asn is None or 0 < said.asn < 2**32
    assert said.latitude is None or -90 <= said.latitude <= 90


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("NordVPN", "NORD_VPN"),
        ("Mullvad", "MULLVAD_VPN"),
        ("MULLVAD_VPN", "MULLVAD_VPN"),
        ("Private Internet Access", "PIA_VPN"),
        ("OXYLABS_PROXY", "OXYLABS_PROXY"),
        ("VPN", "VPN_VPN"),
        ("", None),
        ("…", None),
    ],
)
def test_trade_names_become_categories(name: str, category: str | None) -> None:
    assert service(name, "VPN") == category
