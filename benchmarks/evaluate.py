"""Promise: a live session is judged within a millisecond or two, over HTTP within a few.

Two parts. The engine alone, in this process: an unchanged context (an answer that is held) and a
changed one (place, score, policies). Then the real hub over HTTP with one worker: an open loop at a
fixed rate, and a closed loop beside a Starlette route that does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from benchmarks.command import run
from benchmarks.figures import Percentiles, percentiles, table
from benchmarks.history import migrate
from benchmarks.hub_process import ADMIN_TOKEN, register_sessions, running_hub
from benchmarks.loadgen import LoadReport, build_requests, generate_load
from benchmarks.machine import Machine, machine_facts
from benchmarks.serving import running
from benchmarks.tokens import TokenPlan
from hub.denied import DeniedUsers
from hub.inline.evaluator import Evaluator
from hub.inline.model import SessionQuestion
from hub.inline.place import Placing
from hub.inline.warmth import Warmth
from hub.node import Node, ProcessConfig, open_node
from hub.operations import all_operations
from hub.sign_ins.assembly import open_history
from risk.baselines.memory import Recorder
from risk.policies.sessions import policies_cache
from risk.sessions.model import PutSession
from risk.sessions.service import PUT_SESSION
from risk.zones.service import Zones
from runtime.caller import Caller

ISSUER: Final = "https://idp.example"
TENANT: Final = "default"
AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36"
)
UNCHANGED_P50_MS, UNCHANGED_P99_MS = 0.2, 1.0
CHANGED_P50_MS, CHANGED_P99_MS = 1.0, 5.0
OPEN_P99_MS: Final = 3.0
OF_NOOP: Final = 0.5
REGISTERED_AT_ONCE: Final = 256
CALLER: Final = Caller(
    tenant_id=TENANT,
    client_id="cli_benchmark",
    scopes=frozenset({"sessions.evaluate"}),
    app_id=None,
)


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
    sessions_mb: float
    open_loop: LoadReport
    closed_loop: LoadReport
    noop: LoadReport
    of_noop: float


def measure(sizes: Sizes, folder: Path, *, command: str) -> EvaluateResult:
    """Measure engine and hub; every file lies in `folder`."""
    machine = machine_facts(folder)
    unchanged, changed, cold, megabytes = uvloop.run(_engine(sizes, folder))
    open_loop, closed_loop = _over_http(sizes, folder)
    with running(["benchmarks.noop_app"]) as noop:
        requests = build_requests(
            f"{noop.url}/events", [_body("198.51.100.7")] * sizes.requests, bearer_token=ADMIN_TOKEN
        )
        idle = uvloop.run(generate_load(noop.url, requests, connections=sizes.connections))
    return EvaluateResult(
        machine=machine,
        command=command,
        sizes=sizes,
        unchanged_ms=unchanged,
        changed_ms=changed,
        cold_ms=cold,
        sessions_mb=megabytes,
        open_loop=open_loop,
        closed_loop=closed_loop,
        noop=idle,
        of_noop=closed_loop.requests_per_s / idle.requests_per_s,
    )


# --- the engine ---------------------------------------------------------------------------------


async def _engine(
    sizes: Sizes, folder: Path
) -> tuple[Percentiles, Percentiles, Percentiles, float]:
    url = f"sqlite:///{folder / 'engine.db'}"
    migrate({"SIGNALHUB_DATABASE_URL": url})
    config = ProcessConfig(
        role="core",
        index=0,
        node="benchmark",
        issuer="https://hub.example",
        database_url=url,
        core_socket=None,
        secret_key="a secret key for one benchmark, long enough",  # noqa: S106 - lives for one run
        dev_insecure=False,
        egress_allow=(),
        extra_ca=None,
        log_level="error",
        evaluate_deadline_ms=1_000.0,
    )
    async with open_node(config, all_operations()) as node:
        evaluator = _evaluator(node)
        await _register(node, sizes.sessions)
        before = _peak_mb()
        cold = await _timed(evaluator, _questions(node, range(sizes.sessions)))
        await evaluator.behind.flush()
        megabytes = _peak_mb() - before
        await node.changes.refresh()
        places = [number % sizes.sessions for number in range(sizes.questions)]
        await _timed(evaluator, _questions(node, places))
        unchanged = await _timed(evaluator, _questions(node, places))
        changed = await _timed(evaluator, _questions(node, places, moving=True))
    return percentiles(unchanged), percentiles(changed), percentiles(cold), round(megabytes, 1)


def _evaluator(node: Node) -> Evaluator:
    zones = Zones(
        node.database, node.feed, networks=node.networks, clock=node.clock, trusted_proxies=()
    )
    history = open_history(node)
    denied_users = DeniedUsers(node.database, node.changes)
    policies = policies_cache(node.feed, node.database)
    return Evaluator(
        node,
        denied_users=denied_users,
        policies=policies,
        warmth=Warmth(node.feed, denied_users, [("policies", policies.get)]),
        placing=Placing(zones),
        history=history,
        recorder=Recorder(node.writer, history.baselines),
    )


async def _register(node: Node, count: int) -> None:
    now = node.clock.now()
    for first in range(0, count, REGISTERED_AT_ONCE):
        await asyncio.gather(
            *(
                node.writer.submit(
                    PUT_SESSION,
                    PutSession(
                        tenant_id=TENANT,
                        iss=ISSUER,
                        sid=f"sid-{number}",
                        user=[{"format": "email", "email": f"user{number}@customer.example"}],
                        device=None,
                        started_at=now,
                        now=now,
                        expires_at=now + timedelta(days=1),
                    ),
                )
                for number in range(first, min(first + REGISTERED_AT_ONCE, count))
            )
        )


def _questions(
    node: Node, numbers: Sequence[int], *, moving: bool = False
) -> Iterator[SessionQuestion]:
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


async def _timed(evaluator: Evaluator, questions: Iterator[SessionQuestion]) -> list[float]:
    samples = []
    for question in questions:
        started = time.perf_counter()
        await evaluator.evaluate(CALLER, question)
        samples.append((time.perf_counter() - started) * 1000)
        # The feeds and what is written behind answers get their turn, outside the samples.
        await asyncio.sleep(0)
    return samples


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


# --- over HTTP ----------------------------------------------------------------------------------


def _over_http(sizes: Sizes, folder: Path) -> tuple[LoadReport, LoadReport]:
    plan = TokenPlan(
        issuer=ISSUER,
        audience="",
        count=0,
        label="evaluate",
        subject_count=min(sizes.sessions, 2_000),
    )
    environment = {"SIGNALHUB_CLIENT_REQUESTS_PER_S": "1000000"}
    with running_hub(folder, environment=environment) as hub:
        register_sessions(hub.url, ADMIN_TOKEN, plan)
        requests = [
            _request(hub.url, number % plan.subject_count) for number in range(sizes.requests)
        ]
        warm = requests[: plan.subject_count]
        for _ in range(2):
            uvloop.run(generate_load(hub.url, warm, connections=sizes.connections))
        time.sleep(1.0)  # what is written behind the first answers is told to all
        uvloop.run(generate_load(hub.url, warm, connections=sizes.connections))
        closed = uvloop.run(generate_load(hub.url, requests, connections=sizes.connections))
        paced = uvloop.run(
            generate_load(
                hub.url,
                requests,
                connections=sizes.connections,
                rate_per_s=sizes.rate_per_s,
            )
        )
    return paced, closed


def _body(ip: str) -> bytes:
    question = {
        "iss": ISSUER,
        "ip_chain": [ip],
        "ua": AGENT,
        "device": {"token_hash": "a" * 64},
        "method": "GET",
    }
    return msgspec.json.encode(question)


def _request(url: str, number: int) -> bytes:
    body = _body("198.51.100.7")
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
        f"that does nothing (target {OF_NOOP:.0%}); statuses {statuses}\n"
        f"{result.sizes.sessions:,} live sessions: {result.sessions_mb} MB"
    )


def main() -> int:
    """Measure, print and perhaps keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=40_000)
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
