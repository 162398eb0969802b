"""Promise: a poll stream is drained at most of the speed of signing.

The stream is filled while nobody polls. Then one client drains it, pages of 100, acknowledging
each page with the request for the next. CPU per stage says what bounds it: api renders and signs,
core acknowledges and hands out.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from benchmarks.command import run
from benchmarks.fanout import primitive_per_cpu_s
from benchmarks.figures import table
from benchmarks.hub_process import running_hub
from benchmarks.machine import Machine, machine_facts, past
from benchmarks.streams import (
    POLL,
    App,
    add_app,
    add_streams,
    add_vendor,
    cpu_by_role,
    stream_ids,
    us_each,
    wait_until,
)

TARGET_PER_CPU_S: Final = 3_000
PAGE: Final = 100
PENDING_SIGNALS: Final = "SELECT count(*) FROM signals WHERE state = 'received'"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many SETs wait."""

    sets: int
    history: int


class DrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. per_cpu_s: SETs per CPU-second of all the hub's processes."""

    machine: Machine
    command: str
    sizes: Sizes
    primitive_per_cpu_s: float
    sets_per_s: float
    per_cpu_s: float
    cpu_us_per_set: dict[str, float]
    drained: int
    twice: int


class Page(msgspec.Struct):
    """An answer to a poll."""

    sets: dict[str, str]
    moreAvailable: bool = False  # noqa: N815 - RFC 8936 §2.3


def measure(sizes: Sizes, folder: Path, *, command: str) -> DrainResult:
    """Run one hub and one poller; every file lies in `folder`."""
    machine = machine_facts(folder)
    with running_hub(folder, history=sizes.history) as hub:
        vendor = add_vendor(hub, label="drain", subjects=sizes.sets)
        app = add_app(hub, "drain")
        add_streams(hub, app, [{"method": POLL}])
        vendor.feed(first=0, count=sizes.sets)
        wait_until(hub, PENDING_SIGNALS, 0)
        (stream_id,) = stream_ids(hub, app)
        before = cpu_by_role(hub)
        started = time.monotonic()
        drained, twice = _drain(hub.url, app, stream_id)
        took_s = time.monotonic() - started
        used = cpu_by_role(hub).since(before)
    return DrainResult(
        machine=machine,
        command=command,
        sizes=sizes,
        primitive_per_cpu_s=primitive_per_cpu_s("RS256"),
        sets_per_s=drained / took_s,
        per_cpu_s=drained / used.total,
        cpu_us_per_set=us_each(used, drained),
        drained=drained,
        twice=twice,
    )


def _drain(url: str, app: App, stream_id: str) -> tuple[int, int]:
    """Poll until nothing is left; return how many SETs came, and how many of them twice."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    headers = {"authorization": f"Bearer {app.token}", "content-type": "application/json"}
    seen: set[str] = set()
    came, acks = 0, list[str]()
    while True:
        wanted = {"maxEvents": PAGE, "returnImmediately": True, "ack": acks}
        body = msgspec.json.encode(wanted)
        connection.request("POST", f"/ssf/poll/{stream_id}", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"the poll was answered {answer.status} {text!r}")
        page = msgspec.json.decode(text, type=Page)
        acks = list(page.sets)
        came += len(acks)
        seen.update(acks)
        if not acks:
            return came, came - len(seen)


def report_text(result: DrainResult) -> str:
    """Return the result for people."""
    cpu = result.cpu_us_per_set
    row = (
        f"{result.sizes.sets:,} SETs, pages of {PAGE}",
        f"{result.sets_per_s:,.0f}",
        f"{result.per_cpu_s:,.0f}",
        f"{result.per_cpu_s / result.primitive_per_cpu_s:.0%}",
        *(f"{cpu[role]:,.0f}" for role in ("api", "core", "delivery")),
    )
    header = ("drain", "per s", "per CPU-s", "of primitive", "api us", "core us", "delivery us")
    return (
        f"{table(header, [row])}\n\ngoal {TARGET_PER_CPU_S:,} per CPU-second; "
        f"drained {result.drained:,}, twice {result.twice}"
    )


def main() -> int:
    """Measure, print, and keep the result; 1 when a SET is missing or came twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=0, help="old events in the database")
    result = run(
        "benchmarks.drain",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda result: "drain" + past(result.sizes.history),
    )
    return 0 if (result.drained, result.twice) == (result.sizes.sets, 0) else 1


if __name__ == "__main__":
    sys.exit(main())
