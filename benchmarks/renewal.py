"""Promise: what is in use is read anew behind the answers, and costs a few percent of a core.

One process with the real evaluator. Sessions come into use a few at a time, and all that are in use
are asked about again and again; the process's own loops read them anew. The processor time of the
last minute, without that of the questions, is what this costs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from benchmarks.command import run
from benchmarks.engine import CALLER, Judging, engine_config, open_judging, register
from benchmarks.evaluate import questions
from benchmarks.history import migrate
from benchmarks.machine import Machine, machine_facts
from hub.inline.case import asked_of
from hub.node import Node, open_node
from hub.operations import all_operations

COMING_AT_ONCE: Final = 1_000
#: often enough that nothing in use grows too old to be believed
ASKED_EVERY_S: Final = 10.0
MEASURED_S: Final = 60.0
PAUSE_EVERY: Final = 200


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions are in use."""

    sessions: int


class RenewalResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. cores: processor seconds per second for renewal and for following what changes.

    asked, held: questions while it was measured, and those that were answered from memory.
    """

    machine: Machine
    command: str
    sizes: Sizes
    cores: float
    asked: int
    held: int


def measure(sizes: Sizes, folder: Path, *, command: str) -> RenewalResult:
    """Measure once; the database lies in `folder`."""
    machine = machine_facts(folder)
    return uvloop.run(_measure(sizes, folder, machine, command))


async def _measure(sizes: Sizes, folder: Path, machine: Machine, command: str) -> RenewalResult:
    url = f"sqlite:///{folder / 'renewal.db'}"
    migrate({"SIGNALHUB_DATABASE_URL": url})
    async with open_node(engine_config(url), all_operations()) as node:
        use = _Use(open_judging(node), node)
        await register(node, sizes.sessions)
        for first in range(0, sizes.sessions, COMING_AT_ONCE):
            coming = range(first, min(first + COMING_AT_ONCE, sizes.sessions))
            for _ in range(2):
                await use.ask(coming)
                await use.settle()
            await use.ask(range(first))
        await use.ask(range(sizes.sessions))
        use.asked = use.held = 0
        use.asking_s = 0.0
        started, used = time.monotonic(), time.process_time()
        while time.monotonic() - started < MEASURED_S:
            await use.ask(range(sizes.sessions))
            await asyncio.sleep(ASKED_EVERY_S)
        cores = (time.process_time() - used - use.asking_s) / (time.monotonic() - started)
    return RenewalResult(
        machine=machine,
        command=command,
        sizes=sizes,
        cores=round(cores, 4),
        asked=use.asked,
        held=use.held,
    )


class _Use:
    """Uses sessions. asking_s: processor time of the questions alone."""

    def __init__(self, judging: Judging, node: Node) -> None:
        self._judging = judging
        self._node = node
        self.asked = 0
        self.held = 0
        self.asking_s = 0.0

    async def ask(self, numbers: range) -> None:
        """Ask about each session once."""
        evaluator = self._judging.evaluator
        started = time.process_time()
        for place, question in enumerate(questions(self._node, numbers)):
            answer = evaluator.held(question, asked_of(CALLER, question))
            self.asked += 1
            self.held += answer is not None
            if answer is None:
                await evaluator.evaluate(CALLER, question)
            if place % PAUSE_EVERY == 0:
                self.asking_s += time.process_time() - started
                await asyncio.sleep(0)
                started = time.process_time()
        self.asking_s += time.process_time() - started

    async def settle(self) -> None:
        """Write what was noted, and hear of it."""
        await self._judging.flush()
        await self._node.changes.refresh()


def report_text(result: RenewalResult) -> str:
    """Return the figures."""
    return (
        f"{result.sizes.sessions:,} sessions in use: {result.cores:.1%} of a core; "
        f"{result.held:,} of {result.asked:,} questions answered from memory"
    )


def main() -> int:
    """Measure, print and perhaps keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    run(
        "benchmarks.renewal",
        parser,
        Sizes,
        measure,
        report=report_text,
        name=lambda _result: "renewal",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
