"""Promise: whoever does nothing wrong is hardly ever asked for a step-up.

Made-up people lead ordinary lives: home, office, mobile, cafés, a corporate VPN, trips within the
country and abroad, a new browser now and then. Every sign-in and every move of a live session goes
through behaviours, baselines, the classifier of changes and the rule table, as in the hub; MEDIUM
and above is a step-up, which they pass, as the standard preset has it. Each one is false, because
nobody here is an attacker. The target is at most one per 200 user-days.

The trace is made up, from its seed alone; it is no measurement of real people.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import table
from benchmarks.machine import Machine, machine_facts, write_result
from risk.baselines.memory import ORG_LEARNING_USERS, ORG_USERS_MIN
from risk.baselines.model import NOTHING, Baseline, Occurrence, familiar, record, short, values_of
from risk.baselines.service import ORG_DIMENSIONS
from risk.behaviours.evaluation import behaviours
from risk.behaviours.history import with_place
from risk.behaviours.model import BUILT_IN
from risk.contexts.model import Context, nearest
from risk.model import Level
from risk.networks.model import IPRecord
from risk.scoring.model import Features, Scorer
from risk.scoring.service import DEFAULT_SCORER, SCORERS, scorer_named

TARGET_PER_200: Final = 1.0
START: Final = datetime(2026, 1, 5, tzinfo=UTC)
WEEK_DAYS: Final = 5
#: name, latitude, longitude, ISO region
CITIES: Final = (
    ("Paris", 48.86, 2.35, "FR-IDF"),
    ("Lyon", 45.76, 4.84, "FR-ARA"),
    ("Lille", 50.63, 3.06, "FR-HDF"),
    ("Nantes", 47.22, -1.55, "FR-PDL"),
    ("Toulouse", 43.60, 1.44, "FR-OCC"),
    ("Marseille", 43.30, 5.37, "FR-PAC"),
)
ABROAD: Final = (
    ("Berlin", 52.52, 13.40, "DE-BE", "DE"),
    ("Madrid", 40.42, -3.70, "ES-MD", "ES"),
    ("London", 51.51, -0.13, "GB-LND", "GB"),
    ("New York", 40.71, -74.01, "US-NY", "US"),
)
#: fixed-line and mobile carriers of the country; most people are with the first ones
CARRIERS: Final = (64_510, 64_511, 64_512, 64_513, 64_514)
CARRIER_SHARES: Final = (40, 25, 20, 10, 5)
MOBILE: Final = (64_520, 64_521, 64_522)
OFFICE_ASN: Final = 64_530
VPN_ASN: Final = 64_531


class TraceResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. per_200: false step-ups per 200 user-days; causes: what led to them."""

    machine: Machine
    command: str
    scorer: str
    seed: int
    users: int
    days: int
    user_days: int
    judged: int
    step_ups: int
    per_200: float
    while_learning: int
    causes: dict[str, int]


@dataclass(slots=True)
class Person:
    """Somebody, and what is known of them."""

    name: str
    city: tuple[str, float, float, str]
    carrier: int
    mobile: int
    home_net: int
    cafes: tuple[int, ...]
    travels: float
    device: str
    baseline: Baseline = NOTHING
    trips: int = 0


@dataclass(slots=True)
class Trace:
    """The world while it runs."""

    chance: random.Random
    scorer: Scorer
    org: Counter[tuple[str, str]] = field(default_factory=Counter)
    people: set[str] = field(default_factory=set)
    judged: int = 0
    while_learning: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    step_ups: int = 0

    def visit(self, person: Person, at: datetime, place: IPRecord, accepted: list[Context]) -> None:
        """Judge one sign-in (nothing accepted yet) or one move of a session; it succeeds."""
        seen = with_place(
            Occurrence(at=at, ip=place.ip, device=short(person.device), ua="firefox", app="mail"),
            place,
        )
        context = Context(
            ip=place.ip,
            at=at,
            record=place,
            ua_family="firefox",
            ua_major=140,
            os_family="linux",
            device_token_hash=person.device,
        )
        changes = nearest(accepted, context)[1] if accepted else ()
        before = person.baseline.recent[-1] if person.baseline.recent else None
        values = values_of(seen, before)
        score = self.scorer.score(
            Features(
                changes=tuple(map(str, changes)),
                behaviours=behaviours(person.baseline, seen, BUILT_IN),
                record=place,
                familiar=familiar(person.baseline, seen),
                org_familiar=frozenset(
                    name for name, value in values.items() if self.org[name, value] >= ORG_USERS_MIN
                ),
                is_learning=person.baseline.is_learning,
                org_is_learning=len(self.people) < ORG_LEARNING_USERS,
            )
        )
        self.judged += 1
        if score.level is not Level.LOW:
            self.step_ups += 1
            self.while_learning += person.baseline.is_learning
            self.causes[", ".join(score.reasons[:3])] += 1
        person.baseline, new = record(person.baseline, seen)
        self.org.update(pair for pair in new if pair[0] in ORG_DIMENSIONS)
        self.people.add(person.name)
        accepted.append(context)


def address(
    asn: int,
    network: int,
    host: int,
    where: tuple[str, float, float, str],
    *,
    country: str = "FR",
    categories: frozenset[str] = frozenset(),
) -> IPRecord:
    """Return an address of a network; the same numbers give the same one."""
    name, latitude, longitude, region = where
    return IPRecord(
        ip=f"{10 + asn % 90}.{network // 250 % 250}.{network % 250}.{host % 250 + 1}",
        known=True,
        asn=asn,
        country=country,
        region=region,
        city=name,
        latitude=latitude,
        longitude=longitude,
        accuracy_km=20.0,
        categories=categories,
    )


def people(chance: random.Random, count: int) -> list[Person]:
    """Return people: most live in a few cities, one in ten travels for a living."""
    return [
        Person(
            name=f"user-{number}",
            city=chance.choices(CITIES, weights=(40, 20, 10, 10, 10, 10))[0],
            carrier=chance.choices(CARRIERS, weights=CARRIER_SHARES)[0],
            mobile=chance.choice(MOBILE),
            home_net=chance.randrange(5_000),
            cafes=tuple(chance.randrange(5_000) for _ in range(3)),
            travels=0.06 if number % 10 == 0 else 0.012,
            device=f"device-{number}-0",
        )
        for number in range(count)
    ]


def places_of_a_day(chance: random.Random, person: Person) -> Iterator[IPRecord]:
    """Yield where somebody works on one day, in order."""
    if chance.random() < 0.02:
        person.home_net = chance.randrange(5_000)  # the carrier gave out another address
    if chance.random() < 0.004:
        person.device = f"{person.name}-{chance.randrange(10**9)}"  # a new browser
    phone = address(person.mobile, chance.randrange(40), chance.randrange(250), CITIES[0])
    if chance.random() < person.travels:
        yield from _trip(chance, person)
        return
    home = address(person.carrier, person.home_net, 7, person.city)
    yield from _at_work(chance, person, home, phone)
    if chance.random() < 0.25:
        yield phone
    if chance.random() < 0.04:
        cafe = chance.choice(person.cafes)
        carrier = CARRIERS[cafe % len(CARRIERS)]
        yield address(carrier, cafe, 1, person.city)
    if chance.random() < 0.3:
        yield home


def _at_work(
    chance: random.Random, person: Person, home: IPRecord, phone: IPRecord
) -> Iterator[IPRecord]:
    """Yield home, at times with the company's VPN, or the way to the office."""
    if chance.random() < 0.45:
        yield home
        if chance.random() < 0.3:
            host = chance.randrange(8)
            yield address(VPN_ASN, 1, host, CITIES[0], categories=frozenset({"HOSTING"}))
        return
    if chance.random() < 0.5:
        yield phone
    yield address(OFFICE_ASN, CITIES.index(person.city), 1, person.city)


def _trip(chance: random.Random, person: Person) -> Iterator[IPRecord]:
    """Yield a day away: within the country at a hotel or a client's; one in eight is abroad."""
    person.trips += 1
    if chance.random() < 0.125:
        place = chance.randrange(len(ABROAD))
        name, latitude, longitude, region, country = ABROAD[place]
        yield address(
            65_000 + place * 3 + chance.randrange(3),
            chance.randrange(500),
            chance.randrange(250),
            (name, latitude, longitude, region),
            country=country,
        )
        return
    where_to = chance.choice(CITIES)
    yield address(person.mobile, chance.randrange(40), chance.randrange(250), CITIES[0])
    carrier = chance.choices(CARRIERS, weights=CARRIER_SHARES)[0]
    yield address(carrier, chance.randrange(5_000), 1, where_to)


def run(*, seed: int, users: int, days: int, scorer: str = DEFAULT_SCORER) -> TraceResult:
    """Return what a trace leads to."""
    chance = random.Random(seed)
    trace = Trace(chance=chance, scorer=scorer_named(scorer))
    everybody = people(chance, users)
    user_days = 0
    for day in range(days):
        morning = START + timedelta(days=day)
        is_weekend = morning.weekday() >= WEEK_DAYS
        for person in everybody:
            if chance.random() < (0.85 if is_weekend else 0.08):
                continue
            user_days += 1
            at = morning + timedelta(hours=7, minutes=chance.randrange(150))
            accepted: list[Context] = []
            for place in places_of_a_day(chance, person):
                trace.visit(person, at, place, accepted)
                at += timedelta(hours=2, minutes=chance.randrange(60))
    return TraceResult(
        machine=machine_facts(Path()),
        command=shlex.join(["python", "-m", "benchmarks.clean_trace", *sys.argv[1:]]),
        scorer=trace.scorer.name,
        seed=seed,
        users=users,
        days=days,
        user_days=user_days,
        judged=trace.judged,
        step_ups=trace.step_ups,
        per_200=round(200 * trace.step_ups / max(1, user_days), 3),
        while_learning=trace.while_learning,
        causes=dict(trace.causes.most_common(12)),
    )


def report(result: TraceResult) -> str:
    """Return the figures as text."""
    rows = [("judged", str(result.judged)), ("user-days", str(result.user_days))]
    rows += [("false step-ups", str(result.step_ups))]
    rows += [("  of them while learning", str(result.while_learning))]
    rows += [("per 200 user-days", f"{result.per_200} (target: at most {TARGET_PER_200})")]
    rows += [(f"  {cause}", str(count)) for cause, count in result.causes.items()]
    return table(("clean trace", result.scorer), rows)


def main() -> None:
    """Run one trace and print its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scorer", choices=sorted(SCORERS), default=DEFAULT_SCORER)
    parser.add_argument("--keep-result", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    result = run(seed=options.seed, users=options.users, days=options.days, scorer=options.scorer)
    print(report(result))
    if options.keep_result:
        print(f"written to {write_result('clean-trace', result)}")


if __name__ == "__main__":
    main()
