"""Promise: a hundred thousand live sessions and baselines take less than a gigabyte.

The real hub with one worker and the sessions of as many users. Each is asked about over HTTP, from
an address and with a device of its own, until all are held with their answers; then the memory of
all processes is added up (PSS: what processes share counts once).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from benchmarks.command import run
from benchmarks.engine import engine_config, register
from benchmarks.evaluate import MEMORY_MB, session_question
from benchmarks.figures import table
from benchmarks.history import migrate
from benchmarks.hub_process import HubProcess, running_hub
from benchmarks.loadgen import generate_load
from benchmarks.machine import Machine, machine_facts
from benchmarks.serving import pss_bytes
from hub.node import open_node
from hub.operations import all_operations

#: requests of one run of the load generator
AT_ONCE: Final = 5_000
OK: Final = 200


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions, and over how many connections they are asked about."""

    sessions: int
    connections: int


class SessionMemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run; megabytes of 10^6 bytes, bytes per session with its user's baseline."""

    machine: Machine
    command: str
    sizes: Sizes
    fresh_mb: float
    loaded_mb: float
    per_session_bytes: int
    baselines: int
    statuses: dict[str, int]


def measure(sizes: Sizes, folder: Path, *, command: str) -> SessionMemoryResult:
    """Run one hub; every file lies in `folder`."""
    machine = machine_facts(folder)
    uvloop.run(_register(folder, sizes.sessions))
    statuses: Counter[str] = Counter()
    with running_hub(folder) as hub:
        fresh = pss_bytes(hub.pid)
        # The second time for an app: another answer, and the baseline that the first one made.
        for app in (None, "mail"):
            _ask(hub, range(sizes.sessions), sizes, statuses, app)
        loaded = pss_bytes(hub.pid)
        baselines = hub.rows("SELECT count(*) FROM baselines")[0][0]
    return SessionMemoryResult(
        machine=machine,
        command=command,
        sizes=sizes,
        fresh_mb=round(fresh / 1e6, 1),
        loaded_mb=round(loaded / 1e6, 1),
        per_session_bytes=round((loaded - fresh) / sizes.sessions),
        baselines=baselines,
        statuses=dict(statuses),
    )


async def _register(folder: Path, count: int) -> None:
    url = f"sqlite:///{folder / 'hub.db'}"
    migrate({"SIGNALHUB_DATABASE_URL": url})
    async with open_node(engine_config(url), all_operations()) as node:
        await register(node, count)


def _ask(
    hub: HubProcess,
    numbers: Iterable[int],
    sizes: Sizes,
    statuses: Counter[str],
    app: str | None,
) -> None:
    for some in _split(numbers):
        requests = [session_question(hub.url, number, app=app) for number in some]
        report = uvloop.run(generate_load(hub.url, requests, connections=sizes.connections))
        statuses.update({str(status): count for status, count in report.statuses.items()})


def _split(numbers: Iterable[int]) -> Iterator[list[int]]:
    left = iter(numbers)
    while some := list(islice(left, AT_ONCE)):
        yield some


def report_text(result: SessionMemoryResult) -> str:
    """Return the result for people."""
    row = (
        f"{result.sizes.sessions:,} sessions, {result.baselines:,} baselines",
        f"{result.fresh_mb:,.0f}",
        f"{result.loaded_mb:,.0f}",
        f"{MEMORY_MB:,}",
        f"{result.per_session_bytes:,}",
    )
    header = ("memory (PSS)", "fresh MB", "loaded MB", "target MB", "bytes each")
    return f"{table(header, [row])}\nstatuses {result.statuses}"


def main() -> int:
    """Measure, print and perhaps keep the result; 1 when it is too much, or one has no answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=32)
    result = run(
        "benchmarks.session_memory",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda _result: "session-memory",
    )
    return int(result.loaded_mb > MEMORY_MB or set(result.statuses) != {str(OK)})


if __name__ == "__main__":
    sys.exit(main())
