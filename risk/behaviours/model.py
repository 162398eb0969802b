"""What a behaviour is, how one is read from JSON, and those every tenant has. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from runtime.errors import Invalid

NAME_CHARS_MAX: Final = 128
#: behaviours of one tenant, the built-in ones included
BEHAVIOURS_MAX: Final = 50
EVENTS_MAX: Final = 100
EVENTS_MIN_MAX: Final = 10
RADIUS_KM_MAX: Final = 20_038.0
VELOCITY_KPH: Final = 805.0
VELOCITY_KPH_MAX: Final = 100_000.0
EVENTS_DEFAULT: Final = 20
EVENTS_IP_DEFAULT: Final = 50


class BehaviourType(StrEnum):
    """What is compared."""

    ANOMALOUS_LOCATION = "ANOMALOUS_LOCATION"
    ANOMALOUS_DEVICE = "ANOMALOUS_DEVICE"
    ANOMALOUS_IP = "ANOMALOUS_IP"
    ANOMALOUS_ASN = "ANOMALOUS_ASN"
    VELOCITY = "VELOCITY"
    #: three of ours
    ANOMALOUS_TLS = "ANOMALOUS_TLS"
    ANOMALOUS_APP = "ANOMALOUS_APP"
    ANOMALOUS_HOUR = "ANOMALOUS_HOUR"


class Granularity(StrEnum):
    """How finely places are told apart."""

    CITY = "CITY"
    SUBDIVISION = "SUBDIVISION"
    COUNTRY = "COUNTRY"
    LAT_LONG = "LAT_LONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One question.

    events_max: good occurrences that are looked at; events_min: needed for an answer. radius_km:
    of LAT_LONG; velocity_kph: of VELOCITY.
    """

    behaviour_id: str
    name: str
    type: BehaviourType
    is_active: bool = True
    events_max: int = EVENTS_DEFAULT
    events_min: int = 0
    granularity: Granularity | None = None
    radius_km: float | None = None
    velocity_kph: float | None = None
    is_built_in: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBehaviour:
    """A behaviour of a tenant; the times are None for a built-in one that nobody changed."""

    behaviour: Behaviour
    created_at: datetime | None = None
    updated_at: datetime | None = None


def _built_in(slug: str, name: str, kind: BehaviourType, **more: Any) -> Behaviour:
    return Behaviour(behaviour_id=f"bhv_{slug}", name=name, type=kind, is_built_in=True, **more)


_LOCATION: Final = BehaviourType.ANOMALOUS_LOCATION

#: what every tenant has; the defaults are those practitioners know (threat model §3.1)
BUILT_IN: Final = (
    _built_in("new_city", "New City", _LOCATION, granularity=Granularity.CITY, events_max=20),
    _built_in(
        "new_state", "New State", _LOCATION, granularity=Granularity.SUBDIVISION, events_max=15
    ),
    _built_in(
        "new_country", "New Country", _LOCATION, granularity=Granularity.COUNTRY, events_max=10
    ),
    _built_in(
        "new_geo_location",
        "New Geo-Location",
        _LOCATION,
        granularity=Granularity.LAT_LONG,
        events_max=20,
        radius_km=20.0,
    ),
    _built_in("new_device", "New Device", BehaviourType.ANOMALOUS_DEVICE, events_max=20),
    _built_in("new_ip", "New IP", BehaviourType.ANOMALOUS_IP, events_max=EVENTS_IP_DEFAULT),
    _built_in("new_asn", "New ASN", BehaviourType.ANOMALOUS_ASN, events_max=20),
    _built_in("velocity", "Velocity", BehaviourType.VELOCITY, velocity_kph=VELOCITY_KPH),
    _built_in(
        "new_tls_fingerprint",
        "New TLS Fingerprint",
        BehaviourType.ANOMALOUS_TLS,
        events_max=20,
    ),
    _built_in("new_app", "New App", BehaviourType.ANOMALOUS_APP, events_max=EVENTS_MAX),
    _built_in(
        "unusual_hour",
        "Unusual Hour",
        BehaviourType.ANOMALOUS_HOUR,
        events_max=EVENTS_MAX,
        events_min=EVENTS_MIN_MAX,
    ),
)
_BUILT_IN_BY_ID: Final = MappingProxyType({each.behaviour_id: each for each in BUILT_IN})


def built_in(behaviour_id: str) -> Behaviour | None:
    """Return the built-in behaviour of that id as it is shipped, None for another."""
    return _BUILT_IN_BY_ID.get(behaviour_id)


#: member of the JSON settings to (field, lowest, highest, whole)
_NUMBERS: Final[Mapping[str, tuple[str, float, float, type]]] = MappingProxyType(
    {
        "maxEventsUsedForEvaluation": ("events_max", 0, EVENTS_MAX, int),
        "minEventsNeededForEvaluation": ("events_min", 0, EVENTS_MIN_MAX, int),
        "radiusKilometers": ("radius_km", 0, RADIUS_KM_MAX, float),
        "velocityKph": ("velocity_kph", 1, VELOCITY_KPH_MAX, float),
    }
)


def parse_type(text: object) -> BehaviourType:
    """Read the type of a behaviour. Raises Invalid."""
    if isinstance(text, str) and text in BehaviourType.__members__:
        return BehaviourType[text]
    raise _invalid("/type", f"one of {', '.join(BehaviourType)}")


def with_settings(behaviour: Behaviour, settings: object) -> Behaviour:
    """Return the behaviour with the settings of a JSON document; what it leaves out stays.

    settings: `{maxEventsUsedForEvaluation?, minEventsNeededForEvaluation?, granularity?,
    radiusKilometers?, velocityKph?}`, as far as the type has them. Raises Invalid with pointers.
    """
    if not isinstance(settings, dict):
        raise _invalid("/settings", "an object")
    changes: dict[str, Any] = {}
    wanted = _settings_of(behaviour.type)
    for name, value in settings.items():
        at = f"/settings/{str(name)[:64]}"
        if name not in wanted:
            raise _invalid(at, f"one of {', '.join(sorted(wanted))}")
        if name == "granularity":
            if not isinstance(value, str) or value not in Granularity.__members__:
                raise _invalid(at, f"one of {', '.join(Granularity)}")
            changes["granularity"] = Granularity[value]
            continue
        field, low, high, kind = _NUMBERS[name]
        if name == "maxEventsUsedForEvaluation":
            low = 0 if behaviour.type is BehaviourType.ANOMALOUS_IP else 1
        changes[field] = _number(value, at, (low, high, kind))
    changed = replace(behaviour, **changes)
    return _check(changed)


def _settings_of(kind: BehaviourType) -> frozenset[str]:
    if kind is BehaviourType.VELOCITY:
        return frozenset({"velocityKph"})
    events = {"maxEventsUsedForEvaluation", "minEventsNeededForEvaluation"}
    if kind is BehaviourType.ANOMALOUS_LOCATION:
        return frozenset(events | {"granularity", "radiusKilometers"})
    return frozenset(events)


def _number(value: object, at: str, limits: tuple[float, float, type]) -> float:
    low, high, kind = limits
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (kind is int and not isinstance(value, int)):
        raise _invalid(at, "a whole number" if kind is int else "a number")
    if not low <= value <= high:  # type: ignore[operator]  # a number by now
        raise _invalid(at, f"{low:g} to {high:g}")
    return kind(value)  # type: ignore[no-any-return]  # int or float


def _check(behaviour: Behaviour) -> Behaviour:
    """Return a behaviour that makes sense, its defaults filled in. Raises Invalid."""
    if behaviour.type is BehaviourType.VELOCITY:
        return replace(behaviour, velocity_kph=behaviour.velocity_kph or VELOCITY_KPH)
    if behaviour.type is not BehaviourType.ANOMALOUS_LOCATION:
        return behaviour
    if behaviour.granularity is None:
        raise _invalid("/settings/granularity", f"one of {', '.join(Granularity)}")
    if behaviour.granularity is Granularity.LAT_LONG and behaviour.radius_km is None:
        raise _invalid("/settings/radiusKilometers", "a number, with granularity LAT_LONG")
    return behaviour


def render_settings(behaviour: Behaviour) -> dict[str, Any]:
    """Return the settings as JSON. Raises nothing."""
    wanted = _settings_of(behaviour.type)
    shown: dict[str, Any] = {
        name: getattr(behaviour, field)
        for name, (field, *_) in _NUMBERS.items()
        if name in wanted and getattr(behaviour, field) is not None
    }
    if behaviour.granularity is not None:
        shown["granularity"] = behaviour.granularity.value
    return shown


def _invalid(at: str, wanted: str) -> Invalid:
    return Invalid("The behaviour is not acceptable.", pointers=((at, wanted),))
