"""The process that compiles: `python -m risk.networks.build`, a plan in, a report out (JSON).

It is apart from all others because it takes minutes of one core and a lot of memory, and because a
file that crashes its reader shall crash nothing else.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Final

import msgspec

from risk.networks.feeds import Plan, Report
from risk.networks.library import compile_all
from runtime.errors import TimedOut, Unavailable

PLAN_BYTES_MAX: Final = 1024 * 1024
#: the largest feeds take minutes
BUILD_S_MAX: Final = 2 * 3600.0
#: requests come first
NICENESS: Final = 10


def main() -> None:
    """Compile what standard input says, and say on standard output what came of it."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(PLAN_BYTES_MAX), type=Plan)
    os.nice(NICENESS)
    sys.stdout.buffer.write(msgspec.json.encode(compile_all(plan)))


async def build(plan: Plan, *, timeout_s: float = BUILD_S_MAX) -> Report:
    """Compile in a process of its own, and wait for it. Raises Unavailable, TimedOut."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "risk.networks.build",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, _ = await process.communicate(msgspec.json.encode(plan))
    except TimeoutError as error:
        raise TimedOut(f"Compiling took more than {timeout_s:.0f} s and was ended.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Unavailable(
            f"The compiler died ({process.returncode}); the tables in use are as they were."
        )
    return msgspec.json.decode(out, type=Report)


if __name__ == "__main__":
    main()
