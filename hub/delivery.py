"""The delivery process: pushes SETs, calls apps and IdPs, sends webhooks, polls upstreams.

It writes nothing itself on SQLite: outcomes go to core as settlements.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import structlog

from actions.worker import TaskSource
from hub import logouts
from hub.node import Node, ProcessConfig, open_node, reach_core
from hub.operations import SETTLE_UPSTREAM
from hub.store import system_list_tenants
from hub.tenancy import tenant_issuer
from receivers.keys import IssuerKeys
from receivers.refusals.log import RefusalLog, Witness
from receivers.registry.service import profile_cache
from receivers.upstreams.client import StreamClient
from receivers.upstreams.polling import Poller
from receivers.upstreams.tokens import Tokens
from receivers.upstreams.worker import WINDOW as UPSTREAM_WINDOW
from receivers.upstreams.worker import UpstreamSource
from runtime.feed import ConfigCache
from runtime.lanes import Lanes, LaneSource
from runtime.lean import LeanOutbound
from runtime.outbound import Outbound
from runtime.queue import LeaseKeeper, Suspended
from runtime.streaming import StreamingOutbound
from transmitters.keys import SigningKeys
from transmitters.silence import SILENT_MAX
from transmitters.worker import PushSource

#: what is under way at a stop gets this long; the supervisor waits longer
FINISH_S: Final = 5.0

log = structlog.get_logger()


async def run_delivery(config: ProcessConfig, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with open_node(config) as node:
        await reach_core(node, stop)
        outbound = StreamingOutbound(config.egress_rules())
        pushing = LeanOutbound(config.egress_rules())
        # Long polls hold their connections for half a minute each: they get their own.
        polling = StreamingOutbound(config.egress_rules())
        work, running = [], []
        for source in sources(node, outbound, pushing):
            work.append(_lanes(node, source, _leases(node, source.kind)))
            # The other kinds have no shares of the places for what is silent.
            silent_max = SILENT_MAX if source.kind == PushSource.kind else 0
            running.append(node.spawn(work[-1].run(silent_max=silent_max)))
        leases = _leases(node, UpstreamSource.kind)
        upstreams = _upstreams(node, outbound, polling, leases)
        work.append(_lanes(node, upstreams, leases))
        running.append(node.spawn(work[-1].run(window=UPSTREAM_WINDOW)))
        log.info("delivery.started")
        try:
            await stop.wait()
            upstreams.stop()
            # A request that is cut off would be repeated by whoever comes next.
            await asyncio.gather(*(lanes.finish(FINISH_S) for lanes in work))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await outbound.close()
            await pushing.close()
            await polling.close()


def _leases(node: Node, kind: str) -> LeaseKeeper:
    return LeaseKeeper(kind, node.config.name, writer=node.writer, clock=node.clock)


def _lanes(node: Node, source: LaneSource[Any, Any], leases: LeaseKeeper) -> Lanes:
    return Lanes(
        source, leases=leases, writer=node.writer, notifier=node.notifier, clock=node.clock
    )


def sources(node: Node, outbound: Outbound, pushing: Outbound) -> tuple[LaneSource[Any, Any], ...]:
    """Return the kinds of work that this process does. pushing: the client for SETs."""
    issuer = partial(tenant_issuer, node.config.issuer)
    suspended = _suspended(node)
    return (
        TaskSource(
            node.database,
            outbound,
            keyring=node.keyring,
            box=node.box,
            clock=node.clock,
            issuer=issuer,
            suspended=suspended,
            settle=logouts.SETTLE,
        ),
        PushSource(
            node.database,
            pushing,
            keys=SigningKeys(node.keyring, on_the_spot=True),
            box=node.box,
            clock=node.clock,
            issuer=issuer,
            suspended=suspended,
            mark=partial(node.notifier.count, "config"),
        ),
    )


def _suspended(node: Node) -> Suspended:
    """Return what tells which tenants are suspended, from memory."""
    cache = ConfigCache(node.feed, "tenants", partial(_load_suspended, node))
    return partial(cache.get, "*")


async def _load_suspended(node: Node, _tenant_id: str) -> frozenset[str]:
    async with node.database.snapshot() as connection:
        found = await system_list_tenants(connection)
    return frozenset(one.tenant_id for one in found if one.status != "active")


def _upstreams(
    node: Node, outbound: Outbound, polling: Outbound, leases: LeaseKeeper
) -> UpstreamSource:
    tokens = Tokens(outbound, box=node.box, clock=node.clock)
    keys = IssuerKeys(outbound, dev_insecure=node.config.dev_insecure)
    refusals = RefusalLog(node.writer, node.box)
    node.spawn(refusals.run())
    return UpstreamSource(
        node.database,
        profiles=profile_cache(node.feed, node.database, node.box),
        poller=Poller(
            polling,
            tokens=tokens,
            keys=keys,
            writer=node.writer,
            clock=node.clock,
            witness=Witness(refusals, "polled"),
        ),
        client=StreamClient(outbound, tokens=tokens, clock=node.clock),
        writer=node.writer,
        clock=node.clock,
        leases=leases,
        issuer=partial(tenant_issuer, node.config.issuer),
        suspended=_suspended(node),
        settle=SETTLE_UPSTREAM,
    )
