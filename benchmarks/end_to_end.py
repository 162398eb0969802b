"""Promise: a vendor's SET becomes an app's SET fast: received, verified, relayed, pushed.

A flood of SETs, each about another user, comes in by push; each is assessed, and relayed by a rule
to one push stream, signed anew. It counts from the first SET sent to the last one pushed, and tells
the CPU of each stage: api verifies, core stores and assesses and settles, delivery signs and
sends.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.command import run
from benchmarks.figures import table
from benchmarks.hub_process import running_hub
from benchmarks.loadgen import LoadReport
from benchmarks.machine import Machine, machine_facts, past
from benchmarks.receiver import Verdict
from benchmarks.streams import (
    add_app,
    add_streams,
    add_vendor,
    cpu_by_role,
    push_to,
    receiving,
    us_each,
    wait_for,
)

GOAL_PER_S: Final = 2_500


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many SETs go through."""

    sets: int
    history: int


class EndToEndResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. sets_per_s: from the first SET sent to the last one pushed."""

    machine: Machine
    command: str
    sizes: Sizes
    sets_per_s: float
    intake: LoadReport
    cpu_us_per_set: dict[str, float]
    verdict: Verdict


def measure(sizes: Sizes, folder: Path, *, command: str) -> EndToEndResult:
    """Run one hub and one receiver; every file lies in `folder`."""
    machine = machine_facts(folder)
    with running_hub(folder, history=sizes.history) as hub, receiving() as receiver:
        vendor = add_vendor(hub, label="endtoend", subjects=sizes.sets)
        add_streams(hub, add_app(hub, "end to end"), [push_to(receiver, 0)])
        before = cpu_by_role(hub)
        started = time.monotonic()
        intake = vendor.feed(first=0, count=sizes.sets)
        verdict = wait_for(receiver, sizes.sets)
        used = cpu_by_role(hub).since(before)
    return EndToEndResult(
        machine=machine,
        command=command,
        sizes=sizes,
        sets_per_s=verdict.received / (verdict.last_at_s - started),
        intake=intake,
        cpu_us_per_set=us_each(used, verdict.received),
        verdict=verdict,
    )


def report_text(result: EndToEndResult) -> str:
    """Return the result for people."""
    cpu = result.cpu_us_per_set
    row = (
        f"{result.sizes.sets:,} SETs",
        f"{result.sets_per_s:,.0f}",
        f"{result.intake.requests_per_s:,.0f}",
        *(f"{cpu[role]:,.0f}" for role in ("api", "core", "delivery")),
        f"{sum(cpu.values()):,.0f}",
    )
    header = ("end to end", "per s", "intake per s", "api us", "core us", "delivery us", "all us")
    return f"{table(header, [row])}\n\ngoal {GOAL_PER_S:,} per s; {result.verdict}"


def main() -> int:
    """Measure, print, and keep the result; 1 when the order per subject broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=0, help="old events in the database")
    result = run(
        "benchmarks.end_to_end",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda result: "end-to-end" + past(result.sizes.history),
    )
    return 0 if result.verdict.out_of_order == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
