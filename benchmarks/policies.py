"""Promises: policies are judged in microseconds, and a replay of a million contexts in a minute.

One thread, for the first: 20 rules of the global policy and 20 of an app's, of which none matches
before the last, with structured conditions alone and with a CEL expression in every fourth rule.
The second: recorded contexts in an SQLite file, two processes (`hub.replays`).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.figures import table
from benchmarks.machine import Machine, machine_facts, write_result
from hub.migrate import migrate, open_database
from hub.replays import SHARES, Replays
from risk.contexts.store import add_contexts
from risk.model import Level
from risk.policies.compiled import CompiledPolicies
from risk.policies.documents import (
    GLOBAL_SESSION_ID,
    SESSION_PROTECTION_ID,
    PolicyKind,
    SessionPolicy,
    parse_policy,
)
from risk.policies.facts import RequestFacts
from risk.policies.recorded import RecordedAddress, RecordedContext, encode
from risk.verdict import Decision
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.ids import new_id

RULES: Final = 20
CHUNK: Final = 5_000
DAYS: Final = 7
USERS: Final = 20_000
TENANT: Final = "default"
APPS: Final = ("crm", "mail", "wiki")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of one decision."""

    case: str
    p50_us: float
    p99_us: float


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One replay. cpu_s: of each process; on idle cores it takes that long and a second more."""

    contexts: int
    seconds: float
    cpu_s: float
    cpu_s_per_million: float
    processes: int
    report: dict[str, Any]


class PoliciesResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    machine: Machine
    command: str
    judged: list[Judged]
    replayed: Replayed


def rules(*, with_expressions: bool) -> list[dict[str, Any]]:
    """Return rules that do not match an ordinary request; the last one does."""
    made: list[dict[str, Any]] = []
    for number in range(1, RULES):
        when: dict[str, Any] = {
            "level": {"at_least": "MEDIUM"},
            "zones": {"include": [f"zone-{number}"]},
            "groups": {"exclude": ["break-glass"]},
        }
        if with_expressions and number % 4 == 0:
            when = {"expression": f"country == 'X{number}' && level >= MEDIUM && asn > 0"}
        outcome = {"decision": "DENY"}
        made.append({"name": f"r{number}", "priority": number, "when": when, "then": outcome})
    last = {"decision": "STEP_UP", "max_age": 0}
    when = {"level": {"at_least": "MEDIUM"}, "changes": {"include": ["country"]}}
    return [*made, {"name": "last", "priority": RULES, "when": when, "then": last}]


def policies(*, with_expressions: bool) -> list[SessionPolicy]:
    """Return a global policy, one for three apps, and session protection, all enforced."""
    documents: tuple[tuple[PolicyKind, str, dict[str, Any]], ...] = (
        (PolicyKind.GLOBAL_SESSION, GLOBAL_SESSION_ID, {}),
        (PolicyKind.APP_SIGN_IN, "pol_apps", {"apps": list(APPS)}),
    )
    made = [
        parse_policy(
            {"mode": "enforce", "rules": rules(with_expressions=with_expressions), **more},
            policy_id=policy_id,
            kind=kind,
        )
        for kind, policy_id, more in documents
    ]
    protection = parse_policy(
        {"mode": "enforce"},
        policy_id=SESSION_PROTECTION_ID,
        kind=PolicyKind.SESSION_PROTECTION,
    )
    return [*made, protection]


def facts(chance: random.Random) -> RequestFacts:
    """Return the facts of some request; one in twenty changed the country."""
    moved = chance.random() < 0.05
    return RequestFacts(
        kind="session",
        level=Level.MEDIUM if moved else Level.LOW,
        zones=frozenset({"home"}),
        groups=frozenset({"staff", f"team-{chance.randrange(20)}"}),
        record=RecordedAddress(
            ip=f"192.0.2.{chance.randrange(256)}",
            known=True,
            asn=64_500 + chance.randrange(50),
            country=chance.choice(("DE", "FR", "US")),
            categories=frozenset({"MOBILE"}),
        ),
        posture={"managed": "true", "firewall": "on"},
        behaviours={"New City": "POSITIVE" if moved else "NEGATIVE"},
        changes=("asn", "country") if moved else ("network",),
        amr=("pwd", "otp"),
        acr="aal2",
        auth_age_s=chance.random() * 40_000,
    )


def judged(case: str, judge: Callable[[RequestFacts], object], calls: int) -> Judged:
    """Measure single decisions, each with facts of its own."""
    chance = random.Random(7)
    asked = [facts(chance) for _ in range(calls)]
    for each in asked[:200]:
        judge(each)
    times = []
    for each in asked:
        before = time.perf_counter_ns()
        judge(each)
        times.append(time.perf_counter_ns() - before)
    times.sort()
    return Judged(
        case=case,
        p50_us=times[calls // 2] / 1_000,
        p99_us=times[calls * 99 // 100] / 1_000,
    )


def all_judged(calls: int) -> list[Judged]:
    """Measure with and without expressions, a sign-in and a session with three apps."""
    found = []
    for words, with_expressions in (("conditions", False), ("conditions and CEL", True)):
        ready = CompiledPolicies(policies(with_expressions=with_expressions))
        found += [
            judged(f"sign-in, {RULES} rules, {words}", ready.judge_sign_in, calls),
            judged(
                f"session, 2 x {RULES} rules, 3 apps, {words}",
                partial(ready.judge_session, app_ids=APPS),
                calls,
            ),
        ]
    return found


async def replayed(contexts: int, folder: Path) -> Replayed:
    """Record contexts of a week, then replay a policy with expressions over them."""
    url = f"sqlite:///{folder / 'replay.db'}"
    async with open_database(url) as database:
        await migrate(database)
    until = SystemClock().now()
    since = until - timedelta(days=DAYS)
    await _record(url, contexts, since, until)
    before, spent = time.perf_counter(), _children_s()
    async with open_database(url) as database:
        report = await Replays(database, url).run(
            TENANT, policies(with_expressions=True), since=since, until=until, contexts_max=contexts
        )
    seconds = time.perf_counter() - before
    cpu_s = (_children_s() - spent) / SHARES
    assert report["contexts"] == contexts
    return Replayed(
        contexts=contexts,
        seconds=seconds,
        cpu_s=cpu_s,
        cpu_s_per_million=cpu_s * 1_000_000 / contexts,
        processes=SHARES,
        report=report,
    )


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _record(url: str, contexts: int, since: datetime, until: datetime) -> None:
    chance = random.Random(11)
    database = Database.connect(url)
    try:
        for first in range(0, contexts, CHUNK):
            some = [
                RecordedContext(
                    tenant_id=TENANT,
                    context_id=new_id("ctx"),
                    user_id=f"usr_{chance.randrange(USERS)}",
                    session_id=f"ses_{chance.randrange(USERS)}",
                    at=since + (until - since) * ((first + place) / contexts),
                    facts=encode(facts(chance), APPS),
                    decision=Decision.ALLOW,
                )
                for place in range(min(CHUNK, contexts - first))
            ]
            async with database.transaction() as connection:
                await add_contexts(connection, some)
    finally:
        await database.close()


def main() -> None:
    """Measure, print tables, say whether the promises hold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=20_000)
    options.add_argument("--contexts", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options.add_argument("--keep-result", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as made:
        folder = Path(made)
        result = PoliciesResult(
            machine=machine_facts(folder),
            command=shlex.join(["python", "-m", "benchmarks.policies", *sys.argv[1:]]),
            judged=all_judged(chosen.calls),
            replayed=asyncio.run(replayed(chosen.contexts, folder)),
        )
    rows = [[each.case, f"{each.p50_us:.1f}", f"{each.p99_us:.1f}"] for each in result.judged]
    print(table(["one decision", "p50 us", "p99 us"], rows))
    replay = result.replayed
    print(f"replay: {replay.contexts} contexts in {replay.seconds:.1f} s")
    print(f"each of {replay.processes} processes: {replay.cpu_s_per_million:.1f} CPU-s per million")
    if chosen.keep_result:
        print(write_result("policies", result))


if __name__ == "__main__":
    main()
