"""A hub started as the README says, and a terminal to type its commands into."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: generous, for a machine that runs other tests too; nothing here asserts how long it took
PATIENCE_S = 120.0
_TOKEN = re.compile(r"made up: admin token .*: (\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A running hub: its issuer, the admin token it printed, and the folder it works in."""

    url: str
    admin_token: str
    folder: Path
    environment: dict[str, str]


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(folder: Path) -> Iterator[Serving]:
    """Run `signalhub serve` with nothing configured but its port; ends it as Ctrl-C does."""
    # The README's commands look for it where `make` puts it.
    (folder / ".venv").symlink_to(sys.prefix)
    port = free_port()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SIGNALHUB_")
    }
    environment["SIGNALHUB_PORT"] = str(port)
    # Else each process compiles everything it imports anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    printed = folder / "serve.out"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [folder / ".venv/bin/signalhub", "serve"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        ends_at = time.monotonic() + PATIENCE_S
        while "API description" not in printed.read_text() and process.poll() is None:
            assert time.monotonic() < ends_at, printed.read_text()
        found = _TOKEN.search(printed.read_text())
        assert found, printed.read_text()
        yield Serving(
            url=f"http://127.0.0.1:{port}",
            admin_token=found[1],
            folder=folder,
            environment=environment,
        )
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()


class Terminal:
    """A bash that gets commands as if they were typed, one after the other."""

    def __init__(self, hub: Serving) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=hub.folder,
            env=hub.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._peers = 0
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line)

    def run(self, commands: str) -> tuple[int, str]:
        """Return the exit code of the last command, and what was printed.

        Waits for the line of each peer that the commands leave in the background, as a reader
        does before typing on.
        """
        assert self._bash.stdin is not None
        starting = len(re.findall(r"&$", commands, re.MULTILINE))
        self._bash.stdin.write(f'{commands}\necho "exit code $?"\n')
        self._bash.stdin.flush()
        code: int | None = None
        printed: list[str] = []
        while code is None or starting:
            line = self._lines.get(timeout=PATIENCE_S)
            if line.startswith("exit code "):
                code = int(line.removeprefix("exit code "))
            else:
                starting -= line.startswith('{"peer"')
                printed.append(line)
        return code, "".join(printed)

    def close(self) -> None:
        """Close the terminal: bash ends, and what it started in the background ends with it."""
        with self._bash:
            self._bash.kill()
            self._listener.join(PATIENCE_S)
