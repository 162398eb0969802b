"""Tables agree with a naive search, one feed or several; damaged ones are not opened."""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risk.networks.artefact import PREVIOUS, RecordHeap, TableCorruptError, map_table
from risk.networks.compiler import Combinations, Row, compile_feed, merge_tables
from risk.networks.model import DAY_S, IPRecord, Said, Source, StalePolicy, merge
from risk.networks.readers.text import parse_range
from risk.networks.table import View

NOW = 1_800_000_000


def source(name: str, **fields: object) -> Source:
    made = Source(name=name, feed_id=f"fee_{name}", built_at=NOW, prefixes=0)
    return msgspec.structs.replace(made, **fields)


def row(network: str, said: Said) -> Row:
    first, last, is_v6 = parse_range(network)
    return Row(first=first, last=last, is_v6=is_v6, said=said)


def compiled(folder: Path, feeds: dict[str, Sequence[Row]]) -> View:
    sources = [
        compile_feed(folder / f"{name}.ipt", source(name), rows, now=NOW)
        for name, rows in feeds.items()
    ]
    parts = [folder / f"{name}.ipt" for name in feeds]
    merge_tables(folder / "all.ipt", parts, sources, now=NOW)
    return View(map_table(folder / "all.ipt"), NOW)


def _networks(prefix: int, version: int) -> st.SearchStrategy[str]:
    """Networks close together, so that they nest, meet and repeat."""
    bits = 32 if version == 4 else 128
    make = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    base = int(ipaddress.ip_address("192.0.2.0" if version == 4 else "2001:db8::"))
    return st.tuples(st.integers(0, 63), st.integers(bits - prefix, bits)).map(
        lambda pair: str(make((base + pair[0], pair[1]), strict=False))
    )


_any_network = st.one_of(_networks(7, 4), _networks(7, 6), _networks(70, 6))
_said = st.builds(
    Said,
    asn=st.none() | st.integers(1, 3),
    country=st.none() | st.sampled_from(["DE", "FR"]),
    categories=st.sampled_from([(), ("HOSTING",), ("NORD_VPN", "VPN")]),
)
_feed = st.lists(st.builds(row, _any_network, _said), max_size=12)
_asked = st.one_of(
    st.integers(-3, 70).map(lambda at: str(ipaddress.ip_address("192.0.2.0") + at)),
    st.integers(-3, 70).map(lambda at: str(ipaddress.ip_address("2001:db8::") + at)),
    st.ip_addresses().map(str),
)


def naive(feeds: dict[str, list[Row]], ip: str) -> IPRecord:
    address = ipaddress.ip_address(ip)
    address = getattr(address, "ipv4_mapped", None) or address
    words = []
    for name, rows in feeds.items():
        around = [
            each
            for each in rows
            if each.is_v6 == (address.version == 6) and each.first <= int(address) <= each.last
        ]
        if around:
            narrowest = min(each.last - each.first for each in around)
            said = [each for each in around if each.last - each.first == narrowest][-1].said
            words.append((source(name), said))
    if not words:
        return IPRecord(ip=str(address), known=False)
    return IPRecord(ip=str(address), known=True, **merge(words, NOW))


@settings(max_examples=150, deadline=None)
@given(st.lists(_feed, min_size=1, max_size=3), st.lists(_asked, min_size=1, max_size=40))
def test_a_merged_table_answers_as_a_naive_search_does(
    lists: list[list[Row]], asked: list[str]
) -> None:
    feeds = {f"feed{at}": rows for at, rows in enumerate(lists)}
    with tempfile.TemporaryDirectory() as folder:
        view = compiled(Path(folder), dict(feeds))
        for ip in asked:
            found = view.lookup(ip)
            wanted = naive(feeds, ip)
            prefix = found.prefix
            assert _without_prefix(found) == wanted
            if prefix is not None:
                assert ipaddress.ip_address(found.ip) in ipaddress.ip_network(prefix)


def _without_prefix(record: IPRecord) -> IPRecord:
    fields = {name: getattr(record, name) for name in IPRecord.__struct_fields__}
    return IPRecord(**{**fields, "prefix": None})


def test_a_prefix_is_the_widest_network_of_which_the_same_is_known(tmp_path: Path) -> None:
    view = compiled(
        tmp_path,
        {
            "a": [row("192.0.2.0/24", Said(country="DE")), row("192.0.2.16", Said(country="FR"))],
            "b": [row("0.0.0.0-255.255.255.255", Said(asn=1)), row("2001:db8::/32", Said(asn=2))],
        },
    )
    assert view.lookup("192.0.2.1").prefix == "192.0.2.0/28"
    assert view.lookup("192.0.2.16").prefix == "192.0.2.16/32"
    assert view.lookup("192.0.2.200").prefix == "192.0.2.128/25"
    assert view.lookup("255.255.255.255").prefix == "224.0.0.0/3"
    assert view.lookup("2001:db8:1::1").prefix == "2001:db8::/32"


def test_every_address_is_known_where_a_feed_covers_everything(tmp_path: Path) -> None:
    view = compiled(tmp_path, {"a": [row("0.0.0.0/0", Said(asn=1)), row("::/0", Said(asn=2))]})
    assert view.lookup("255.255.255.255").prefix == "0.0.0.0/0"
    assert view.lookup("ffff::1").prefix == "::/0"


def test_statements_name_every_feed_also_one_that_is_not_asked_any_more(tmp_path: Path) -> None:
    old = source("old", built_at=NOW - 90 * DAY_S, stale=StalePolicy.DROP)
    compile_feed(tmp_path / "old.ipt", old, [row("192.0.2.0/24", Said(asn=1))], now=NOW)
    compile_feed(tmp_path / "new.ipt", source("new"), [row("192.0.2.0/25", Said(asn=2))], now=NOW)
    parts = [tmp_path / "old.ipt", tmp_path / "new.ipt"]
    merge_tables(tmp_path / "all.ipt", parts, [old, source("new")], now=NOW)
    view = View(map_table(tmp_path / "all.ipt"), NOW)
    assert view.lookup("192.0.2.1").asn == 2
    assert view.lookup("192.0.2.200").asn is None
    said = [(each.source.name, each.said.asn) for each in view.statements("192.0.2.1")]
    assert said == [("new", 2), ("old", 1)]
    assert view.statements("no address") == ()


def test_a_lookup_without_any_table_knows_nothing_and_never_fails() -> None:
    view = View(None, NOW)
    assert view.lookup("192.0.2.1") == IPRecord(ip="192.0.2.1", known=False)
    assert view.lookup("x" * 10_000).ip == "x" * 45
    assert view.statements("192.0.2.1") == ()


def test_merged_answers_are_kept_within_a_limit(tmp_path: Path) -> None:
    rows = [row(f"10.{each >> 8}.{each & 255}.0/24", Said(asn=each + 1)) for each in range(2_000)]
    view = compiled(tmp_path, {"a": rows})
    asns = [view.lookup(f"10.{each >> 8}.{each & 255}.9").asn for each in range(2_000)]
    assert asns == list(range(1, 2_001))
    assert len(view._merged) == 1_024


def test_a_table_is_replaced_as_a_whole_and_the_one_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.ipt"
    compile_feed(path, source("a"), [row("192.0.2.0/24", Said(asn=1))], now=NOW)
    first = map_table(path)
    compile_feed(path, source("a"), [row("192.0.2.0/24", Said(asn=2))], now=NOW)
    second, kept = map_table(path), map_table(tmp_path / f"a.ipt{PREVIOUS}")
    assert View(first, NOW).lookup("192.0.2.1").asn == 1
    assert View(second, NOW).lookup("192.0.2.1").asn == 2
    assert kept.version == first.version != second.version
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.ipt", f"a.ipt{PREVIOUS}"]


def test_a_feed_that_breaks_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    def rows() -> object:
        yield row("192.0.2.0/24", Said(asn=1))
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        compile_feed(tmp_path / "a.ipt", source("a"), rows(), now=NOW)  # type: ignore[arg-type]  # made to break
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_table_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "a.ipt"
    compile_feed(path, source("a"), [row("192.0.2.0/24", Said(asn=1))], now=NOW)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(TableCorruptError):
            map_table(path)
    for length in (0, 1, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TableCorruptError):
            map_table(path)


def test_equal_records_and_combinations_are_stored_once(tmp_path: Path) -> None:
    rows = [row(f"10.0.{each}.0/25", Said(asn=7, organisation="Example")) for each in range(200)]
    view = compiled(tmp_path, {"a": rows, "b": rows})
    assert view.table is not None
    assert len(view.table.offsets) == 3
    assert len(view.table.combinations) == 2


def test_what_is_forgotten_while_compiling_is_stored_again_not_mixed_up(tmp_path: Path) -> None:
    heap = RecordHeap(tmp_path, held_max=2)
    numbers = [heap.add(Said(asn=each % 4 + 1)) for each in range(8)]
    assert numbers == list(range(1, 9))
    heap.close()
    combinations = Combinations(1, held_max=2)
    assert [combinations.number_of((each,)) for each in (0, 5, 6, 7, 5)] == [0, 1, 2, 3, 4]
    assert list(combinations.numbers) == [5, 6, 7, 5]
