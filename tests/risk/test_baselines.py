"""Baselines: what becomes familiar, what fades, what is withdrawn, and how it is kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.baselines.codec import VERSION, decode, encode
from risk.baselines.model import (
    NOTHING,
    RECENT_MAX,
    VALUES_MAX,
    WITHDRAWN_MAX,
    Baseline,
    Occurrence,
    familiar,
    hour_of_week,
    prefix_of,
    record,
    session_mark,
    short,
    trust,
    values_of,
    withdraw,
)
from risk.behaviours.evaluation import behaviours
from risk.behaviours.model import BUILT_IN
from risk.model import Level
from risk.scoring.model import NEGATIVE, Features
from risk.scoring.rules import RuleScorer
from tests.risk.kit import NOW

PLACE = {"country", "region", "city", "asn", "prefix"}
HOME: dict[str, Any] = {
    "ip": "192.0.2.7",
    "asn": 64500,
    "country": "FR",
    "region": "FR-IDF",
    "city": "Paris",
    "latitude": 48.8566,
    "longitude": 2.3522,
    "accuracy_km": 5.0,
}
AWAY: dict[str, Any] = {
    "ip": "203.0.113.9",
    "asn": 64504,
    "country": "US",
    "region": "US-NY",
    "city": "New York",
    "latitude": 40.7128,
    "longitude": -74.006,
    "accuracy_km": 10.0,
}


def seen(place: dict[str, Any], at: datetime, **more: Any) -> Occurrence:
    values = {"device": short("laptop"), "ua": "Firefox", "app": "mail"} | place | more
    return Occurrence(at=at, **values)


def known(*occurrences: Occurrence) -> Baseline:
    baseline = NOTHING
    for each in occurrences:
        baseline, _ = record(baseline, each)
    return baseline


def days(count: float) -> timedelta:
    return timedelta(days=count)


def judge(baseline: Baseline, here: Occurrence, **more: Any) -> Level:
    """Return the level by behaviours and familiar dimensions alone."""
    return (
        RuleScorer()
        .score(
            Features(
                behaviours=behaviours(baseline, here, BUILT_IN),
                familiar=familiar(baseline, here),
                is_learning=baseline.is_learning,
                **more,
            )
        )
        .level
    )


# --- what is known ------------------------------------------------------------------------------


def test_row_16_a_a_place_is_known_after_twenty_good_sign_ins() -> None:
    baseline = known(*(seen(HOME, NOW - days(20 - day), tls="a") for day in range(20)))
    here = seen(HOME, NOW, tls="a")

    assert not baseline.is_learning
    assert set(behaviours(baseline, here, BUILT_IN).values()) == {NEGATIVE}
    assert judge(baseline, here) is Level.LOW
    assert judge(baseline, seen(AWAY, NOW)) is Level.MEDIUM
    assert familiar(baseline, here) >= PLACE | {"device", "ua", "app"}


def test_a_user_is_learned_until_five_good_sign_ins() -> None:
    assert NOTHING.is_learning
    assert known(*(seen(HOME, NOW) for _ in range(4))).is_learning
    assert not known(*(seen(HOME, NOW) for _ in range(5))).is_learning


def test_many_sign_ins_of_one_evening_make_nothing_familiar() -> None:
    evening = known(*(seen(AWAY, NOW + timedelta(minutes=each)) for each in range(30)))
    assert not familiar(evening, seen(AWAY, NOW + days(1)))


def trips(count: int) -> Baseline:
    """Return the baseline of somebody at home, with monthly trips, 25 days at home in between."""
    baseline = NOTHING
    at = NOW - days(30 * (count + 1))
    for _ in range(count):
        for _ in range(25):
            baseline, _ = record(baseline, seen(HOME, at))
            at += days(1)
        for hours in (8, 12):
            baseline, _ = record(baseline, seen(AWAY, at + timedelta(hours=hours)))
        at += days(5)
    for _ in range(25):
        baseline, _ = record(baseline, seen(HOME, at))
        at += days(1)
    return baseline


def test_row_16_b_after_three_trips_the_pair_is_quiet() -> None:
    on_the_road = seen(AWAY, NOW)
    twice, thrice = trips(2), trips(3)
    assert judge(twice, on_the_road, changes=("asn", "country")) is Level.MEDIUM
    assert judge(thrice, on_the_road, changes=("asn", "country")) is Level.LOW
    # Even by an aeroplane that is faster than the limit.
    early = seen(AWAY, thrice.recent[-1].at + timedelta(hours=6))
    assert behaviours(thrice, early, BUILT_IN)["Velocity"] == "POSITIVE"
    assert judge(thrice, early) is Level.LOW


def test_row_16_c_a_stolen_cookie_at_that_place_on_another_device_still_prompts() -> None:
    thief = seen(AWAY, NOW, device=short("another"))
    assert judge(trips(3), thief, changes=("asn", "device")) >= Level.MEDIUM
    assert judge(trips(3), thief, changes=("asn", "device", "os")) is Level.HIGH


def test_what_was_familiar_fades() -> None:
    baseline = known(*(seen(HOME, NOW - days(each)) for each in (300, 299, 298)))
    assert "city" in familiar(baseline, seen(HOME, NOW - days(290)))
    assert "city" not in familiar(baseline, seen(HOME, NOW))


# --- what is withdrawn --------------------------------------------------------------------------


def test_row_16_a_a_session_found_compromised_never_was() -> None:
    good = [seen(HOME, NOW - days(each), session=short("good")) for each in range(9, 3, -1)]
    bad = [seen(AWAY, NOW - days(each), session=short("bad")) for each in range(3, 0, -1)]
    here = seen(AWAY, NOW)
    before, poisoned = known(*good), known(*good, *bad)

    assert judge(poisoned, here) is Level.LOW
    healed = withdraw(poisoned, str(short("bad")))
    assert healed.recent == before.recent
    assert healed.events == before.events
    assert judge(healed, here) is judge(before, here) is Level.MEDIUM
    assert PLACE.isdisjoint(familiar(healed, here))
    assert familiar(healed, seen(HOME, NOW)) >= PLACE


def test_what_another_session_did_on_the_same_day_stays() -> None:
    at = NOW - days(1)
    baseline = known(seen(HOME, at, session=short("good")), seen(HOME, at, session=short("bad")))
    healed = withdraw(baseline, str(short("bad")))
    assert healed.counts["city"] == baseline.counts["city"]


def test_a_session_that_begins_anew_is_told_from_the_one_that_was_withdrawn() -> None:
    """By its id; who knows the name alone, as a sign-in or the release before, may mean either."""
    names = [session_mark("https://idp", "s-1", each) for each in ("ses_1", "ses_2", "")]
    first, anew, unknown = (seen(HOME, NOW, session=name) for name in names)
    healed = withdraw(known(first), names[0])
    assert healed.recent == ()
    assert record(healed, first)[0] == record(healed, unknown)[0] == healed
    assert record(healed, anew)[0].recent == (anew,)
    assert withdraw(known(unknown), names[0]).recent == ()
    assert withdraw(known(anew), names[0]).recent == (anew,)
    # A sign-in and the session that it begins are one occurrence.
    assert known(unknown, first).recent == (unknown,)
    assert trust(healed, names[0]).withdrawn == ()


def test_row_16_a_what_comes_of_a_withdrawn_session_later_does_not_enter() -> None:
    """What was let pass is written behind the answer: it may come after the withdrawal."""
    baseline = known(seen(HOME, NOW, session=short("good")))
    healed = withdraw(baseline, str(short("bad")))
    assert withdraw(healed, str(short("bad"))) == healed
    late = seen(AWAY, NOW, session=short("bad"))
    assert record(healed, late) == (healed, frozenset())
    assert decode(encode(healed)).withdrawn == healed.withdrawn
    trusted = trust(healed, short("bad"))
    assert trusted == baseline
    assert [each.ip for each in record(trusted, late)[0].recent] == [HOME["ip"], AWAY["ip"]]


def test_the_newest_withdrawn_sessions_are_kept_out() -> None:
    baseline = NOTHING
    for number in range(WITHDRAWN_MAX + 1):
        baseline = withdraw(baseline, str(short(f"bad {number}")))
    assert len(baseline.withdrawn) == WITHDRAWN_MAX
    assert record(baseline, seen(HOME, NOW, session=short("bad 1")))[0] == baseline


# --- single values ------------------------------------------------------------------------------


def test_tokens_are_kept_as_short_hashes() -> None:
    assert short("token") == short("token") != short("another")
    assert len(str(short("t" * 5_000))) == 8
    assert short(None) is None
    assert short("") is None


def test_networks_are_told_apart_by_24_or_48_bits() -> None:
    assert prefix_of("192.0.2.77") == "192.0.2.0/24"
    assert prefix_of("2001:db8:1:2::1") == "2001:db8:1::/48"


def test_hours_of_the_week_begin_on_monday() -> None:
    assert hour_of_week(datetime.fromisoformat("2026-03-02T00:10:00+00:00")) == 0
    assert hour_of_week(datetime.fromisoformat("2026-03-02T00:10:00+01:00")) == 167


def test_an_occurrence_that_comes_late_stands_where_it_belongs() -> None:
    first, second, third = (seen(HOME, NOW + days(day)) for day in range(3))
    assert known(first, third, second).recent == (first, second, third)


def test_a_session_is_one_occurrence_per_day_and_place() -> None:
    one = short("one")
    often = [seen(HOME, NOW + timedelta(minutes=each), session=one) for each in range(0, 300, 60)]
    assert known(*often).events == 1
    assert known(*often, seen(HOME, NOW + days(1), session=one)).events == 2
    assert known(*often, seen(AWAY, NOW, session=one)).events == 2
    assert known(*often, seen(HOME, NOW, session=short("two"))).events == 2


def test_what_is_new_is_told() -> None:
    baseline, new = record(NOTHING, seen(HOME, NOW))
    assert ("city", "FR/FR-IDF/Paris") in new
    _, again = record(baseline, seen(HOME, NOW))
    assert again == frozenset()


# --- what holds for all baselines ---------------------------------------------------------------

TEXT = st.one_of(st.none(), st.text(max_size=20))
OCCURRENCES = st.lists(
    st.builds(
        Occurrence,
        at=st.integers(0, 10**9).map(lambda seconds: NOW + timedelta(seconds=seconds % 10**7)),
        ip=st.ip_addresses().map(str),
        asn=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
        country=TEXT,
        region=TEXT,
        city=TEXT,
        latitude=st.one_of(st.none(), st.floats(-90, 90)),
        longitude=st.one_of(st.none(), st.floats(-180, 180)),
        is_shared=st.booleans(),
        device=TEXT,
        ua=TEXT,
        app=TEXT,
        session=st.sampled_from((None, "a", "b")),
    ),
    max_size=12,
)


def flat(baseline: Baseline) -> dict[tuple[str, str], tuple[float, int, int]]:
    return {
        (name, value): (count.weight, count.day, count.days)
        for name, values in baseline.counts.items()
        for value, count in values.items()
    }


@given(OCCURRENCES)
def test_a_baseline_is_read_back_as_it_was_written(occurrences: list[Occurrence]) -> None:
    baseline = known(*occurrences)
    again = decode(encode(baseline))
    assert again.recent == baseline.recent
    assert flat(again) == {
        key: pytest.approx(count, rel=0.001) for key, count in flat(baseline).items()
    }
    assert again.events == baseline.events


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_something(body: bytes) -> None:
    assert isinstance(decode(body), Baseline)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_damaged_baseline_is_nothing_known(cut: int) -> None:
    assert decode(encode(known(seen(HOME, NOW)))[:-cut]) == NOTHING


def test_a_baseline_of_an_unknown_version_is_nothing_known() -> None:
    body = msgspec.msgpack.decode(encode(known(seen(HOME, NOW))))
    body[0] = VERSION + 1
    assert decode(msgspec.msgpack.encode(body)) == NOTHING


def test_the_first_form_is_read_too() -> None:
    """It knew no TLS fingerprints and no peers: nobody is learned anew because of an update."""
    baseline = known(seen(HOME, NOW))
    version, events, words, places, recent, counts, *_ = msgspec.msgpack.decode(encode(baseline))
    body = [version - 1, events, words, places, recent[:7], counts]
    assert decode(msgspec.msgpack.encode(body)) == decode(encode(baseline))
    # The second form once knew no sessions that were withdrawn.
    body = [version, events, words, places, recent, counts, []]
    assert decode(msgspec.msgpack.encode(body)) == decode(encode(baseline))


@given(OCCURRENCES, st.sampled_from(("a", "b")))
def test_after_withdrawal_nothing_of_the_session_is_left(
    occurrences: list[Occurrence], session: str
) -> None:
    healed = withdraw(known(*occurrences), session)
    others = known(*(each for each in occurrences if each.session != session))
    assert healed.recent == others.recent
    assert healed.events == others.events
    left = {(name, value) for name, values in healed.counts.items() for value in values}
    wanted = {(name, value) for name, values in others.counts.items() for value in values}
    assert {pair for pair in left if pair[0] != "trip"} <= wanted


def test_a_baseline_never_grows_beyond_its_bounds() -> None:
    baseline = NOTHING
    for each in range(400):
        here = Occurrence(
            at=NOW + timedelta(hours=7 * each),
            ip=f"10.{each % 250}.{each % 7}.1",
            asn=each,
            country=f"C{each}",
            region=f"C{each}-R",
            city=f"City number {each}",
            latitude=each % 90,
            longitude=each % 180,
            device=short(str(each)),
            ua=f"browser {each}",
            app=f"app_{each:026}",
            session=short(f"s{each}"),
        )
        baseline, _ = record(baseline, here)
    assert len(baseline.recent) == RECENT_MAX
    assert all(len(values) <= VALUES_MAX[name] for name, values in baseline.counts.items())
    assert len(encode(baseline)) < 48 * 1024
    ordinary = known(*(seen(HOME, NOW + days(each)) for each in range(150)))
    assert len(encode(ordinary)) < 4 * 1024


def test_every_dimension_is_bounded() -> None:
    away, home = seen(AWAY, NOW, tls="a"), seen(HOME, NOW)
    assert set(values_of(away, home)) == set(VALUES_MAX)
