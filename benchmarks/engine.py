"""The evaluator of live sessions in this process, as benchmarks ask it."""

from __future__ import annotations

from typing import Final

from hub.denied import DeniedUsers
from hub.inline.evaluator import Evaluator
from hub.inline.place import Placing
from hub.inline.warmth import Warmth
from hub.node import Node, ProcessConfig
from hub.sign_ins.assembly import open_history
from risk.baselines.memory import Recorder
from risk.inline.memory import HELD_MAX
from risk.policies.sessions import policies_cache
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


def open_evaluator(node: Node, *, held_max: int = HELD_MAX) -> Evaluator:
    """Return an evaluator as the api process has it. held_max: sessions in memory."""
    zones = Zones(
        node.database, node.feed, networks=node.networks, clock=node.clock, trusted_proxies=()
    )
    history = open_history(node)
    denied_users = DeniedUsers(node.database, node.changes)
    policies = policies_cache(node.feed, node.database)
    return Evaluator(
        node,
        denied_users=denied_users,
        policies=policies,
        warmth=Warmth(node.feed, denied_users, [("policies", policies.get)]),
        placing=Placing(zones),
        history=history,
        recorder=Recorder(node.writer, history.baselines),
        held_max=held_max,
    )
