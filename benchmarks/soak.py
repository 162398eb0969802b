"""Promise: whatever is killed, whenever, every logout happens and no effect happens twice.

Plays incidents (compromised, contained, clean, restored) in the demo's world of real processes,
some at once, over and over. In each round one kill -9 falls at a random moment while people are
being contained or while they are being restored: on one of the hub's processes, on its supervisor
alone, or on everything, which is then started anew. Nothing else is done to help: the incidents
must complete by themselves. Then the ledgers of the peers are asked
(`hub/demo/judge.py`): was everybody logged out everywhere, once; who joined and left the quarantine
group; what were people told; do the sessions that were opened afterwards live.

A seed fixes who is killed when and after how many seconds; what the hub does at that moment is up
to the machine, so two runs with one seed are alike but not equal.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.databases import start_postgresql
from benchmarks.kills import CAST_SIZE, Kill, Soak, settings_on_postgresql, soaking
from benchmarks.machine import Machine, machine_facts, write_result

DATABASES: Final = ("sqlite", "postgresql")
TROUBLES_SHOWN_MAX: Final = 5


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. calm_s: how long each half takes when nobody is killed; findings: what is wrong."""

    database: str
    seed: int
    machine: Machine
    command: str
    incidents_at_once: int
    calm_s: dict[str, float]
    kills: int
    kills_by_victim: dict[str, int]
    kills_by_phase: dict[str, int]
    incidents_played: int
    incidents_completed: int
    logouts_lost: int
    effects_doubled: int
    others_touched: int
    troubles_logged: int
    slowest_completion_after_kill_s: float
    findings: list[str]
    details: list[Kill]


def result_of(
    soak: Soak, *, database: str, seed: int, at_once: int, machine: Machine, command: str
) -> SoakResult:
    """Return the counts of a soak that ran."""
    faults = soak.faults
    return SoakResult(
        database=database,
        seed=seed,
        machine=machine,
        command=command,
        incidents_at_once=at_once,
        calm_s={half.value: round(each, 3) for half, each in soak.calm_s.items()},
        kills=len(soak.kills),
        kills_by_victim=dict(sorted(Counter(kill.victim for kill in soak.kills).items())),
        kills_by_phase=dict(
            sorted(Counter(phase for kill in soak.kills for phase in kill.phases).items())
        ),
        incidents_played=soak.played,
        incidents_completed=soak.completed,
        logouts_lost=len(faults.lost),
        effects_doubled=len(faults.doubled),
        others_touched=len(faults.foreign),
        troubles_logged=len(soak.troubles),
        slowest_completion_after_kill_s=max(
            (kill.completed_after_s for kill in soak.kills), default=0.0
        ),
        findings=[
            *faults.lost,
            *faults.doubled,
            *faults.foreign,
            *soak.troubles[:TROUBLES_SHOWN_MAX],
        ],
        details=soak.kills,
    )


@asynccontextmanager
async def settings_for(database: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """Yield the settings for a database; a PostgreSQL is started for the run."""
    if database == "sqlite":
        yield {}
        return
    server = await asyncio.to_thread(start_postgresql, folder)
    try:
        yield await settings_on_postgresql(server.get_uri())
    finally:
        await asyncio.to_thread(server.cleanup)


async def measure(
    database: str, options: argparse.Namespace, folder: Path, command: str
) -> SoakResult:
    """Soak on one database. Raises StepFailed when the world does not even start."""
    machine = machine_facts(folder)
    async with (
        settings_for(database, folder) as environment,
        soaking(
            folder, environment=environment, seed=options.seed, at_once=options.at_once
        ) as soak,
    ):
        await soak.run(options.kills)
    return result_of(
        soak,
        database=database,
        seed=options.seed,
        at_once=options.at_once,
        machine=machine,
        command=command,
    )


def main() -> int:
    """Soak, print the counts and keep them; 1 when anything was lost, doubled or missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="per database")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--seed", type=int, default=20_260_301)
    parser.add_argument("--at-once", type=int, default=2, choices=range(1, CAST_SIZE + 1))
    parser.add_argument("--folder", type=Path, help="where files go; kept when given")
    options = parser.parse_args()
    command = shlex.join(["python", "-m", "benchmarks.soak", *sys.argv[1:]])
    failed = False
    for database in DATABASES if options.database == "both" else (options.database,):
        with tempfile.TemporaryDirectory() as made:
            folder = (options.folder or Path(made)) / database
            folder.mkdir(parents=True)
            result = asyncio.run(measure(database, options, folder, command))
        print(f"written to {write_result(f'soak-{database}', result)}")
        counts = msgspec.to_builtins(result)
        for name in ("machine", "details", "command"):
            del counts[name]
        print(msgspec.json.format(msgspec.json.encode(counts)).decode(), flush=True)
        failed |= bool(result.findings) or result.kills < options.kills
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
