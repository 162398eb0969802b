"""The scorer's seat and its rule table: single rules, and what holds for all features."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.model import Level
from risk.networks.model import IPRecord
from risk.scoring.model import (
    BAD_REQUEST,
    NEGATIVE,
    POSITIVE,
    UNKNOWN,
    Features,
    Score,
)
from risk.scoring.rules import BEHAVIOURS, CHANGES, HIGH_AT, SEVERE, RuleScorer, level_of, news
from risk.scoring.service import SCORERS, scorer_named

PLACE = ("New Country", "New State", "New City", "New Geo-Location", "New ASN", "New IP")
KNOWN = dict.fromkeys(BEHAVIOURS, NEGATIVE)
DIMENSIONS = sorted({novelty.dimension for novelty in BEHAVIOURS.values()})
CATEGORIES = ("HOSTING", "ANONYMIZER_TOR", "NORD_VPN", "RESIDENTIAL_PROXY", "MOBILE", "OTHER")


def features(*positive: str, categories: tuple[str, ...] = (), **more: Any) -> Features:
    """Return features of a well-known user, with these behaviours POSITIVE."""
    return Features(
        behaviours=KNOWN | dict.fromkeys(positive, POSITIVE),
        record=IPRecord(ip="192.0.2.1", known=True, categories=frozenset(categories)),
        org_is_learning=False,
        **more,
    )


def score(*positive: str, **more: Any) -> Score:
    return RuleScorer().score(features(*positive, **more))


# --- single rules -------------------------------------------------------------------------------


def test_a_known_place_and_device_is_low_and_says_nothing() -> None:
    told = score()
    assert (told.value, told.level, told.reasons, told.contributions) == (0.0, Level.LOW, (), ())
    assert told.scorer == "rules/1"


def test_a_new_country_a_new_device_and_a_hosting_network_are_high() -> None:
    told = score(*PLACE, "New Device", categories=("HOSTING",))
    assert told.level is Level.HIGH
    assert told.reasons[:2] == ("new_device", "address:HOSTING")
    assert set(told.reasons) > {"new_country", "new_city", "new_asn", "new_ip"}


@pytest.mark.parametrize(
    ("positive", "level"),
    [
        (("New IP",), Level.LOW),
        (("New IP", "New ASN"), Level.LOW),
        (("New IP", "New ASN", "New City", "New Geo-Location", "New State"), Level.LOW),
        (PLACE, Level.MEDIUM),
        ((*PLACE, "Velocity"), Level.MEDIUM),
        (("New Device",), Level.LOW),
        (("New Device", "New IP"), Level.MEDIUM),
        (("New Device", *PLACE), Level.HIGH),
        (("Unusual Hour", "New App"), Level.LOW),
    ],
)
def test_novelty_at_a_sign_in(positive: tuple[str, ...], level: Level) -> None:
    assert score(*positive).level is level


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ((), Level.LOW),
        (("none",), Level.LOW),
        (("minor",), Level.LOW),
        (("network",), Level.LOW),
        (("posture",), Level.LOW),
        (("signal_loss",), Level.MEDIUM),
        (("fork",), Level.MEDIUM),
        (("device",), Level.MEDIUM),
        (("DEVICE",), Level.MEDIUM),
        (("os",), Level.MEDIUM),
        (("user_agent",), Level.MEDIUM),
        (("binding_lost",), Level.MEDIUM),
        (("device", "os"), Level.HIGH),
        (("something_of_tomorrow",), Level.LOW),
    ],
)
def test_changes_of_a_session_at_a_known_place(changes: tuple[str, ...], level: Level) -> None:
    assert score(changes=changes).level is level


def test_a_session_that_moves_to_a_network_never_seen_is_medium_and_to_a_known_one_low() -> None:
    assert score("New ASN", "New IP", changes=("asn",)).level is Level.MEDIUM
    assert RuleScorer().score(Features(changes=("asn",))).level is Level.MEDIUM
    assert score(changes=("asn",)).level is Level.LOW
    assert score("New ASN", "New IP", changes=("asn",), familiar={"asn"}).level is Level.LOW
    assert score("New ASN", "New IP", changes=("asn",), org_familiar={"asn"}).level is Level.LOW


def test_where_somebody_is_alone_is_never_high_however_far() -> None:
    told = score(*PLACE, "Velocity", changes=("asn", "country"), categories=("ANONYMIZER_TOR",))
    assert told.level is Level.MEDIUM
    assert min(told.contributions, key=lambda each: each.points).name == "network_alone"


def test_a_session_on_another_device_is_not_told_twice_that_the_device_is_new() -> None:
    told = score("New Device", changes=("device",))
    assert (told.value, told.level) == (3.5, Level.MEDIUM)


def test_what_a_change_says_no_behaviour_says_again() -> None:
    lost = RuleScorer().score(
        Features(changes=("signal_loss",), behaviours={"New Device": "BAD_REQUEST"})
    )
    assert (lost.value, lost.level) == (3.0, Level.MEDIUM)
    told = score("New TLS Fingerprint", changes=("user_agent",))
    assert told.value == 3.0
    unknown = Features(behaviours={"New TLS Fingerprint": UNKNOWN}, org_is_learning=False)
    assert RuleScorer().score(unknown).value == 0.0


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        (("device",), {"New Device", "New TLS Fingerprint"}),
        (("asn", "country"), {*PLACE, "Velocity"}),
        (("minor",), {*PLACE, "Velocity"}),
        (("ASN", "os"), {*PLACE, "Velocity", "New Device", "New TLS Fingerprint"}),
        (("posture",), set()),
    ],
)
def test_only_what_changed_is_news_about_a_session(
    changes: tuple[str, ...], kept: set[str]
) -> None:
    """A session that began in a new place, and whose device token alone changes, is no HIGH."""
    everything = dict.fromkeys((*BEHAVIOURS, "Our own"), POSITIVE)
    assert set(news(everything, changes)) == kept | {"New App", "Unusual Hour", "Our own"}


def test_another_device_token_alone_is_medium_however_new_the_place() -> None:
    behaviours = news(dict.fromkeys(BEHAVIOURS, POSITIVE), ("device",))
    told = RuleScorer().score(Features(changes=("device",), behaviours=behaviours))
    assert told.level is Level.MEDIUM


def test_a_reported_address_is_as_high_as_its_report() -> None:
    told = score(ip_level=Level.HIGH, ip_reasons=("ip_reported_high:crowd", "ip_reported_high:soc"))
    assert (told.level, told.value) == (Level.HIGH, HIGH_AT)
    assert [each.name for each in told.contributions] == [
        "ip_reported_high:crowd",
        "ip_reported_high:soc",
    ]
    assert score(ip_level=Level.MEDIUM).reasons == ("ip_reported_medium",)


def test_while_the_user_is_learned_novelty_is_at_most_medium() -> None:
    everything = (*PLACE, "Velocity", "New Device")
    assert score(*everything).level is Level.HIGH
    assert score(*everything, is_learning=True).level is Level.MEDIUM
    other = score(*everything, is_learning=True, ip_level=Level.MEDIUM)
    assert other.level is Level.HIGH


def test_a_new_user_is_judged_by_where_colleagues_are_seen() -> None:
    unknown = dict.fromkeys(BEHAVIOURS, UNKNOWN)
    base = Features(behaviours=unknown, is_learning=True, org_is_learning=False)
    scorer = RuleScorer()
    everywhere = frozenset(DIMENSIONS)
    assert scorer.score(replace(base, org_familiar=everywhere)).value == 0.0
    assert scorer.score(base).level is Level.MEDIUM
    assert scorer.score(replace(base, org_is_learning=True)).value == 0.0


def test_row_16_b_where_sales_travels_is_quiet_for_sales_and_not_for_everybody() -> None:
    trip = ("asn", "country")
    where = frozenset({"country", "region", "city", "asn", "prefix", "trip"})
    of_peers = score(*PLACE, changes=trip, peer_familiar=where)
    assert of_peers.level is Level.LOW
    assert "asn_known_to_peers" in {each.name for each in of_peers.contributions}
    assert score(*PLACE, changes=trip, org_familiar=where).level is Level.MEDIUM
    newcomer = dict.fromkeys(BEHAVIOURS, UNKNOWN)
    base = Features(behaviours=newcomer, is_learning=True, org_is_learning=False)
    assert RuleScorer().score(replace(base, peer_familiar=frozenset(DIMENSIONS))).value == 0.0


def test_leaving_the_device_out_gains_nothing() -> None:
    scorer = RuleScorer()
    given_none = Features(behaviours={"New Device": BAD_REQUEST, "New IP": POSITIVE})
    assert scorer.score(given_none).level is Level.MEDIUM
    assert scorer.score(Features(behaviours={"New City": BAD_REQUEST})).value == 0.0


def test_the_usual_way_in_through_a_data_centre_weighs_nothing_but_tor_does() -> None:
    assert score(categories=("HOSTING",)).value == 1.5
    assert score(categories=("HOSTING",), familiar={"asn"}).value == 0.0
    assert score(categories=("ANONYMIZER_TOR",), familiar={"asn"}).value == 2.5
    assert score(categories=("MOBILE", "RESIDENTIAL")).value == 0.0


def test_a_private_relay_is_no_proxy() -> None:
    relay = ("APPLE_ICLOUD_RELAY_PROXY", "ALL_PROXIES_VPNS", "HOSTING", "ALL_ANONYMIZERS")
    assert score(categories=relay).value == 0.0


def test_levels_and_failures_of_the_person_weigh() -> None:
    assert score(failures=2).value == 0.0
    assert score(failures=5).reasons == ("failures",)
    assert score(failures=1_000).value == 3.0
    assert score(user_level=Level.MEDIUM, device_level=Level.HIGH).reasons == (
        "device_level_high",
        "user_level_medium",
    )


def test_a_well_known_pair_of_places_is_quiet_and_another_device_there_is_not() -> None:
    well_known = frozenset({"country", "region", "city", "asn", "prefix", "trip"})
    quiet = score(*PLACE, "Velocity", familiar=well_known)
    assert (quiet.value, quiet.reasons) == (0.0, ())
    thief = score(*PLACE, "Velocity", changes=("asn", "device"), familiar=well_known)
    assert thief.level is Level.MEDIUM


# --- who sits there -----------------------------------------------------------------------------


def test_a_scorer_is_chosen_by_name_and_an_unknown_name_is_refused() -> None:
    assert scorer_named("rules").name == "rules/1"
    with pytest.raises(ValueError, match="use one of rules"):
        scorer_named("oracle")


# --- what holds for all features ----------------------------------------------------------------

LEVELS = st.sampled_from(Level)
VALUES = st.sampled_from((NEGATIVE, UNKNOWN, POSITIVE))
ANY_FEATURES = st.builds(
    Features,
    changes=st.lists(st.sampled_from((*CHANGES, "minor", "other")), unique=True).map(tuple),
    behaviours=st.dictionaries(st.sampled_from(tuple(BEHAVIOURS)), VALUES),
    record=st.builds(
        IPRecord,
        ip=st.just("192.0.2.1"),
        known=st.booleans(),
        categories=st.frozensets(st.sampled_from(CATEGORIES)),
    ),
    ip_level=LEVELS,
    user_level=LEVELS,
    device_level=LEVELS,
    familiar=st.frozensets(st.sampled_from(DIMENSIONS)),
    peer_familiar=st.frozensets(st.sampled_from(DIMENSIONS)),
    org_familiar=st.frozensets(st.sampled_from(DIMENSIONS)),
    is_learning=st.booleans(),
    org_is_learning=st.booleans(),
    hour=st.integers(0, 167),
    failures=st.integers(0, 40),
)
SCORER_NAMES = st.sampled_from(sorted(SCORERS))


@given(ANY_FEATURES, SCORER_NAMES)
def test_contributions_sum_to_the_value_and_the_value_gives_the_level(
    seen: Features, name: str
) -> None:
    told = scorer_named(name).score(seen)
    assert math.fsum(each.points for each in told.contributions) == pytest.approx(told.value)
    assert told.level is level_of(told.value)
    assert told.value >= 0
    assert all(each.reason and each.name for each in told.contributions)


@given(ANY_FEATURES, SCORER_NAMES, st.randoms())
def test_the_order_of_the_facts_never_matters(seen: Features, name: str, shuffle: Any) -> None:
    changes, behaviours = list(seen.changes), list(seen.behaviours.items())
    shuffle.shuffle(changes)
    shuffle.shuffle(behaviours)
    same = replace(seen, changes=tuple(changes), behaviours=dict(behaviours))
    scorer = scorer_named(name)
    assert scorer.score(same) == scorer.score(seen) == scorer_named(name).score(seen)


@given(ANY_FEATURES)
def test_a_severe_change_is_never_below_medium(seen: Features) -> None:
    told = RuleScorer().score(seen)
    assert told.level >= Level.MEDIUM or not SEVERE & set(seen.changes)


@st.composite
def a_fact_and_a_worse_one(draw: st.DrawFn) -> tuple[Features, Features]:
    """Return features, and the same with one of them worse."""
    seen = draw(ANY_FEATURES)
    worse = {
        "changes": lambda: (*seen.changes, draw(st.sampled_from(tuple(CHANGES)))),
        "behaviours": lambda: {
            **seen.behaviours,
            (name := draw(st.sampled_from(tuple(BEHAVIOURS)))): (
                UNKNOWN if seen.behaviours.get(name) == NEGATIVE else POSITIVE
            ),
        },
        "record": lambda: IPRecord(
            ip="192.0.2.1",
            known=True,
            categories=seen.record.categories | {draw(st.sampled_from(CATEGORIES))},
        ),
        "ip_level": lambda: max(seen.ip_level, draw(LEVELS)),
        "user_level": lambda: max(seen.user_level, draw(LEVELS)),
        "device_level": lambda: max(seen.device_level, draw(LEVELS)),
        "familiar": lambda: seen.familiar - {draw(st.sampled_from(DIMENSIONS))},
        "peer_familiar": lambda: seen.peer_familiar - {draw(st.sampled_from(DIMENSIONS))},
        "org_familiar": lambda: seen.org_familiar - {draw(st.sampled_from(DIMENSIONS))},
        "is_learning": lambda: False,
        "org_is_learning": lambda: False,
        "failures": lambda: seen.failures + draw(st.integers(1, 5)),
    }
    name = draw(st.sampled_from(sorted(worse)))
    return seen, replace(seen, **{name: worse[name]()})  # type: ignore[no-untyped-call]


@given(a_fact_and_a_worse_one())
def test_a_worse_fact_never_lowers_the_score(pair: tuple[Features, Features]) -> None:
    seen, worse = pair
    assert RuleScorer().score(worse).value >= RuleScorer().score(seen).value - 1e-9
