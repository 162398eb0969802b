"""Start server processes for a benchmark, and be one.

A server binds a port of the kernel's choosing, prints `{"url": ...}` as its first line and serves
until it is terminated or its parent is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop

if TYPE_CHECKING:
    from starlette.applications import Starlette

ROOT: Final = Path(__file__).resolve().parent.parent
LISTEN_BACKLOG: Final = 1024
PARENT_CHECK_S: Final = 1.0
READY_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A running server: its process id, its base URL and what else its first line said."""

    pid: int
    url: str
    announced: dict[str, Any]


def serve(app: Starlette, *, port: int) -> None:
    """Serve `app` on loopback with uvloop and httptools, announcing the URL on the first line."""
    listener = socket.create_server(("127.0.0.1", port), backlog=LISTEN_BACKLOG)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
        backlog=LISTEN_BACKLOG,
    )
    uvloop.run(_serve_while_parent_lives(uvicorn.Server(config), listener))


async def serve_until_orphaned() -> None:
    """Return when the process that started this one is gone."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel tells nobody, one has to ask
        await asyncio.sleep(PARENT_CHECK_S)


async def _serve_while_parent_lives(server: uvicorn.Server, listener: socket.socket) -> None:
    async def watch() -> None:
        await serve_until_orphaned()
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()


def port_option() -> argparse.ArgumentParser:
    """Return the parser with `--port` that every server command shares."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--port", type=int, default=0, help="0 lets the kernel choose")
    return parser


@contextmanager
def running(
    arguments: Sequence[str], *, environment: dict[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run `python -m <arguments>` and yield it once it has printed its URL; stop it afterwards.

    environment: added to this process's own. Raises RuntimeError when the process ends before it
    is ready.
    """
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{arguments[0]} ended before it was ready")
            announced: dict[str, Any] = json.loads(line)
            yield ServerProcess(pid=process.pid, url=announced["url"], announced=announced)
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """Terminate a process started in its own session, and kill its group if it does not end."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_LIMIT_S)


def end_cleanly_when_terminated() -> None:
    """Turn SIGTERM into SystemExit, so that the servers a benchmark started end with it."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds, user and system, of a process and all its living descendants."""
    return sum(cpu_of(member) for member in _family(pid))


def cpu_of(pid: int) -> float:
    """Return the CPU seconds, user and system, of one process; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """Return the memory of a process and all its descendants; what they share counts once."""
    total = 0
    for member in _family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:  # it ended meanwhile
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def _family(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        member = waiting.pop()
        found.append(member)
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                waiting += [int(child) for child in children.read_text().split()]
            except OSError:  # it ended meanwhile
                continue
    return found


def wait_until_listening(url: str) -> None:
    """Return once `url`'s port takes connections. Raises TimeoutError after READY_LIMIT_S."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"nothing listens at {url}")
