"""The parent of the hub's processes: starts them, restarts what dies, stops them in order.

    serve ── supervisor ─┬─ core x1          hot writer, pipeline, schedules
                         ├─ delivery xM      pushes and calls out
                         └─ api xN           all HTTP; shares one listening socket

The supervisor has loaded all their code and runs none of it: it has neither an event loop nor a
second thread. So a process is a fork of it, at work within a fraction of a second, and what they
all have in memory is there once (ADR 0032).

The listening socket belongs to the supervisor, so that connections wait in its backlog while an
api process restarts.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import structlog
from prometheus_client.multiprocess import mark_process_dead

from hub.node import ProcessConfig
from runtime.backoff import Backoff

RESTART: Final = Backoff(first_s=0.05, ceiling_s=5.0, attempts_max=1_000_000)
#: a process that lived this long starts with a clean slate when it dies
STEADY_S: Final = 10.0
STOP_GRACE_S: Final = 10.0
#: a thread that preparing used ends by itself; there must be none when a process is forked
THREAD_END_S: Final = 5.0
#: who stops first: no new work comes in, then what is under way ends, then the writer
STOP_ORDER: Final = ("api", "delivery", "core")
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
WATCHED: Final = (*STOP_SIGNALS, signal.SIGCHLD)

log = structlog.get_logger()

#: what a process runs: its configuration, and the descriptor that ends with the supervisor
Run = Callable[[ProcessConfig, int], None]


@dataclass(slots=True, kw_only=True)
class _Child:
    """One process. pid: None while there is none, which is until `start_at`."""

    config: ProcessConfig
    pid: int | None = None
    deaths: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


class Supervisor:
    """Keeps one process per configuration alive until told to stop."""

    def __init__(
        self,
        configs: Sequence[ProcessConfig],
        *,
        run: Run,
        listening: socket.socket | None,
        metrics_dir: Path,
    ) -> None:
        """metrics_dir: where the processes keep their metrics, so that each can tell all."""
        self._children = [_Child(config=config) for config in configs]
        self._run = run
        self._listening = listening
        self._metrics_dir = metrics_dir
        # Nobody ever writes to it: it ends when the supervisor does, however that happens.
        self._lifeline, self._held = os.pipe()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop everything in order."""
        _be_alone()
        with _watching() as signals:
            while not signals.is_stop_wanted:
                for child in self._children:
                    if child.pid is None and child.start_at <= time.monotonic():
                        self._start(child, signals)
                signals.wait(self._pause_s())
                for child, code in self._ended():
                    self._plan_restart(child, code)
            for role in STOP_ORDER:
                self._end([each for each in self._children if each.config.role == role], signals)

    def _pause_s(self) -> float | None:
        """Return how long nothing is to be started; None: as long as all live."""
        due = [child.start_at for child in self._children if child.pid is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _ended(self) -> Iterator[tuple[_Child, int]]:
        """Collect the processes that ended; yield each with its exit code."""
        for child in self._children:
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.pid = None
                _forget_metrics(pid, self._metrics_dir)
                yield child, os.waitstatus_to_exitcode(status)

    def _plan_restart(self, child: _Child, code: int) -> None:
        lived_s = time.monotonic() - child.started_at
        child.deaths = 1 if lived_s > STEADY_S else child.deaths + 1
        jitter = random.random()  # noqa: S311 - spreads load, decides nothing
        delay_s = RESTART.delay_s(child.deaths, jitter=jitter) or RESTART.ceiling_s
        child.start_at = time.monotonic() + delay_s
        log.warning(
            "process.died",
            role=child.config.role,
            index=child.config.index,
            code=code,
            lived_s=round(lived_s, 3),
            restart_in_s=round(delay_s, 3),
        )

    def _start(self, child: _Child, signals: _Signals) -> None:
        child.started_at = time.monotonic()
        # Signals wait until it is settled who is who: one for the child must reach the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(child.config, signals)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        child.pid = pid
        log.info("process.started", role=child.config.role, index=child.config.index, pid=pid)

    def _become(self, config: ProcessConfig, signals: _Signals) -> NoReturn:
        """Run a process in this fork, and never return to what the supervisor was doing."""
        code = 1
        try:
            # A terminal's Ctrl-C is for the supervisor, which stops the others in order.
            os.setsid()
            os.close(self._held)
            signals.forget()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            if self._listening and config.role != "api":
                self._listening.close()
            self._run(config, self._lifeline)
            code = 0
        except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody caught
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _end(self, children: Sequence[_Child], signals: _Signals) -> None:
        """Ask processes to end, and insist after a while."""
        deadline = time.monotonic() + STOP_GRACE_S
        _send(children, signal.SIGTERM)
        while any(child.pid for child in children):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                _send(children, signal.SIGKILL)
            signals.wait(left_s if left_s > 0 else None)
            for _ in self._ended():
                pass


class _Signals:
    """Tells what was signalled, to code without an event loop."""

    def __init__(self) -> None:
        self.is_stop_wanted = False
        self._reader, self._writer = socket.socketpair()
        self._reader.settimeout(0)
        self._writer.settimeout(0)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in WATCHED:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.is_stop_wanted |= number in STOP_SIGNALS

    def wait(self, limit_s: float | None) -> None:
        """Wait for the next signal, at most so long; one that came before counts."""
        if select.select([self._reader], [], [], limit_s)[0]:
            self._reader.recv(4096)

    def forget(self) -> None:
        """Let signals do again what they usually do."""
        signal.set_wakeup_fd(-1)
        for number in WATCHED:
            signal.signal(number, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


@contextmanager
def _watching() -> Iterator[_Signals]:
    signals = _Signals()
    try:
        yield signals
    finally:
        signals.forget()


def _be_alone() -> None:
    """Wait for other threads to end: a fork has only the one that forks, and their locks.

    Raises RuntimeError when one stays.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(THREAD_END_S)
            if thread.is_alive():
                raise RuntimeError(f"the supervisor cannot fork beside thread {thread.name!r}")


def _send(children: Sequence[_Child], number: signal.Signals) -> None:
    for child in children:
        if child.pid is not None:
            # It is there until `_ended` collects it, even when it is dead.
            os.kill(child.pid, number)


def _forget_metrics(pid: int, folder: Path) -> None:
    """Drop what only a living process can tell; its counters stay in the sums."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # the library has no types
