"""What a zone is, how one is read, and what it may hold. Pure.

The JSON form is that of practitioners' tools (Okta's zones API), with ours added: entries that end,
with reason and owner. Limits are those of threat model §7.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from risk.networks.categories import ALL_ANONYMIZERS, ALL_EXCEPT_TOR, KNOWN, NAME, TOR
from risk.networks.readers.text import parse_range
from runtime.errors import Invalid

#: zones of a tenant
ZONES_MAX: Final = 500
NAME_CHARS_MAX: Final = 128
#: gateways and proxies together
POLICY_ENTRIES_MAX: Final = 150
BLOCKLIST_ENTRIES_MAX: Final = 1_000
SYSTEM_ENTRIES_MAX: Final = 5_000
#: of each of asns, locations and categories, included or excluded
RULES_MAX: Final = 75
TEXT_CHARS_MAX: Final = 200
ADDRESS_CHARS_MAX: Final = 100
ASN_MAX: Final = 2**32 - 1
ID_PREFIX: Final = "zon_"

LEGACY_ID: Final = "zon_legacy_ip"
BLOCKED_ID: Final = "zon_blocked_ip"
EXEMPT_ID: Final = "zon_default_exempt"
ENHANCED_ID: Final = "zon_default_enhanced"

_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_REGION: Final = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")


class ZoneType(StrEnum):
    """How a zone says what is in it."""

    IP = "IP"
    DYNAMIC = "DYNAMIC"
    DYNAMIC_V2 = "DYNAMIC_V2"


class Usage(StrEnum):
    """What a zone is good for. BLOCKLIST refuses before anybody signs in."""

    POLICY = "POLICY"
    BLOCKLIST = "BLOCKLIST"


class Status(StrEnum):
    """Whether a zone counts."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


#: what DYNAMIC's proxyType means in categories
PROXY_TYPES: Final[Mapping[str, str | None]] = {
    "": None,
    "Any": ALL_ANONYMIZERS,
    "Tor": TOR,
    "NotTorAnonymizer": ALL_EXCEPT_TOR,
}


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address, network or range of a zone. until: when it ends by itself."""

    value: str
    until: datetime | None = None
    reason: str = ""
    owner: str = ""

    @property
    def span(self) -> tuple[int, int, bool]:
        """First and last address, and whether they are IPv6."""
        return parse_range(self.value)


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A country, or a region of it (ISO 3166-2)."""

    country: str
    region: str | None = None


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """AS numbers, places and categories; an empty list stands for all, or excludes nothing."""

    asns: tuple[int, ...] = ()
    locations: tuple[Place, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is named."""
        return not self.named()

    def named(self) -> list[str]:
        """Return which of the lists name something, as they are called in JSON."""
        members = (
            ("asns", self.asns),
            ("locations", self.locations),
            ("ipServiceCategories", self.categories),
        )
        return [name for name, values in members if values]


class Zone(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One zone. gateways, proxies: of an IP zone. include, exclude: of a dynamic one.

    proxy_type: as a DYNAMIC zone was written; its meaning is among the included categories.
    """

    zone_id: str
    name: str
    type: ZoneType
    usage: Usage = Usage.POLICY
    status: Status = Status.ACTIVE
    is_system: bool = False
    is_exempt_list: bool = False
    gateways: tuple[Entry, ...] = ()
    proxies: tuple[Entry, ...] = ()
    include: Rules = Rules()
    exclude: Rules = Rules()
    proxy_type: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether it counts."""
        return self.status is Status.ACTIVE

    def entries_max(self) -> int:
        """Return how many gateways and proxies it may hold."""
        if self.is_system:
            return SYSTEM_ENTRIES_MAX
        is_blocklist = self.usage is Usage.BLOCKLIST
        return BLOCKLIST_ENTRIES_MAX if is_blocklist else POLICY_ENTRIES_MAX


#: zones every tenant has, as they are until they are changed; never deleted
SYSTEM_ZONES: Final[tuple[Zone, ...]] = (
    Zone(
        zone_id=BLOCKED_ID,
        name="BlockedIpZone",
        type=ZoneType.IP,
        usage=Usage.BLOCKLIST,
        is_system=True,
    ),
    Zone(
        zone_id=ENHANCED_ID,
        name="DefaultEnhancedDynamicZone",
        type=ZoneType.DYNAMIC_V2,
        usage=Usage.BLOCKLIST,
        status=Status.INACTIVE,
        is_system=True,
        include=Rules(categories=(ALL_ANONYMIZERS,)),
    ),
    Zone(
        zone_id=EXEMPT_ID,
        name="DefaultExemptIpZone",
        type=ZoneType.IP,
        is_system=True,
        is_exempt_list=True,
    ),
    Zone(zone_id=LEGACY_ID, name="LegacyIpZone", type=ZoneType.IP, is_system=True),
)


def check_zone(zone: Zone) -> Zone:
    """Return the zone in normal form. Raises Invalid, with a pointer to what is wrong."""
    problems = [*_name_problems(zone)]
    if zone.type is ZoneType.IP:
        problems += _ip_problems(zone)
    else:
        zone = _with_proxy_type(zone, problems)
        problems += _dynamic_problems(zone)
    problems += _system_problems(zone)
    if problems:
        raise Invalid("The zone is not acceptable.", pointers=tuple(problems))
    return zone


_Problems = list[tuple[str, str]]


def _name_problems(zone: Zone) -> _Problems:
    if not 0 < len(zone.name) <= NAME_CHARS_MAX or not zone.name.isprintable():
        return [("/name", f"1 to {NAME_CHARS_MAX} printable characters")]
    if zone.name.startswith(ID_PREFIX):
        # Policies name zones by id or name, so a name must not look like another zone's id.
        return [("/name", f"must not begin with {ID_PREFIX}")]
    return []


def _ip_problems(zone: Zone) -> _Problems:
    problems = _ip_form_problems(zone)
    count, most = len(zone.gateways) + len(zone.proxies), zone.entries_max()
    if count > most:
        return [*problems, ("/gateways", f"at most {most} gateways and proxies, not {count}")]
    if not count and not zone.is_system:
        problems.append(("/gateways", "name at least one"))
    for name in ("gateways", "proxies"):
        entries: tuple[Entry, ...] = getattr(zone, name)
        for at, entry in enumerate(entries):
            if problem := _entry_problem(entry):
                problems.append((f"/{name}/{at}", problem))
    return problems


def _ip_form_problems(zone: Zone) -> _Problems:
    problems: _Problems = [
        (f"/{member}/{side}", "an IP zone has gateways and proxies alone")
        for side, rules in (("include", zone.include), ("exclude", zone.exclude))
        for member in rules.named()
    ]
    if zone.proxy_type is not None:
        problems.append(("/proxyType", "is for DYNAMIC zones"))
    if zone.usage is Usage.BLOCKLIST and zone.proxies:
        problems.append(("/proxies", "a blocklist has gateways alone: these are refused"))
    return problems


def _entry_problem(entry: Entry) -> str | None:
    try:
        span = entry.span if len(entry.value) <= ADDRESS_CHARS_MAX else None
    except ValueError:
        span = None
    if span is None:
        return "an address, a network such as 192.0.2.0/24, or a range such as first-last"
    if entry.until is not None and entry.until.tzinfo is None:
        return "until: RFC 3339 with its offset"
    if len(entry.reason) > TEXT_CHARS_MAX or len(entry.owner) > TEXT_CHARS_MAX:
        return f"reason and owner: at most {TEXT_CHARS_MAX} characters"
    return None


def _with_proxy_type(zone: Zone, problems: _Problems) -> Zone:
    """Return a DYNAMIC zone with the category that its proxy type stands for."""
    if zone.type is ZoneType.DYNAMIC_V2:
        if zone.proxy_type is not None:
            problems.append(("/proxyType", "is for DYNAMIC zones; use ipServiceCategories"))
        return zone
    if not zone.exclude.is_empty:
        problems.append(("/asns/exclude", "a DYNAMIC zone excludes nothing; use DYNAMIC_V2"))
    proxy_type = zone.proxy_type or ""
    if proxy_type not in PROXY_TYPES:
        known = ", ".join(name for name in PROXY_TYPES if name)
        problems.append(("/proxyType", f"one of {known}, or none"))
        return zone
    category = PROXY_TYPES[proxy_type]
    wanted = (category,) if category else ()
    if zone.include.categories not in {(), wanted}:
        problems.append(("/ipServiceCategories", "is for DYNAMIC_V2 zones; use proxyType"))
    include = msgspec.structs.replace(zone.include, categories=wanted)
    return msgspec.structs.replace(zone, include=include)


def _dynamic_problems(zone: Zone) -> _Problems:
    problems: _Problems = []
    for name in ("gateways", "proxies"):
        if getattr(zone, name):
            problems.append((f"/{name}", "is for IP zones"))
    if zone.include.is_empty and zone.exclude.is_empty:
        problems.append(("/asns/include", "name at least one AS, location or category"))
    for side in ("include", "exclude"):
        rules: Rules = getattr(zone, side)
        problems += _rules_problems(rules, side)
    return problems


def _rules_problems(rules: Rules, side: str) -> _Problems:
    problems: _Problems = []
    for name, values in (
        ("asns", rules.asns),
        ("locations", rules.locations),
        ("ipServiceCategories", rules.categories),
    ):
        if len(values) > RULES_MAX:
            problems.append((f"/{name}/{side}", f"at most {RULES_MAX}"))
    if problems:
        return problems
    problems += [
        (f"/asns/{side}/{at}", f"1 to {ASN_MAX}")
        for at, asn in enumerate(rules.asns)
        if not 0 < asn <= ASN_MAX
    ]
    problems += [
        (f"/ipServiceCategories/{side}/{at}", "an unknown category")
        for at, category in enumerate(rules.categories)
        if not _is_category(category)
    ]
    countries = {place.country for place in rules.locations if place.region is None}
    for at, place in enumerate(rules.locations):
        if not _COUNTRY.fullmatch(place.country):
            problems.append((f"/locations/{side}/{at}/country", "two letters, ISO 3166-1"))
        elif place.region is not None and not _is_region(place):
            problems.append((f"/locations/{side}/{at}/region", "ISO 3166-2, such as US-CA"))
        elif place.region is not None and place.country in countries:
            problems.append((f"/locations/{side}/{at}", "lies within a country that is named, too"))
    return problems


def _is_category(name: str) -> bool:
    is_service = name.endswith(("_VPN", "_PROXY")) and NAME.fullmatch(name) is not None
    return name in KNOWN or is_service


def _is_region(place: Place) -> bool:
    region = place.region or ""
    return _REGION.fullmatch(region) is not None and region.startswith(f"{place.country}-")


def _system_problems(zone: Zone) -> _Problems:
    """Return what may not be made of a system zone, or of another one."""
    original = next((each for each in SYSTEM_ZONES if each.zone_id == zone.zone_id), None)
    if original is None:
        if zone.name in {each.name for each in SYSTEM_ZONES}:
            return [("/name", "is a system zone's")]
        return []
    problems: _Problems = []
    for member, shown in (("name", "name"), ("type", "type"), ("usage", "usage")):
        if getattr(zone, member) != getattr(original, member):
            problems.append((f"/{shown}", "of a system zone cannot be changed"))
    if zone.is_exempt_list and zone.proxies:
        problems.append(("/proxies", "the exempt list has gateways alone"))
    is_enhanced = zone.zone_id == ENHANCED_ID
    if is_enhanced and (zone.include, zone.exclude.asns, zone.exclude.locations) != (
        original.include,
        (),
        (),
    ):
        problems.append(
            ("/ipServiceCategories/include", "all anonymizers; exclude categories from these")
        )
    return problems


def restore_zones(stored: Iterable[Zone]) -> tuple[Zone, ...]:
    """Return a tenant's zones by id, the system's among them. Raises nothing."""
    zones = {zone.zone_id: zone for zone in SYSTEM_ZONES}
    zones.update((zone.zone_id, zone) for zone in stored)
    return tuple(zones[zone_id] for zone_id in sorted(zones))


def names_in(document: Any, zone: Zone) -> bool:
    """Return whether a policy's JSON document speaks of a zone, by id or name. Raises nothing.

    Its expressions are searched for the quoted name and for the id anywhere.
    """
    if isinstance(document, str):
        quoted = (f"'{zone.name}'", f'"{zone.name}"')
        return (
            document == zone.name
            or zone.zone_id in document
            or any(each in document for each in quoted)
        )
    if isinstance(document, Mapping):
        return any(names_in(inner, zone) for inner in document.values())
    if isinstance(document, Sequence):
        return any(names_in(inner, zone) for inner in document)
    return False
