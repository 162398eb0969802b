"""How several words about one address become one record."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from risk.networks.categories import implied, with_groups
from risk.networks.model import (
    DAY_S,
    Claim,
    Said,
    Source,
    StalePolicy,
    asked_order,
    merge,
    packed,
    unpacked,
)

NOW = 1_800_000_000


def source(name: str, *, age_s: int = 0, stale: StalePolicy = StalePolicy.LAST) -> Source:
    return Source(name=name, feed_id=name, built_at=NOW - age_s, prefixes=1, stale=stale)


def test_the_first_source_that_says_something_is_taken_for_each_field() -> None:
    merged = merge(
        [
            (source("geo"), Said(country="DE")),
            (source("asn", age_s=60), Said(asn=64500, organisation="Example Net", country="FR")),
        ],
        NOW,
    )
    assert (merged["country"], merged["asn"]) == ("DE", 64500)
    assert merged["provenance"]["asn"] == Claim(source="asn", seen_at=NOW - 60, value=64500)


def test_a_city_comes_only_from_a_source_that_agrees_about_the_country() -> None:
    merged = merge(
        [
            (source("a"), Said(country="DE")),
            (source("b"), Said(country="FR", city="Lyon", latitude=45.7, longitude=4.8)),
            (source("c"), Said(country="DE", region="DE-BE", city="Berlin")),
        ],
        NOW,
    )
    assert (merged["city"], merged["region"]) == ("Berlin", "DE-BE")
    assert "latitude" not in merged


def test_an_organisation_comes_only_from_a_source_that_agrees_about_the_as() -> None:
    merged = merge(
        [(source("a"), Said(asn=64500)), (source("b"), Said(asn=64501, organisation="Other"))], NOW
    )
    assert "organisation" not in merged


def test_categories_add_up_and_each_names_who_claimed_it_first() -> None:
    merged = merge(
        [
            (source("a"), Said(categories=("HOSTING",))),
            (source("b"), Said(categories=("HOSTING", "NORD_VPN"))),
        ],
        NOW,
    )
    assert {"HOSTING", "NORD_VPN", "VPN", "ALL_ANONYMIZERS"} <= merged["categories"]
    assert merged["provenance"]["categories.HOSTING"].source == "a"
    assert merged["provenance"]["categories.NORD_VPN"].source == "b"


def test_a_home_that_was_a_proxy_last_month_is_none_today() -> None:
    """A source with decay forgets categories that were last seen too long ago."""
    spur = Source(name="spur", feed_id="spur", built_at=NOW, prefixes=1, decay_s=7 * DAY_S)
    old = Said(categories=("OXYLABS_PROXY",), operator="OXYLABS", seen_at=NOW - 30 * DAY_S)
    new = Said(categories=("OXYLABS_PROXY",), operator="OXYLABS", seen_at=NOW - DAY_S)
    assert merge([(spur, old)], NOW)["categories"] == frozenset()
    assert "RESIDENTIAL_PROXY" in merge([(spur, new)], NOW)["categories"]


def test_stale_sources_are_asked_last_or_never_as_their_policy_says() -> None:
    month = 31 * DAY_S
    sources = [
        source("late", age_s=month),
        source("dropped", age_s=month, stale=StalePolicy.DROP),
        source("kept", age_s=month, stale=StalePolicy.KEEP),
        source("fresh"),
    ]
    assert asked_order(sources, NOW) == (2, 3, 0)


def test_groups_follow_from_names() -> None:
    assert "ALL_ANONYMIZERS_EXCEPT_TOR" not in implied("ANONYMIZER_TOR")
    assert "ALL_ANONYMIZERS" not in implied("GLOBALPROTECT_VPN")
    assert {"PROXY", "ALL_PROXIES_VPNS"} <= implied("APPLE_ICLOUD_RELAY_PROXY")
    assert "VPN" in implied("SOME_NEW_VPN")
    assert with_groups(["MOBILE"]) == {"MOBILE"}


@given(st.ip_addresses())
def test_packing_agrees_with_the_ipaddress_module(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    raw = packed(str(address))
    assert raw is not None
    wanted = getattr(address, "ipv4_mapped", None) or address
    assert raw == wanted.packed
    assert ipaddress.ip_address(unpacked(raw)) == wanted


@given(st.text(max_size=60))
def test_text_that_is_no_address_packs_to_nothing(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert packed(text) is None


def test_odd_spellings_are_no_addresses() -> None:
    for text in ("", "1", "127.1", "010.0.0.1", "1.2.3.4 ", "fe80::1%eth0", "1.2.3.4\0", "é::1"):
        assert packed(text) is None
    assert packed("::ffff:192.0.2.1") == packed("192.0.2.1")
