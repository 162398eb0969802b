"""Faults on order: a peer that is down, slow, hangs, or loses its answers, for a while.

A listening process cannot refuse connections, so "down" is an error status or silence.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conformance.peers.ledger import Ledger, Outcome

HANG_S_MAX = 300.0
# The judge's own paths answer whatever happens.
NEVER_FAULTY = ("/control/", "/ledger", "/healthz", "/sessions", "/access", "/messages", "/outbox")


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault as ordered by POST /control/fault.

    status: answer with it, without doing the work. hang: hold the request until the fault is over.
    slow: work after delay_ms. lost_answer: do the work, then answer with the status instead.
    for_s: how long it lasts; count: how many requests it hits; none: until it is changed.
    paths: beginnings of the paths it hits; empty: all protocol paths of the peer.
    """

    mode: Literal["ok", "status", "hang", "slow", "lost_answer"] = "ok"
    status: int = 503
    retry_after_s: int | None = None
    delay_ms: int = 0
    for_s: float | None = None
    count: int | None = None
    paths: tuple[str, ...] = ()


@dataclass(slots=True)
class FaultState:
    """The fault in force, changed by orders and worn out by time and requests."""

    order: FaultOrder
    until_s: float
    left: int | None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def none(cls) -> "FaultState":
        """Return a state without any fault."""
        return cls(FaultOrder(), 0.0, None)

    def set(self, order: FaultOrder) -> None:
        """Put an order in force, in place of the one before."""
        self.order = order
        self.until_s = time.monotonic() + order.for_s if order.for_s is not None else float("inf")
        self.left = order.count
        self.changed.set()
        self.changed = asyncio.Event()

    def active(self, path: str | None = None) -> bool:
        """Tell whether the fault hits now; path None asks about outgoing work such as polling."""
        if self.order.mode == "ok" or time.monotonic() >= self.until_s or self.left == 0:
            return False
        if path is None or not self.order.paths:
            return True
        return path.startswith(self.order.paths)

    def use(self) -> FaultOrder:
        """Count one request that is hit, and return the order for it."""
        if self.left is not None:
            self.left -= 1
        return self.order

    async def wait_until_over(self) -> None:
        """Wait until the order in force ends or is replaced, at most HANG_S_MAX."""
        left_s = min(HANG_S_MAX, self.until_s - time.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), left_s)


class FaultGate:
    """ASGI middleware that stands before a peer and commits the ordered fault."""

    def __init__(self, app: ASGIApp, state: FaultState, ledger: Ledger) -> None:
        self._app = app
        self._state = state
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or spoil it as ordered."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or path.startswith(NEVER_FAULTY) or not self._state.active(path):
            await self._app(scope, receive, send)
            return
        order = self._state.use()
        self._ledger.record("fault.hit", Outcome.NOTED, mode=order.mode, path=path)
        if order.mode == "slow":
            await asyncio.sleep(order.delay_ms / 1000)
            await self._app(scope, receive, send)
            return
        if order.mode == "hang":
            await self._state.wait_until_over()
        elif order.mode == "lost_answer":
            await self._app(scope, receive, _swallow)
        await _spoiled_answer(order)(scope, receive, send)


async def _swallow(message: Message) -> None:
    """Lose an answer."""


def _spoiled_answer(order: FaultOrder) -> Response:
    headers = {} if order.retry_after_s is None else {"retry-after": str(order.retry_after_s)}
    return Response(status_code=order.status, headers=headers)
