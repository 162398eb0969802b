"""The delivery process: pushes SETs, calls apps and IdPs, sends webhooks.

It writes nothing itself on SQLite: outcomes go to core as settlements.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import structlog

from actions.worker import TaskSource
from hub.node import Node, ProcessConfig, open_node
from hub.tenancy import tenant_issuer
from runtime.outbound import Outbound, StreamingOutbound
from runtime.queue import Lanes, LaneSource, LeaseKeeper
from transmitters.keys import SigningKeys
from transmitters.worker import PushSource

log = structlog.get_logger()


async def run_delivery(config: ProcessConfig, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    async with open_node(config) as node:
        outbound = StreamingOutbound(config.egress_rules())
        try:
            for source in sources(node, outbound):
                leases = LeaseKeeper(source.kind, config.name, writer=node.writer, clock=node.clock)
                lanes = Lanes(
                    source,
                    leases=leases,
                    writer=node.writer,
                    notifier=node.notifier,
                    clock=node.clock,
                )
                node.spawn(lanes.run())
            log.info("delivery.started")
            await stop.wait()
        finally:
            await outbound.close()


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
