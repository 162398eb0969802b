"""How long one durable 4 KB write takes here: the unit behind every durable figure.

A disk that answers in 0.2 ms and one that takes 5 ms give very different intake figures, so each
result states this beside them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import percentiles

PAGE: Final = b"\0" * 4096
WRITES: Final = 500


class FsyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of write plus fdatasync of 4 KB, appended to one file."""

    writes: int
    p50_ms: float
    p99_ms: float


def measure_fsync(folder: Path, *, writes: int = WRITES) -> FsyncReport:
    """Append `writes` pages to a new file in `folder`, each with fdatasync, and remove it."""
    durations_ms = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(writes):
            started = time.perf_counter()
            os.write(file.fileno(), PAGE)
            os.fdatasync(file.fileno())
            durations_ms.append((time.perf_counter() - started) * 1000)
    found = percentiles(durations_ms)
    return FsyncReport(writes=writes, p50_ms=round(found.p50, 3), p99_ms=round(found.p99, 3))


def main() -> None:
    """Measure in the folder given and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path.cwd())
    options = parser.parse_args()
    report = measure_fsync(options.folder)
    print(f"fdatasync of 4 KB: p50 {report.p50_ms} ms, p99 {report.p99_ms} ms")


if __name__ == "__main__":
    main()
