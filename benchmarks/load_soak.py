"""Promise: under load, whatever is killed, whenever: no acknowledged SET is lost, none acts twice.

A vendor sends SETs at a steady rate (`load_sender.py`), five push and five poll receivers, each a
process of its own, hear what becomes of them, and at random moments kill -9 falls on core,
delivery, api, the supervisor alone, or everything, which is then started anew. The next kill does
not wait until the hub has recovered from the one before. At the end everything drains, and the
ledgers of the sender and of the receivers are compared (`load_judge.py`).

A seed fixes who is killed when, and what the SETs say; what the hub does at that moment is up to
the machine, so two runs with one seed are alike but not equal.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from benchmarks.hub_process import register_sessions
from benchmarks.kills import ALL, VICTIMS
from benchmarks.load_judge import ReceiverVerdict, judge_inbox, judge_receiver
from benchmarks.load_sender import ISSUER, Sender
from benchmarks.machine import Machine, machine_facts, write_result
from benchmarks.soak import DATABASES, settings_for
from benchmarks.tokens import TokenPlan, email_of
from hub.demo.processes import SUPERVISOR, Http, HubProcess, PeerProcess, StepFailed
from runtime.database import Database

RISK_LEVEL_CHANGE: Final = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change"
RATE_PER_S: Final = 200.0
#: of these, SETs that every receiver hears of: with ten receivers, ten times as many deliveries
CONSEQUENTIAL_PER_S: Final = 20.0
RECEIVERS: Final = {f"{mode}-{number}": mode for mode in ("push", "poll") for number in range(5)}
SUBJECTS: Final = 1_000
#: on average; a kill falls at a random moment of twice that
KILL_EVERY_S: Final = 3.5
#: before a start of the hub is killed as well, so that its process exists
KILL_AFTER_MIN_S: Final = 0.3
WARM_UP_S: Final = 3.0
DRAIN_LIMIT_S: Final = 180.0
#: a start may fail while a process of the killed hub still holds its port, as for any operator
STARTS_MAX: Final = 5
LOOK_AGAIN_S: Final = 0.25
DRAIN_LOOK_AGAIN_S: Final = 2.0


class LoadKill(msgspec.Struct, frozen=True, kw_only=True):
    """One kill. at_s: since the load began; unacknowledged, unheard: SETs in these states then."""

    victim: str
    at_s: float
    unacknowledged: int
    unheard: int


class LoadSoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. receivers: name to what its ledger shows; findings: what is wrong, empty if nothing.

    sets_resent: how often a SET was sent again; answers: what the sender got, by status or error;
    starts_repeated: starts of the hub that failed and were tried again.
    """

    database: str
    seed: int
    machine: Machine
    command: str
    rate_per_s: float
    consequential_per_s: float
    kills: int
    kills_by_victim: dict[str, int]
    load_s: float
    drain_s: float
    sets_sent: int
    sets_acknowledged: int
    sets_resent: int
    answers: dict[str, int]
    consequences_wanted: int
    received: dict[str, int]
    redelivered: dict[str, int]
    sets_lost: int
    effects_doubled: int
    out_of_order: int
    starts_repeated: int
    troubles_logged: int
    findings: list[str]
    details: list[LoadKill]


class LoadSoak:
    """A hub, its sender and its receivers, and what happened to them."""

    def __init__(self, folder: Path, *, environment: Mapping[str, str], seed: int) -> None:
        """environment: settings of the hub, for another database than the embedded one."""
        self.kills: list[LoadKill] = []
        self.load_s = 0.0
        self.drain_s = 0.0
        self.starts_repeated = 0
        self.hub = HubProcess(
            folder, admin_token=secrets.token_urlsafe(32), environment=environment
        )
        self.sender: Sender
        self._folder = folder
        self._seed = seed
        self._random = random.Random(seed)
        self._http = Http()
        self._peers: dict[str, PeerProcess] = {}
        self._starting: asyncio.Task[None] | None = None
        self._order: list[str] = []
        self._read_up_to = dict.fromkeys(RECEIVERS, 0)
        self._database_url = environment.get("SIGNALHUB_DATABASE_URL", f"sqlite:///{folder}/hub.db")

    async def prepare(self) -> None:
        """Start everything and introduce it to each other. Raises StepFailed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.hub.start(self._http))
            for name, mode in RECEIVERS.items():
                group.create_task(self._start_receiver(name, mode))
        crowd = TokenPlan(issuer="", audience="", count=0, label="load", subject_count=SUBJECTS)
        await asyncio.to_thread(register_sessions, self.hub.url, self.hub.admin_token, crowd)
        authorization = f"Bearer {secrets.token_urlsafe(24)}"
        self.sender = Sender(
            audience=self.hub.issuer,
            authorization=authorization,
            users=[email_of(crowd, number) for number in range(SUBJECTS)],
            seed=self._seed,
        )
        provider = await self._admin(
            "providers",
            {
                "name": "load",
                "issuer": ISSUER,
                "jwks": self.sender.jwks,
                "audiences": [self.hub.issuer],
                "algorithms": ["ES256"],
                "authorization_header": authorization,
                "source_class": "partner",
            },
        )
        self.sender.url = provider["events_url"]
        for name in RECEIVERS:
            await self._connect(name)

    async def run(self, kills: int, *, kill_every_s: float = KILL_EVERY_S) -> None:
        """Send under fire until so many kills fell, then drain. Raises StepFailed.

        kill_every_s: on average.
        """
        stop = asyncio.Event()
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(
                self.sender.run(
                    rate_per_s=RATE_PER_S, consequential_per_s=CONSEQUENTIAL_PER_S, stop=stop
                )
            )
            listening = group.create_task(self._listen())
            await asyncio.sleep(WARM_UP_S)
            while len(self.kills) < kills:
                await asyncio.sleep(self._random.uniform(KILL_AFTER_MIN_S, 2 * kill_every_s))
                await self._kill(self._next_victim(), began)
            if self._starting is not None:
                await self._starting
            stop.set()
            self.load_s = time.monotonic() - began
            await self._drain(sending)
            self.drain_s = time.monotonic() - began - self.load_s
            listening.cancel()

    def verdicts(self) -> dict[str, ReceiverVerdict]:
        """Judge every receiver by its ledger."""
        return {
            name: judge_receiver(
                name, self._ledger(name), self.sender.ledger.causes, self.sender.published
            )
            for name in RECEIVERS
        }

    async def _is_inbox_empty(self) -> bool:
        return "received" not in (await self._states()).values()

    async def _states(self) -> dict[str, str]:
        """Return the state of every signal in the hub's inbox, by jti."""
        database = Database.connect(self._database_url)
        async with database.snapshot() as connection:
            rows = await connection.execute(
                sa.text("SELECT jti, state FROM signals WHERE iss = :iss"), {"iss": ISSUER}
            )
            stored = {row.jti: row.state for row in rows}
        await database.close()
        return stored

    async def findings_at_the_hub(self) -> list[str]:
        """Return what is wrong with the hub's inbox, its dead letters and its log."""
        found = judge_inbox(await self._states(), self.sender.ledger.acknowledged)
        dead = await self._http.ask(
            "GET",
            f"{self.hub.url}/admin/v1/dead-letters?limit=5",
            token=self.hub.admin_token,
        )
        return [*found, *(f"dead letter: {item}" for item in dead["items"])]

    async def close(self) -> None:
        """End all processes; the folder stays."""
        if self._starting is not None:
            self._starting.cancel()
        await asyncio.gather(self.hub.stop(), *(peer.stop() for peer in self._peers.values()))
        await self._http.close()

    async def _start_receiver(self, name: str, mode: str) -> None:
        self._peers[name] = await PeerProcess.start(
            "app",
            name=name,
            mode=mode,
            ledger=str(self._ledger_file(name)),
            events_requested=[RISK_LEVEL_CHANGE],
        )

    async def _connect(self, name: str) -> None:
        """Make a receiver an app of the hub with a stream of its own."""
        app = await self._admin(
            "apps",
            {
                "name": name,
                "kind": "rp",
                "sensitivity": 50,
                "subject_formats": ["email"],
                "client_id_at_app": name,
                "logout": [{"method": "ssf"}],
            },
        )
        client = await self._admin(
            "clients",
            {"name": name, "scopes": ["ssf.read", "ssf.manage"], "app_id": app["id"]},
        )
        peer = self._peers[name]
        await self._http.ask(
            "POST",
            f"{peer.url}/control/configure",
            {"hub": self.hub.issuer, "hub_token": client["token"]},
        )
        await self._http.ask("POST", f"{peer.url}/control/connect", {})

    async def _admin(self, kind: str, body: object) -> Any:
        return await self._http.ask(
            "POST", f"{self.hub.url}/admin/v1/{kind}", body, token=self.hub.admin_token
        )

    def _next_victim(self) -> str:
        """Each victim equally often, in an order of chance."""
        turn = len(self.kills) % len(VICTIMS)
        if turn == 0:
            self._order = self._random.sample(VICTIMS, len(VICTIMS))
        return self._order[turn]

    async def _kill(self, victim: str, began: float) -> None:
        self.kills.append(
            LoadKill(
                victim=victim,
                at_s=round(time.monotonic() - began, 3),
                unacknowledged=self.sender.unacknowledged,
                unheard=self.sender.unheard,
            )
        )
        if victim not in {ALL, SUPERVISOR}:
            await self.hub.kill(victim)
            return
        if self._starting is not None:
            # What it waits for is about to be killed.
            self._starting.cancel()
        await self.hub.kill(None if victim == ALL else SUPERVISOR)
        self._starting = asyncio.create_task(self._start_anew())

    async def _start_anew(self) -> None:
        """Start the hub, again when it ends at once. Raises StepFailed after STARTS_MAX times."""
        for _ in range(STARTS_MAX - 1):
            try:
                await self.hub.start(self._http)
            except StepFailed:
                self.starts_repeated += 1
            else:
                return
        await self.hub.start(self._http)

    async def _listen(self) -> None:
        """Tell the sender what the receivers have heard of; their ledger files are the wire."""
        while True:
            for name in RECEIVERS:
                for entry in self._ledger(name, new_only=True):
                    cause = self.sender.published.get(str(entry.get("txn")))
                    if cause is not None:
                        self.sender.heard(cause)
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _drain(self, sending: asyncio.Task[None]) -> None:
        """Wait until everything is acknowledged, assessed, and heard of by every receiver.

        What is missing then is for the judge to name: a limit that passes is no error here.
        """
        deadline = time.monotonic() + DRAIN_LIMIT_S
        while time.monotonic() < deadline:
            if sending.done() and not self.sender.unheard:
                lost = (verdict.counts["lost"] for verdict in self.verdicts().values())
                if not any(lost) and await self._is_inbox_empty():
                    return
            await asyncio.sleep(DRAIN_LOOK_AGAIN_S)
        sending.cancel()

    def _ledger(self, name: str, *, new_only: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the entries of a receiver's ledger. new_only: since the last such call."""
        with self._ledger_file(name).open("rb") as file:
            if new_only:
                file.seek(self._read_up_to[name])
            for line in file:
                if not line.endswith(b"\n"):
                    return
                if new_only:
                    self._read_up_to[name] += len(line)
                yield msgspec.json.decode(line)

    def _ledger_file(self, name: str) -> Path:
        return self._folder / f"{name}.ledger.jsonl"


@asynccontextmanager
async def load_soaking(
    folder: Path, *, environment: Mapping[str, str], seed: int
) -> AsyncIterator[LoadSoak]:
    """Yield a load soak in `folder` that is ready to run. Raises StepFailed."""
    soak = LoadSoak(folder, environment=environment, seed=seed)
    try:
        await soak.prepare()
        yield soak
    finally:
        await soak.close()


async def result_of(
    soak: LoadSoak, *, database: str, seed: int, machine: Machine, command: str
) -> LoadSoakResult:
    """Judge a soak that ran."""
    ledger = soak.sender.ledger
    verdicts = soak.verdicts()
    at_the_hub = await soak.findings_at_the_hub()
    troubles = soak.hub.troubles()
    findings = [*ledger.refused, *at_the_hub, *troubles[:5]]
    for verdict in verdicts.values():
        findings += [*verdict.lost, *verdict.doubled, *verdict.disordered, *verdict.refused]
    if len(ledger.acknowledged) < ledger.sent:
        findings.append(f"{ledger.sent - len(ledger.acknowledged)} SETs were never acknowledged")
    return LoadSoakResult(
        database=database,
        seed=seed,
        machine=machine,
        command=command,
        rate_per_s=RATE_PER_S,
        consequential_per_s=CONSEQUENTIAL_PER_S,
        kills=len(soak.kills),
        kills_by_victim=dict(sorted(Counter(kill.victim for kill in soak.kills).items())),
        load_s=round(soak.load_s, 1),
        drain_s=round(soak.drain_s, 1),
        sets_sent=ledger.sent,
        sets_acknowledged=len(ledger.acknowledged),
        sets_resent=ledger.answers.total() - ledger.sent,
        answers=dict(ledger.answers),
        consequences_wanted=len(ledger.causes),
        received={name: verdict.received for name, verdict in verdicts.items()},
        redelivered={name: verdict.redelivered for name, verdict in verdicts.items()},
        sets_lost=sum(verdict.counts["lost"] for verdict in verdicts.values()),
        effects_doubled=sum(verdict.counts["doubled"] for verdict in verdicts.values()),
        out_of_order=sum(verdict.counts["disordered"] for verdict in verdicts.values()),
        starts_repeated=soak.starts_repeated,
        troubles_logged=len(troubles),
        findings=findings,
        details=soak.kills,
    )


async def measure(
    database: str, *, kills: int, seed: int, folder: Path, command: str
) -> LoadSoakResult:
    """Soak on one database. Raises StepFailed when the world does not even start."""
    machine = machine_facts(folder)
    async with (
        settings_for(database, folder) as environment,
        load_soaking(folder, environment=environment, seed=seed) as soak,
    ):
        await soak.run(kills)
        return await result_of(soak, database=database, seed=seed, machine=machine, command=command)


def main() -> int:
    """Soak, print the counts and keep them; 1 when anything was lost, doubled or disordered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="per database")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--seed", type=int, default=20_260_302)
    parser.add_argument("--folder", type=Path, help="where files go; kept when given")
    parser.add_argument("--no-result", action="store_true", help="do not write benchmarks/results/")
    options = parser.parse_args()
    command = shlex.join(["python", "-m", "benchmarks.load_soak", *sys.argv[1:]])
    failed = False
    for database in DATABASES if options.database == "both" else (options.database,):
        with tempfile.TemporaryDirectory() as made:
            folder = (options.folder or Path(made)) / database
            folder.mkdir(parents=True)
            result = asyncio.run(
                measure(
                    database, kills=options.kills, seed=options.seed, folder=folder, command=command
                )
            )
        if not options.no_result:
            print(f"written to {write_result(f'soak-load-{database}', result)}")
        counts = msgspec.to_builtins(result)
        for name in ("machine", "details", "command"):
            del counts[name]
        print(msgspec.json.format(msgspec.json.encode(counts)).decode(), flush=True)
        failed |= bool(result.findings) or result.kills < options.kills
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
