"""Behaviours of one occurrence against a baseline. Pure; the cases stand in docs/behaviours.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from risk.baselines.model import HOURS_PER_WEEK, Baseline, Occurrence, city_of, hour_of_week
from risk.behaviours.model import Behaviour, BehaviourType, Granularity
from risk.scoring.model import BAD_REQUEST, NEGATIVE, POSITIVE, UNKNOWN

EARTH_RADIUS_KM: Final = 6_371.0088
#: nearer than this nobody has travelled: carriers put whole regions at one place
TRAVEL_KM_MIN: Final = 100.0
HOUR_S: Final = 3_600.0
#: hours of the week before and after, that count as the same time of day
HOURS_NEAR: Final = 1


def behaviours(
    history: Baseline, here: Occurrence, settings: Iterable[Behaviour]
) -> dict[str, str]:
    """Return the value of each active behaviour, by name. Raises nothing."""
    return {each.name: value_of(history, here, each) for each in settings if each.is_active}


def value_of(history: Baseline, here: Occurrence, behaviour: Behaviour) -> str:
    """Return the value of one behaviour. Raises nothing."""
    if behaviour.type is BehaviourType.VELOCITY:
        return _velocity(history.recent, here, behaviour)
    count = behaviour.events_max
    looked_at = history.recent[-count:] if count else ()
    if behaviour.granularity is Granularity.LAT_LONG:
        return _nearness(looked_at, here, behaviour)
    if behaviour.type is BehaviourType.ANOMALOUS_HOUR:
        return _hour(looked_at, here, behaviour)
    seen = [value for each in looked_at if (value := _compared(each, behaviour)) is not None]
    value = _compared(here, behaviour)
    if value is None:
        # What the tenant's requests never say is no fault of this one.
        return BAD_REQUEST if seen else UNKNOWN
    if len(seen) < _needed(behaviour):
        return UNKNOWN
    return NEGATIVE if value in seen else POSITIVE


def _needed(behaviour: Behaviour) -> int:
    return max(1, behaviour.events_min)


def _compared(seen: Occurrence, behaviour: Behaviour) -> object:
    if behaviour.granularity is not None:
        return {
            Granularity.CITY: city_of(seen),
            Granularity.SUBDIVISION: seen.region,
            Granularity.COUNTRY: seen.country,
        }.get(behaviour.granularity)
    return {
        BehaviourType.ANOMALOUS_DEVICE: seen.device,
        BehaviourType.ANOMALOUS_ASN: seen.asn,
        BehaviourType.ANOMALOUS_TLS: seen.tls,
        BehaviourType.ANOMALOUS_APP: seen.app,
    }.get(behaviour.type, seen.ip or None)


def _nearness(looked_at: Sequence[Occurrence], here: Occurrence, behaviour: Behaviour) -> str:
    located = [each for each in looked_at if _is_located(each)]
    if not _is_located(here):
        return BAD_REQUEST if located else UNKNOWN
    if len(located) < _needed(behaviour):
        return UNKNOWN
    radius_km = behaviour.radius_km or 0.0
    is_near = any(distance_km(each, here) <= radius_km for each in located)
    return NEGATIVE if is_near else POSITIVE


def _hour(looked_at: Sequence[Occurrence], here: Occurrence, behaviour: Behaviour) -> str:
    if len(looked_at) < _needed(behaviour):
        return UNKNOWN
    now = hour_of_week(here.at)
    near = {(now + hours) % HOURS_PER_WEEK for hours in range(-HOURS_NEAR, HOURS_NEAR + 1)}
    is_usual = any(hour_of_week(each.at) in near for each in looked_at)
    return NEGATIVE if is_usual else POSITIVE


def _velocity(recent: Sequence[Occurrence], here: Occurrence, behaviour: Behaviour) -> str:
    """Compare with the last occurrence whose place is the user's own.

    A relay, a VPN or a data centre is somewhere else than its user: neither end may be one.
    """
    before = next(
        (each for each in reversed(recent) if _is_located(each) and not each.is_shared), None
    )
    if not _is_located(here):
        return BAD_REQUEST if before else UNKNOWN
    if before is None or here.is_shared:
        return UNKNOWN
    blurred_km = (before.accuracy_km or 0.0) + (here.accuracy_km or 0.0)
    travelled_km = distance_km(before, here) - blurred_km
    if travelled_km < TRAVEL_KM_MIN:
        return NEGATIVE
    took_h = (here.at - before.at).total_seconds() / HOUR_S
    if took_h <= 0:
        return POSITIVE  # in two places at once
    return POSITIVE if travelled_km / took_h > (behaviour.velocity_kph or 0.0) else NEGATIVE


def _is_located(seen: Occurrence) -> bool:
    return seen.latitude is not None and seen.longitude is not None


def distance_km(one: Occurrence, other: Occurrence) -> float:
    """Return the distance along the earth's surface; 0 when either place is not known.

    The haversine formula. Raises nothing.
    """
    if (
        one.latitude is None
        or one.longitude is None
        or other.latitude is None
        or other.longitude is None
    ):
        return 0.0
    first, second = math.radians(one.latitude), math.radians(other.latitude)
    half_latitude = (second - first) / 2
    half_longitude = math.radians(other.longitude - one.longitude) / 2
    chord = (
        math.sin(half_latitude) ** 2
        + math.cos(first) * math.cos(second) * math.sin(half_longitude) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(chord)))
