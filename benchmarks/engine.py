"""The evaluator of live sessions in this process, as benchmarks ask it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from hub.denied import DeniedUsers
from hub.inline.evaluator import Evaluator
from hub.inline.place import Placing
from hub.inline.warmth import Warmth
from hub.node import Node, ProcessConfig
from hub.sign_ins.assembly import open_history
from risk.baselines.memory import Baselines, Recorder
from risk.inline.memory import HELD_MAX
from risk.policies.sessions import policies_cache
from risk.sessions.model import PutSession
from risk.sessions.service import PUT_SESSION
from risk.zones.service import Zones
from runtime.caller import Caller

ISSUER: Final = "https://idp.example"
TENANT: Final = "default"
AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36"
)
#: fewer than may wait to be written
FLUSHED_EVERY: Final = 1_000
REGISTERED_AT_ONCE: Final = 256
CALLER: Final = Caller(
    tenant_id=TENANT,
    client_id="cli_benchmark",
    scopes=frozenset({"sessions.evaluate"}),
    app_id=None,
)


def engine_config(url: str) -> ProcessConfig:
    """Return the settings of a process that does everything on a database."""
    return ProcessConfig(
        role="core",
        index=0,
        node="benchmark",
        issuer="https://hub.example",
        database_url=url,
        core_socket=None,
        secret_key="a secret key for one benchmark, long enough",  # noqa: S106 - lives for one run
        dev_insecure=False,
        egress_allow=(),
        extra_ca=None,
        log_level="error",
        evaluate_deadline_ms=1_000.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """An evaluator, and what writes baselines behind its answers."""

    evaluator: Evaluator
    recorder: Recorder
    baselines: Baselines

    async def flush(self) -> None:
        """Write what was noted behind answers."""
        await self.evaluator.behind.flush()
        await self.recorder.flush()


def open_judging(node: Node, *, held_max: int = HELD_MAX) -> Judging:
    """Return an evaluator as the api process has it. held_max: sessions in memory."""
    zones = Zones(
        node.database, node.feed, networks=node.networks, clock=node.clock, trusted_proxies=()
    )
    history = open_history(node)
    denied_users = DeniedUsers(node.database, node.changes)
    policies = policies_cache(node.feed, node.database)
    recorder = Recorder(node.writer, history.baselines)
    evaluator = Evaluator(
        node,
        denied_users=denied_users,
        policies=policies,
        warmth=Warmth(node.feed, denied_users, [("policies", policies.get)]),
        placing=Placing(zones),
        history=history,
        recorder=recorder,
        held_max=held_max,
    )
    return Judging(evaluator=evaluator, recorder=recorder, baselines=history.baselines)


async def register(node: Node, count: int) -> None:
    """Register sessions `sid-0` and so on, each of a user of its own."""
    now = node.clock.now()
    for first in range(0, count, REGISTERED_AT_ONCE):
        await asyncio.gather(
            *(
                node.writer.submit(
                    PUT_SESSION,
                    PutSession(
                        tenant_id=TENANT,
                        iss=ISSUER,
                        sid=f"sid-{number}",
                        user=[{"format": "email", "email": f"user{number}@customer.example"}],
                        device=None,
                        started_at=now,
                        now=now,
                        expires_at=now + timedelta(days=1),
                    ),
                )
                for number in range(first, min(first + REGISTERED_AT_ONCE, count))
            )
        )
