"""The api process: all HTTP."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import structlog
import uvicorn

from hub.app import make_app
from hub.http import BoundedHTTPProtocol
from hub.node import Node, ProcessConfig, open_node, reach_core
from hub.tls import keep_fresh
from runtime.pinned import PinnedOutbound

GRACE_S: Final = 5
KEEP_ALIVE_S: Final = 65
BACKLOG: Final = 2048

log = structlog.get_logger()


async def run_api(config: ProcessConfig, stop: asyncio.Event) -> None:
    """Serve on the inherited socket until `stop` is set; running requests get a few seconds."""
    assert config.listen_fd is not None  # noqa: S101 - the supervisor gives every api its socket
    async with open_node(config) as node:
        await reach_core(node, stop)
        outbound = PinnedOutbound(config.egress_rules())
        try:
            context = config.tls.context() if config.tls else None
            if context and config.tls:
                node.spawn(keep_fresh(context, config.tls))
            server = uvicorn.Server(
                uvicorn.Config(
                    make_app(node, outbound, works=True),
                    http=BoundedHTTPProtocol,
                    ws="none",
                    lifespan="off",
                    access_log=False,
                    log_config=None,
                    server_header=False,
                    proxy_headers=False,
                    timeout_keep_alive=KEEP_ALIVE_S,
                    timeout_graceful_shutdown=GRACE_S,
                    ssl_context_factory=(lambda *_: context) if context else None,
                )
            )
            node.spawn(_stop_when(stop, server, node))
            log.info("api.started")
            await server.serve(sockets=[socket.socket(fileno=config.listen_fd)])
        finally:
            await outbound.close()


async def _stop_when(stop: asyncio.Event, server: uvicorn.Server, node: Node) -> None:
    await stop.wait()
    node.stopping.set()
    # Long polls answer "nothing" now, else each of them would use up the whole grace.
    node.notifier.deliver("polls")
    server.should_exit = True
