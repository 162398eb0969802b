"""Promise: scoring a changed context takes a small part of a millisecond.

One thread, in turn, as the evaluator does it: read a baseline from its bytes (a user with a hundred
occurrences), answer all behaviours, look up what is familiar, score. No database, no network. It
also says how large baselines are in memory.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import table
from benchmarks.machine import Machine, machine_facts, write_result
from risk.baselines.codec import decode, encode
from risk.baselines.model import NOTHING, Baseline, Occurrence, familiar, record, short
from risk.behaviours.evaluation import behaviours
from risk.behaviours.model import BUILT_IN
from risk.networks.model import IPRecord
from risk.scoring.model import Features
from risk.scoring.service import DEFAULT_SCORER, scorer_named

NOW: Final = datetime(2026, 3, 2, 16, 35, tzinfo=UTC)
HOSTING: Final = IPRecord(ip="192.0.2.1", known=True, categories=frozenset({"HOSTING"}))


class ScoringResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. *_us: microseconds of one changed context, and of its parts, in the middle."""

    machine: Machine
    command: str
    rounds: int
    p50_us: float
    p99_us: float
    decode_us: float
    behaviours_us: float
    familiar_us: float
    score_us: float
    baseline_bytes: int
    held_bytes_per_user: float


def somebody(seed: int) -> Baseline:
    """Return a baseline with a hundred occurrences at a handful of places."""
    chance = random.Random(seed)
    baseline = NOTHING
    for day in range(100):
        place = chance.choices((0, 1, 2, 3, 4), weights=(10, 10, 5, 2, 1))[0]
        seen = Occurrence(
            at=NOW - timedelta(days=100 - day, minutes=chance.randrange(600)),
            ip=f"198.{18 + place}.{seed % 250}.{chance.randrange(1, 5)}",
            asn=64_500 + place,
            country="FR",
            region=f"FR-{place}",
            city=f"City {place}",
            latitude=45.0 + place,
            longitude=2.0 + place,
            accuracy_km=20.0,
            device=short(f"{seed}-{place % 2}"),
            ua="firefox",
            app=f"app_{place:026}",
            session=short(f"{seed}-{day}"),
        )
        baseline, _ = record(baseline, seen)
    return baseline


def measure(rounds: int, users: int) -> ScoringResult:
    """Return the figures."""
    bodies = [encode(somebody(seed)) for seed in range(users)]
    scorer = scorer_named(DEFAULT_SCORER)
    here = Occurrence(
        at=NOW,
        ip="203.0.113.9",
        asn=64_999,
        country="US",
        region="US-NY",
        city="New York",
        latitude=40.71,
        longitude=-74.0,
        accuracy_km=20.0,
        device=short("another"),
        ua="chrome",
        app="app_other",
    )

    def changed_context(place: int) -> None:
        known = decode(bodies[place % users])
        scorer.score(
            Features(
                changes=("asn", "country", "device"),
                behaviours=behaviours(known, here, BUILT_IN),
                familiar=familiar(known, here),
                record=HOSTING,
                is_learning=known.is_learning,
                org_is_learning=False,
            )
        )

    one = decode(bodies[0])
    features = Features(changes=("asn",), behaviours=behaviours(one, here, BUILT_IN))
    times = sorted(_times(changed_context, rounds))
    return ScoringResult(
        machine=machine_facts(Path()),
        command=shlex.join(["python", "-m", "benchmarks.scoring", *sys.argv[1:]]),
        rounds=rounds,
        p50_us=times[len(times) // 2],
        p99_us=times[len(times) * 99 // 100],
        decode_us=_middle(lambda place: decode(bodies[place % users]), rounds),
        behaviours_us=_middle(lambda _: behaviours(one, here, BUILT_IN), rounds),
        familiar_us=_middle(lambda _: familiar(one, here), rounds),
        score_us=_middle(lambda _: scorer.score(features), rounds),
        baseline_bytes=sum(map(len, bodies)) // users,
        held_bytes_per_user=_held(bodies),
    )


def _times(work: Callable[[int], object], rounds: int) -> list[float]:
    taken: list[float] = []
    for place in range(rounds):
        started = time.perf_counter()
        work(place)
        taken.append(round((time.perf_counter() - started) * 1e6, 1))
    return taken


def _middle(work: Callable[[int], object], rounds: int) -> float:
    times = sorted(_times(work, rounds))
    return times[len(times) // 2]


def _held(bodies: list[bytes]) -> float:
    """Return what one more user costs in the memory of a process, in bytes."""
    tracemalloc.start()
    held = {
        ("default", f"usr_{place:026}"): bytes(bytearray(body)) for place, body in enumerate(bodies)
    }
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(size / len(held), 1)


def report(result: ScoringResult) -> str:
    """Return the figures as text."""
    rows = [
        ("changed context p50", f"{result.p50_us} µs"),
        ("changed context p99", f"{result.p99_us} µs"),
        ("  baseline from bytes", f"{result.decode_us} µs"),
        ("  behaviours", f"{result.behaviours_us} µs"),
        ("  familiar", f"{result.familiar_us} µs"),
        ("  score", f"{result.score_us} µs"),
        ("a baseline", f"{result.baseline_bytes} bytes"),
        ("held in memory, per user", f"{result.held_bytes_per_user} bytes"),
    ]
    return table(("scoring", f"{result.rounds} rounds"), rows)


def main() -> None:
    """Measure, print, keep if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--keep-result", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    result = measure(options.rounds, options.users)
    print(report(result))
    if options.keep_result:
        print(f"written to {write_result('scoring', result)}")


if __name__ == "__main__":
    main()
