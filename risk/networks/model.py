"""What is known of an address, who says it, and how several words become one. Pure.

Feeds are asked in their order; one that is stale is asked last, or not at all. What belongs
together stays together: a city is never taken from another feed than one that agrees about the
country, nor an organisation from one that names another AS.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from typing_extensions import override

from risk.networks.categories import with_groups

DAY_S: Final = 24 * 3600
#: feeds of one hub
SOURCES_MAX: Final = 16
#: the longest text that can be an address: a mapped IPv4 address in full
IP_CHARS_MAX: Final = 45
V4_BITS: Final = 32
V6_BITS: Final = 128
_MAPPED: Final = bytes(10) + b"\xff\xff"


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One field's value and whose word it is. seen_at: seconds since 1970, when it was seen so."""

    source: str
    seen_at: int
    value: Any


#: one feed's word, and whose it is
Word: TypeAlias = "tuple[Source, Said]"


class Provenance(Mapping[str, Claim]):
    """Field to the claim that was taken. Found out when somebody looks: decisions never do."""

    __slots__ = ("_claims", "_named", "_taken")

    def __init__(self, taken: Mapping[str, Word], named: Sequence[Word]) -> None:
        """taken: whose word each field is. named: who named categories, in their order."""
        self._taken = taken
        self._named = named
        self._claims: dict[str, Claim] | None = None

    @override
    def __getitem__(self, name: str) -> Claim:
        return self._found()[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    @override
    def __len__(self) -> int:
        return len(self._found())

    def _found(self) -> dict[str, Claim]:
        if self._claims is None:
            claims = {
                name: Claim(word[0].name, seen_at(word), getattr(word[1], name))
                for name, word in self._taken.items()
            }
            for word in self._named:
                for name in word[1].categories:
                    claims.setdefault(
                        f"categories.{name}", Claim(word[0].name, seen_at(word), name)
                    )
            self._claims = claims
        return self._claims


_NO_CLAIMS: Final = Provenance({}, ())


class IPRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the feeds say of an address. Unknown fields are None; `known` False: no feed covers it.

    ip: in normal form, or as it was given when it is no address. prefix: the widest network around
    the address of which the same is known. region: ISO 3166-2. categories: with the groups that
    they imply. provenance: field to the claim that was taken; a category's key is
    `categories.NAME`.
    """

    ip: str
    known: bool
    prefix: str | None = None
    asn: int | None = None
    organisation: str | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    accuracy_km: float | None = None
    categories: frozenset[str] = frozenset()
    operator: str | None = None
    provenance: Mapping[str, Claim] = msgspec.field(default_factory=lambda: _NO_CLAIMS)


#: of an address that is not looked up, or is none
NO_RECORD: Final = IPRecord(ip="", known=False)


class Said(
    msgspec.Struct, frozen=True, array_like=True, kw_only=True, omit_defaults=True, gc=False
):
    """What one feed says of a range, as it is kept: None is silence.

    categories: without implied groups, sorted. seen_at: when the feed itself saw it so.
    """

    asn: int | None = None
    organisation: str | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    accuracy_km: float | None = None
    categories: tuple[str, ...] = ()
    operator: str | None = None
    seen_at: int | None = None


#: in the order of `Said`, whose last member is about the others
_NAMES: Final = Said.__struct_fields__[:-1]
_CATEGORIES: Final = "categories"
_CATEGORICAL: Final = frozenset({_CATEGORIES, "operator"})
#: what is taken from a source only if it agrees about the AS, the country, the region
_NOTHING: Final[frozenset[str]] = frozenset()
_OF_AS: Final = frozenset({"organisation"})
_OF_COUNTRY: Final = frozenset({"region", "city", "latitude", "longitude", "accuracy_km"})
_OF_REGION: Final = frozenset({"city"})
_OF_POINT: Final = frozenset({"longitude", "accuracy_km"})
#: sets of categories that are kept with their groups
GROUPED_MAX: Final = 4_096


class StalePolicy(StrEnum):
    """What a feed's word counts once it is older than it may be."""

    LAST = "last"  # only where no fresh feed says anything
    KEEP = "keep"  # as ever
    DROP = "drop"  # nothing


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One feed as the table knows it.

    built_at: when its maker made it, seconds since 1970. stale_after_s: from when it counts as
    stale. decay_s: categories that were last seen longer ago are not claimed any more; 0: never.
    """

    name: str
    feed_id: str
    built_at: int
    prefixes: int
    stale_after_s: int = 30 * DAY_S
    stale: StalePolicy = StalePolicy.LAST
    decay_s: int = 0

    def age_s(self, now: int) -> int:
        """Return how old it is; one from the future is new. Raises nothing."""
        return max(0, now - self.built_at)

    def is_stale(self, now: int) -> bool:
        """Return whether it is older than it may be. Raises nothing."""
        return self.age_s(now) > self.stale_after_s


def asked_order(sources: Sequence[Source], now: int) -> tuple[int, ...]:
    """Return the positions of the sources in the order they are asked in. Raises nothing."""
    fresh = [at for at, each in enumerate(sources) if _counts_as_fresh(each, now)]
    late = [
        at for at, each in enumerate(sources) if at not in fresh and each.stale is StalePolicy.LAST
    ]
    return (*fresh, *late)


def _counts_as_fresh(source: Source, now: int) -> bool:
    return source.stale is StalePolicy.KEEP or not source.is_stale(now)


def merge(words: Iterable[tuple[Source, Said]], now: int) -> dict[str, Any]:
    """Return the fields of an `IPRecord` that follow from what the sources say, in their order.

    Categories add up over all sources, each as its first source claims it. Raises nothing.
    """
    fields: dict[str, Any] = {}
    taken: dict[str, Word] = {}
    named: list[Word] = []
    categories: tuple[str, ...] = ()
    for word in words:
        source, said = word
        skipped = _disagreeing(fields, said) if fields else _NOTHING
        if source.decay_s and now - seen_at(word) > source.decay_s:
            skipped |= _CATEGORICAL
        elif said.categories:
            categories += said.categories
            named.append(word)
        for name, value in zip(_NAMES, msgspec.structs.astuple(said), strict=False):
            if value is not None and name not in fields and name not in skipped:
                fields[name] = value
                taken[name] = word
    taken.pop(_CATEGORIES, None)
    fields[_CATEGORIES] = _grouped(categories)
    fields["provenance"] = Provenance(taken, named)
    return fields


def seen_at(word: Word) -> int:
    """Return when a feed saw it so, in seconds since 1970. Raises nothing."""
    source, said = word
    return source.built_at if said.seen_at is None else said.seen_at


@lru_cache(GROUPED_MAX)
def _grouped(categories: tuple[str, ...]) -> frozenset[str]:
    return with_groups(categories)


def _disagreeing(fields: Mapping[str, Any], said: Said) -> frozenset[str]:
    """Return what is not taken from a source, because what it belongs to came from another."""
    skipped = _NOTHING
    asn, country, region = fields.get("asn"), fields.get("country"), fields.get("region")
    if asn is not None and said.asn is not None and said.asn != asn:
        skipped |= _OF_AS
    if country is not None and said.country != country:
        skipped |= _OF_COUNTRY
    if region is not None and said.region is not None and said.region != region:
        skipped |= _OF_REGION
    if "latitude" in fields:
        skipped |= _OF_POINT
    return skipped


def packed(ip: str) -> bytes | None:
    """Return the 4 or 16 bytes of an address, 4 for a mapped IPv4 address; None for other text.

    Raises nothing. Far quicker than the ipaddress module, and as strict.
    """
    if len(ip) > IP_CHARS_MAX:
        return None
    try:
        if ":" not in ip:
            return socket.inet_pton(socket.AF_INET, ip)
        raw = socket.inet_pton(socket.AF_INET6, ip)
    except (OSError, ValueError):
        return None
    return raw[12:] if raw[:12] == _MAPPED else raw


def unpacked(raw: bytes) -> str:
    """Return the normal form of an address of 4 or 16 bytes. Raises nothing for these."""
    return socket.inet_ntop(socket.AF_INET if len(raw) == V4_BITS // 8 else socket.AF_INET6, raw)
