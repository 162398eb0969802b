"""What the members of vendors' records mean. Pure.

Three families, told apart by their members: nested as MaxMind and DB-IP write them, nested as Spur
does, flat as IPinfo and most CSV files are. What is not understood is left out; nothing is guessed.
Source: the vendors' documentation as summed up in docs/networks.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from risk.networks import categories as c
from risk.networks.model import Said

TEXT_CHARS_MAX: Final = 200
ASN_MAX: Final = 2**32 - 1
COUNTRY_CHARS: Final = 2
REGION_CHARS_MAX: Final = 3
LATITUDE_MAX: Final = 90.0
LONGITUDE_MAX: Final = 180.0
#: half the way around the earth
ACCURACY_KM_MAX: Final = 20_040.0
NAMES_PER_RECORD_MAX: Final = 64
_TRUE: Final = frozenset({"true", "1", "t", "yes", "y"})

_FLAGS: Final = {
    "is_anonymous_vpn": c.VPN,
    "is_hosting_provider": c.HOSTING,
    "is_public_proxy": c.PROXY,
    "is_residential_proxy": c.RESIDENTIAL_PROXY,
    "is_tor_exit_node": c.TOR,
    "vpn": c.VPN,
    "proxy": c.PROXY,
    "tor": c.TOR,
    "relay": c.PRIVACY_RELAY,
    "hosting": c.HOSTING,
    "is_vpn": c.VPN,
    "is_proxy": c.PROXY,
    "is_tor": c.TOR,
    "is_relay": c.PRIVACY_RELAY,
    "is_hosting": c.HOSTING,
    "is_mobile": c.MOBILE,
    "is_satellite": c.SATELLITE,
    "is_res_proxy": c.RESIDENTIAL_PROXY,
}
#: what kind of user or line it is, in the words of several vendors, lower case
_USES: Final = {
    "hosting": c.HOSTING,
    "datacenter": c.HOSTING,
    "dch": c.HOSTING,
    "content_delivery_network": c.CDN,
    "cdn": c.CDN,
    "cellular": c.MOBILE,
    "mobile": c.MOBILE,
    "mob": c.MOBILE,
    "satellite": c.SATELLITE,
    "college": c.EDUCATION,
    "school": c.EDUCATION,
    "library": c.EDUCATION,
    "education": c.EDUCATION,
    "edu": c.EDUCATION,
    "search_engine_spider": c.CRAWLER,
    "ses": c.CRAWLER,
}
#: Source: IP2Proxy, proxy types
IP2PROXY_TYPES: Final = {
    "VPN": c.VPN,
    "TOR": c.TOR,
    "PUB": c.PROXY,
    "WEB": c.PROXY,
    "DCH": c.HOSTING,
    "SES": c.CRAWLER,
    "RES": c.RESIDENTIAL_PROXY,
    "CPN": c.PRIVACY_RELAY,
    "EPN": c.ENTERPRISE_VPN,
}


def said_of(document: Mapping[str, Any], extra: Iterable[str] = ()) -> Said:
    """Return what a vendor's record says. extra: categories that its feed stands for.

    Raises nothing: members of wrong types are left out.
    """
    if isinstance(document.get("as"), Mapping) or "tunnels" in document or "client" in document:
        return _spur(document, extra)
    if any(isinstance(document.get(name), Mapping) for name in ("country", "location", "traits")):
        return _maxmind(document, extra)
    return _flat(document, extra)


def _maxmind(document: Mapping[str, Any], extra: Iterable[str]) -> Said:
    traits = {**document, **_object(document, "traits")}
    location = _object(document, "location")
    country = country_of(_object(document, "country").get("iso_code"))
    divisions = document.get("subdivisions")
    division = divisions[0] if isinstance(divisions, list) and divisions else {}
    code = division.get("iso_code") if isinstance(division, Mapping) else None
    latitude, longitude = place_of(location.get("latitude"), location.get("longitude"))
    names, operator = _claims(traits, extra)
    return Said(
        asn=asn_of(traits.get("autonomous_system_number")),
        organisation=text_of(traits.get("autonomous_system_organization")),
        country=country,
        region=region_of(code, country),
        city=text_of(_object(_object(document, "city"), "names").get("en")),
        latitude=latitude,
        longitude=longitude,
        accuracy_km=accuracy_of(location.get("accuracy_radius")),
        categories=names,
        operator=operator,
        seen_at=moment_of(traits.get("network_last_seen")),
    )


def _flat(document: Mapping[str, Any], extra: Iterable[str]) -> Said:
    country = country_of(document.get("country_code")) or country_of(document.get("country"))
    latitude, longitude = place_of(
        document.get("latitude", document.get("lat")),
        document.get("longitude", document.get("lng")),
    )
    names, operator = _claims(document, extra)
    return Said(
        asn=asn_of(document.get("asn", document.get("autonomous_system_number"))),
        organisation=text_of(
            document.get("as_name")
            or document.get("autonomous_system_organization")
            or document.get("organization")
        ),
        country=country,
        region=region_of(document.get("region_code") or document.get("region"), country),
        city=text_of(document.get("city")),
        latitude=latitude,
        longitude=longitude,
        accuracy_km=accuracy_of(document.get("radius", document.get("accuracy_radius"))),
        categories=names,
        operator=operator,
        seen_at=moment_of(document.get("last_seen", document.get("network_last_seen"))),
    )


def _spur(document: Mapping[str, Any], extra: Iterable[str]) -> Said:
    system, place = _object(document, "as"), _object(document, "location")
    client = _object(document, "client")
    names, operator = set(extra), None
    for tunnel in _objects(document.get("tunnels")):
        kind = c.PROXY if tunnel.get("type") == "PROXY" else c.VPN
        named = c.service(text_of(tunnel.get("operator")) or "", kind)
        names.add(c.TOR if tunnel.get("type") == "TOR" else named or kind)
        operator = operator or named
    for name in _texts(client.get("proxies")):
        names.add(c.service(name, c.PROXY) or c.PROXY)
    if "CALLBACK_PROXY" in _texts(document.get("risks")):
        names.add(c.RESIDENTIAL_PROXY)
    for use in (document.get("infrastructure"), *_texts(client.get("types"))):
        names.update(_use(use))
    country = country_of(place.get("country"))
    return Said(
        asn=asn_of(system.get("number")),
        organisation=text_of(system.get("organization")),
        country=country,
        region=region_of(place.get("state"), country),
        city=text_of(place.get("city")),
        categories=_sorted(names),
        operator=operator,
        seen_at=moment_of(document.get("last_seen")),
    )


def _claims(
    document: Mapping[str, Any], extra: Iterable[str]
) -> tuple[tuple[str, ...], str | None]:
    """Return the categories of flat members, and the operator, where one is named."""
    names = set(extra)
    names.update(category for flag, category in _FLAGS.items() if _is_true(document.get(flag)))
    for member in ("user_type", "connection_type", "usage_type", "as_type", "type"):
        names.update(_use(document.get(member)))
    provider = text_of(document.get("provider_name") or document.get("service"))
    operator = None
    if provider and names & {c.VPN, c.PROXY, c.RESIDENTIAL_PROXY, c.PRIVACY_RELAY}:
        operator = c.service(provider, c.VPN if c.VPN in names else c.PROXY)
        names.update({operator} if operator else ())
    if _is_true(document.get("is_anonymous")) and not names - set(extra):
        names.add(c.ALL_ANONYMIZERS)
    return _sorted(names), operator


def ip2proxy(
    kind: str, provider: str, usage: str, extra: Iterable[str]
) -> tuple[tuple[str, ...], str | None]:
    """Return the categories and the operator of a line of IP2Proxy. Raises nothing."""
    names, operator = set(extra), None
    for each in kind.split("/"):
        if category := IP2PROXY_TYPES.get(each):
            names.add(category)
    for each in usage.split("/"):
        names.update(_use(each))
    if provider not in {"", "-"} and kind in {"VPN", "PUB", "WEB", "RES", "CPN"}:
        operator = c.service(provider, c.VPN if kind == "VPN" else c.PROXY)
        names.update({operator} if operator else ())
    return _sorted(names), operator


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names)[:NAMES_PER_RECORD_MAX])


def _use(value: object) -> tuple[str, ...]:
    found = _USES.get(value.strip().lower().replace(" ", "_")) if isinstance(value, str) else None
    return (found,) if found else ()


def _is_true(value: object) -> bool:
    return value is True or value == 1 or (isinstance(value, str) and value.lower() in _TRUE)


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    found = value[:NAMES_PER_RECORD_MAX] if isinstance(value, list) else []
    return [each for each in found if isinstance(each, Mapping)]


def _texts(value: object) -> list[str]:
    found = value[:NAMES_PER_RECORD_MAX] if isinstance(value, list) else []
    return [each for each in found if isinstance(each, str)]


def text_of(value: object) -> str | None:
    """Return a text that can be shown, cut to its limit; None for anything else."""
    if not isinstance(value, str):
        return None
    text = " ".join(value.split())[:TEXT_CHARS_MAX]
    return text if text and text != "-" and text.isprintable() else None


def asn_of(value: object) -> int | None:
    """Return the number of an AS, written as number, digits or `AS…`; None for anything else."""
    if isinstance(value, str):
        digits = value.strip().upper().removeprefix("AS")
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 11 else None  # noqa: PLR2004
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and isinstance(value, int) and 0 < value <= ASN_MAX else None


def country_of(value: object) -> str | None:
    """Return a country's two letters; None for anything else."""
    if isinstance(value, str) and len(value) == COUNTRY_CHARS and value.isascii():
        return value.upper() if value.isalpha() else None
    return None


def region_of(value: object, country: str | None) -> str | None:
    """Return ISO 3166-2 of a code with or without its country; None for names and the rest."""
    if not isinstance(value, str) or country is None:
        return None
    code = value.upper().removeprefix(f"{country}-")
    is_code = 0 < len(code) <= REGION_CHARS_MAX and code.isascii() and code.isalnum()
    return f"{country}-{code}" if is_code else None


def place_of(latitude: object, longitude: object) -> tuple[float | None, float | None]:
    """Return a place on the earth, or nothing of it when either half is unusable."""
    found = _number(latitude, LATITUDE_MAX), _number(longitude, LONGITUDE_MAX)
    return (None, None) if None in found else found


def accuracy_of(value: object) -> float | None:
    """Return an accuracy in kilometres; None for anything else."""
    found = _number(value, ACCURACY_KM_MAX)
    return found if found is not None and found >= 0 else None


def _number(value: object, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    # What is no number fails the comparison too.
    return number if -most <= number <= most else None


def moment_of(value: object) -> int | None:
    """Return seconds since 1970 of a date or time in ISO 8601; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return max(0, int(moment.timestamp()))
    except OverflowError:
        return None
