"""Puts the judge of sign-ins together for one api process."""

from __future__ import annotations

from functools import partial

import risk.behaviours.service
from hub.node import Node
from hub.sign_ins.evaluator import Origins, SignIns
from risk.baselines.memory import Baselines
from risk.behaviours.history import History
from risk.behaviours.model import Behaviour
from risk.deps import RiskDeps
from risk.ips.model import IPRisk, judge_ip
from risk.policies.compiled import CompiledPolicies
from runtime.feed import ConfigCache


def open_history(node: Node) -> History:
    """Return what is known of users, in memory; one per process, for all evaluators."""
    settings = ConfigCache(
        node.feed, risk.behaviours.service.BEHAVIOURS_KIND, partial(_load_behaviours, node)
    )
    return History(Baselines(node.database, node.changes), settings.get)


def open_sign_ins(
    node: Node,
    deps: RiskDeps,
    *,
    history: History,
    policies: ConfigCache[CompiledPolicies],
    origins: Origins,
) -> SignIns:
    """Return the judge of sign-ins, with its writers running.

    policies: of the tenants. origins: judges chains of addresses.
    """
    sign_ins = SignIns(
        node,
        history=history,
        policies=policies.get,
        claims=partial(_claims, deps),
        origins=origins,
    )
    node.spawn(sign_ins.recorder.run())
    node.spawn(sign_ins.log.run())
    node.spawn(sign_ins.failures.run())
    return sign_ins


async def _claims(deps: RiskDeps, tenant_id: str, ip: str) -> IPRisk:
    """Return what is said of an address."""
    claims = await deps.ip_claims.of(tenant_id, ip)
    reporters = {claim.source: await deps.reporter_of(tenant_id, claim.source) for claim in claims}
    return judge_ip(claims, reporters, now=deps.clock.now())


async def _load_behaviours(node: Node, tenant_id: str) -> tuple[Behaviour, ...]:
    async with node.database.snapshot() as connection:
        found = await risk.behaviours.service.list_behaviours(connection, tenant_id)
    return tuple(each.behaviour for each in found)
