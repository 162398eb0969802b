"""The rule table: what each fact weighs, in points, and what no fact can do alone. Pure.

    changes ───────┐
    behaviours ────┼▶ points ─▶ what is known takes points off ─▶ floors and caps ─▶ level
    address, levels┘

Everything that was added or taken off is a contribution, so that the value is their sum and the
answer explains itself. LOW is below 3 points, HIGH begins at 6 (docs/scoring.md has the table).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from risk.model import Level
from risk.scoring.model import (
    BAD_REQUEST,
    POSITIVE,
    UNKNOWN,
    Contribution,
    Features,
    Score,
)

NAME: Final = "rules/1"
MEDIUM_AT: Final = 3.0
HIGH_AT: Final = 6.0
#: where a cap holds a score
BELOW_HIGH: Final = HIGH_AT - 0.25
#: points of another kind than the network's, without which nothing is HIGH
SECOND_EVIDENCE_MIN: Final = 1.0

NETWORK: Final = "network"
DEVICE: Final = "device"
OTHER: Final = "other"

#: how what takes all of a contribution off is named
FAMILIAR: Final = "_familiar"

#: class of change to (points, group of evidence, sentence)
CHANGES: Final = MappingProxyType(
    {
        "network": (0.5, NETWORK, "The address changed within its network."),
        "asn": (3.0, NETWORK, "The session moved to another network (ASN)."),
        "country": (1.5, NETWORK, "The session moved to another country."),
        "user_agent": (3.0, DEVICE, "The session moved to another browser."),
        "os": (3.5, DEVICE, "The session moved to another operating system."),
        "device": (3.5, DEVICE, "The session moved to another device."),
        "binding_lost": (3.5, DEVICE, "The session lost the proof of its key."),
        "fork": (3.5, DEVICE, "Two clients use the session in turns."),
        "signal_loss": (3.0, DEVICE, "The device stopped reporting its state."),
        "posture": (1.5, DEVICE, "The state of the device changed."),
    }
)
#: INVARIANT: each of these alone is at least MEDIUM (threat model §2.3)
SEVERE: Final = frozenset({"user_agent", "os", "device", "fork", "binding_lost", "signal_loss"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Novelty:
    """What a behaviour weighs. dimension: what must be familiar for it to weigh nothing."""

    code: str
    points: float
    group: str
    dimension: str


BEHAVIOURS: Final = MappingProxyType(
    {
        "New Country": Novelty(code="new_country", points=1.5, group=NETWORK, dimension="country"),
        "New State": Novelty(code="new_state", points=0.25, group=NETWORK, dimension="region"),
        "New City": Novelty(code="new_city", points=0.5, group=NETWORK, dimension="city"),
        "New Geo-Location": Novelty(
            code="new_geo_location", points=0.25, group=NETWORK, dimension="city"
        ),
        "New ASN": Novelty(code="new_asn", points=0.75, group=NETWORK, dimension="asn"),
        "New IP": Novelty(code="new_ip", points=0.25, group=NETWORK, dimension="prefix"),
        "Velocity": Novelty(code="velocity", points=2.0, group=NETWORK, dimension="trip"),
        "New Device": Novelty(code="new_device", points=2.75, group=DEVICE, dimension="device"),
        "New TLS Fingerprint": Novelty(
            code="new_tls_fingerprint", points=0.5, group=DEVICE, dimension="tls"
        ),
        "New App": Novelty(code="new_app", points=0.25, group=OTHER, dimension="app"),
        "Unusual Hour": Novelty(code="unusual_hour", points=0.25, group=OTHER, dimension="hour"),
    }
)
#: A request that leaves the device out, although the user's devices are known, gains nothing by it.
_MISSING_COUNTS_AS_NEW: Final = frozenset({"New Device"})
#: what nobody knows of these is no sign of anything: many callers never tell
_UNKNOWN_IS_NOTHING: Final = frozenset({"trip", "tls"})
#: changes of a session after which behaviours about places, or about clients, are news
_OF_PLACE: Final = frozenset({"minor", "network", "asn", "country"})
_OF_CLIENT: Final = SEVERE
#: what an unknown behaviour weighs, where nobody in the tenant was seen there either
UNKNOWN_SHARE: Final = 0.5
#: what colleagues do counts half as new
ORG_SHARE: Final = 0.5
#: what members of a group of the user's do counts a quarter as new
PEER_SHARE: Final = 0.75
#: points taken off a change of network or country to one that is known: of the user, of peers, of
#: the org
KNOWN_CHANGE: Final = MappingProxyType({"asn": (2.5, 2.0, 1.5), "country": (1.0, 0.75, 0.5)})
_NEGATED_BY: Final = MappingProxyType({"asn": "New ASN", "country": "New Country"})

#: kinds of address, the first that fits counts: (suffix or whole name, points, may become familiar)
ADDRESSES: Final = (
    ("ANONYMIZER_TOR", 2.5, False),
    ("RESIDENTIAL_PROXY", 2.5, False),
    ("ALL_ANONYMIZERS", 2.0, False),
    ("ALL_ANONYMIZERS_EXCEPT_TOR", 2.0, False),
    ("_VPN", 1.5, True),
    ("HOSTING", 1.5, True),
    ("_PROXY", 1.5, True),
    ("ALL_PROXIES_VPNS", 1.5, True),
)
#: everybody's phone may use these: they say where a packet came from, not who sent it
_RELAYS: Final = ("APPLE_ICLOUD_RELAY", "APPLE_ICLOUD_RELAY_PROXY")

IP_POINTS: Final = MappingProxyType({Level.LOW: 0.0, Level.MEDIUM: MEDIUM_AT, Level.HIGH: HIGH_AT})
ENTITY_POINTS: Final = MappingProxyType({Level.LOW: 0.0, Level.MEDIUM: 1.0, Level.HIGH: 2.5})
#: wrong passwords that everybody types
FAILURES_FREE: Final = 2
FAILURE_POINTS: Final = 0.5
FAILURES_POINTS_MAX: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A contribution, and what kind of evidence it is. is_novelty: it says "never seen"."""

    contribution: Contribution
    group: str
    is_novelty: bool = False


@dataclass(frozen=True, slots=True)
class RuleScorer:
    """The transparent table."""

    name: str = NAME

    def score(self, features: Features) -> Score:
        """Return the score by the table. Raises nothing."""
        parts = [
            *_of_changes(features),
            *_of_behaviours(features),
            *_of_address(features),
            *_of_levels(features),
            *_of_failures(features),
        ]
        parts += _limits(features, parts)
        contributions = tuple(
            sorted(
                (part.contribution for part in parts), key=lambda each: (-each.points, each.name)
            )
        )
        value = math.fsum(each.points for each in contributions)
        return Score(
            value=value,
            level=level_of(value),
            contributions=contributions,
            reasons=_reasons(contributions),
            scorer=self.name,
        )


def level_of(value: float) -> Level:
    """Return the level of a score. Raises nothing."""
    if value >= HIGH_AT:
        return Level.HIGH
    return Level.MEDIUM if value >= MEDIUM_AT else Level.LOW


def _reasons(contributions: tuple[Contribution, ...]) -> tuple[str, ...]:
    """Return the codes of what raised the score; what was taken off again did not."""
    undone = {
        each.name.removesuffix(FAMILIAR) for each in contributions if each.name.endswith(FAMILIAR)
    }
    return tuple(
        dict.fromkeys(
            each.name for each in contributions if each.points >= 0 and each.name not in undone
        )
    )


def _part(name: str, points: float, reason: str, group: str, *, is_novelty: bool = False) -> _Part:
    return _Part(
        contribution=Contribution(name=name, points=points, reason=reason),
        group=group,
        is_novelty=is_novelty,
    )


def _of_changes(features: Features) -> Iterator[_Part]:
    for change in sorted({each.lower() for each in features.changes}):
        if change not in CHANGES:
            continue
        points, group, reason = CHANGES[change]
        yield _part(f"{change}_changed", points, reason, group)
        if change in KNOWN_CHANGE:
            of_user, of_peers, of_org = KNOWN_CHANGE[change]
            if change in features.familiar or _is_negative(features, _NEGATED_BY[change]):
                yield _part(
                    f"{change}_known", -of_user, f"This {change} is known of the user.", group
                )
            elif change in features.peer_familiar:
                yield _part(
                    f"{change}_known_to_peers", -of_peers, f"Peers use this {change}.", group
                )
            elif change in features.org_familiar:
                yield _part(
                    f"{change}_known_to_org", -of_org, f"Colleagues use this {change}.", group
                )


def _is_negative(features: Features, behaviour: str) -> bool:
    return features.behaviours.get(behaviour) == "NEGATIVE"


def _of_behaviours(features: Features) -> Iterator[_Part]:
    # The nearer they are who know it, the more is taken off again.
    known = (
        (features.familiar, FAMILIAR, 1, "from earlier"),
        (features.peer_familiar, "_familiar_to_peers", PEER_SHARE, "of peers"),
        (features.org_familiar, "_familiar_to_org", ORG_SHARE, "of colleagues"),
    )
    changes = {each.lower() for each in features.changes}
    for name, novelty in BEHAVIOURS.items():
        value = features.behaviours.get(name)
        if _is_told(name, value, changes):
            continue
        points = _points_of(novelty, value, features, counts_as_new=name in _MISSING_COUNTS_AS_NEW)
        if not points:
            continue
        told = "not known yet" if value == UNKNOWN else "new for the user"
        yield _part(novelty.code, points, f"{name}: {told}.", novelty.group, is_novelty=True)
        for dimensions, suffix, share, whence in known:
            if novelty.dimension in dimensions:
                yield _part(
                    novelty.code + suffix,
                    -points * share,
                    f"{name}: well known {whence}.",
                    novelty.group,
                    is_novelty=True,
                )
                break


def news(behaviours: Mapping[str, str], changes: Collection[str]) -> dict[str, str]:
    """Return of behaviours what is news about a session that changed like this.

    A session was accepted with its place and its client: however new those are to the user, they
    say nothing about a change of the other. Raises nothing.
    """
    named = {each.lower() for each in changes}
    groups = {OTHER}
    if named & _OF_PLACE:
        groups.add(NETWORK)
    if named & _OF_CLIENT:
        groups.add(DEVICE)
    return {
        name: value
        for name, value in behaviours.items()
        if name not in BEHAVIOURS or BEHAVIOURS[name].group in groups
    }


def _is_told(name: str, value: str | None, changes: set[str]) -> bool:
    """Return whether a change of the session has said already what a behaviour says."""
    if name == "New Device":
        return "device" in changes or ("signal_loss" in changes and value == BAD_REQUEST)
    return name == "New TLS Fingerprint" and "user_agent" in changes


def _points_of(
    novelty: Novelty, value: str | None, features: Features, *, counts_as_new: bool
) -> float:
    """Return what a behaviour weighs before what is familiar is taken off."""
    if value == POSITIVE or (value == BAD_REQUEST and counts_as_new):
        return novelty.points
    if value in {UNKNOWN, BAD_REQUEST} and novelty.dimension not in _UNKNOWN_IS_NOTHING:
        # Where the tenant itself is new, that nobody was seen there says nothing.
        is_strange = novelty.dimension not in features.org_familiar | features.peer_familiar
        return novelty.points * UNKNOWN_SHARE * (is_strange and not features.org_is_learning)
    return 0.0


def _of_address(features: Features) -> Iterator[_Part]:
    kind = _kind_of_address(features.record.categories)
    if kind is None:
        return
    name, points, may_become_familiar = kind
    yield _part(f"address:{name}", points, f"The address is used for {name}.", NETWORK)
    # A company's own way out is a data centre, too; of others there, only the network is known.
    is_usual = "asn" in features.familiar or "prefix" in features.org_familiar
    if may_become_familiar and is_usual:
        yield _part(f"address:{name}{FAMILIAR}", -points, "A usual way in.", NETWORK)


def _kind_of_address(categories: frozenset[str]) -> tuple[str, float, bool] | None:
    is_relay = any(relay in categories for relay in _RELAYS)
    for wanted, points, may_become_familiar in ADDRESSES:
        if is_relay and wanted != "ANONYMIZER_TOR":
            continue
        found = sorted(
            each
            for each in categories
            if each == wanted or (wanted.startswith("_") and each.endswith(wanted))
        )
        if found:
            return found[0], points, may_become_familiar
    return None


def _of_levels(features: Features) -> Iterator[_Part]:
    if points := IP_POINTS[features.ip_level]:
        level = features.ip_level.name
        reasons = features.ip_reasons or (f"ip_reported_{level.lower()}",)
        for place, reason in enumerate(sorted(reasons)):
            # Who else says so is told, and weighs no more.
            yield _part(
                reason, 0.0 if place else points, f"The address is reported {level}.", OTHER
            )
    for name, of, group in (
        ("user", features.user_level, OTHER),
        ("device", features.device_level, DEVICE),
    ):
        if points := ENTITY_POINTS[of]:
            yield _part(
                f"{name}_level_{of.name.lower()}",
                points,
                f"The {name} is at {of.name} risk.",
                group,
            )


def _of_failures(features: Features) -> Iterator[_Part]:
    counted = max(0, features.failures - FAILURES_FREE)
    if points := min(FAILURES_POINTS_MAX, counted * FAILURE_POINTS):
        yield _part(
            "failures", points, f"{features.failures} sign-ins failed before this one.", OTHER
        )


def _limits(features: Features, parts: list[_Part]) -> Iterator[_Part]:
    """Yield what caps take off and floors add.

    INVARIANT: none of them makes a score sink when a fact gets worse.
    """
    novelty = math.fsum(part.contribution.points for part in parts if part.is_novelty)
    value = math.fsum(part.contribution.points for part in parts)
    if features.is_learning and novelty > BELOW_HIGH:
        excess = novelty - BELOW_HIGH
        value -= excess
        yield _part("learning", -excess, "Too little is known of the user.", OTHER)
    beside = math.fsum(part.contribution.points for part in parts if part.group != NETWORK)
    if value >= HIGH_AT and beside < SECOND_EVIDENCE_MIN:
        yield _part(
            "network_alone",
            BELOW_HIGH - value,
            "From where somebody comes is never HIGH without a second kind of evidence.",
            NETWORK,
        )
    if value < MEDIUM_AT and any(each.lower() in SEVERE for each in features.changes):
        yield _part("severe_change", MEDIUM_AT - value, "Never below MEDIUM.", DEVICE)
