"""One process of the hub: what the supervisor's forks become.

A process ends with its supervisor, at once, whatever it was doing. A hub that is started anew
needs its port, its leases and its name; what breaks off is repeated as after any crash; and core
ends in the same moment, so that there would be nobody to finish the work with.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import threading
from typing import Final

import uvloop

from hub.node import ProcessConfig
from runtime.logs import configure_logs

GC_THRESHOLDS: Final = (50_000, 20, 20)
#: open files at most, if the system lets us: one connection per receiver is kept, and many callers
FILES_MAX: Final = 16_384
#: exit code of a process whose supervisor is gone; nobody is left to read it but a debugger
ORPHANED: Final = 3


def load_roles() -> None:
    """Import what the processes run, before they are forked, so that none does it for itself.

    Nothing that is imported may start a thread or open a connection.
    """
    import hub.api  # noqa: PLC0415
    import hub.core  # noqa: PLC0415
    import hub.delivery  # noqa: F401, PLC0415


def run_process(config: ProcessConfig, lifeline: int) -> None:
    """Run the role that the configuration names, until SIGTERM or SIGINT.

    lifeline: a descriptor to read from that ends with the supervisor.
    """
    # A thread, because SQLite's locks can hold up the event loop for seconds.
    threading.Thread(
        target=_end_with_supervisor, args=(lifeline,), name="lifeline", daemon=True
    ).start()
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
    if config.role == "api":
        from hub.api import run_api as run  # noqa: PLC0415
    elif config.role == "core":
        from hub.core import run_core as run  # noqa: PLC0415
    else:
        from hub.delivery import run_delivery as run  # noqa: PLC0415
    await run(config, stop)


def settle_memory() -> None:
    """Move what start-up made out of the collector's sight: p99 of intake falls fourfold.

    Before processes are forked, so that they go on sharing it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


def _end_with_supervisor(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os._exit(ORPHANED)
