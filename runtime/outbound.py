"""The one way out: guarded HTTP requests.

Rules (design §10, requirement SSF-DEL-6): https only (http behind the development switch), no
redirects, no proxies, addresses checked after name resolution and connected to exactly as
checked, limits on time and size, no request inside a database transaction.

Three clients behind one interface: `PinnedOutbound` (httpx2) for occasional calls such as JWKS and
discovery; `StreamingOutbound` (aiohttp) for tasks, polls and whatever else the delivery process
calls, whose cost does not grow with the number of open connections (ADR 0005); and for pushing
SETs `runtime.lean` (ADR 0023).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Protocol

import aiohttp
import httpx2
from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import Histogram
from ssrfguard import Resolver, Target
from typing_extensions import override
from yarl import URL

from runtime.clock import SystemClock
from runtime.database import in_transaction
from runtime.egress import AddressGuard, EgressRules
from runtime.errors import AddressBlocked, BodyTooLarge, ConnectFailed, TimedOut, Unavailable

__all__ = [
    "EgressRules",
    "Outbound",
    "OutboundAnswer",
    "OutboundRequest",
    "PinnedOutbound",
    "StreamingOutbound",
    "parse_retry_after",
]

TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5.0
BODY_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 256
CONNECTIONS_PER_HOST_MAX: Final = 32
KEEPALIVE_S: Final = 30.0
ADDRESSES_TRIED_MAX: Final = 4
RETRY_AFTER_MAX_S: Final = 86_400.0
#: URLs whose form was found acceptable; where they lead is looked at with every connection
URLS_REMEMBERED_MAX: Final = 4_096
#: identity: bodies are bounded as they arrive, and nothing is unpacked
DEFAULT_HEADERS: Final = {"user-agent": "signalhub", "accept-encoding": "identity"}

outbound_seconds: Final = Histogram(
    "hub_runtime_outbound_seconds", "Duration of outbound requests.", ["outcome"]
)
_answered, _timed_out, _failed = (
    outbound_seconds.labels(outcome) for outcome in ("answered", "timeout", "failed")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundRequest:
    """One request. `body_bytes_max` bounds the answer's body."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    timeout_s: float = TIMEOUT_S
    body_bytes_max: int = BODY_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundAnswer:
    """One answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    duration_ms: float

    @property
    def retry_after_s(self) -> float | None:
        """Return what `Retry-After` asks for, in seconds from now. Source: RFC 9110 §10.2.3."""
        return parse_retry_after(self.headers.get("retry-after"))


class Outbound(Protocol):
    """Sends requests to the outside."""

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Return the answer, whatever its status; redirects are answers, never followed.

        Raises TimedOut, ConnectFailed, AddressBlocked or BodyTooLarge.
        """
        ...


class PinnedOutbound:
    """httpx2 client that connects to the address it checked: host name kept for TLS and Host."""

    def __init__(self, rules: EgressRules, *, lookup: Resolver = socket.getaddrinfo) -> None:
        """rules: who may be called. lookup: what finds the addresses of a name."""
        self._guard = AddressGuard(rules, lookup=lookup)
        self._client = httpx2.AsyncClient(
            verify=tls_context(rules),
            follow_redirects=False,
            trust_env=False,
            headers=DEFAULT_HEADERS,
            # The client knows addresses, not names. Two names may share an address, and then
            # cookies and connections (with the certificate they were checked for) must not.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx2.Limits(
                max_connections=CONNECTIONS_PER_HOST_MAX, max_keepalive_connections=0
            ),
        )

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Send one request; errors as in `Outbound`."""
        assert_outside_transaction()
        target = self._guard.check_url(request.url)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(request.timeout_s):
                addresses = await self._guard.addresses(target)
                return await self._send_to_any(request, target, addresses, started)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise TimedOut("The other side did not answer in time.") from error
        except httpx2.InvalidURL as error:
            raise AddressBlocked("The URL cannot be read.") from error
        except (httpx2.HTTPError, ValueError) as error:
            raise ConnectFailed(f"The connection failed: {type(error).__name__}.") from error

    async def _send_to_any(
        self, request: OutboundRequest, target: Target, addresses: list[str], started: float
    ) -> OutboundAnswer:
        """Send to the first address that takes a connection; nothing is sent twice."""
        tried = addresses[:ADDRESSES_TRIED_MAX]
        for address in tried[:-1]:
            with suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return await self._send_to(request, target, address, started)
        return await self._send_to(request, target, tried[-1], started)

    async def _send_to(
        self, request: OutboundRequest, target: Target, address: str, started: float
    ) -> OutboundAnswer:
        url = httpx2.URL(request.url)
        self._guard.check_agreement(target, url.raw_host.decode())
        async with self._client.stream(
            request.method,
            url.copy_with(host=address),
            headers={**_without_host(request.headers), "host": url.netloc.decode()},
            content=request.body,
            timeout=httpx2.Timeout(request.timeout_s, connect=CONNECT_TIMEOUT_S),
            extensions={"sni_hostname": target.host},
        ) as response:
            body = await _read_bounded(response.aiter_raw(), request.body_bytes_max)
            return OutboundAnswer(
                status=response.status_code,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=body,
                duration_ms=_since_ms(started),
            )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        self._guard.close()


class StreamingOutbound:
    """aiohttp client for the delivery loop; the guard sits in its resolver."""

    def __init__(self, rules: EgressRules, *, lookup: Resolver = socket.getaddrinfo) -> None:
        """rules: who may be called. lookup: what finds the addresses of a name."""
        self._guard = AddressGuard(rules, lookup=lookup)
        self._urls: dict[str, URL] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTIONS_MAX,
                limit_per_host=CONNECTIONS_PER_HOST_MAX,
                keepalive_timeout=KEEPALIVE_S,
                resolver=_GuardedResolver(self._guard, schemes=rules.policy().allowed_schemes),
                use_dns_cache=False,
                ssl=tls_context(rules),
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=DEFAULT_HEADERS,
            trust_env=False,
        )

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Send one request; errors as in `Outbound`."""
        assert_outside_transaction()
        # Literal addresses never reach the resolver, so every URL is checked here first.
        url = self._checked(request.url)
        started = time.perf_counter()
        try:
            async with self._session.request(
                request.method,
                url,
                headers=_without_host(request.headers),
                data=request.body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=request.timeout_s, sock_connect=CONNECT_TIMEOUT_S
                ),
            ) as response:
                body = await _read_bounded(response.content.iter_any(), request.body_bytes_max)
                answer = OutboundAnswer(
                    status=response.status,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=body,
                    duration_ms=_since_ms(started),
                )
        except TimeoutError as error:
            _timed_out.observe(time.perf_counter() - started)
            raise TimedOut("The other side did not answer in time.") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            _failed.observe(time.perf_counter() - started)
            if (refusal := _guard_refusal(error)) is not None:
                raise refusal from error
            raise ConnectFailed(f"The connection failed: {type(error).__name__}.") from error
        _answered.observe(time.perf_counter() - started)
        return answer

    def _checked(self, url: str) -> URL:
        known = self._urls.get(url)
        if known is not None:
            return known
        target = self._guard.check_url(url)
        try:
            parsed = URL(url)
        except ValueError as error:
            raise AddressBlocked("The URL cannot be read.") from error
        self._guard.check_agreement(target, parsed.raw_host or "")
        if len(self._urls) >= URLS_REMEMBERED_MAX:
            self._urls.pop(next(iter(self._urls)))
        self._urls[url] = parsed
        return parsed

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        self._guard.close()


class _GuardedResolver(AbstractResolver):
    """Gives aiohttp only addresses the guard has checked."""

    def __init__(self, guard: AddressGuard, *, schemes: frozenset[str]) -> None:
        self._guard = guard
        self._scheme = "https" if "https" in schemes else "http"

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        target = Target(scheme=self._scheme, host=host, port=port, host_as_written=host)
        try:
            addresses = await self._guard.addresses(target)
        except Unavailable as error:
            raise OSError(None, error.detail) from error
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    @override
    async def close(self) -> None:
        """Nothing is held."""


def parse_retry_after(value: str | None) -> float | None:
    """Return seconds from now of a `Retry-After` value, None when absent or unreadable.

    Source: RFC 9110 §10.2.3 (seconds or HTTP-date). Raises nothing; at most a day.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_MAX_S)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        return None
    wait_s = (moment - SystemClock().now()).total_seconds()
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


async def _read_bounded(pieces: Any, bytes_max: int) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > bytes_max:
            raise BodyTooLarge(f"The answer is larger than {bytes_max} bytes.")
    return bytes(body)


def tls_context(rules: EgressRules) -> Any:
    """Return how servers are verified: by the system's authorities, and the operator's own."""
    context = httpx2.create_ssl_context()
    if rules.extra_ca:
        context.load_verify_locations(cafile=rules.extra_ca)
    return context


def assert_outside_transaction() -> None:
    """Raise AssertionError inside a database transaction: nothing is sent from there."""
    if in_transaction():
        raise AssertionError("outbound HTTP inside a database transaction")


def _without_host(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "host"}


def _guard_refusal(error: BaseException) -> Unavailable | None:
    """Return what the guarded resolver said, which aiohttp wraps twice."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Unavailable):
            return cause
        cause = cause.__cause__
    return None


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
