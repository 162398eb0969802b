"""Promise: what several vendors say of an address is known within 50 us, and refreshed unnoticed.

One process. Three feeds (places, AS numbers, anonymizers), made up with a seed, are compiled and
merged. Then, one call after the other: look-ups of random addresses, nearly all of them merged
anew; the same on an event loop while another table is mapped and the old one unmapped; chains of
two hops against 500 zones (400 lists of 150 entries, 100 of rules). Every call is timed by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from benchmarks.command import run
from benchmarks.figures import Percentiles, percentiles, table
from benchmarks.machine import Machine, machine_facts
from hub.process import settle_memory
from risk.networks.categories import SERVICES
from risk.networks.compiler import Row, compile_feed, merge_tables
from risk.networks.model import Said, Source, unpacked
from risk.networks.service import TABLE, Networks
from risk.zones.judging import judge
from risk.zones.matcher import CompiledZones
from risk.zones.model import Entry, Place, Rules, Usage, Zone, ZoneType
from runtime.clock import SystemClock

_ArgumentT = TypeVar("_ArgumentT")

SEED: Final = 4
V6_SHARE: Final = 0.3
#: the share of all prefixes that each feed has, and how many different records
FEEDS: Final = {"geo": (0.6, 200_000), "asn": (0.25, 80_000), "anonymous": (0.15, 50_000)}
V4_FIRST: Final = 1 << 24
V4_LAST: Final = 224 << 24
V6_FIRST: Final = 0x2400 << 112
V6_LAST: Final = 0x2500 << 112
LISTS: Final = 400
ENTRIES: Final = 150
TARGET_US: Final = 50.0
ZONES_TARGET_US: Final = 1_000.0


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure with."""

    prefixes: int
    lookups: int
    zones: int


class IPLookupResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Times in microseconds unless the name says otherwise."""

    machine: Machine
    command: str
    sizes: Sizes
    compile_s: float
    merge_s: float
    table_bytes: int
    map_s: float
    lookup_us: Percentiles
    known_share: float
    reload_lookup_us: Percentiles
    reloads: int
    reload_loop_pause_us: Percentiles
    zones_compile_s: float
    zone_match_us: Percentiles
    #: processor time of one look-up, the mean: what a busy machine does not blur
    lookup_cpu_us: float
    #: of every look-up by itself, with what asking that clock twice costs
    lookup_each_cpu_us: Percentiles


def measure(sizes: Sizes, folder: Path, *, command: str) -> IPLookupResult:
    """Measure once."""
    chance = random.Random(SEED)
    machine = machine_facts(folder)
    compile_s, merge_s = _build(sizes, folder, chance)
    settle_memory()
    networks = Networks(folder, SystemClock())
    started = time.perf_counter()
    asyncio.run(networks.refresh())
    map_s = time.perf_counter() - started
    addresses = [_address(chance) for _ in range(sizes.lookups)]
    known = sum(networks.lookup(ip).known for ip in addresses)
    lookups = _timed(networks.lookup, addresses)
    cpu_us = _cpu_us(networks, addresses)
    each_cpu_us = _timed(networks.lookup, addresses, clock=time.thread_time_ns)
    during, pauses, reloads = asyncio.run(_reloading(networks, folder, addresses))
    started = time.perf_counter()
    zones = CompiledZones(_zones(sizes.zones, chance), SystemClock().now())
    zones_compile_s = time.perf_counter() - started
    chains = [(ip, f"10.0.{at % 256}.1") for at, ip in enumerate(addresses)]
    matches = _timed(
        lambda chain: judge(
            zones, chain, lookup=networks.lookup, is_trusted=lambda hop: hop.startswith("10.")
        ),
        chains,
    )
    return IPLookupResult(
        machine=machine,
        command=command,
        sizes=sizes,
        compile_s=round(compile_s, 2),
        merge_s=round(merge_s, 2),
        table_bytes=(folder / TABLE).stat().st_size,
        map_s=round(map_s, 3),
        lookup_us=percentiles(lookups),
        known_share=round(known / len(addresses), 3),
        reload_lookup_us=percentiles(during),
        reloads=reloads,
        reload_loop_pause_us=percentiles(pauses),
        zones_compile_s=round(zones_compile_s, 3),
        zone_match_us=percentiles(matches),
        lookup_cpu_us=round(cpu_us, 1),
        lookup_each_cpu_us=percentiles(each_cpu_us),
    )


def _cpu_us(networks: Networks, addresses: Sequence[str]) -> float:
    started = time.thread_time()
    for ip in addresses:
        networks.lookup(ip)
    return (time.thread_time() - started) / len(addresses) * 1e6


def _timed(
    call: Callable[[_ArgumentT], object],
    arguments: Sequence[_ArgumentT],
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[float]:
    found = []
    for argument in arguments:
        started = clock()
        call(argument)
        found.append((clock() - started) / 1_000)
    return found


def _build(sizes: Sizes, folder: Path, chance: random.Random) -> tuple[float, float]:
    now = int(SystemClock().now().timestamp())
    parts, sources = [], []
    started = time.perf_counter()
    for name, (share, records) in FEEDS.items():
        part = folder / f"{name}.ipt"
        source = Source(name=name, feed_id=name, built_at=now, prefixes=0)
        rows = _rows(name, int(sizes.prefixes * share), records, chance)
        sources.append(compile_feed(part, source, rows, now=now))
        parts.append(part)
    compiled = time.perf_counter()
    merge_tables(folder / TABLE, parts, sources, now=now)
    return compiled - started, time.perf_counter() - compiled


def _rows(name: str, count: int, records: int, chance: random.Random) -> Iterator[Row]:
    """Yield ranges of both families with gaps between them, ascending."""
    said = [_said(name, each) for each in range(min(records, count))]
    for is_v6, share, first, last in (
        (False, 1 - V6_SHARE, V4_FIRST, V4_LAST),
        (True, V6_SHARE, V6_FIRST, V6_LAST),
    ):
        many = max(1, int(count * share))
        step = (last - first) // many
        for at in range(many):
            start = first + at * step
            width = max(1, int(step * chance.uniform(0.5, 1.0)))
            yield Row(
                first=start,
                last=min(start + width, start + step) - 1,
                is_v6=is_v6,
                said=said[chance.randrange(len(said))],
            )


def _said(name: str, number: int) -> Said:
    countries = ("US", "DE", "FR", "GB", "JP", "BR", "IN", "NL")
    country = countries[number % len(countries)]
    if name == "geo":
        return Said(
            country=country,
            region=f"{country}-{number % 90:02}",
            city=f"City {number}",
            latitude=round(number % 18_000 / 100 - 90, 2),
            longitude=round(number % 36_000 / 100 - 180, 2),
            accuracy_km=float(number % 100),
        )
    if name == "asn":
        return Said(asn=number + 1, organisation=f"Organisation {number}", country=country)
    services = sorted(SERVICES)
    return Said(
        categories=("HOSTING", services[number % len(services)]),
        operator=services[number % len(services)],
        seen_at=1_700_000_000 + number,
    )


def _address(chance: random.Random) -> str:
    if chance.random() < V6_SHARE:
        return unpacked(chance.randrange(V6_FIRST, V6_LAST).to_bytes(16))
    return unpacked(chance.randrange(V4_FIRST, V4_LAST).to_bytes(4))


async def _reloading(
    networks: Networks, folder: Path, addresses: list[str], reloads: int = 3
) -> tuple[list[float], list[float], int]:
    """Look addresses up on the loop, a hundred per turn, while the table is replaced."""
    during: list[float] = []
    pauses: list[float] = []
    done = 0

    async def replace() -> None:
        nonlocal done
        for _ in range(reloads):
            await asyncio.to_thread(_touch, folder)
            done += await networks.refresh()

    replacing = asyncio.create_task(replace())
    at = 0
    while not replacing.done():
        for _ in range(100):
            started = time.perf_counter_ns()
            networks.lookup(addresses[at % len(addresses)])
            during.append((time.perf_counter_ns() - started) / 1_000)
            at += 1
        paused = time.perf_counter_ns()
        await asyncio.sleep(0)
        pauses.append((time.perf_counter_ns() - paused) / 1_000)
    await replacing
    return during, pauses, done


def _touch(folder: Path) -> None:
    """Put a copy of the table in its place, as a new one would be."""
    made = folder / "made"
    made.write_bytes((folder / TABLE).read_bytes())
    made.replace(folder / TABLE)


def _zones(count: int, chance: random.Random) -> list[Zone]:
    lists = min(LISTS, count * 4 // 5)
    zones = [
        Zone(
            zone_id=f"zon_{at:05}",
            name=f"list {at}",
            type=ZoneType.IP,
            usage=Usage.BLOCKLIST if at % 10 == 0 else Usage.POLICY,
            gateways=tuple(Entry(value=f"{_address(chance)}") for _ in range(ENTRIES)),
        )
        for at in range(lists)
    ]
    services = sorted(SERVICES)
    zones += [
        Zone(
            zone_id=f"zon_{at:05}",
            name=f"rules {at}",
            type=ZoneType.DYNAMIC_V2,
            usage=Usage.BLOCKLIST if at % 10 == 0 else Usage.POLICY,
            include=Rules(
                asns=tuple(chance.randrange(1, 80_000) for _ in range(75)),
                locations=(Place(country="US"), Place(country="DE", region="DE-10")),
            ),
            exclude=Rules(categories=(services[at % len(services)],)),
        )
        for at in range(lists, count)
    ]
    return zones


def report(result: IPLookupResult) -> str:
    """Return the result as a table."""
    rows = [
        [name, *(f"{value:,.1f}" for value in (of.p50, of.p95, of.p99, of.maximum)), target]
        for name, of, target in (
            ("look-up, us", result.lookup_us, f"p99 <= {TARGET_US:.0f}"),
            ("look-up, us of processor time", result.lookup_each_cpu_us, ""),
            ("look-up while reloading, us", result.reload_lookup_us, ""),
            ("event loop's pause while reloading, us", result.reload_loop_pause_us, ""),
            ("zone match, us", result.zone_match_us, f"p99 <= {ZONES_TARGET_US:.0f}"),
        )
    ]
    facts = (
        f"{result.sizes.prefixes:,} prefixes: compiled in {result.compile_s} s, merged in "
        f"{result.merge_s} s, {result.table_bytes / 1e6:,.0f} MB, mapped in {result.map_s} s; "
        f"{result.known_share:.0%} of the addresses known, {result.lookup_cpu_us} us of a core "
        f"each; {result.reloads} reloads; "
        f"{result.sizes.zones} zones compiled in {result.zones_compile_s} s"
    )
    return facts + "\n" + table(["", "p50", "p95", "p99", "max", "target"], rows)


def main() -> int:
    """Measure as the command line says; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefixes", type=int, default=2_000_000)
    parser.add_argument("--lookups", type=int, default=200_000)
    parser.add_argument("--zones", type=int, default=500)
    result = run(
        "benchmarks.ip_lookup",
        parser,
        Sizes,
        measure,
        report=report,
        name=lambda made: f"ip-lookup-{made.sizes.prefixes}",
    )
    missed = result.lookup_us.p99 > TARGET_US or result.zone_match_us.p99 > ZONES_TARGET_US
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
