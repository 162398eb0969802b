"""Rounds of incidents with one kill -9 in each: what `make soak` and the scenario test run.

::

    sign in ─▶ compromised ──────▶ contained ─▶ clean ──────▶ restored ─▶ sign in again ─▶ ledgers
                  └── containing ──┘              └── restoring ──┘
                           kill                          kill
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from hub.demo.incident import Incident, Phase
from hub.demo.judge import Faults, judge
from hub.demo.processes import SUPERVISOR, HubProcess, StepFailed
from hub.demo.world import PLACES, QUARANTINE, RAVI, RAVI_PATEL, Person, World
from hub.tenancy import DEFAULT_TENANT
from risk.entities.model import Entity
from risk.entities.store import add_entities
from risk.model import EntityKind
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.ids import new_id

ALL: Final = "all"
VICTIMS: Final = ("core", "delivery", "api", SUPERVISOR, ALL)
CAST_SIZE: Final = 6
#: rounds without a kill, which tell how long the halves take here; the first one also warms up
CALM_ROUNDS: Final = 2
#: the guard contains at most 25 users in 10 minutes when there are this many
BYSTANDERS: Final = 1_300
#: rounds that end before their kill falls do not count, but they must not go on forever
ROUNDS_PER_KILL_MAX: Final = 3
LOOK_AGAIN_S: Final = 0.005
RESIDENT: Final = Person(label="Mallory", email="mallory@mediaxmedia.example", devices=("MAL-1",))


class Half(StrEnum):
    """The two halves of an incident, which kills fall into equally often."""

    CONTAINING = "containing"
    RESTORING = "restoring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """Who is to be killed, and how long after the first incident of a round entered a half."""

    victim: str
    half: Half
    after_s: float


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """One kill. after_s: since the half began; phases: where the incidents were.

    completed_after_s: from the kill until all incidents of the round had come to their end.
    """

    victim: str
    half: str
    after_s: float
    phases: list[str]
    completed_after_s: float


class Soak:
    """Plays rounds in one world and keeps what was found."""

    def __init__(self, world: World, *, seed: int, at_once: int) -> None:
        """at_once: incidents per round, at most the size of the cast."""
        self.kills: list[Kill] = []
        self.faults = Faults()
        self.troubles: list[str] = []
        self.played = 0
        self.completed = 0
        self.calm_s = dict.fromkeys(Half, 0.0)
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
        for _ in range(CALM_ROUNDS):
            (first, *_) = await self._round(None)
            contained_at = first.reached[Phase.CONTAINED]
            self.calm_s[Half.CONTAINING] = contained_at - first.reached[Phase.COMPROMISED]
            self.calm_s[Half.RESTORING] = first.reached[Phase.RESTORED] - contained_at

    async def run(self, kills: int) -> None:
        """Play rounds until so many kills fell into an incident. Raises StepFailed."""
        waiting: list[tuple[str, Half]] = []
        for _ in range(ROUNDS_PER_KILL_MAX * kills):
            if len(self.kills) >= kills:
                break
            if not waiting:
                waiting = [(victim, half) for victim in VICTIMS for half in Half]
                self._random.shuffle(waiting)
            victim, half = waiting[-1]
            after_s = self._random.uniform(0.0, self.calm_s[half])
            before = len(self.kills)
            await self._round(Blow(victim=victim, half=half, after_s=after_s))
            if len(self.kills) > before:
                waiting.pop()
        await self._judge_what_lives()
        self.troubles = cast("HubProcess", self._world.hub).troubles()

    async def _round(self, blow: Blow | None) -> list[Incident]:
        """Play one round; return its incidents, the first one first."""
        self._world.make_room(self._at_once)
        people = self._random.sample(self._cast, self._at_once)
        spread_s = self.calm_s[Half.CONTAINING]
        offsets = [0.0, *(self._random.uniform(0, spread_s) for _ in people[1:])]
        incidents = [Incident(self._world, person) for person in people]
        for incident in incidents:
            await incident.sign_in()
            self._judge_what_lived(incident)
        over = asyncio.Event()
        killer = asyncio.create_task(self._kill(blow, incidents, over))
        outcomes = await asyncio.gather(
            *(_play(each, offset) for each, offset in zip(incidents, offsets, strict=True)),
            return_exceptions=True,
        )
        over.set()
        ended = time.monotonic()
        moment = await killer
        await self._close(incidents, outcomes)
        if blow is not None and moment is not None:
            self.kills.append(
                Kill(
                    victim=blow.victim,
                    half=blow.half,
                    after_s=round(blow.after_s, 3),
                    phases=moment.phases,
                    completed_after_s=round(max(0.0, ended - moment.at), 3),
                )
            )
        return incidents

    async def _kill(
        self, blow: Blow | None, incidents: Sequence[Incident], over: asyncio.Event
    ) -> _Moment | None:
        """Kill at the moment planned, and start anew what nobody else would; None: too late."""
        if blow is None:
            return None
        begins = Phase.CONTAINED if blow.half is Half.RESTORING else Phase.SIGNED_IN
        while begins is not Phase.SIGNED_IN and begins not in incidents[0].reached:
            if over.is_set():
                return None
            await asyncio.sleep(LOOK_AGAIN_S)
        await asyncio.sleep(blow.after_s)
        if over.is_set():
            return None
        hub = cast("HubProcess", self._world.hub)
        moment = _Moment(at=time.monotonic(), phases=[each.phase.value for each in incidents])
        await hub.kill(None if blow.victim == ALL else blow.victim)
        if blow.victim in {ALL, SUPERVISOR}:
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
    """Make so many users known that the guard against mass containment lets ours pass.

    They are counted and nothing else, so they are written where they are counted.
    """
    now = SystemClock().now()
    crowd = [
        Entity(
            tenant_id=DEFAULT_TENANT,
            entity_id=new_id("usr"),
            kind=EntityKind.USER,
            label=f"Bystander {number}",
            external_id=None,
            groups=(),
            created_at=now,
        )
        for number in range(BYSTANDERS)
    ]
    database = Database.connect(world.hub.database_url)
    try:
        async with database.transaction() as connection:
            await add_entities(connection, crowd)
    finally:
        await database.close()


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
