"""A baseline: the last good occurrences of a user, and counts of them that fade. Pure rules.

Counts fade by forward decay: an occurrence at time t adds 2^(t/H), and a reading at time t divides
by 2^(t/H): one number per value, no sweeps. A value counts once per day, so that many sign-ins of
one evening make nothing familiar.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import msgspec

#: occurrences kept of a user: as many as a behaviour may look back (threat model §3.1)
RECENT_MAX: Final = 100
#: good sign-ins before a user is known
EVENTS_MIN: Final = 5
HALF_LIFE_DAYS: Final = 45.0
#: familiar: seen on that many days, and not too long ago
FAMILIAR_DAYS: Final = 3
FAMILIAR_WEIGHT_MIN: Final = 0.5
#: days are counted from here; the weights of a century fit a float
_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
DAY_S: Final = 86_400
HOURS_PER_WEEK: Final = 168
#: groups of a user that count as peers, by name
PEER_GROUPS_MAX: Final = 8
#: sessions of a user that are kept out, the newest
WITHDRAWN_MAX: Final = 64

#: in the mark of a session: between what its name and what its id makes
_OF_ID: Final = "."
#: 24 bits: sessions that begin anew under one name are few
_ID_CHARS: Final = 4
#: dimension to the values kept of a user; the weakest go first
VALUES_MAX: Final[Mapping[str, int]] = MappingProxyType(
    {
        "country": 32,
        "region": 32,
        "city": 64,
        "asn": 32,
        "prefix": 64,
        "trip": 64,
        "device": 32,
        "tls": 16,
        "ua": 16,
        "app": 64,
        "hour": HOURS_PER_WEEK,
    }
)


class Occurrence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One sign-in or context of a user, as far as a baseline is concerned with it.

    region: ISO 3166-2. is_shared: the address is a relay, a VPN or a data centre, so that its
    place is not the user's. device, session: short hashes (`short`), never the tokens themselves.
    tls: what of the client's JA4 outlives its updates (`contexts.model.ciphers_of`).
    """

    at: datetime
    ip: str
    asn: int | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    accuracy_km: float | None = None
    is_shared: bool = False
    device: str | None = None
    ua: str | None = None
    app: str | None = None
    session: str | None = None
    tls: str | None = None


class Count(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How often a value was seen. weight: see the module; day: of the last time; days: in all."""

    weight: float
    day: int
    days: int


Counts = Mapping[str, Mapping[str, Count]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What is known-good of one user. recent: oldest first. events: good sign-ins in all.

    peers: marks of the groups whose counts this user is part of (`peer_marks`). withdrawn: short
    hashes of sessions that were not the user's, the newest last: nothing of them enters any more.
    """

    recent: tuple[Occurrence, ...] = ()
    counts: Counts = field(default_factory=dict)
    events: int = 0
    peers: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()

    @property
    def is_learning(self) -> bool:
        """Whether too little is known of the user to speak of novelty."""
        return self.events < EVENTS_MIN


NOTHING: Final = Baseline()


def short(text: str | None) -> str | None:
    """Return a short hash of a token or id, None for none. Raises nothing.

    48 bits: equal hashes of different tokens of one user do not happen, and nothing leads back.
    """
    if not text:
        return None
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()


def session_mark(iss: str, sid: str, session_id: str = "") -> str:
    """Return how a baseline names a session: a short hash of its name, then one of its id.

    session_id: of which there is another one whenever a session begins anew under its name; ""
    where it is not known, as at a sign-in: that is any of the name. Raises nothing.
    """
    name, of_id = short(f"{iss}\n{sid}") or "", (short(session_id) or "")[:_ID_CHARS]
    return f"{name}{_OF_ID}{of_id}" if of_id else name


def _is_of(session: str | None, mark: str) -> bool:
    """Return whether two marks are of one session, as far as both know it by its id."""
    if session is None or session == mark:
        return session == mark
    name, _, of_id = session.partition(_OF_ID)
    other_name, _, other_id = mark.partition(_OF_ID)
    return name == other_name and not (of_id and other_id)


def peer_marks(groups: Iterable[str]) -> frozenset[str]:
    """Return the marks of a user's groups, a few of them where there are many. Raises nothing."""
    return frozenset(mark for each in sorted(groups)[:PEER_GROUPS_MAX] if (mark := short(each)))


def prefix_of(ip: str) -> str:
    """Return the /24 or /48 that an address is in. Raises ValueError for what is no address."""
    address = ipaddress.ip_address(ip)
    bits = 24 if address.version == 4 else 48  # noqa: PLR2004 - the version of IP
    return str(ipaddress.ip_network((address, bits), strict=False))


def city_of(seen: Occurrence) -> str | None:
    """Return a name of the city that no other city has, None when it is not known."""
    return f"{seen.country}/{seen.region or ''}/{seen.city}" if seen.city else None


def values_of(seen: Occurrence, before: Occurrence | None) -> dict[str, str]:
    """Return what is seen, by dimension; what is not known is left out.

    before: the occurrence before this one, for the trip between them. Raises ValueError for what
    is no address.
    """
    city = city_of(seen)
    came_from = city_of(before) if before else None
    values = {
        "country": seen.country,
        "region": seen.region,
        "city": city,
        "asn": None if seen.asn is None else str(seen.asn),
        "prefix": prefix_of(seen.ip) if seen.ip else None,
        "trip": f"{came_from}>{city}" if city and came_from and came_from != city else None,
        "device": seen.device,
        "tls": seen.tls,
        "ua": seen.ua,
        "app": seen.app,
        "hour": str(hour_of_week(seen.at)),
    }
    return {name: value for name, value in values.items() if value}


def hour_of_week(at: datetime) -> int:
    """Return the hour of the week in UTC, Monday 0:00 is 0."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.weekday() * 24 + utc.hour


def record(known: Baseline, seen: Occurrence) -> tuple[Baseline, frozenset[tuple[str, str]]]:
    """Return the baseline with one more good occurrence, and what was never seen before.

    An occurrence that comes late is put where it belongs. A session that is asked about all day is
    one occurrence per day, address and device, however often it is recorded. Of a session that was
    withdrawn nothing is recorded. Raises ValueError for what is no address.
    """
    if seen.session is not None and (
        any(_is_of(seen.session, each) for each in known.withdrawn)
        or any(_is_same(each, seen) for each in known.recent)
    ):
        return known, frozenset()
    later = sum(1 for each in known.recent if each.at > seen.at)
    place = len(known.recent) - later
    before = known.recent[place - 1] if place else None
    values = values_of(seen, before)
    new = frozenset(
        (name, value) for name, value in values.items() if value not in known.counts.get(name, {})
    )
    counts = {
        name: _with(known.counts.get(name, {}), values.get(name), seen.at, VALUES_MAX[name])
        for name in VALUES_MAX
    }
    recent = (*known.recent[:place], seen, *known.recent[place:])[-RECENT_MAX:]
    return replace(known, recent=recent, counts=counts, events=known.events + 1), new


def _is_same(one: Occurrence, other: Occurrence) -> bool:
    return (
        one.ip == other.ip
        and one.device == other.device
        and _day(one.at) == _day(other.at)
        and other.session is not None
        and _is_of(one.session, other.session)
    )


def withdraw(known: Baseline, session: str) -> Baseline:
    """Return the baseline without what a session brought, as if it had never been.

    session: its mark. Nor does anything of it enter later: what was let pass is written
    behind the answer, and may come after this. What is older than the occurrences that are kept,
    stays. Raises nothing.
    """
    gone = [each for each in known.recent if _is_of(each.session, session)]
    kept = tuple(each for each in known.recent if not _is_of(each.session, session))
    still = {pair for each, before in _pairs(kept) for pair in _days_of(each, before)}
    counts = {name: dict(values) for name, values in known.counts.items()}
    taken: set[tuple[str, str, int]] = set()
    for each, before in _pairs(known.recent):
        if not _is_of(each.session, session):
            continue
        for name, value, day in _days_of(each, before):
            if (name, value, day) in still or (name, value, day) in taken:
                continue
            taken.add((name, value, day))
            _take(counts.get(name, {}), value, each.at)
    others = (each for each in known.withdrawn if each != session)
    return replace(
        known,
        recent=kept,
        counts=counts,
        events=max(0, known.events - len(gone)),
        withdrawn=(*others, session)[-WITHDRAWN_MAX:],
    )


def trust(known: Baseline, session: str | None) -> Baseline:
    """Return the baseline that a session may teach again: it was the user's. Raises nothing."""
    kept = tuple(each for each in known.withdrawn if not _is_of(session, each))
    return known if kept == known.withdrawn else replace(known, withdrawn=kept)


def familiar(known: Baseline, here: Occurrence) -> frozenset[str]:
    """Return the dimensions in which what is seen is well known of the user. Raises ValueError."""
    before = known.recent[-1] if known.recent else None
    return frozenset(
        name
        for name, value in values_of(here, before).items()
        if is_familiar(known.counts.get(name, {}).get(value), here.at)
    )


def is_familiar(count: Count | None, at: datetime) -> bool:
    """Return whether a value was seen on several days, not too long ago. Raises nothing."""
    return (
        count is not None
        and count.days >= FAMILIAR_DAYS
        and weight_at(count, at) >= FAMILIAR_WEIGHT_MIN
    )


def weight_at(count: Count, at: datetime) -> float:
    """Return how often a value was seen, an occurrence of HALF_LIFE_DAYS ago counting half."""
    return count.weight / _growth(at)


def _growth(at: datetime) -> float:
    days: float = (at - _EPOCH).total_seconds() / DAY_S
    return float(2.0 ** (days / HALF_LIFE_DAYS))


def _day(at: datetime) -> int:
    return (at - _EPOCH).days


def _with(
    counts: Mapping[str, Count], value: str | None, at: datetime, values_max: int
) -> Mapping[str, Count]:
    if value is None:
        return counts
    day = _day(at)
    count = counts.get(value)
    if count is not None and count.day >= day:
        return counts  # this day has counted, or it came late
    grown = dict(counts)
    grown[value] = Count(
        weight=(count.weight if count else 0.0) + _growth(at),
        day=day,
        days=(count.days if count else 0) + 1,
    )
    if len(grown) > values_max:
        del grown[min(grown, key=lambda each: (grown[each].weight, each))]
    return grown


def _take(counts: dict[str, Count], value: str, at: datetime) -> None:
    count = counts.get(value)
    if count is None:
        return
    if count.days <= 1:
        del counts[value]
        return
    counts[value] = Count(
        weight=max(0.0, count.weight - _growth(at)), day=count.day, days=count.days - 1
    )


def _pairs(recent: tuple[Occurrence, ...]) -> Iterator[tuple[Occurrence, Occurrence | None]]:
    yield from zip(recent, (None, *recent), strict=False)  # the last one precedes nothing


def _days_of(seen: Occurrence, before: Occurrence | None) -> list[tuple[str, str, int]]:
    day = _day(seen.at)
    return [(name, value, day) for name, value in values_of(seen, before).items()]
