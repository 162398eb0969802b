"""`make bench`: every benchmark once, each with its own process; the first failure ends it."""

import subprocess
import sys
from typing import Final

from benchmarks.serving import ROOT

BENCHMARKS: Final = (
    "intake",
    "verification",
    "group_commit",
    "fanout",
    "one_stream",
    "drain",
    "end_to_end",
    "memory",
    "policies",
    "evaluate",
    "session_memory",
    "renewal",
    "many_sessions",
    "busy",
    "scoring",
    "clean_trace",
    "story",
    "ip_lookup",
)


def main() -> int:
    """Run all benchmarks with the arguments given; return the first exit code that is not 0."""
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], cwd=ROOT, check=False
        )
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
