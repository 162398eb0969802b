"""Shared Signals receivers that others wrote, as processes that a test orders about.

They are crates of crates.io, fixed with their checksums by `rust_receivers/Cargo.lock`, and built
here by cargo. Each process takes one order a line and writes what it did and what happened to it.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

CRATES: Final = Path(__file__).with_name("rust_receivers")
BUILD_S: Final = 900
LIMIT_S: Final = 60.0
#: lines that a process may have waiting for the test
LINES_MAX: Final = 1_000


def build() -> Path:
    """Build the receivers; return the folder of their programs."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.fail("missing Rust: install cargo 1.94 or newer (https://rustup.rs), then try again")
    done = subprocess.run(
        [cargo, "build", "--locked", "--quiet"],
        cwd=CRATES,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"building {CRATES} failed: {done.stderr[-2000:]}")
    return Path(os.environ.get("CARGO_TARGET_DIR", CRATES / "target")) / "debug"


@dataclass
class Foreign:
    """One receiver that runs."""

    process: subprocess.Popen[str]
    happened: list[dict[str, Any]] = field(default_factory=list)
    _lines: queue.Queue[dict[str, Any] | None] = field(
        default_factory=lambda: queue.Queue(LINES_MAX)
    )

    def listen(self) -> None:
        """Collect what it writes, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def _next(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=LIMIT_S)
        except queue.Empty:
            pytest.fail(f"nothing came within {LIMIT_S} s; before that: {self.happened}")
        if line is None:
            pytest.fail(f"the receiver ended; before that: {self.happened}")
        return line

    def order(self, do: str, **members: Any) -> Any:
        """Have it do something; return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **members}) + "\n")
        self.process.stdin.flush()
        while True:
            line = self._next()
            if "failed" in line:
                pytest.fail(f"{do}: {line['failed']}; before that: {self.happened}")
            if "answer" in line:
                return line["answer"]
            self.happened.append(line)

    def wait_for(self, member: str, value: Any = None) -> dict[str, Any]:
        """Wait until something happens to it; take it out of what happened, and return it."""
        seen = 0
        while True:
            for line in self.happened[seen:]:
                if member in line and value in (None, line[member]):
                    self.happened.remove(line)
                    return line
            seen = len(self.happened)
            self.happened.append(self._next())


@contextmanager
def running(program: Path, *arguments: str) -> Iterator[Foreign]:
    """Run a receiver until the block is left."""
    process = subprocess.Popen(
        [str(program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    receiver = Foreign(process)
    thread = threading.Thread(target=receiver.listen)
    thread.start()
    try:
        yield receiver
    finally:
        process.kill()
        thread.join()
        process.communicate()
