"""Promise: ten thousand streams with a hundred thousand waiting SETs fit into little memory.

Poll streams that nobody polls hold one SET per stream and event. Then some are polled, so that the
processes have met the load, and the memory of all of them is added up (PSS: what processes share
counts once).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import httpx2
import msgspec

from benchmarks.command import run
from benchmarks.figures import table
from benchmarks.hub_process import HubProcess, running_hub
from benchmarks.machine import Machine, machine_facts
from benchmarks.serving import pss_bytes
from benchmarks.streams import (
    POLL,
    App,
    add_app,
    add_streams,
    add_vendor,
    emails,
    set_level,
    stream_ids,
)

TARGET_MB: Final = 500
STREAMS_PER_APP: Final = 1_000
POLLED: Final = 100
PENDING: Final = "SELECT count(*) FROM deliveries WHERE state = 'pending'"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many streams, and how many SETs wait on each."""

    streams: int
    events: int


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run; megabytes of 10^6 bytes. fresh: before there were streams."""

    machine: Machine
    command: str
    sizes: Sizes
    pending: int
    fresh_mb: float
    loaded_mb: float


def measure(sizes: Sizes, folder: Path, *, command: str) -> MemoryResult:
    """Run one hub; every file lies in `folder`."""
    machine = machine_facts(folder)
    with running_hub(folder) as hub:
        fresh = pss_bytes(hub.pid)
        vendor = add_vendor(hub, label="memory", subjects=sizes.events)
        apps = []
        for number in range(0, sizes.streams, STREAMS_PER_APP):
            apps.append(add_app(hub, f"memory {number}"))
            count = min(STREAMS_PER_APP, sizes.streams - number)
            add_streams(hub, apps[-1], [{"method": POLL}] * count)
        set_level(hub, emails(vendor, sizes.events), "HIGH")
        pending = hub.rows(PENDING)[0][0]
        _poll_some(hub, apps[0])
        loaded = pss_bytes(hub.pid)
    return MemoryResult(
        machine=machine,
        command=command,
        sizes=sizes,
        pending=pending,
        fresh_mb=round(fresh / 1e6, 1),
        loaded_mb=round(loaded / 1e6, 1),
    )


def _poll_some(hub: HubProcess, app: App) -> None:
    headers = {"authorization": f"Bearer {app.token}"}
    with httpx2.Client(base_url=hub.url, headers=headers, timeout=60) as client:
        for stream_id in stream_ids(hub, app)[:POLLED]:
            answer = client.post(f"/ssf/poll/{stream_id}", json={"returnImmediately": True})
            answer.raise_for_status()


def report_text(result: MemoryResult) -> str:
    """Return the result for people."""
    row = (
        f"{result.sizes.streams:,} streams",
        f"{result.pending:,}",
        f"{result.fresh_mb:,.0f}",
        f"{result.loaded_mb:,.0f}",
        f"{TARGET_MB}",
    )
    header = ("memory (PSS)", "pending SETs", "fresh MB", "loaded MB", "target MB")
    return table(header, [row])


def main() -> int:
    """Measure, print, and keep the result; 1 when not every stream holds every event."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=10)
    result = run(
        "benchmarks.memory",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda _result: "memory",
    )
    return 0 if result.pending == result.sizes.streams * result.sizes.events else 1


if __name__ == "__main__":
    sys.exit(main())
