"""What a result must say about where it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.fsync import FsyncReport, measure_fsync
from benchmarks.serving import ROOT
from runtime.clock import SystemClock

PACKAGES: Final = ("starlette", "uvicorn", "uvloop", "httptools", "sqlalchemy", "cryptography")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and versions behind a result; ratios carry over, absolute figures do not."""

    cpu: str
    cores: int
    load_1min: float
    python: str
    packages: dict[str, str]
    fsync: FsyncReport
    commit: str
    uncommitted_changes: bool
    measured_at: str


def machine_facts(folder: Path) -> Machine:
    """Return the facts of this machine and checkout; fsync is measured in `folder`."""
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        load_1min=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        fsync=measure_fsync(folder),
        commit=_git("rev-parse", "HEAD"),
        uncommitted_changes=bool(_git("status", "--porcelain", "--untracked-files=no")),
        measured_at=SystemClock().now().isoformat(timespec="seconds"),
    )


def past(history: int) -> str:
    """Return what a result's name says of the history it was measured with."""
    return f"-after-{history}" if history else ""


def write_result(name: str, result: msgspec.Struct) -> Path:
    """Keep a result as `benchmarks/results/<name>.json`, replacing the last one."""
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return path


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments],  # noqa: S607 - git is where the developer put it
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip()
