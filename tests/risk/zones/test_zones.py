"""Zones: what they may hold, chains of addresses, and a matcher that agrees with a plain one."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.networks.categories import with_groups
from risk.networks.model import IPRecord, unpacked
from risk.zones.chain import HOPS_MAX, client_at, read_chain
from risk.zones.explanation import explain
from risk.zones.judging import judge
from risk.zones.matcher import CompiledZones
from risk.zones.model import (
    BLOCKED_ID,
    ENHANCED_ID,
    EXEMPT_ID,
    SYSTEM_ZONES,
    Entry,
    Place,
    Rules,
    Status,
    Usage,
    Zone,
    ZoneType,
    check_zone,
    names_in,
    restore_zones,
)
from risk.zones.origin import Origin
from runtime.errors import Invalid

NOW = datetime(2026, 11, 28, tzinfo=UTC)
OURS = "10.0.0.1"


def ip_zone(
    name: str, gateways: list[str], proxies: list[str] | None = None, **more: object
) -> Zone:
    zone = Zone(
        zone_id=f"zon_{name}",
        name=name,
        type=ZoneType.IP,
        gateways=tuple(Entry(value=each) for each in gateways),
        proxies=tuple(Entry(value=each) for each in proxies or ()),
    )
    return msgspec.structs.replace(zone, **more)


def blocklist(name: str, gateways: list[str]) -> Zone:
    return ip_zone(name, gateways, usage=Usage.BLOCKLIST)


def exempt(*gateways: str) -> Zone:
    (zone,) = (each for each in SYSTEM_ZONES if each.zone_id == EXEMPT_ID)
    return msgspec.structs.replace(zone, gateways=tuple(Entry(value=each) for each in gateways))


def dynamic(
    name: str,
    *,
    usage: Usage = Usage.POLICY,
    include: Rules | None = None,
    exclude: Rules | None = None,
) -> Zone:
    return Zone(
        zone_id=f"zon_{name}",
        name=name,
        type=ZoneType.DYNAMIC_V2,
        usage=usage,
        include=include or Rules(),
        exclude=exclude or Rules(),
    )


def at(*chain: str, zones: list[Zone], records: dict[str, IPRecord] | None = None) -> Origin:
    known = records or {}
    return judge(
        CompiledZones(sorted(zones, key=lambda zone: zone.zone_id), NOW),
        chain,
        lookup=lambda ip: known.get(ip, IPRecord(ip=ip, known=False)),
        is_trusted=lambda ip: ip == OURS,
    )


# --- chains -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gateways", "proxies", "chain", "inside"),
    [
        (["1.1.1.1"], ["2.2.2.2"], ["1.1.1.1", "2.2.2.2"], True),
        (["2.2.2.2"], [], ["1.1.1.1", "2.2.2.2"], True),
        ([], ["1.1.1.1", "2.2.2.2"], ["1.1.1.1", "2.2.2.2"], False),
        (["1.1.1.1"], [], ["1.1.1.1", "2.2.2.2"], False),
        (["1.1.1.1"], ["2.2.2.2"], ["1.1.1.1", "3.3.3.3", "2.2.2.2"], False),
        (["1.1.1.1"], ["2.2.2.0/24"], ["1.1.1.1", *["2.2.2.2"] * 5], True),
        (["1.1.1.1"], ["2.2.2.0/24"], ["1.1.1.1", *["2.2.2.2"] * 6], False),
        (["1.1.1.1"], ["2.2.2.2"], ["1.1.1.1", "garbage", "2.2.2.2"], False),
        (["2001:db8::/32"], ["2.2.2.2"], ["2001:db8::1", "2.2.2.2"], True),
    ],
)
def test_a_chain_is_inside_of_an_ip_zone_by_its_gateways_and_proxies(
    gateways: list[str], proxies: list[str], chain: list[str], *, inside: bool
) -> None:
    zone = ip_zone("office", gateways, proxies)
    assert ("office" in at(*chain, zones=[zone]).zones) is inside
    assert explain(zone, chain, IPRecord(ip="", known=False), now=NOW).is_inside is inside


def test_gateway_and_proxy_have_to_be_of_the_same_zone() -> None:
    zones = [ip_zone("a", ["1.1.1.1"]), ip_zone("b", ["9.9.9.9"], ["2.2.2.2"])]
    assert at("1.1.1.1", "2.2.2.2", zones=zones).zones == frozenset()


def test_a_proxy_of_the_settings_is_looked_through_by_every_zone() -> None:
    zones = [ip_zone("office", ["1.1.1.1"])]
    assert at("1.1.1.1", OURS, zones=zones).zones == {"office", "zon_office"}


def test_the_client_is_the_nearest_hop_that_nobody_trusts() -> None:
    zones = [ip_zone("partner", ["9.9.9.9"], ["8.8.8.8"])]
    found = at("6.6.6.6", "7.7.7.7", "8.8.8.8", OURS, zones=zones)
    assert found.client_ip == "7.7.7.7"
    assert found.path[0] == "client: 7.7.7.7 (2 proxies looked through)"


def test_a_made_up_hop_grants_nothing() -> None:
    """Whoever connects directly may write any X-Forwarded-For; only its own address counts."""
    zones = [ip_zone("office", ["1.1.1.1"]), exempt("1.1.1.1")]
    found = at("1.1.1.1", "6.6.6.6", OURS, zones=zones)
    assert (found.client_ip, found.zones, found.is_exempt) == ("6.6.6.6", frozenset(), False)


@pytest.mark.parametrize("junk", ["unknown", "_hidden", "999.1.1.1", "<script>", "1.1.1.1.1", "é"])
def test_a_hop_that_is_no_address_hides_what_lies_before_it(junk: str) -> None:
    found = at("1.1.1.1", junk, OURS, zones=[ip_zone("office", ["1.1.1.1"])])
    assert (found.client_ip, found.zones) == (OURS, frozenset())
    assert "no address" in found.path[0]


@pytest.mark.parametrize(
    ("hop", "ip"),
    [
        ("192.0.2.1:8080", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_hops_with_ports_and_brackets_are_read(hop: str, ip: str) -> None:
    assert read_chain([hop]).hops == (ip,)


def test_without_any_address_nothing_is_known_and_nothing_granted() -> None:
    for chain in ((), ("nobody",)):
        found = at(*chain, zones=[exempt("1.1.1.1")])
        assert (found.client_ip, found.is_exempt, found.blocked_by) == ("", False, None)
        assert not found.record.known


def test_a_chain_of_a_thousand_hops_is_cut_and_the_nearest_count() -> None:
    chain = [*["6.6.6.6"] * 999, "7.7.7.7", OURS]
    found = at(*chain, zones=[blocklist("bad", ["6.6.6.6"])])
    assert found.client_ip == "7.7.7.7"
    assert found.blocked_by == "zon_bad"
    assert "chain too long" in found.path[0]


@given(st.lists(st.text(max_size=60), max_size=60))
def test_no_hop_makes_reading_fail(hops: list[str]) -> None:
    chain = read_chain(hops)
    assert len(chain.hops) <= HOPS_MAX
    for hop in chain.hops:
        assert hop is None or str(ipaddress.ip_address(hop))


def test_only_so_many_trusted_proxies_are_looked_through() -> None:
    assert client_at(["1.1.1.1", *[OURS] * 5], lambda ip: ip == OURS) == 0
    assert client_at(["1.1.1.1", *[OURS] * 6], lambda ip: ip == OURS) == 1


# --- exempt, blocklists -------------------------------------------------------------------------


def test_row_21_an_exempt_client_is_judged_behind_a_trusted_hop() -> None:
    zones = [exempt("1.1.1.1"), blocklist("bad", ["1.1.1.0/24"])]
    found = at("1.1.1.1", OURS, zones=zones)
    assert (found.client_ip, found.is_exempt, found.blocked_by) == ("1.1.1.1", True, None)
    assert "exempt" in found.path[2]


def test_row_21_one_blocklisted_hop_that_is_not_exempt_still_blocks() -> None:
    zones = [exempt("1.1.1.1"), blocklist("bad", ["1.1.1.1", "6.6.6.6"])]
    assert at("6.6.6.6", "1.1.1.1", zones=zones).blocked_by == "zon_bad"
    assert at("1.1.1.1", "6.6.6.6", zones=zones).blocked_by == "zon_bad"
    assert at("1.1.1.1", "1.1.1.1", zones=zones).blocked_by is None


def test_our_own_proxies_are_never_blocked() -> None:
    assert at("2.2.2.2", OURS, zones=[blocklist("bad", [OURS])]).blocked_by is None


# --- enhanced dynamic zones ---------------------------------------------------------------------

TOR = IPRecord(ip="x", known=True, categories=with_groups(["ANONYMIZER_TOR"]))
NORD = IPRecord(ip="x", known=True, categories=with_groups(["NORD_VPN"]), asn=1, country="US")
HOME = IPRecord(ip="x", known=True, asn=7922, country="US", region="US-CA")


def test_row_42_a_anonymizers_are_blocked_before_sign_in_except_allowed_ones() -> None:
    zone = dynamic(
        "anon",
        usage=Usage.BLOCKLIST,
        include=Rules(categories=("ALL_ANONYMIZERS",)),
        exclude=Rules(categories=("NORD_VPN",)),
    )
    records = {"1.1.1.1": TOR, "2.2.2.2": NORD, "3.3.3.3": HOME}
    blocked = {ip: at(ip, zones=[zone], records=records).blocked_by for ip in (*records, "4.4.4.4")}
    assert blocked == {"1.1.1.1": "zon_anon", "2.2.2.2": None, "3.3.3.3": None, "4.4.4.4": None}


def test_row_42_b_a_named_vpn_is_a_zone_for_policies() -> None:
    zone = dynamic("nord", include=Rules(categories=("NORD_VPN",)))
    records = {"2.2.2.2": NORD}
    found = at("2.2.2.2", zones=[zone], records=records)
    assert found.zones == {"nord", "zon_nord"}
    assert found.blocked_by is None
    assert at("1.1.1.1", zones=[zone], records=records).zones == frozenset()


@pytest.mark.parametrize(
    ("record", "inside"),
    [
        ({"asn": 1, "country": "US", "categories": ["NORD_VPN"]}, True),
        ({"asn": 2, "country": "US", "categories": ["NORD_VPN"]}, False),
        ({"asn": 1, "country": "DE", "categories": ["NORD_VPN"]}, False),
        ({"asn": 1, "country": "US", "categories": ["MOBILE"]}, False),
        ({"country": "US", "categories": ["NORD_VPN"]}, False),
    ],
)
def test_row_42_c_as_country_and_proxy_type_have_to_hold_together(
    record: dict[str, object], *, inside: bool
) -> None:
    zone = dynamic(
        "enrol",
        include=Rules(
            asns=(1,), locations=(Place(country="US"),), categories=("ALL_PROXIES_VPNS",)
        ),
    )
    fields = {**record, "categories": with_groups(record["categories"])}  # type: ignore[arg-type]  # a list of names
    here = IPRecord(ip="1.1.1.1", known=True, **fields)  # type: ignore[arg-type]  # as the table says
    assert bool(at("1.1.1.1", zones=[zone], records={"1.1.1.1": here}).zones) is inside


_addresses = st.integers(0, 40).map(lambda low: unpacked(bytes([10, 9, 8, low])))
_networks = st.one_of(
    _addresses,
    st.tuples(_addresses, st.integers(26, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.integers(0, 20).map(lambda low: f"10.9.8.{low}-10.9.8.{low + 9}"),
    st.sampled_from(["2001:db8::/126", "2001:db8::1"]),
)
_hops = st.one_of(_addresses, st.sampled_from(["2001:db8::1", "2001:db8::9", "junk"]))
_entries = st.lists(
    st.builds(
        Entry,
        value=_networks,
        until=st.none() | st.sampled_from([NOW - timedelta(1), NOW + timedelta(1)]),
    ),
    max_size=4,
).map(tuple)
_rules = st.builds(
    Rules,
    asns=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    locations=st.lists(
        st.sampled_from(
            [Place(country="US"), Place(country="DE"), Place(country="US", region="US-CA")]
        ),
        max_size=2,
    ).map(tuple),
    categories=st.lists(
        st.sampled_from(["ALL_ANONYMIZERS", "NORD_VPN", "ANONYMIZER_TOR", "HOSTING"]), max_size=2
    ).map(tuple),
)
_records = st.builds(
    IPRecord,
    ip=st.just("x"),
    known=st.sampled_from([True]),
    asn=st.none() | st.integers(1, 3),
    country=st.none() | st.sampled_from(["US", "DE"]),
    region=st.none() | st.sampled_from(["US-CA", "US-NY"]),
    categories=st.lists(st.sampled_from(["NORD_VPN", "ANONYMIZER_TOR", "HOSTING"])).map(
        with_groups
    ),
)


@given(
    st.lists(st.tuples(_entries, _entries), max_size=8),
    st.lists(st.tuples(_rules, _rules), max_size=8),
    st.lists(_hops, min_size=1, max_size=9),
    _records,
)
def test_row_42_all_zones_at_once_answer_as_each_by_itself(
    lists: list[tuple[tuple[Entry, ...], tuple[Entry, ...]]],
    rules: list[tuple[Rules, Rules]],
    chain: list[str],
    record: IPRecord,
) -> None:
    zones = [
        Zone(zone_id=f"zon_i{n:02}", name=f"i{n}", type=ZoneType.IP, gateways=g, proxies=p)
        for n, (g, p) in enumerate(lists)
    ] + [
        Zone(zone_id=f"zon_r{n:02}", name=f"r{n}", type=ZoneType.DYNAMIC_V2, include=i, exclude=e)
        for n, (i, e) in enumerate(rules)
    ]
    compiled = CompiledZones(zones, NOW)
    hops = read_chain(chain).hops
    found = compiled.names_of(compiled.inside(hops) | compiled.matching(record))
    wanted = {
        name
        for zone in zones
        if explain(zone, hops, record, now=NOW).is_inside
        for name in (zone.zone_id, zone.name)
    }
    assert found == wanted


def test_entries_end_by_themselves_and_the_compiled_zones_say_when() -> None:
    soon = NOW + timedelta(hours=1)
    entry = Entry(value="1.1.1.1", until=soon, reason="audit")
    zone = msgspec.structs.replace(ip_zone("guest", []), gateways=(entry,))
    now, later = CompiledZones([zone], NOW), CompiledZones([zone], soon)
    assert (now.valid_until, later.valid_until) == (soon, None)
    assert (now.inside(["1.1.1.1"]), later.inside(["1.1.1.1"])) == (1, 0)


def test_inactive_zones_do_not_count() -> None:
    zone = ip_zone("office", ["1.1.1.1"], status=Status.INACTIVE)
    assert at("1.1.1.1", zones=[zone]).zones == frozenset()


# --- what a zone may hold -----------------------------------------------------------------------


def pointers(zone: Zone) -> list[str]:
    with pytest.raises(Invalid) as caught:
        check_zone(zone)
    return [pointer for pointer, _ in caught.value.pointers]


@pytest.mark.parametrize(
    ("zone", "pointer"),
    [
        (ip_zone("", ["1.1.1.1"]), "/name"),
        (ip_zone("x" * 129, ["1.1.1.1"]), "/name"),
        (ip_zone("zon_other", ["1.1.1.1"]), "/name"),
        (ip_zone("a", []), "/gateways"),
        (ip_zone("a", ["1.1.1.1"] * 151), "/gateways"),
        (ip_zone("a", ["1.1.1.1"] * 100, ["2.2.2.2"] * 51), "/gateways"),
        (blocklist("a", ["1.1.1.1"] * 1_001), "/gateways"),
        (ip_zone("a", ["1.1.1.1", "1.1.1.1/40"]), "/gateways/1"),
        (ip_zone("a", ["1.1.1.1"], ["2.2.2.2-1.1.1.1"]), "/proxies/0"),
        (ip_zone("a", ["1.1.1.1"], ["2.2.2.2"], usage=Usage.BLOCKLIST), "/proxies"),
        (ip_zone("a", ["1.1.1.1"], include=Rules(asns=(1,))), "/asns/include"),
        (ip_zone("a", ["1.1.1.1"], proxy_type="Tor"), "/proxyType"),
        (dynamic("a"), "/asns/include"),
        (dynamic("a", include=Rules(asns=tuple(range(1, 77)))), "/asns/include"),
        (dynamic("a", exclude=Rules(asns=(0,))), "/asns/exclude/0"),
        (dynamic("a", include=Rules(categories=("NONSENSE",))), "/ipServiceCategories/include/0"),
        (
            dynamic("a", include=Rules(locations=(Place(country="us"),))),
            "/locations/include/0/country",
        ),
        (
            dynamic("a", include=Rules(locations=(Place(country="US", region="DE-BE"),))),
            "/locations/include/0/region",
        ),
        (
            dynamic(
                "a",
                include=Rules(locations=(Place(country="US"), Place(country="US", region="US-CA"))),
            ),
            "/locations/include/1",
        ),
        (
            dynamic(
                "a",
                include=Rules(asns=(1,)),
            ),
            None,
        ),
        (ip_zone("BlockedIpZone", ["1.1.1.1"]), "/name"),
    ],
)
def test_limits_of_zones_are_enforced_with_pointers(zone: Zone, pointer: str | None) -> None:
    if pointer is None:
        assert check_zone(zone) == zone
    else:
        assert pointer in pointers(zone)


@pytest.mark.parametrize(
    ("proxy_type", "category"),
    [
        ("Any", ("ALL_ANONYMIZERS",)),
        ("Tor", ("ANONYMIZER_TOR",)),
        ("NotTorAnonymizer", ("ALL_ANONYMIZERS_EXCEPT_TOR",)),
    ],
)
def test_the_proxy_type_of_a_dynamic_zone_stands_for_categories(
    proxy_type: str, category: tuple[str, ...]
) -> None:
    zone = Zone(zone_id="zon_d", name="d", type=ZoneType.DYNAMIC, proxy_type=proxy_type)
    assert check_zone(zone).include.categories == category
    assert check_zone(check_zone(zone)) == check_zone(zone)
    assert pointers(msgspec.structs.replace(zone, proxy_type="Other"))[0] == "/proxyType"


def test_system_zones_are_there_and_keep_what_they_are() -> None:
    zones = {zone.zone_id: zone for zone in restore_zones([])}
    assert not zones[ENHANCED_ID].is_active
    assert zones[EXEMPT_ID].is_exempt_list
    for zone in zones.values():
        assert check_zone(zone) == zone
    renamed = msgspec.structs.replace(zones[BLOCKED_ID], name="other")
    assert pointers(renamed) == ["/name"]
    full = msgspec.structs.replace(
        zones[BLOCKED_ID], gateways=tuple(Entry(value="1.1.1.1") for _ in range(5_000))
    )
    assert check_zone(full) == full
    with_places = msgspec.structs.replace(
        zones[ENHANCED_ID], exclude=Rules(locations=(Place(country="US"),))
    )
    assert pointers(with_places) == ["/ipServiceCategories/include"]
    with_proxies = msgspec.structs.replace(zones[EXEMPT_ID], proxies=(Entry(value="1.1.1.1"),))
    assert pointers(with_proxies) == ["/proxies"]


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"zones": ["zon_office"]}, True),
        ([{"when": {"zones": {"any": ["office"]}}}], True),
        ([{"expression": "'office' in request.zones"}], True),
        ([{"expression": 'request.zones.exists(z, z == "zon_office")'}], True),
        ([{"name": "office hours", "text": "the office"}], False),
        ({"n": 5, "x": None}, False),
    ],
)
def test_a_zone_that_a_policy_names_is_found(document: object, *, named: bool) -> None:
    assert names_in(document, ip_zone("office", ["1.1.1.1"])) is named
