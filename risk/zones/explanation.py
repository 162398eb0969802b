"""Why an address is in a zone, or is not: one zone, rule by rule. Pure.

Written plainly and apart from the matcher, which a property test compares with this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from risk.networks.model import IPRecord, packed
from risk.zones.chain import PROXIES_MAX
from risk.zones.matcher import live_entries
from risk.zones.model import Entry, Place, Rules, Usage, Zone, ZoneType


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule and what came of it, for people."""

    rule: str
    holds: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Whether an address or chain is in a zone, and every rule that had a say."""

    is_inside: bool
    checks: tuple[Check, ...]


def explain(
    zone: Zone, hops: Sequence[str | None], record: IPRecord, *, now: datetime
) -> Explanation:
    """Explain a zone's answer to a chain in normal form, client first, without our own proxies.

    record: of the client. Whether the zone is active is left aside. Raises nothing.
    """
    if zone.type is ZoneType.IP and zone.usage is Usage.BLOCKLIST:
        return _by_any_address(zone, hops, now)
    if zone.type is ZoneType.IP:
        return _by_addresses(zone, hops, now)
    return _by_rules(zone, record)


def _by_addresses(zone: Zone, hops: Sequence[str | None], now: datetime) -> Explanation:
    checks: list[Check] = []
    for through, hop in enumerate(reversed(hops)):
        if through > PROXIES_MAX:
            checks.append(Check(rule="proxies", holds=False, why=f"more than {PROXIES_MAX}"))
            break
        if hop is None:
            checks.append(Check(rule="gateways", holds=False, why="a hop is no address"))
            break
        if gateway := _entry_around(zone.gateways, hop, now):
            why = f"{hop} is in {gateway.value}"
            return Explanation(
                is_inside=True, checks=(*checks, Check(rule="gateways", holds=True, why=why))
            )
        checks.append(Check(rule="gateways", holds=False, why=f"{hop} is in none of them"))
        proxy = _entry_around(zone.proxies, hop, now)
        if proxy is None:
            break
        checks.append(Check(rule="proxies", holds=True, why=f"{hop} is in {proxy.value}"))
    return Explanation(is_inside=False, checks=tuple(checks))


def _by_any_address(zone: Zone, hops: Sequence[str | None], now: datetime) -> Explanation:
    """A blocklist refuses whatever hop it names, wherever in the chain it is."""
    checks = []
    for hop in hops:
        entry = _entry_around(zone.gateways, hop, now) if hop else None
        why = f"{hop} is in {entry.value if entry else 'none of them'}"
        checks.append(Check(rule="gateways", holds=entry is not None, why=why))
    return Explanation(is_inside=any(check.holds for check in checks), checks=tuple(checks))


def _entry_around(entries: Sequence[Entry], hop: str, now: datetime) -> Entry | None:
    raw = packed(hop)
    if raw is None:
        return None
    address, is_v6 = int.from_bytes(raw), len(raw) > 4  # noqa: PLR2004 - bytes of IPv4
    for entry in live_entries(entries, now):
        first, last, entry_is_v6 = entry.span
        if entry_is_v6 == is_v6 and first <= address <= last:
            return entry
    return None


def _by_rules(zone: Zone, record: IPRecord) -> Explanation:
    checks = [
        check
        for side, rules in (("include", zone.include), ("exclude", zone.exclude))
        for check in _side_checks(side, rules, record)
    ]
    is_inside = all(check.holds == check.rule.startswith("include") for check in checks)
    return Explanation(is_inside=is_inside, checks=tuple(checks))


def _side_checks(side: str, rules: Rules, record: IPRecord) -> list[Check]:
    checks = []
    if rules.asns:
        holds = record.asn in rules.asns
        checks.append(Check(rule=f"{side} asns", holds=holds, why=f"its AS is {record.asn}"))
    if rules.locations:
        holds = any(_is_at(place, record) for place in rules.locations)
        why = f"it is in {record.region or record.country}"
        checks.append(Check(rule=f"{side} locations", holds=holds, why=why))
    if rules.categories:
        found = sorted(record.categories.intersection(rules.categories))
        why = f"it is {', '.join(found)}" if found else "it is none of these"
        checks.append(Check(rule=f"{side} ipServiceCategories", holds=bool(found), why=why))
    return checks


def _is_at(place: Place, record: IPRecord) -> bool:
    return record.region == place.region if place.region else record.country == place.country
