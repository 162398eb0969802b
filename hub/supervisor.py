"""The parent of the hub's processes: starts them, restarts what dies, stops them in order.

    serve ── supervisor ─┬─ core x1          hot writer, pipeline, schedules
                         ├─ delivery xM      pushes and calls out
                         └─ api xN           all HTTP; shares one listening socket

The listening socket belongs to the supervisor, so that connections wait in its backlog while an
api process restarts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog
from prometheus_client.multiprocess import mark_process_dead

from hub.node import ProcessConfig
from runtime.backoff import Backoff

RESTART: Final = Backoff(first_s=0.1, ceiling_s=5.0, attempts_max=1_000_000)
#: a process that lived this long starts with a clean slate when it dies
STEADY_S: Final = 10.0
STOP_GRACE_S: Final = 10.0
#: tells prometheus_client where processes share their metrics
METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: who stops first: no new work comes in, then what is under way ends, then the writer
STOP_ORDER: Final = ("api", "delivery", "core")

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Child:
    config: ProcessConfig
    process: asyncio.subprocess.Process | None = None
    deaths: int = 0
    started_at: float = field(default_factory=time.monotonic)


class Supervisor:
    """Keeps one process per configuration alive until told to stop."""

    def __init__(
        self,
        configs: Sequence[ProcessConfig],
        *,
        listening: socket.socket | None,
        metrics_dir: Path,
    ) -> None:
        """metrics_dir: where the processes keep their metrics, so that each can tell all."""
        self._children = [_Child(config=config) for config in configs]
        self._listening = listening
        self._metrics_dir = metrics_dir
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop everything in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        keepers = [asyncio.create_task(self._keep(child)) for child in self._children]
        await self._stop.wait()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for role in STOP_ORDER:
            await asyncio.gather(
                *(_end(child) for child in self._children if child.config.role == role)
            )

    async def _keep(self, child: _Child) -> None:
        while True:
            child.started_at = time.monotonic()
            child.process = await self._start(child.config)
            code = await child.process.wait()
            _forget_metrics(child.process.pid, self._metrics_dir)
            lived_s = time.monotonic() - child.started_at
            child.deaths = 1 if lived_s > STEADY_S else child.deaths + 1
            delay_s = RESTART.delay_s(child.deaths, jitter=0.5) or RESTART.ceiling_s
            log.warning(
                "process.died",
                role=child.config.role,
                index=child.config.index,
                code=code,
                lived_s=round(lived_s, 3),
                restart_in_s=round(delay_s, 3),
            )
            await asyncio.sleep(delay_s)

    async def _start(self, config: ProcessConfig) -> asyncio.subprocess.Process:
        fds = (self._listening.fileno(),) if self._listening and config.role == "api" else ()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hub.process",
            stdin=subprocess.PIPE,
            pass_fds=fds,
            env={**os.environ, METRICS_DIR_VARIABLE: str(self._metrics_dir)},
            # A terminal's Ctrl-C is for the supervisor, which stops the others in order.
            start_new_session=True,
        )
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for
        process.stdin.write(msgspec.json.encode(config) + b"\n")
        await process.stdin.drain()
        log.info("process.started", role=config.role, index=config.index, pid=process.pid)
        return process


def _forget_metrics(pid: int, folder: Path) -> None:
    """Drop what only a living process can tell; its counters stay in the sums."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # the library has no types


async def _end(child: _Child) -> None:
    process = child.process
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
