"""Behaviours: the published table of cases, and how settings are read."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.baselines.model import Baseline, Occurrence, short
from risk.behaviours.evaluation import behaviours, distance_km
from risk.behaviours.model import (
    BUILT_IN,
    Behaviour,
    BehaviourType,
    built_in,
    parse_type,
    render_settings,
    with_settings,
)
from runtime.errors import Invalid
from tests.risk.kit import NOW

DOCUMENT = Path(__file__).parents[2] / "docs" / "behaviours.md"
_MANY = re.compile(r"(?:(\d+) x )?(\w+)(?:/([\w-]+))?(?::(\w+))?(?:#(\w+))?(?: -(\d+)([mh]))?")
VALUES = {"POSITIVE", "NEGATIVE", "UNKNOWN", "BAD_REQUEST"}


def tables() -> list[list[tuple[str, ...]]]:
    """Return the tables of the document, each with its title row."""
    found: list[list[tuple[str, ...]]] = [[]]
    for line in DOCUMENT.read_text().splitlines():
        if not line.startswith("|"):
            found.append([])
        elif not line.startswith("|---"):
            found[-1].append(tuple(cell.strip() for cell in line.strip("|").split("|")))
    return [table for table in found if table]


PLACES = {row[0]: row[1:] for table in tables() if table[0][0] == "Place" for row in table[1:]}
CASES = [
    row
    for table in tables()
    if table[0] == ("Behaviour", "Before", "Now", "Value")
    for row in table[1:]
]


def occurrence(text: str, *, at: datetime) -> list[Occurrence]:
    """Return what one entry of the table stands for."""
    found = _MANY.fullmatch(text)
    assert found, text
    many, place, device, app, tls, ago, unit = found.groups()
    ip, asn, country, region, city, latitude, longitude, accuracy, shared = (
        None if cell == "-" else cell for cell in PLACES[place]
    )
    if ago:
        at = NOW - timedelta(**{{"m": "minutes", "h": "hours"}[unit]: int(ago)})
    assert ip
    seen = Occurrence(
        at=at,
        ip=ip,
        asn=int(asn) if asn else None,
        country=country,
        region=region,
        city=city,
        latitude=float(latitude) if latitude else None,
        longitude=float(longitude) if longitude else None,
        accuracy_km=float(accuracy) if accuracy else None,
        is_shared=shared == "yes",
        device=None if device == "-" else short(device or "laptop"),
        app=app,
        tls=tls,
    )
    return [seen] * int(many or 1)


def history(text: str) -> Baseline:
    entries = [] if text == "-" else text.split(", ")
    recent = [
        each
        for place, entry in enumerate(entries)
        for each in occurrence(entry, at=NOW - timedelta(days=len(entries) - place))
    ]
    return Baseline(recent=tuple(recent), events=len(recent))


@pytest.mark.parametrize(("name", "before", "now", "value"), CASES)
def test_row_20_b_the_published_case(name: str, before: str, now: str, value: str) -> None:
    (here,) = occurrence(now, at=NOW)
    assert behaviours(history(before), here, BUILT_IN)[name] == value


def test_every_built_in_behaviour_has_cases_of_every_value_it_can_have() -> None:
    told: dict[str, set[str]] = {}
    for name, _, _, value in CASES:
        told.setdefault(name, set()).add(value)
    assert set(told) == {each.name for each in BUILT_IN}
    always_told = {"New IP": {"BAD_REQUEST"}, "Unusual Hour": {"BAD_REQUEST"}}
    assert all(VALUES - values == always_told.get(name, set()) for name, values in told.items())


def test_a_behaviour_that_is_switched_off_has_no_value() -> None:
    (here,) = occurrence("Paris", at=NOW)
    off = [Behaviour(behaviour_id="bhv_x", name="X", type=BehaviourType.VELOCITY, is_active=False)]
    assert behaviours(Baseline(), here, off) == {}


def test_the_fewest_events_wanted_are_waited_for() -> None:
    (here,) = occurrence("Lyon", at=NOW)
    city = built_in("bhv_new_city")
    assert city
    patient = with_settings(city, {"minEventsNeededForEvaluation": 3})
    assert behaviours(history("2 x Paris"), here, [patient]) == {"New City": "UNKNOWN"}
    assert behaviours(history("3 x Paris"), here, [patient]) == {"New City": "POSITIVE"}


def test_no_events_at_all_may_be_looked_at_for_addresses() -> None:
    (here,) = occurrence("Paris", at=NOW)
    address = built_in("bhv_new_ip")
    assert address
    none = with_settings(address, {"maxEventsUsedForEvaluation": 0})
    assert behaviours(history("Paris"), here, [none]) == {"New IP": "UNKNOWN"}


def test_the_distance_of_known_places() -> None:
    (paris,), (new_york,) = occurrence("Paris", at=NOW), occurrence("NewYork", at=NOW)
    (nowhere,) = occurrence("Nowhere", at=NOW)
    assert distance_km(paris, new_york) == pytest.approx(5837, abs=2)
    assert distance_km(paris, paris) == distance_km(paris, nowhere) == 0.0


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
def test_no_distance_is_longer_than_half_the_earth(
    latitude: float, longitude: float, latitude_2: float, longitude_2: float
) -> None:
    one = Occurrence(at=NOW, ip="192.0.2.1", latitude=latitude, longitude=longitude)
    other = Occurrence(at=NOW, ip="192.0.2.1", latitude=latitude_2, longitude=longitude_2)
    assert 0 <= distance_km(one, other) <= 20_016
    assert distance_km(one, other) == pytest.approx(distance_km(other, one))


# --- settings -----------------------------------------------------------------------------------


def own(kind: BehaviourType) -> Behaviour:
    return Behaviour(behaviour_id="bhv_1", name="Mine", type=kind)


@pytest.mark.parametrize("behaviour", BUILT_IN)
def test_settings_are_read_as_they_are_shown(behaviour: Behaviour) -> None:
    assert with_settings(behaviour, render_settings(behaviour)) == behaviour


def test_velocity_has_its_default() -> None:
    assert with_settings(own(BehaviourType.VELOCITY), {}).velocity_kph == 805.0


@pytest.mark.parametrize(
    ("kind", "settings", "pointer"),
    [
        ("VELOCITY", {"velocityKph": 0}, "/settings/velocityKph"),
        ("VELOCITY", {"velocityKph": "fast"}, "/settings/velocityKph"),
        ("VELOCITY", {"velocityKph": float("nan")}, "/settings/velocityKph"),
        ("VELOCITY", {"maxEventsUsedForEvaluation": 5}, "/settings/maxEventsUsedForEvaluation"),
        ("VELOCITY", [], "/settings"),
        ("VELOCITY", {"x" * 500: 1}, "/settings/" + "x" * 64),
        (
            "ANOMALOUS_IP",
            {"maxEventsUsedForEvaluation": 101},
            "/settings/maxEventsUsedForEvaluation",
        ),
        (
            "ANOMALOUS_IP",
            {"maxEventsUsedForEvaluation": True},
            "/settings/maxEventsUsedForEvaluation",
        ),
        (
            "ANOMALOUS_IP",
            {"maxEventsUsedForEvaluation": 1.5},
            "/settings/maxEventsUsedForEvaluation",
        ),
        (
            "ANOMALOUS_ASN",
            {"maxEventsUsedForEvaluation": 0},
            "/settings/maxEventsUsedForEvaluation",
        ),
        (
            "ANOMALOUS_ASN",
            {"minEventsNeededForEvaluation": 11},
            "/settings/minEventsNeededForEvaluation",
        ),
        ("ANOMALOUS_ASN", {"granularity": "CITY"}, "/settings/granularity"),
        ("ANOMALOUS_LOCATION", {}, "/settings/granularity"),
        ("ANOMALOUS_LOCATION", {"granularity": "PLANET"}, "/settings/granularity"),
        ("ANOMALOUS_LOCATION", {"granularity": ["CITY"]}, "/settings/granularity"),
        ("ANOMALOUS_LOCATION", {"granularity": "LAT_LONG"}, "/settings/radiusKilometers"),
        ("ANOMALOUS_LOCATION", {"radiusKilometers": -1}, "/settings/radiusKilometers"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_their_place(
    kind: str, settings: Any, pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        with_settings(own(BehaviourType[kind]), settings)
    assert refused.value.pointers[0][0] == pointer


@pytest.mark.parametrize("text", ["NOTHING", "", None, 5, ["VELOCITY"]])
def test_an_unknown_type_is_refused(text: object) -> None:
    with pytest.raises(Invalid):
        parse_type(text)
