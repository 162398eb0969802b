"""Entry point of one process of the hub: `python -m hub.process`, started by the supervisor.

The first line of standard input is its `ProcessConfig`. The input stays open as a lifeline: when
it ends, the supervisor is gone, and so is this process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from typing import Final

import msgspec
import uvloop
from typing_extensions import override

from hub.node import ProcessConfig
from runtime.logs import configure_logs

GC_THRESHOLDS: Final = (50_000, 20, 20)
#: open files at most, if the system lets us: one connection per receiver is kept, and many callers
FILES_MAX: Final = 16_384


def main() -> None:
    """Run the role that the configuration on standard input names."""
    config = msgspec.json.decode(_first_line(), type=ProcessConfig)
    configure_logs(config.log_level, process=f"{config.role}-{config.index}")
    allow_many_files()
    uvloop.run(_run(config))


def allow_many_files() -> None:
    """Raise the usual soft limit of 1,024 open files as far as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(config: ProcessConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await loop.connect_read_pipe(lambda: _Lifeline(stop), sys.stdin.buffer)
    # Each role imports only what it needs (contracts §1).
    if config.role == "api":
        from hub.api import run_api as run  # noqa: PLC0415
    elif config.role == "core":
        from hub.core import run_core as run  # noqa: PLC0415
    else:
        from hub.delivery import run_delivery as run  # noqa: PLC0415
    settle_memory()
    await run(config, stop)


def settle_memory() -> None:
    """Move what start-up made out of the collector's sight: p99 of intake falls fourfold."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _first_line() -> bytes:
    line = bytearray()
    while (byte := os.read(0, 1)) not in {b"\n", b""}:
        line += byte
    return bytes(line)


class _Lifeline(asyncio.Protocol):
    """Stops the process when its standard input ends."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop.set()


if __name__ == "__main__":
    main()
