"""Promise: one push stream with a slow receiver still gets its SETs fast, in order per subject.

The stream is paused, filled with one event per user, and enabled; the receiver takes 20 ms to
answer each SET. What matters is how many SETs are under way at once without two of one subject.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.command import run
from benchmarks.figures import table
from benchmarks.hub_process import running_hub
from benchmarks.machine import Machine, machine_facts, past
from benchmarks.receiver import Verdict
from benchmarks.streams import (
    add_app,
    add_streams,
    add_vendor,
    cpu_by_role,
    emails,
    push_to,
    receiving,
    set_level,
    set_status,
    stream_ids,
    us_each,
    wait_for,
)

TARGET_PER_S: Final = 400
LEVELS: Final = ("HIGH", "MEDIUM", "HIGH", "MEDIUM", "HIGH", "MEDIUM", "HIGH", "MEDIUM")


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many subjects, SETs of each, and how long the receiver takes."""

    subjects: int
    sets_each: int
    delay_ms: float
    history: int


class OneStreamResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    machine: Machine
    command: str
    sizes: Sizes
    sets_per_s: float
    cpu_us_per_delivery: dict[str, float]
    verdict: Verdict


def measure(sizes: Sizes, folder: Path, *, command: str) -> OneStreamResult:
    """Run one hub and one receiver; every file lies in `folder`."""
    machine = machine_facts(folder)
    with (
        running_hub(folder, history=sizes.history) as hub,
        receiving(delay_ms=sizes.delay_ms) as receiver,
    ):
        vendor = add_vendor(hub, label="onestream", subjects=sizes.subjects)
        app = add_app(hub, "one stream")
        add_streams(hub, app, [push_to(receiver, 0)])
        set_status(hub, app, "paused")
        for level in LEVELS[: sizes.sets_each]:
            set_level(hub, emails(vendor, sizes.subjects), level)
        assert stream_ids(hub, app)
        before = cpu_by_role(hub)
        set_status(hub, app, "enabled")
        verdict = wait_for(receiver, sizes.subjects * sizes.sets_each)
        used = cpu_by_role(hub).since(before)
    return OneStreamResult(
        machine=machine,
        command=command,
        sizes=sizes,
        sets_per_s=verdict.received / (verdict.last_at_s - verdict.first_at_s),
        cpu_us_per_delivery=us_each(used, verdict.received),
        verdict=verdict,
    )


def report_text(result: OneStreamResult) -> str:
    """Return the result for people."""
    sizes, cpu = result.sizes, result.cpu_us_per_delivery
    row = (
        f"{sizes.delay_ms:g} ms per SET, {sizes.subjects} subjects",
        f"{result.sets_per_s:,.0f}",
        f"{result.verdict.out_of_order}",
        *(f"{cpu[role]:,.0f}" for role in ("delivery", "core", "api")),
    )
    header = ("one stream", "per s", "out of order", "delivery us", "core us", "api us")
    return f"{table(header, [row])}\n\ntarget {TARGET_PER_S} per s; {result.verdict}"


def main() -> int:
    """Measure, print, and keep the result; 1 when the order per subject broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=640)
    parser.add_argument("--sets-each", type=int, default=8, choices=range(1, len(LEVELS) + 1))
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--history", type=int, default=0, help="old events in the database")
    result = run(
        "benchmarks.one_stream",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda result: "one-stream" + past(result.sizes.history),
    )
    return 0 if result.verdict.out_of_order == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
