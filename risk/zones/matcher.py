"""All zones of a tenant at once: each is a bit, and an address or a record a set of them. Pure.

Lists of addresses become ranges that do not overlap, each with the zones it is a gateway or a
proxy of; rules become tables from AS, place and category to zones. A match is a bisection and a
few operations on sets of bits, however many zones there are. `explanation` does the same one zone
at a time, plainly; a property test holds the two together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from risk.networks.model import V4_BITS, IPRecord, packed
from risk.zones.chain import PROXIES_MAX
from risk.zones.model import Entry, Rules, Usage, Zone, ZoneType

#: answers kept as sets of names; a tenant's requests come from few places
NAMED_MAX: Final = 1_024
NOWHERE: Final = (0, 0)


class CompiledZones:
    """The active zones of a tenant as of `now`; immutable.

    valid_until: when an entry ends and this no longer holds; None when none does.
    """

    def __init__(self, zones: Iterable[Zone], now: datetime) -> None:
        self.zones = tuple(zone for zone in zones if zone.is_active)
        self.blocklists = self._mask(lambda zone: zone.usage is Usage.BLOCKLIST)
        self.exempt = self._mask(lambda zone: zone.is_exempt_list)
        self._dynamic = _Rules(self.zones)
        self.has_dynamic_blocklists = bool(self._dynamic.all & self.blocklists)
        ends = [
            entry.until
            for zone in self.zones
            for entry in (*zone.gateways, *zone.proxies)
            if entry.until is not None and entry.until > now
        ]
        self.valid_until = min(ends, default=None)
        spans = list(_spans(self.zones, now))
        self._v4 = _Addresses([span for span in spans if not span.is_v6])
        self._v6 = _Addresses([span for span in spans if span.is_v6])
        self.names_of = lru_cache(NAMED_MAX)(self._names_of)

    def at(self, ip: str) -> tuple[int, int]:
        """Return the zones that an address is a gateway of, and a proxy of. Raises nothing."""
        raw = packed(ip)
        if raw is None:
            return NOWHERE
        part = self._v4 if len(raw) * 8 == V4_BITS else self._v6
        return part.at(int.from_bytes(raw))

    def matching(self, record: IPRecord) -> int:
        """Return the dynamic zones that a record is in. Raises nothing."""
        return self._dynamic.matching(record)

    def inside(self, hops: Sequence[str | None]) -> int:
        """Return the IP zones that a chain, client first, is inside of. Raises nothing.

        From our side: a gateway of a zone is inside of it; a proxy of the same zone is looked
        through, at most five of them. Source: threat model §7.1.
        """
        inside, open_to = 0, -1
        for hop in reversed(hops[-(PROXIES_MAX + 1) :]):
            if hop is None or not open_to:
                break
            gateways, proxies = self.at(hop)
            inside |= gateways & open_to
            open_to &= proxies & ~inside
        return inside & ~self.blocklists

    def first_of(self, mask: int) -> Zone:
        """Return one of at least one zones: the first by id."""
        return self.zones[(mask & -mask).bit_length() - 1]

    def _names_of(self, mask: int) -> frozenset[str]:
        """Return the ids and names of zones."""
        found: set[str] = set()
        while mask:
            zone = self.first_of(mask)
            found |= {zone.zone_id, zone.name}
            mask &= mask - 1
        return frozenset(found)

    def _mask(self, wanted: Callable[[Zone], bool]) -> int:
        return sum(1 << bit for bit, zone in enumerate(self.zones) if wanted(zone))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    first: int
    last: int
    is_v6: bool
    bit: int
    is_proxy: bool


def _spans(zones: Sequence[Zone], now: datetime) -> Iterator[_Span]:
    for bit, zone in enumerate(zones):
        for entries, is_proxy in ((zone.gateways, False), (zone.proxies, True)):
            for entry in live_entries(entries, now):
                first, last, is_v6 = entry.span
                yield _Span(first=first, last=last, is_v6=is_v6, bit=bit, is_proxy=is_proxy)


def live_entries(entries: Iterable[Entry], now: datetime) -> Iterator[Entry]:
    """Yield the entries that have not ended. Raises nothing."""
    return (entry for entry in entries if entry.until is None or entry.until > now)


class _Addresses:
    """Ranges of one family that do not overlap, each with its zones."""

    def __init__(self, spans: Iterable[_Span]) -> None:
        changes: dict[int, list[tuple[int, bool, int]]] = {}
        for span in spans:
            changes.setdefault(span.first, []).append((span.bit, span.is_proxy, 1))
            changes.setdefault(span.last + 1, []).append((span.bit, span.is_proxy, -1))
        self._starts = sorted(changes)
        self._masks: list[tuple[int, int]] = []
        held: Counter[tuple[int, bool]] = Counter()
        masks = [0, 0]
        for start in self._starts:
            for bit, is_proxy, step in changes[start]:
                held[bit, is_proxy] += step
            for bit, is_proxy, _ in changes[start]:
                if held[bit, is_proxy]:
                    masks[is_proxy] |= 1 << bit
                else:
                    masks[is_proxy] &= ~(1 << bit)
            self._masks.append((masks[0], masks[1]))

    def at(self, address: int) -> tuple[int, int]:
        at = bisect_right(self._starts, address) - 1
        return self._masks[at] if at >= 0 else NOWHERE


class _Rules:
    """The rules of all dynamic zones, as tables from a value to zones."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        dynamic = [
            (1 << bit, zone) for bit, zone in enumerate(zones) if zone.type is not ZoneType.IP
        ]
        self.all = sum(bit for bit, _ in dynamic)
        self._include = _Side((bit, zone.include) for bit, zone in dynamic)
        self._exclude = _Side((bit, zone.exclude) for bit, zone in dynamic)

    def matching(self, record: IPRecord) -> int:
        if not self.all:
            return 0
        asns, places, categories = self._include.of(record)
        unasked = self._include.silent
        included = (asns | unasked[0]) & (places | unasked[1]) & (categories | unasked[2])
        asns, places, categories = self._exclude.of(record)
        return self.all & included & ~(asns | places | categories)


class _Side:
    """What zones include, or exclude. silent: those that name no AS, no place, no category."""

    def __init__(self, rules: Iterable[tuple[int, Rules]]) -> None:
        self._asns: Counter[int] = Counter()
        self._places: Counter[str] = Counter()
        self._categories: Counter[str] = Counter()
        no_asn = no_place = no_category = 0
        for bit, rule in rules:
            no_asn |= 0 if rule.asns else bit
            no_place |= 0 if rule.locations else bit
            no_category |= 0 if rule.categories else bit
            for asn in rule.asns:
                self._asns[asn] |= bit
            for place in rule.locations:
                self._places[place.region or place.country] |= bit
            for category in rule.categories:
                self._categories[category] |= bit
        self.silent = (no_asn, no_place, no_category)

    def of(self, record: IPRecord) -> tuple[int, int, int]:
        categories = 0
        for name in record.categories:
            categories |= self._categories.get(name, 0)
        places = self._places.get(record.country or "", 0)
        if record.region:
            places |= self._places.get(record.region, 0)
        return self._asns.get(record.asn or 0, 0), places, categories
