"""Promise: push intake does a good part of what an empty route does, and many times a naive build.

Three servers run side by side, one worker each, and get load in turn, round by round, so that a
noisy minute hits all of them: an empty starlette route, the naive intake (`naive_intake.py`), and
the real hub with its pipeline running, once with SETs about users it knows and once with SETs
about users it does not know. Every SET is different; the hub answers after COMMIT. At the end the
hub's database must hold exactly as many signals as were answered 202.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.databases import database_settings
from benchmarks.figures import table
from benchmarks.hub_process import ADMIN_TOKEN, HubProcess, register_sessions, running_hub
from benchmarks.loadgen import Load, LoadReport, run_load
from benchmarks.machine import Machine, machine_facts, past, write_result
from benchmarks.serving import cpu_s, end_cleanly_when_terminated, running
from benchmarks.tokens import TokenPlan, public_jwks, signed_tokens

ISSUER: Final = "https://vendor.example"
AUDIENCE: Final = "https://hub.example"
INTAKE_TOKEN: Final = "benchmark-intake-token"  # noqa: S105 - lives for one run
NOOP: Final = "no-op route"
NAIVE: Final = "naive build"
KNOWN: Final = "hub, known users"
UNKNOWN: Final = "hub, unknown users"
TARGET_OF_NOOP: Final = {"sqlite": 0.30, "postgresql": 0.25}
TARGET_OF_NAIVE: Final = 15.0
CONNECTIONS: Final = 64
WARM_UP: Final = 500
DRAIN_LIMIT_S: Final = 300.0
LOOK_AGAIN_S: Final = 0.05
ACCEPTED: Final = 202


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much load, and how it is spread."""

    rounds: int
    requests: int
    naive_requests: int
    connections: int
    naive_connections: int
    subjects: int
    workers: int
    database: str = "sqlite"
    open_rate_per_s: float = 2_000.0
    open_requests: int = 20_000
    history: int = 0


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One load run against one server.

    cpu_us_per_request: all processes of the server, with what followed until the inbox was empty.
    cpu_us_while_loaded: the same, up to the last answer only. drained_s: from the last answer until
    the hub's inbox was empty; None for servers without one.
    """

    number: int
    target: str
    load: LoadReport
    cpu_us_per_request: float
    cpu_us_while_loaded: float
    drained_s: float | None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub's database held at the end, against what it had answered."""

    accepted: int
    stored: int
    by_state: dict[str, int]


class IntakeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run of this benchmark. medians: requests per second by target."""

    machine: Machine
    command: str
    sizes: Sizes
    token_bytes: int
    medians: dict[str, float]
    of_noop: dict[str, float]
    of_naive: dict[str, float]
    stored: Stored
    rounds: list[Round]
    open_loop: LoadReport | None = None


@dataclass(slots=True, kw_only=True)
class Target:
    """A server under load: where its requests go and which tokens are next."""

    name: str
    url: str
    pid: int
    tokens_file: Path
    connections: int
    requests: int
    hub: HubProcess | None = None
    next_token: int = 0
    accepted: int = field(default=0)

    def take(self, count: int, *, rate_per_s: float | None = None) -> Load:
        """Return a load of the next `count` tokens; at a fixed rate when one is given."""
        load = Load(
            url=self.url,
            tokens_file=str(self.tokens_file),
            bearer_token=INTAKE_TOKEN,
            first=self.next_token,
            count=count,
            connections=self.connections,
            rate_per_s=rate_per_s,
        )
        self.next_token += count
        return load


def measure(sizes: Sizes, folder: Path, *, command: str) -> IntakeResult:
    """Run all servers and all rounds; every file lies in `folder`."""
    machine = machine_facts(folder)
    with _targets(sizes, folder) as targets:
        for target in targets:
            _run_round(0, target, WARM_UP)
        rounds = [
            _run_round(number, target, target.requests)
            for number in range(1, sizes.rounds + 1)
            for target in targets
        ]
        open_loop = _open_loop(targets, sizes)
        stored = _stored(targets)
        token_bytes = len(targets[0].tokens_file.read_bytes().split(b"\n", 1)[0])
    medians = {
        target.name: statistics.median(
            round_.load.requests_per_s for round_ in rounds if round_.target == target.name
        )
        for target in targets
    }
    hub_targets = (KNOWN, UNKNOWN)
    return IntakeResult(
        machine=machine,
        command=command,
        sizes=sizes,
        token_bytes=token_bytes,
        medians=medians,
        of_noop={name: medians[name] / medians[NOOP] for name in hub_targets},
        of_naive={name: medians[name] / medians[NAIVE] for name in hub_targets},
        stored=stored,
        rounds=rounds,
        open_loop=open_loop,
    )


def _open_loop(targets: list[Target], sizes: Sizes) -> LoadReport | None:
    """Send to the hub at a fixed rate, about users it knows; latency counts from when due."""
    (known,) = (target for target in targets if target.name == KNOWN)
    if not sizes.open_requests:
        return None
    report = run_load(known.take(sizes.open_requests, rate_per_s=sizes.open_rate_per_s))
    known.accepted += report.statuses.get(ACCEPTED, 0)
    assert known.hub is not None
    _wait_until_drained(known.hub)
    return report


@contextmanager
def _targets(sizes: Sizes, folder: Path) -> Iterator[list[Target]]:
    keys = folder / "jwks.json"
    keys.write_text(public_jwks())
    naive = [
        "benchmarks.naive_intake",
        f"--database={folder / 'naive.db'}",
        f"--jwks-file={keys}",
        f"--issuer={ISSUER}",
        f"--audience={AUDIENCE}",
        f"--bearer-token={INTAKE_TOKEN}",
    ]
    plans = {name: _plan(name, sizes) for name in (NAIVE, KNOWN, UNKNOWN)}
    files = {name: signed_tokens(plan) for name, plan in plans.items()}
    with (
        running(["benchmarks.noop_app"]) as noop_server,
        running(naive) as naive_server,
        database_settings(sizes.database, folder) as environment,
        running_hub(
            folder, workers=sizes.workers, history=sizes.history, environment=environment
        ) as hub,
    ):
        intake_url = _add_provider(hub)
        register_sessions(hub.url, ADMIN_TOKEN, plans[KNOWN])
        yield [
            Target(
                name=NOOP,
                url=f"{noop_server.url}/events",
                pid=noop_server.pid,
                tokens_file=files[KNOWN],
                connections=sizes.connections,
                requests=sizes.requests,
            ),
            Target(
                name=NAIVE,
                url=f"{naive_server.url}/receivers/benchmark/events",
                pid=naive_server.pid,
                tokens_file=files[NAIVE],
                connections=sizes.naive_connections,
                requests=sizes.naive_requests,
            ),
            *(
                Target(
                    name=name,
                    url=intake_url,
                    pid=hub.pid,
                    tokens_file=files[name],
                    hub=hub,
                    connections=sizes.connections,
                    requests=sizes.requests,
                )
                for name in (KNOWN, UNKNOWN)
            ),
        ]


def _plan(name: str, sizes: Sizes) -> TokenPlan:
    requests = sizes.naive_requests if name == NAIVE else sizes.requests
    label = name.rpartition(" ")[0].replace(", ", "-")
    return TokenPlan(
        issuer=ISSUER,
        audience=AUDIENCE,
        count=WARM_UP + sizes.rounds * requests + (sizes.open_requests if name == KNOWN else 0),
        label=label,
        subject_count=sizes.subjects,
        subject_domain=f"{label}.example",
    )


def _add_provider(hub: HubProcess) -> str:
    provider = hub.create(
        "providers",
        {
            "name": "benchmark vendor",
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "jwks": msgspec.json.decode(public_jwks()),
            "authorization_header": f"Bearer {INTAKE_TOKEN}",
            "source_class": "mdm",
            # HIGH for so many users would be taken for a provider that runs away.
            "level_cap": "MEDIUM",
        },
    )
    url: str = provider["events_url"]
    return url


def _run_round(number: int, target: Target, count: int) -> Round:
    cpu_before = cpu_s(target.pid)
    report = run_load(target.take(count))
    target.accepted += report.statuses.get(ACCEPTED, 0)
    ended = time.monotonic()
    cpu_loaded = cpu_s(target.pid)
    drained_s = None
    if target.hub is not None:
        _wait_until_drained(target.hub)
        drained_s = time.monotonic() - ended
    # The pipeline's work on these SETs belongs to them, so its CPU is read after it.
    cpu_us = (cpu_s(target.pid) - cpu_before) / count * 1_000_000
    print(f"  round {number} {target.name}: {report.requests_per_s:,.0f}/s", file=sys.stderr)
    return Round(
        number=number,
        target=target.name,
        load=report,
        cpu_us_per_request=cpu_us,
        cpu_us_while_loaded=(cpu_loaded - cpu_before) / count * 1_000_000,
        drained_s=drained_s,
    )


def _wait_until_drained(hub: HubProcess) -> None:
    deadline = time.monotonic() + DRAIN_LIMIT_S
    while _signals_by_state(hub).get("received", 0):
        if time.monotonic() > deadline:
            raise TimeoutError(f"signals wait unassessed: {_signals_by_state(hub)}")
        time.sleep(LOOK_AGAIN_S)


def _signals_by_state(hub: HubProcess) -> dict[str, int]:
    return dict(hub.rows("SELECT state, count(*) FROM signals GROUP BY state"))


def _stored(targets: list[Target]) -> Stored:
    hub = [target for target in targets if target.hub is not None]
    assert hub[0].hub is not None
    by_state = _signals_by_state(hub[0].hub)
    return Stored(
        accepted=sum(target.accepted for target in hub),
        stored=sum(by_state.values()),
        by_state=by_state,
    )


def report_text(result: IntakeResult) -> str:
    """Return the result for people: a table, the ratios and whether they reach the targets."""
    rows = []
    for name, median in result.medians.items():
        rounds = [round_ for round_ in result.rounds if round_.target == name]
        drained = [round_.drained_s for round_ in rounds if round_.drained_s is not None]
        rows.append(
            (
                name,
                f"{median:,.0f}",
                f"{statistics.median(r.load.latency_ms.p50 for r in rounds):.1f}",
                f"{statistics.median(r.load.latency_ms.p99 for r in rounds):.1f}",
                f"{statistics.median(r.cpu_us_while_loaded for r in rounds):,.0f}",
                f"{statistics.median(r.cpu_us_per_request for r in rounds):,.0f}",
                f"{max(drained):.1f}" if drained else "",
                " ".join(sorted({f"{s}" for r in rounds for s in r.load.statuses})),
            )
        )
    header = (
        "target",
        "req/s",
        "p50 ms",
        "p99 ms",
        "CPU us",
        "with drain",
        "drained s",
        "statuses",
    )
    lines = [table(header, rows), ""]
    wanted = TARGET_OF_NOOP[result.sizes.database]
    lines += [
        f"{name}: {result.of_noop[name]:.0%} of the no-op route (target {wanted:.0%}), "
        f"{result.of_naive[name]:.1f} x the naive build (target {TARGET_OF_NAIVE:.0f} x)"
        for name in result.of_noop
    ]
    stored = result.stored
    if result.open_loop is not None:
        latency = result.open_loop.latency_ms
        lines.append(
            f"open loop at {result.sizes.open_rate_per_s:,.0f}/s: p50 {latency.p50:.1f} ms, p99 "
            f"{latency.p99:.1f} ms, statuses {result.open_loop.statuses}"
        )
    lines.append(
        f"accepted {stored.accepted:,}, stored {stored.stored:,}, states {stored.by_state}; "
        f"fdatasync p50 {result.machine.fsync.p50_ms} ms"
    )
    return "\n".join(lines)


def _result_name(sizes: Sizes) -> str:
    database = "" if sizes.database == "sqlite" else f"-{sizes.database}"
    connections = "" if sizes.connections == CONNECTIONS else f"-{sizes.connections}-connections"
    return f"intake{database}{connections}{past(sizes.history)}"


def main() -> int:
    """Measure, print, and keep the result; 1 when answers and stored signals differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--naive-requests", type=int, default=1_500)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--naive-connections", type=int, default=32)
    parser.add_argument("--subjects", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--database", default="sqlite", choices=("sqlite", "postgresql"))
    parser.add_argument("--open-rate-per-s", type=float, default=2_000.0)
    parser.add_argument("--open-requests", type=int, default=20_000, help="0 leaves it out")
    parser.add_argument("--history", type=int, default=0, help="old events (SQLite)")
    parser.add_argument("--folder", type=Path, help="where databases go; a new one by default")
    parser.add_argument("--keep-result", action="store_true", help="write benchmarks/results/")
    options = vars(parser.parse_args())
    end_cleanly_when_terminated()
    folder, keep = options.pop("folder"), options.pop("keep_result")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        result = measure(
            msgspec.convert(options, Sizes),
            Path(made),
            command=shlex.join(["python", "-m", "benchmarks.intake", *sys.argv[1:]]),
        )
    print(report_text(result))
    if keep:
        print(f"written to {write_result(_result_name(result.sizes), result)}")
    return 0 if result.stored.accepted == result.stored.stored else 1


if __name__ == "__main__":
    sys.exit(main())
