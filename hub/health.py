"""What operators ask: is it alive, is it ready, how does it fare."""

from __future__ import annotations

import asyncio
import os
from typing import Final

import sqlalchemy.exc
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub.node import Node
from runtime.caller import Caller
from runtime.ipc import CoreClient

READY_S: Final = 2.0
DETAIL_SCOPES: Final = ("admin.read", "admin.write")
METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


async def healthz(_request: Request) -> Response:
    """Answer that this process runs. Public, says nothing else."""
    return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})


async def readyz(request: Request) -> Response:
    """Answer 200 when requests can be served: database and core reachable; else 503.

    Which of them is missing is told to who may read the admin API (contracts §8).
    """
    node: Node = request.app.state.node
    caller: Caller = request.state.caller
    checks = {"database": await _database_answers(node), "core": await _core_answers(node)}
    ready = all(checks.values())
    details = {} if caller.scopes.isdisjoint(DETAIL_SCOPES) else {"checks": checks}
    return JSONResponse(
        {"status": "ready" if ready else "not ready", **details},
        status_code=200 if ready else 503,
        headers={"cache-control": "no-store"},
    )


async def metrics(request: Request) -> Response:
    """Answer all processes' metrics in Prometheus's text form; needs `admin.read`."""
    caller: Caller = request.state.caller
    caller.require(*DETAIL_SCOPES)
    if METRICS_DIR_VARIABLE in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library's own
        text = await asyncio.to_thread(generate_latest, registry)
    else:
        text = generate_latest()
    return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})


async def _database_answers(node: Node) -> bool:
    try:
        async with asyncio.timeout(READY_S):
            await node.feed.refresh()
    except (OSError, TimeoutError, sqlalchemy.exc.SQLAlchemyError):
        return False
    return True


async def _core_answers(node: Node) -> bool:
    if isinstance(node.writer, CoreClient):
        return await node.writer.connected(READY_S)
    return True


ROUTES: Final = (
    Route("/healthz", healthz, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
)
