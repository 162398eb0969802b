"""The delivery process: pushes SETs, calls apps and IdPs, sends webhooks.

It writes nothing itself on SQLite: outcomes go to core as settlements.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import structlog

from actions.worker import TaskSource
from hub.node import Node, ProcessConfig, open_node
from hub.tenancy import tenant_issuer
from runtime.outbound import Outbound, StreamingOutbound
from runtime.queue import Lanes, LaneSource, LeaseKeeper
from transmitters.keys import SigningKeys
from transmitters.worker import PushSource

#: what is under way at a stop gets this long; the supervisor waits longer
FINISH_S: Final = 5.0

log = structlog.get_logger()


async def run_delivery(config: ProcessConfig, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with open_node(config) as node:
        outbound = StreamingOutbound(config.egress_rules())
        work = [_lanes(node, source) for source in sources(node, outbound)]
        running = [node.spawn(lanes.run()) for lanes in work]
        log.info("delivery.started")
        try:
            await stop.wait()
            # A request that is cut off would be repeated by whoever comes next.
            await asyncio.gather(*(lanes.finish(FINISH_S) for lanes in work))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await outbound.close()


def _lanes(node: Node, source: LaneSource[Any, Any]) -> Lanes:
    leases = LeaseKeeper(source.kind, node.config.name, writer=node.writer, clock=node.clock)
    return Lanes(
        source, leases=leases, writer=node.writer, notifier=node.notifier, clock=node.clock
    )


def sources(node: Node, outbound: Outbound) -> tuple[LaneSource[Any, Any], ...]:
    """Return the kinds of work that this process does."""
    issuer = partial(tenant_issuer, node.config.issuer)
    return (
        TaskSource(
            node.database,
            outbound,
            keyring=node.keyring,
            box=node.box,
            clock=node.clock,
            issuer=issuer,
        ),
        PushSource(
            node.database,
            outbound,
            keys=SigningKeys(node.keyring),
            box=node.box,
            clock=node.clock,
            issuer=issuer,
        ),
    )
