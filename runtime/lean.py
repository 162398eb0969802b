"""The HTTP client of the push loop: what one push needs, and nothing else (ADR 0023).

    url ─▶ checked once: form, host, request line ─┐
    send ─▶ idle connection of that origin ────────┴─▶ exchange ─▶ answer, connection is idle again
              └─ none: guard.addresses ─▶ connect to those (TLS under the name) ─▶ …

The rules are those of every way out (`runtime.outbound`): addresses are checked when a connection
is made, and it goes to exactly those; TLS verifies the name; no redirects, no proxies, no cookies,
nothing is unpacked. Nothing is sent twice: a connection that is found closed before anything was
written is replaced, and every later trouble is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ssrfguard import Resolver, Target
from yarl import URL

from runtime.connection import Connection, RawAnswer
from runtime.egress import AddressGuard, EgressRules
from runtime.errors import AddressBlocked, ConnectFailed, TimedOut, Unavailable
from runtime.outbound import (
    ADDRESSES_TRIED_MAX,
    CONNECT_TIMEOUT_S,
    CONNECTIONS_MAX,
    CONNECTIONS_PER_HOST_MAX,
    DEFAULT_HEADERS,
    KEEPALIVE_S,
    URLS_REMEMBERED_MAX,
    OutboundAnswer,
    OutboundRequest,
    assert_outside_transaction,
    outbound_seconds,
)
from runtime.pinned import tls_context

#: connections that wait for their next request, over all origins; the oldest go first
IDLE_CONNECTIONS_MAX: Final = 1_024
#: a connection is not used longer than this, so that a name that moved is followed
CONNECTION_LIFETIME_S: Final = 300.0
SWEEP_S: Final = 5.0

#: what this client says itself about the connection and the length of the body
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "te"})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_UNSENDABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_answered, _timed_out, _failed = (
    outbound_seconds.labels(outcome) for outcome in ("answered", "timeout", "failed")
)

_Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL whose form is acceptable. line: what follows the method; with the usual headers."""

    target: Target
    origin: _Origin
    line: bytes


class _Pool:
    """Connections of one origin. users: requests that wait for one or have one."""

    __slots__ = ("idle", "turns", "users")

    def __init__(self) -> None:
        self.idle: deque[Connection] = deque()
        self.turns = asyncio.Semaphore(CONNECTIONS_PER_HOST_MAX)
        self.users = 0


class LeanOutbound:
    """Implements `runtime.outbound.Outbound` for many small requests to many hosts."""

    def __init__(
        self,
        rules: EgressRules,
        *,
        lookup: Resolver = socket.getaddrinfo,
        idle_max: int = IDLE_CONNECTIONS_MAX,
    ) -> None:
        """rules: who may be called. lookup: what finds the addresses of a name.

        idle_max: connections that wait for their next request.
        """
        self._guard = AddressGuard(rules, lookup=lookup)
        self._tls = tls_context(rules)
        self._places: dict[str, _Place] = {}
        self._pools: dict[_Origin, _Pool] = {}
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        #: in order of their last use: whose they are, and when that was, of the loop's clock
        self._idle: dict[Connection, tuple[_Origin, float]] = {}
        self._open: set[Connection] = set()
        self._idle_max = idle_max
        self._sweeping: asyncio.TimerHandle | None = None

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Send one request; errors as in `Outbound`."""
        assert_outside_transaction()
        place = self._place(request.url)
        payload = _rendered(place, request)
        started = time.perf_counter()
        try:
            raw = await self._exchange(place, payload, request)
        except (TimeoutError, TimedOut) as error:
            _timed_out.observe(time.perf_counter() - started)
            raise TimedOut("The other side did not answer in time.") from error
        except Unavailable:
            _failed.observe(time.perf_counter() - started)
            raise
        took_s = time.perf_counter() - started
        _answered.observe(took_s)
        return OutboundAnswer(
            status=raw.status, headers=raw.headers, body=raw.body, duration_ms=took_s * 1000
        )

    @property
    def idle_count(self) -> int:
        """How many connections wait for their next request."""
        return len(self._idle)

    async def close(self) -> None:
        """Close all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in tuple(self._open):
            connection.abort()
        self._guard.close()

    def _place(self, url: str) -> _Place:
        place = self._places.get(url)
        if place is not None:
            return place
        target = self._guard.check_url(url)
        try:
            parsed = URL(url)
            self._guard.check_agreement(target, parsed.raw_host or "")
            line = _line(parsed)
        except ValueError as error:
            raise AddressBlocked("The URL cannot be read.") from error
        if parsed.raw_user is not None or parsed.raw_password is not None:
            raise AddressBlocked("The URL has credentials in it.")
        place = _Place(target, (target.scheme, target.host, target.port), line)
        if len(self._places) >= URLS_REMEMBERED_MAX:
            self._places.pop(next(iter(self._places)))
        self._places[url] = place
        return place

    async def _exchange(self, place: _Place, payload: bytes, request: OutboundRequest) -> RawAnswer:
        pool = self._pools.get(place.origin)
        if pool is None:
            pool = self._pools[place.origin] = _Pool()
        pool.users += 1
        try:
            if pool.idle and not pool.turns.locked() and not self._turns.locked():
                # The usual case: nothing to wait for but the answer, which has its own limit.
                return await self._on_turn(place, pool, payload, request)
            async with asyncio.timeout(request.timeout_s):
                return await self._on_turn(place, pool, payload, request)
        finally:
            pool.users -= 1
            self._forget_empty(place.origin)

    async def _on_turn(
        self, place: _Place, pool: _Pool, payload: bytes, request: OutboundRequest
    ) -> RawAnswer:
        async with pool.turns, self._turns:
            connection = self._take_idle(pool) or await self._connected(place)
            try:
                return await connection.exchange(
                    payload, timeout_s=request.timeout_s, body_bytes_max=request.body_bytes_max
                )
            finally:
                self._put_back(place.origin, pool, connection)

    # --- connections ---

    def _take_idle(self, pool: _Pool) -> Connection | None:
        """Return the connection used last that is still open, None when there is none."""
        now_s = asyncio.get_running_loop().time()
        while pool.idle:
            connection = pool.idle.pop()
            del self._idle[connection]
            if connection.is_usable and now_s - connection.opened_at_s < CONNECTION_LIFETIME_S:
                return connection
            connection.abort()
        return None

    def _put_back(self, origin: _Origin, pool: _Pool, connection: Connection) -> None:
        if not connection.is_usable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        pool.idle.append(connection)
        self._idle[connection] = (origin, loop.time())
        if len(self._idle) > self._idle_max:
            next(iter(self._idle)).abort()
        if self._sweeping is None:
            self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        loop = asyncio.get_running_loop()
        for connection, (_, since_s) in self._idle.items():
            if loop.time() - since_s < KEEPALIVE_S:
                break
            connection.abort()
        self._sweeping = loop.call_later(SWEEP_S, self._sweep) if self._idle else None

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        origin, _ = self._idle.pop(connection, (None, 0.0))
        if origin is not None:
            self._pools[origin].idle.remove(connection)
            self._forget_empty(origin)

    def _forget_empty(self, origin: _Origin) -> None:
        pool = self._pools.get(origin)
        if pool is not None and not pool.users and not pool.idle:
            del self._pools[origin]

    async def _connected(self, place: _Place) -> Connection:
        """Connect to the first checked address that takes a connection."""
        addresses = (await self._guard.addresses(place.target))[:ADDRESSES_TRIED_MAX]
        trouble: Unavailable = ConnectFailed("The name has no address.")
        for address in addresses:
            try:
                return await self._connect(place.origin, address)
            except Unavailable as error:
                trouble = error
        raise trouble

    async def _connect(self, origin: _Origin, address: str) -> Connection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        secure = scheme == "https"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._lost),
                    address,
                    port,
                    ssl=self._tls if secure else None,
                    server_hostname=host if secure else None,
                )
        except TimeoutError as error:
            raise TimedOut("No connection came about in time.") from error
        except (OSError, ValueError) as error:
            name = type(error).__name__
            raise ConnectFailed(f"The connection failed: {name}.") from error
        if connection.is_usable:
            self._open.add(connection)
        return connection


def _line(url: URL) -> bytes:
    head = f" {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"
    usual = "".join(f"{name}: {value}\r\n" for name, value in DEFAULT_HEADERS.items())
    return (head + usual).encode("ascii")


def _rendered(place: _Place, request: OutboundRequest) -> bytes:
    """Return the request as it goes over the wire. Raises ConnectFailed when it cannot be sent."""
    if request.method not in _METHODS:
        raise ConnectFailed("The request cannot be sent: its method is not for this client.")
    return b"".join(
        (
            request.method.encode(),
            place.line,
            _header_lines(request.headers),
            b"Content-Length: %d\r\n\r\n" % len(request.body),
            request.body,
        )
    )


def _header_lines(headers: Mapping[str, str]) -> bytes:
    lines = []
    for name, value in headers.items():
        if _TOKEN.fullmatch(name) is None or _UNSENDABLE.search(value) is not None:
            raise ConnectFailed("The request cannot be sent: a header has a forbidden character.")
        if name.lower() not in _OURS:
            lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode()
