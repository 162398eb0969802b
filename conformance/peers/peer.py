"""What every peer has: options, ledger, faults, an outbound client, basic control routes."""

import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.abc
import httpx2
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from conformance.peers.faults import FaultGate, FaultOrder, FaultState
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import PeerOptions, change_options

BODY_BYTES_MAX = 1024 * 1024
OUTBOUND_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 200

Options = TypeVar("Options", bound=PeerOptions)
Body = TypeVar("Body")


class Peer(Generic[Options]):
    """A program that serves HTTP on loopback and writes down what reached it.

    Subclasses add routes and background work.
    """

    def __init__(self, options: Options, base_url: str) -> None:
        self.options = options
        self.base_url = base_url
        self.ledger = Ledger(Path(options.ledger) if options.ledger else None)
        self.fault = FaultState.none()
        self.client = httpx2.AsyncClient(
            timeout=OUTBOUND_TIMEOUT_S,
            trust_env=False,  # Loopback must not go through somebody's proxy.
            # Loopback speaks plain http: an empty trust store loads at once and refuses the rest.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            limits=httpx2.Limits(max_connections=CONNECTIONS_MAX),
        )

    def routes(self) -> list[Route]:
        """Return the peer's own routes."""
        return []

    async def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begin background work in the task group, which is cancelled at the end."""

    def let_go(self) -> None:
        """Answer requests that are held, because the peer is about to end."""

    async def options_changed(self) -> None:
        """Follow a change of the options."""

    def application(self) -> ASGIApp:
        """Build the ASGI application: routes, control API, faults in front."""
        application = Starlette(
            routes=[
                *self.routes(),
                Route("/healthz", _healthy),
                Route("/ledger", self._show_ledger),
                Route("/control/fault", self._set_fault, methods=["POST"]),
                Route("/control/configure", self._configure, methods=["POST"]),
            ],
            exception_handlers={msgspec.MsgspecError: _bad_request, ValueError: _bad_request},
            lifespan=self._lifespan,
        )
        return FaultGate(application, self.fault, self.ledger)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with self.client, anyio.create_task_group() as tasks:
            await self.start(tasks)
            yield
            tasks.cancel_scope.cancel()
        self.ledger.close()

    async def _show_ledger(self, request: Request) -> Response:
        return json_response(self.ledger.entries(request.query_params))

    async def _set_fault(self, request: Request) -> Response:
        order = await read_json(request, FaultOrder)
        self.fault.set(order)
        self.ledger.record("fault.ordered", Outcome.NOTED, mode=order.mode, status=order.status)
        return json_response(msgspec.to_builtins(order))

    async def _configure(self, request: Request) -> Response:
        self.options = change_options(self.options, await read_json(request, dict[str, Any]))
        await self.options_changed()
        return json_response(self.options.urls(self.base_url))


async def read_body(request: Request, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Read the body. Raises HTTPException 413 beyond bytes_max."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise HTTPException(413)
    return bytes(body)


async def read_json(request: Request, body_type: type[Body]) -> Body:
    """Read a control request. Raises msgspec.MsgspecError, which is answered 400."""
    body = await read_body(request)
    return msgspec.json.decode(body or b"{}", type=body_type)


def json_response(content: object, status: int = 200, **headers: str) -> Response:
    """Answer with JSON; header names are given with underscores."""
    return Response(
        msgspec.json.encode(content),
        status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        media_type="application/json",
    )


def media_type(request: Request) -> str:
    """Return the request's media type without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def bearer_token_matches(request: Request, token: str) -> bool:
    """Compare the request's bearer token in constant time."""
    return header_matches(request, f"Bearer {token}")


def header_matches(request: Request, expected: str) -> bool:
    """Compare the whole Authorization header in constant time."""
    given = request.headers.get("authorization", "")
    return secrets.compare_digest(given.encode(), expected.encode())


def request_id(request: Request) -> str | None:
    """Return the id a caller gave to its request, if any."""
    return request.headers.get("x-request-id")


Endpoint = Callable[[Request], Awaitable[Response]]


async def _healthy(_request: Request) -> Response:
    return json_response({"status": "ok"})


async def _bad_request(_request: Request, problem: Exception) -> Response:
    return json_response({"error": "invalid_request", "error_description": str(problem)}, 400)
