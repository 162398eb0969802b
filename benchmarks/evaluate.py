"""Promise: a live session is judged within a millisecond or two, over HTTP within a few.

Two parts. The engine alone, in this process: an unchanged context (an answer that is held) and a
changed one (place, score, policies). Then the real hub over HTTP with one worker: an open loop at a
fixed rate, and closed loops that take turns with a Starlette route that does nothing, with the
processor time of both servers per request.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from benchmarks.command import run
from benchmarks.engine import (
    AGENT,
    CALLER,
    FLUSHED_EVERY,
    ISSUER,
    TENANT,
    Judging,
    engine_config,
    open_judging,
    register,
)
from benchmarks.figures import Percentiles, percentiles, table
from benchmarks.history import migrate
from benchmarks.hub_process import ADMIN_TOKEN, register_sessions, running_hub
from benchmarks.loadgen import LoadReport, build_requests, generate_load
from benchmarks.machine import Machine, machine_facts
from benchmarks.serving import cpu_s, pss_bytes, running
from benchmarks.tokens import TokenPlan
from hub.inline.model import SessionQuestion
from hub.node import Node, open_node
from hub.operations import all_operations

UNCHANGED_P50_MS, UNCHANGED_P99_MS = 0.2, 1.0
CHANGED_P50_MS, CHANGED_P99_MS = 1.0, 5.0
OPEN_P99_MS: Final = 3.0
OF_NOOP: Final = 0.5
MEMORY_MB: Final = 1_000
#: sessions that are asked about again and again: what is in memory is believed for a minute
ASKED: Final = 5_000
ROUNDS: Final = 4


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions, questions to the engine, requests, at which rate, over how many ways."""

    sessions: int
    questions: int
    requests: int
    rate_per_s: float
    connections: int


class EvaluateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run; milliseconds, megabytes of 10^6 bytes."""

    machine: Machine
    command: str
    sizes: Sizes
    unchanged_ms: Percentiles
    changed_ms: Percentiles
    cold_ms: Percentiles
    #: of the whole process, and what of it is sessions, their baselines and answers
    memory_mb: float
    sessions_mb: float
    open_loop: LoadReport
    closed_loop: LoadReport
    noop: LoadReport
    of_noop: float
    #: processor time of one request, microseconds: the hub's api process and core, and the no-op
    hub_cpu_us: float
    noop_cpu_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What was measured without HTTP."""

    unchanged: Percentiles
    changed: Percentiles
    cold: Percentiles
    memory_mb: float
    sessions_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OverHTTP:
    """What was measured with it. closed, noop: the rounds in the middle by their rates."""

    open_loop: LoadReport
    closed: LoadReport
    noop: LoadReport
    hub_cpu_us: float
    noop_cpu_us: float


def measure(sizes: Sizes, folder: Path, *, command: str) -> EvaluateResult:
    """Measure engine and hub; every file lies in `folder`."""
    machine = machine_facts(folder)
    engine = uvloop.run(_engine(sizes, folder))
    http = _over_http(sizes, folder)
    return EvaluateResult(
        machine=machine,
        command=command,
        sizes=sizes,
        unchanged_ms=engine.unchanged,
        changed_ms=engine.changed,
        cold_ms=engine.cold,
        memory_mb=engine.memory_mb,
        sessions_mb=engine.sessions_mb,
        open_loop=http.open_loop,
        closed_loop=http.closed,
        noop=http.noop,
        of_noop=http.closed.requests_per_s / http.noop.requests_per_s,
        hub_cpu_us=http.hub_cpu_us,
        noop_cpu_us=http.noop_cpu_us,
    )


# --- the engine ---------------------------------------------------------------------------------


async def _engine(sizes: Sizes, folder: Path) -> Engine:
    url = f"sqlite:///{folder / 'engine.db'}"
    migrate({"SIGNALHUB_DATABASE_URL": url})
    async with open_node(engine_config(url), all_operations()) as node:
        judging = open_judging(node)
        await register(node, sizes.sessions)
        before = _memory_mb()
        cold = await _timed(judging, questions(node, range(sizes.sessions)), flushing=True)
        memory_mb = _memory_mb()
        await node.changes.refresh()
        asked = min(sizes.sessions, ASKED)
        await _timed(judging, questions(node, range(asked)))
        places = [number % asked for number in range(sizes.questions)]
        unchanged = await _timed(judging, questions(node, places))
        changed = await _timed(judging, questions(node, places, moving=True), flushing=True)
    return Engine(
        unchanged=percentiles(unchanged),
        changed=percentiles(changed),
        cold=percentiles(cold),
        memory_mb=round(memory_mb, 1),
        sessions_mb=round(memory_mb - before, 1),
    )


def questions(
    node: Node, numbers: Sequence[int], *, moving: bool = False
) -> Iterator[SessionQuestion]:
    """Yield a question about each session. moving: from a new address each time."""
    for place, number in enumerate(numbers):
        ip = f"203.{place % 200}.{place // 200 % 250}.{place % 250}" if moving else "198.51.100.7"
        yield SessionQuestion(
            tenant_id=TENANT,
            at=node.clock.now(),
            iss=ISSUER,
            sid=f"sid-{number}",
            chain=(ip,),
            user_agent=AGENT,
            device_token_hash=f"{number:064x}",
        )


async def _timed(
    judging: Judging, questions: Iterator[SessionQuestion], *, flushing: bool = False
) -> list[float]:
    """Return how long each question took, milliseconds. flushing: what is written behind, too."""
    samples = []
    for place, question in enumerate(questions):
        started = time.perf_counter()
        await judging.evaluator.evaluate(CALLER, question)
        samples.append((time.perf_counter() - started) * 1000)
        # The feeds and what is written behind answers get their turn, outside the samples.
        await asyncio.sleep(0)
        if flushing and place % FLUSHED_EVERY == 0:
            await judging.flush()
    if flushing:
        await judging.flush()
    return samples


def _memory_mb() -> float:
    gc.collect()
    return pss_bytes(os.getpid()) / 1e6


# --- over HTTP ----------------------------------------------------------------------------------


def _over_http(sizes: Sizes, folder: Path) -> OverHTTP:
    plan = TokenPlan(
        issuer=ISSUER,
        audience="",
        count=0,
        label="evaluate",
        subject_count=min(sizes.sessions, 2_000),
    )
    with (
        running_hub(folder) as hub,
        running(["benchmarks.noop_app"]) as noop,
    ):
        register_sessions(hub.url, ADMIN_TOKEN, plan)
        requests = [
            session_question(hub.url, number % plan.subject_count)
            for number in range(sizes.requests)
        ]
        idle_requests = build_requests(
            f"{noop.url}/events",
            [session_body(number % plan.subject_count) for number in range(sizes.requests)],
            bearer_token=ADMIN_TOKEN,
        )
        warm = requests[: plan.subject_count]
        for _ in range(3):
            _load(hub.url, warm, sizes)
            time.sleep(1.0)  # what is written behind the answers is told to all
        paced = _load(hub.url, requests, sizes, rate_per_s=sizes.rate_per_s)
        closed, idle, hub_us, idle_us = [], [], [], []
        for _ in range(ROUNDS):
            used = cpu_s(hub.pid)
            closed.append(_load(hub.url, requests, sizes))
            hub_us.append((cpu_s(hub.pid) - used) / sizes.requests * 1e6)
            used = cpu_s(noop.pid)
            idle.append(_load(noop.url, idle_requests, sizes))
            idle_us.append((cpu_s(noop.pid) - used) / sizes.requests * 1e6)
    return OverHTTP(
        open_loop=paced,
        closed=_middle(closed),
        noop=_middle(idle),
        hub_cpu_us=round(statistics.median(hub_us), 1),
        noop_cpu_us=round(statistics.median(idle_us), 1),
    )


def _load(
    url: str, requests: Sequence[bytes], sizes: Sizes, *, rate_per_s: float | None = None
) -> LoadReport:
    return uvloop.run(
        generate_load(url, requests, connections=sizes.connections, rate_per_s=rate_per_s)
    )


def _middle(rounds: Sequence[LoadReport]) -> LoadReport:
    return sorted(rounds, key=lambda each: each.requests_per_s)[len(rounds) // 2]


def session_body(number: int, *, app: str | None = None) -> bytes:
    """Return the question of a session: everybody has a device of their own."""
    question = {
        "iss": ISSUER,
        "ip_chain": [f"198.51.100.{number % 250}"],
        "ua": AGENT,
        "device": {"token_hash": f"{number:064x}"},
        "method": "GET",
    }
    return msgspec.json.encode(question if app is None else question | {"app_id": app})


def session_question(url: str, number: int, *, app: str | None = None) -> bytes:
    """Return the request that asks about the session of a subject."""
    body = session_body(number, app=app)
    head = (
        f"POST /v1/sessions/sid-{number}/evaluate HTTP/1.1\r\n"
        f"Host: {url.removeprefix('http://')}\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def report_text(result: EvaluateResult) -> str:
    """Return the figures beside their targets."""
    rows = [
        ("engine, unchanged", result.unchanged_ms, f"{UNCHANGED_P50_MS} / {UNCHANGED_P99_MS}"),
        ("engine, changed", result.changed_ms, f"{CHANGED_P50_MS} / {CHANGED_P99_MS}"),
        ("engine, cold", result.cold_ms, ""),
        (
            f"HTTP, open loop at {result.sizes.rate_per_s:g}/s",
            result.open_loop.latency_ms,
            f"- / {OPEN_P99_MS}",
        ),
        ("HTTP, closed loop", result.closed_loop.latency_ms, ""),
    ]
    shown = table(
        ("", "p50 ms", "p99 ms", "target p50 / p99"),
        [(name, f"{each.p50:.3f}", f"{each.p99:.3f}", target) for name, each, target in rows],
    )
    statuses = {**result.open_loop.statuses, **result.closed_loop.statuses}
    return (
        f"{shown}\n"
        f"closed loop: {result.closed_loop.requests_per_s:,.0f}/s, {result.of_noop:.0%} of a route "
        f"that does nothing (target {OF_NOOP:.0%}), {result.hub_cpu_us:.0f} us of processor time "
        f"each, {result.noop_cpu_us:.0f} of that; statuses {statuses}\n"
        f"{result.sizes.sessions:,} live sessions with their baselines: {result.sessions_mb:,} MB; "
        f"the whole process {result.memory_mb:,} MB (target {MEMORY_MB:,})"
    )


def main() -> int:
    """Measure, print and perhaps keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rate-per-s", type=float, default=2_000.0)
    parser.add_argument("--connections", type=int, default=32)
    run(
        "benchmarks.evaluate",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda _result: "evaluate",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
