"""The HTTP client of the push loop: what one push needs, and nothing else (ADR 0023).

    url ─▶ checked once: form, host, request line ─┐
    send ─▶ idle connection of that origin ────────┴─▶ exchange ─▶ answer, connection is idle again
              └─ none ─▶ one that comes back soon, if there are some
                          └─ none: guard.addresses ─▶ connect to those (TLS under the name) ─▶ …

The rules are those of every way out (`runtime.outbound`): addresses are checked when a connection
is made, and it goes to exactly those; TLS verifies the name; no redirects, no proxies, no cookies,
nothing is unpacked. Nothing is sent twice: a connection that is found closed before anything was
written is replaced, and every later trouble is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

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

#: connections that wait for their next request, over all origins; the oldest go first. Several per
#: receiver, when a thousand receivers are told several things at once.
IDLE_CONNECTIONS_MAX: Final = 4_096
#: and of the files that the process may open
IDLE_SHARE_OF_FILES: Final = 0.5
#: a connection is not used longer than this, so that a name that moved is followed
CONNECTION_LIFETIME_S: Final = 300.0
SWEEP_S: Final = 5.0
#: an origin with this many connections gets one more when a request has waited so long for one to
#: come back: quick receivers need few, and a thousand of them would else hold ten thousand
CONNECTIONS_AT_ONCE: Final = 2
GROW_AFTER_S: Final = 0.02

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
    """Connections of one origin.

    users: requests that wait for one or have one. in_use: connections that a request has, or
    makes. waiting: requests that take what comes back, None when they had better connect.
    """

    __slots__ = ("idle", "in_use", "turns", "users", "waiting")

    def __init__(self) -> None:
        self.idle: deque[Connection] = deque()
        self.turns = asyncio.Semaphore(CONNECTIONS_PER_HOST_MAX)
        self.users = 0
        self.in_use = 0
        self.waiting: deque[asyncio.Future[Connection | None]] = deque()


class LeanOutbound:
    """Implements `runtime.outbound.Outbound` for many small requests to many hosts."""

    def __init__(
        self,
        rules: EgressRules,
        *,
        lookup: Resolver = socket.getaddrinfo,
        idle_max: int | None = None,
        grow_after_s: float = GROW_AFTER_S,
    ) -> None:
        """rules: who may be called. lookup: what finds the addresses of a name.

        idle_max: connections that wait for their next request; as many as is usual when None.
        grow_after_s: how long a request waits for a connection in use before it makes another.
        """
        self._guard = AddressGuard(rules, lookup=lookup)
        self._tls = tls_context(rules)
        self._places: dict[str, _Place] = {}
        self._pools: dict[_Origin, _Pool] = {}
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        #: in order of their last use: whose they are, and when that was, of the loop's clock
        self._idle: dict[Connection, tuple[_Origin, float]] = {}
        self._open: set[Connection] = set()
        self._idle_max = _idle_max() if idle_max is None else idle_max
        self._grow_after_s = grow_after_s
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
            connection = self._take_idle(pool)
            if connection is None and pool.in_use >= CONNECTIONS_AT_ONCE:
                connection = await self._returned(place.origin, pool)
            pool.in_use += 1
            try:
                connection = connection or await self._connected(place)
                return await connection.exchange(
                    payload, timeout_s=request.timeout_s, body_bytes_max=request.body_bytes_max
                )
            finally:
                pool.in_use -= 1
                if connection is not None:
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

    async def _returned(self, origin: _Origin, pool: _Pool) -> Connection | None:
        """Return the next connection that comes back, None when that takes long."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        pool.waiting.append(waiter)
        # Two turns later: what came back while the loop was busy has to be seen first.
        timer = loop.call_later(
            self._grow_after_s, loop.call_soon, loop.call_soon, _give_up, waiter
        )
        try:
            connection = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result() is not None:
                self._put_back(origin, pool, cast("Connection", waiter.result()))
            raise
        finally:
            timer.cancel()
        # It may have been closed on the way here.
        return connection if connection is not None and connection.is_usable else None

    def _put_back(self, origin: _Origin, pool: _Pool, connection: Connection) -> None:
        if not connection.is_usable:
            connection.abort()
            return
        while pool.waiting:
            waiter = pool.waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        loop = asyncio.get_running_loop()
        pool.idle.append(connection)
        self._idle[connection] = (origin, loop.time())
        if len(self._idle) > self._idle_max:
            self._end_oldest()
        if self._sweeping is None:
            self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    def _end_oldest(self) -> None:
        # Forgotten here: the loop tells of its end later, and meanwhile others come back.
        connection, (origin, _) = next(iter(self._idle.items()))
        del self._idle[connection]
        self._pools[origin].idle.remove(connection)
        self._forget_empty(origin)
        connection.abort()

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


def _give_up(waiter: asyncio.Future[Connection | None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _idle_max() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return IDLE_CONNECTIONS_MAX
    return min(IDLE_CONNECTIONS_MAX, int(files * IDLE_SHARE_OF_FILES))


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
