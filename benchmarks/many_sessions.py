"""Promise: with more live sessions than fit into memory every answer is still right.

A million sessions are stored, every tenth of them ended. One process asks about more of them than
it holds, each where it began, and about the first ones again when they are long forgotten: where
they began, and from another network by another device.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
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
)
from benchmarks.figures import Percentiles, percentiles, table
from benchmarks.history import migrate
from benchmarks.machine import Machine, machine_facts
from benchmarks.serving import pss_bytes
from hub.inline.model import SessionQuestion
from hub.node import Node, open_node
from hub.operations import all_operations
from risk.sessions.model import Session
from risk.sessions.store import write_sessions

SEED: Final = 4
STORED_AT_ONCE: Final = 5_000
ENDED_EVERY: Final = 10
AGAIN: Final = 2_000
OTHER_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions are stored, held at most, and asked about."""

    stored: int
    held: int
    asked: int


class ManySessionsResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. wrong: answers that should have been others. held: sessions in memory at the end."""

    machine: Machine
    command: str
    sizes: Sizes
    store_s: float
    answers: dict[str, int]
    wrong: int
    held: int
    cold_ms: Percentiles
    memory_mb: float


def measure(sizes: Sizes, folder: Path, *, command: str) -> ManySessionsResult:
    """Measure once; the database lies in `folder`."""
    machine = machine_facts(folder)
    return uvloop.run(_measure(sizes, folder, machine, command))


async def _measure(
    sizes: Sizes, folder: Path, machine: Machine, command: str
) -> ManySessionsResult:
    url = f"sqlite:///{folder / 'many.db'}"
    migrate({"SIGNALHUB_DATABASE_URL": url})
    async with open_node(engine_config(url), all_operations()) as node:
        started = time.perf_counter()
        await _store(node, sizes.stored)
        store_s = time.perf_counter() - started
        judging = open_judging(node, held_max=sizes.held)
        asking = _Asking(judging, node)
        numbers = random.Random(SEED).sample(range(sizes.stored), sizes.asked)
        await asking.ask(numbers)
        first = numbers[: min(AGAIN, len(numbers))]
        await asking.ask(first)
        await asking.ask(first, stolen=True)
        gc.collect()
        memory_mb = pss_bytes(os.getpid()) / 1e6
    return ManySessionsResult(
        machine=machine,
        command=command,
        sizes=sizes,
        store_s=round(store_s, 1),
        answers=dict(asking.answers),
        wrong=asking.wrong,
        held=len(judging.evaluator.live),
        cold_ms=percentiles(asking.samples_ms),
        memory_mb=round(memory_mb, 1),
    )


class _Asking:
    """Asks, and compares each answer with what it has to be."""

    def __init__(self, judging: Judging, node: Node) -> None:
        self._judging = judging
        self._node = node
        self.answers: Counter[str] = Counter()
        self.wrong = 0
        self.samples_ms: list[float] = []

    async def ask(self, numbers: Iterable[int], *, stolen: bool = False) -> None:
        """Ask about sessions. stolen: by somebody else than who they are of."""
        for place, number in enumerate(numbers):
            question = self._question(number, stolen=stolen)
            started = time.perf_counter()
            answer = await self._judging.evaluator.evaluate(CALLER, question)
            self.samples_ms.append((time.perf_counter() - started) * 1000)
            verdict = answer.verdict
            told = (verdict.would_have or verdict.decision).name
            self.answers[told] += 1
            self.wrong += not _is_right(number, told, answer.changed, stolen=stolen)
            await asyncio.sleep(0)
            if place % FLUSHED_EVERY == 0:
                await self._judging.flush()
        await self._judging.flush()
        await self._node.changes.refresh()

    def _question(self, number: int, *, stolen: bool) -> SessionQuestion:
        return SessionQuestion(
            tenant_id=TENANT,
            at=self._node.clock.now(),
            iss=ISSUER,
            sid=f"sid-{number}",
            chain=("203.0.113.9" if stolen else "198.51.100.7",),
            user_agent=OTHER_AGENT if stolen else AGENT,
            device_token_hash=f"{number + 10**9 if stolen else number:064x}",
        )


def _is_right(number: int, told: str, changed: tuple[str, ...], *, stolen: bool) -> bool:
    if number % ENDED_EVERY == 0:
        return told == "TERMINATE"
    return bool(changed) if stolen else told == "ALLOW" and not changed


async def _store(node: Node, count: int) -> None:
    now = node.clock.now()
    for first in range(0, count, STORED_AT_ONCE):
        made = [_session(each, now) for each in range(first, min(first + STORED_AT_ONCE, count))]
        async with node.database.transaction() as connection:
            await write_sessions(connection, made)


def _session(number: int, now: datetime) -> Session:
    return Session(
        tenant_id=TENANT,
        iss=ISSUER,
        sid=f"sid-{number}",
        session_id=f"ses_{number:026}",
        user_id=f"usr_{number:026}",
        device_id=None,
        app_id=None,
        client=None,
        amr=("pwd",),
        acr=None,
        started_at=now,
        expires_at=now + timedelta(days=1),
        ended_at=now if number % ENDED_EVERY == 0 else None,
        cookie_sha256=None,
        created_at=now,
        updated_at=now,
    )


def report_text(result: ManySessionsResult) -> str:
    """Return the figures."""
    cold = result.cold_ms
    shown = table(("", "p50 ms", "p99 ms"), [("cold", f"{cold.p50:.3f}", f"{cold.p99:.3f}")])
    return (
        f"{shown}\n{result.sizes.stored:,} sessions stored in {result.store_s} s; answers "
        f"{result.answers}, {result.wrong} of them wrong (target 0); {result.held:,} sessions held "
        f"(at most {result.sizes.held:,}); the whole process {result.memory_mb:,} MB"
    )


def main() -> int:
    """Measure, print and perhaps keep the result; 1 when an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--held", type=int, default=10_000)
    parser.add_argument("--asked", type=int, default=20_000)
    result = run(
        "benchmarks.many_sessions",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda _result: "many-sessions",
    )
    return int(result.wrong > 0 or result.held > result.sizes.held)


if __name__ == "__main__":
    sys.exit(main())
