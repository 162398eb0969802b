"""Promise: sessions are judged in milliseconds while SETs come in and go out, and news is seen.

One hub with one worker. A vendor sends at a fixed rate, and what it sends is relayed: signed and
pushed. Beside it an open loop asks about sessions. Then, under the same load, an admin raises one
user after another, and somebody keeps asking about a session of theirs: *seen* is the time from the
acknowledged change until the answer is another one.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
import msgspec
import uvloop

from benchmarks.command import run
from benchmarks.evaluate import session_body, session_question
from benchmarks.figures import Percentiles, percentiles, table
from benchmarks.hub_process import ADMIN_TOKEN, HubProcess, running_hub
from benchmarks.loadgen import Load, LoadReport, generate_load, run_load
from benchmarks.machine import Machine, machine_facts
from benchmarks.streams import (
    INTAKE_TOKEN,
    Vendor,
    add_app,
    add_streams,
    add_vendor,
    emails,
    push_to,
    receiving,
    set_level,
    wait_for,
)

BUSY_P99_MS: Final = 5.0
SEEN_MS: Final = 1_000.0
SEEN_GOAL_MS: Final = 100.0
ASK_AGAIN_S: Final = 0.002
SEEN_LIMIT_S: Final = 10.0
BEFORE_S: Final = 1.0


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions, both rates, for how long, and how many changes are looked for."""

    sessions: int
    rate_per_s: float
    sets_per_s: float
    seconds: float
    changes: int
    connections: int


class BusyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. intake, questions: of the same seconds."""

    machine: Machine
    command: str
    sizes: Sizes
    intake: LoadReport
    questions: LoadReport
    pushed: int
    seen_ms: Percentiles


def measure(sizes: Sizes, folder: Path, *, command: str) -> BusyResult:
    """Run one hub, one vendor and one receiver; every file lies in `folder`."""
    machine = machine_facts(folder)
    with running_hub(folder) as hub, receiving() as receiver:
        sets = int(sizes.sets_per_s * sizes.seconds)
        vendor = add_vendor(hub, label="busy", subjects=max(2 * sets, sizes.sessions))
        add_streams(hub, add_app(hub, "busy"), [push_to(receiver, 0)])
        # Whose sessions the vendor ends are not those asked about.
        asked = range(2 * sets - sizes.sessions, 2 * sets)
        questions = [session_question(hub.url, number) for number in asked]
        for _ in range(3):
            _ask(hub, questions, sizes)
            time.sleep(BEFORE_S)
        wanted = int(sizes.rate_per_s * sizes.seconds)
        many = [questions[place % len(questions)] for place in range(wanted)]
        with _feeding(vendor, sizes, first=0, count=sets) as reports:
            time.sleep(BEFORE_S)
            answered = _ask(hub, many, sizes, rate_per_s=sizes.rate_per_s)
        with _feeding(vendor, sizes, first=sets, count=sets // 2):
            seen = [_seen_ms(hub, vendor, asked[place]) for place in range(sizes.changes)]
        pushed = wait_for(receiver, sets).received
    return BusyResult(
        machine=machine,
        command=command,
        sizes=sizes,
        intake=reports[0],
        questions=answered,
        pushed=pushed,
        seen_ms=percentiles(seen),
    )


@contextmanager
def _feeding(vendor: Vendor, sizes: Sizes, *, first: int, count: int) -> Iterator[list[LoadReport]]:
    """Let the vendor send meanwhile; its report is in the list afterwards."""
    load = Load(
        url=vendor.events_url,
        tokens_file=str(vendor.tokens),
        bearer_token=INTAKE_TOKEN,
        first=first,
        count=count,
        connections=sizes.connections,
        rate_per_s=sizes.sets_per_s,
    )
    reports: list[LoadReport] = []
    sending = threading.Thread(target=lambda: reports.append(run_load(load)))
    sending.start()
    try:
        yield reports
    finally:
        sending.join()


def _ask(
    hub: HubProcess, requests: Sequence[bytes], sizes: Sizes, *, rate_per_s: float | None = None
) -> LoadReport:
    return uvloop.run(
        generate_load(hub.url, requests, connections=sizes.connections, rate_per_s=rate_per_s)
    )


def _seen_ms(hub: HubProcess, vendor: Vendor, number: int) -> float:
    """Raise a user to HIGH; return how long it took until their session is judged otherwise."""
    path = f"{hub.url}/v1/sessions/sid-{number}/evaluate"
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"}
    (email,) = emails(vendor, number + 1)[number:]
    with httpx2.Client(headers=headers) as client:

        def decision() -> tuple[str, str | None]:
            answer = client.post(path, content=session_body(number)).raise_for_status().json()
            # Policies are in monitor mode unless an operator enforces them.
            return answer["decision"], answer.get("would_have")

        before = decision()
        set_level(hub, [email], "HIGH")
        acknowledged = time.perf_counter()
        while decision() == before:
            if time.perf_counter() - acknowledged > SEEN_LIMIT_S:
                raise TimeoutError(f"still {before}")
            time.sleep(ASK_AGAIN_S)
        return (time.perf_counter() - acknowledged) * 1000


def report_text(result: BusyResult) -> str:
    """Return the figures beside their targets."""
    sizes, asked, seen = result.sizes, result.questions.latency_ms, result.seen_ms
    rows = [
        (
            f"questions at {sizes.rate_per_s:g}/s, {sizes.sets_per_s:g} SETs/s come and go",
            f"{asked.p50:.2f}",
            f"{asked.p99:.2f}",
            f"p99 {BUSY_P99_MS:g}",
        ),
        (
            "a raised level is seen",
            f"{seen.p50:.0f}",
            f"{seen.p99:.0f}",
            f"{SEEN_MS:g}, goal {SEEN_GOAL_MS:g}",
        ),
    ]
    return (
        table(("", "p50 ms", "p99 ms", "target ms"), rows)
        + f"\nquestions {result.questions.statuses}, SETs {result.intake.statuses} with p99 "
        f"{result.intake.latency_ms.p99:.1f} ms, {result.pushed:,} pushed"
    )


def main() -> int:
    """Measure, print and perhaps keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--rate-per-s", type=float, default=1_000.0)
    parser.add_argument("--sets-per-s", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--connections", type=int, default=32)
    run(
        "benchmarks.busy",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda _result: "busy",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
