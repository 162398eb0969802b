"""Promise: no bent SET is accepted, none makes the hub fail, and nothing legal is refused.

Counts per class what the hub's intake says to many mutants (`mutants.py`). The bulk goes straight
to `receivers.service.accept` on a real database; a sample goes to a served hub over real HTTP,
where the form of each refusal is checked too (RFC 8935 §2.3). What was accepted must be exactly
what is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2
import msgspec
import sqlalchemy as sa
import structlog

from benchmarks.figures import table
from benchmarks.hub_process import running_hub
from benchmarks.machine import Machine, machine_facts, write_result
from benchmarks.mutants import AUDIENCE, CLASSES, ISSUER, MutantClass, Workshop
from hub.migrate import migrate
from receivers.keys import IssuerKeys
from receivers.model import ProviderProfile, ProviderSettings, build_profile
from receivers.registry import service as registry
from receivers.registry.service import RegistryDeps
from receivers.service import accept
from runtime.clock import SystemClock, epoch_s
from runtime.database import Database
from runtime.egress import EgressRules
from runtime.notify import Notifier
from runtime.pinned import PinnedOutbound
from runtime.secrets import SecretBox
from runtime.writer import LocalWriter
from ssf.errors import SETError

MUTANTS: Final = 120_000
OVER_HTTP: Final = 5_000
SEED: Final = 20_260_303
AT_ONCE: Final = 64
FINDINGS_MAX: Final = 20
CODES: Final = frozenset(
    {
        "invalid_request",
        "invalid_key",
        "invalid_issuer",
        "invalid_audience",
        "authentication_failed",
        "access_denied",
    }
)
ACCEPTED: Final = "accepted"
TOO_LARGE: Final = 413
TOO_MANY: Final = 429
#: structlog's number for critical
SILENT: Final = 50


class ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one class. outcomes: `accepted`, an RFC 8935 code, or a failure's name."""

    name: str
    is_legal: bool
    mutants: int
    outcomes: dict[str, int]


class Tally:
    """Counts outcomes per class, and notes the surprising ones."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self._outcomes: dict[str, Counter[str]] = {each.name: Counter() for each in CLASSES}

    def note(self, mutant_class: MutantClass, raw: bytes, outcome: str) -> None:
        """Count one answer; `outcome` as in ClassCount."""
        self._outcomes[mutant_class.name][outcome] += 1
        is_right = outcome == ACCEPTED if mutant_class.is_legal else outcome in CODES
        if not is_right and len(self.findings) < FINDINGS_MAX:
            self.findings.append(f"{mutant_class.name}: {outcome}: {raw[:2_000]!r}")

    def counts(self) -> list[ClassCount]:
        """Return the counts, one per class."""
        return [
            ClassCount(
                name=each.name,
                is_legal=each.is_legal,
                mutants=self._outcomes[each.name].total(),
                outcomes=dict(sorted(self._outcomes[each.name].items())),
            )
            for each in CLASSES
        ]

    @property
    def accepted(self) -> int:
        """How many were accepted, of all classes."""
        return sum(outcomes[ACCEPTED] for outcomes in self._outcomes.values())


class MutationResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. direct, over_http: what became of each class; findings: what should not be."""

    machine: Machine
    command: str
    seed: int
    mutants: int
    direct: list[ClassCount]
    over_http: list[ClassCount]
    findings: list[str]


def share_of(mutant_class: MutantClass, mutants: int) -> int:
    """Return how many of so many mutants are of a class, at least one."""
    return max(1, mutants * mutant_class.share // sum(each.share for each in CLASSES))


@asynccontextmanager
async def _intake(
    folder: Path, shop: Workshop
) -> AsyncIterator[tuple[Database, LocalWriter, ProviderProfile]]:
    """Yield a database with all tables, its writer, and a provider with the workshop's key."""
    database = Database.connect(f"sqlite:///{folder}/mutations.db")
    await migrate(database)
    writer = LocalWriter(database, Notifier())
    committing = asyncio.create_task(writer.run())
    deps = RegistryDeps(
        database=database, secrets=SecretBox(secrets.token_urlsafe(32)), clock=SystemClock()
    )
    provider = await registry.add_provider(
        deps,
        ProviderSettings(name="mutants", issuer=ISSUER, audiences=(AUDIENCE,), jwks=shop.jwks),
        tenant_id="default",
        authorization_header=None,
    )
    try:
        yield database, writer, build_profile(provider, authorization_header=None)
    finally:
        committing.cancel()
        await asyncio.wait([committing])
        await database.close()


async def direct(folder: Path, *, mutants: int, seed: int) -> Tally:
    """Give mutants to the intake itself. Raises nothing for what they do: it is counted."""
    shop = Workshop(seed, epoch_s(SystemClock().now()))
    tally = Tally()
    keys = IssuerKeys(PinnedOutbound(EgressRules()))
    async with _intake(folder, shop) as (database, writer, provider):

        async def judge(mutant_class: MutantClass, raw: bytes) -> None:
            now = SystemClock().now()
            try:
                await accept(raw, provider=provider, now=now, keys=keys, writer=writer)
            except SETError as refusal:
                outcome = refusal.code
            except Exception as failure:  # noqa: BLE001 - any other error is what we look for
                outcome = type(failure).__name__
            else:
                outcome = ACCEPTED
            tally.note(mutant_class, raw, outcome)

        for mutant_class in CLASSES:
            left = share_of(mutant_class, mutants)
            while left > 0:
                batch = [mutant_class.make(shop) for _ in range(min(left, AT_ONCE))]
                await asyncio.gather(*(judge(mutant_class, raw) for raw in batch))
                left -= len(batch)
        async with database.snapshot() as connection:
            stored = await connection.scalar(sa.text("SELECT count(*) FROM signals"))
    if stored != tally.accepted:
        tally.findings.append(f"{tally.accepted} were accepted, {stored} are stored")
    return tally


def over_http(folder: Path, *, mutants: int, seed: int) -> Tally:
    """Push mutants to a served hub. Raises httpx2.HTTPError when it does not answer at all."""
    shop = Workshop(seed, epoch_s(SystemClock().now()))
    tally = Tally()
    authorization = f"Bearer {secrets.token_urlsafe(24)}"
    with running_hub(folder) as hub:
        provider = hub.create(
            "providers",
            {
                "name": "mutants",
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "jwks": shop.jwks,
                "authorization_header": authorization,
            },
        )
        headers = {"content-type": "application/secevent+jwt", "authorization": authorization}
        with httpx2.Client(headers=headers, timeout=30.0) as client:
            for mutant_class in CLASSES:
                for _ in range(share_of(mutant_class, mutants)):
                    raw = mutant_class.make(shop)
                    answer = client.post(provider["events_url"], content=raw)
                    while answer.status_code == TOO_MANY:
                        # So much of it is a flood to the hub: do as a sender is told.
                        time.sleep(int(answer.headers["retry-after"]))
                        answer = client.post(provider["events_url"], content=raw)
                    tally.note(mutant_class, raw, outcome_of(answer))
    return tally


def outcome_of(answer: httpx2.Response) -> str:
    """Return `accepted`, the code of a well-formed refusal, or what is wrong with the answer."""
    if answer.status_code == httpx2.codes.ACCEPTED:
        return ACCEPTED if not answer.content else "202 with a body"
    if answer.status_code == TOO_LARGE:
        return "invalid_request"  # refused before it is a SET at all
    kind = answer.headers.get("content-type", "")
    if answer.status_code != httpx2.codes.BAD_REQUEST or kind != "application/json":
        return f"{answer.status_code} {kind}"
    try:
        body = msgspec.json.decode(answer.content, type=dict[str, str])
    except msgspec.MsgspecError:
        return "a body that is no object of strings"
    if set(body) != {"err", "description"} or answer.headers.get("content-language") != "en":
        return f"a refusal of another form: {sorted(body)}"
    return body["err"]


def main() -> int:
    """Count, print and keep the counts; 1 when anything surprised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=MUTANTS)
    parser.add_argument("--over-http", type=int, default=OVER_HTTP)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--no-result", action="store_true", help="do not write benchmarks/results/")
    options = parser.parse_args()
    command = shlex.join(["python", "-m", "benchmarks.mutations", *sys.argv[1:]])
    # One line per refusal would cost more than the refusals.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(SILENT))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        machine = machine_facts(folder)
        bulk = asyncio.run(direct(folder, mutants=options.mutants, seed=options.seed))
        sample = over_http(folder, mutants=options.over_http, seed=options.seed + 1)
    result = MutationResult(
        machine=machine,
        command=command,
        seed=options.seed,
        mutants=sum(each.mutants for each in (*bulk.counts(), *sample.counts())),
        direct=bulk.counts(),
        over_http=sample.counts(),
        findings=[*bulk.findings, *sample.findings],
    )
    rows = [
        (way, each.name, str(each.mutants), ", ".join(f"{k} {v}" for k, v in each.outcomes.items()))
        for way, counts in (("direct", result.direct), ("HTTP", result.over_http))
        for each in counts
    ]
    print(table(("way", "class", "mutants", "outcomes"), rows))
    print(*result.findings, sep="\n")
    if not options.no_result:
        print(f"written to {write_result('mutations', result)}")
    return int(bool(result.findings))


if __name__ == "__main__":
    sys.exit(main())
