"""The HTTP client of the delivery process for all but pushes: aiohttp, guarded in its resolver."""

from __future__ import annotations

import socket
import time

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from ssrfguard import Resolver, Target
from typing_extensions import override
from yarl import URL

from runtime.egress import AddressGuard, EgressRules
from runtime.errors import AddressBlocked, ConnectFailed, TimedOut, Unavailable
from runtime.outbound import (
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
    read_bounded,
    since_ms,
    without_host,
)
from runtime.pinned import tls_context

_answered, _timed_out, _failed = (
    outbound_seconds.labels(outcome) for outcome in ("answered", "timeout", "failed")
)


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
                headers=without_host(request.headers),
                data=request.body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=request.timeout_s, sock_connect=CONNECT_TIMEOUT_S
                ),
            ) as response:
                body = await read_bounded(response.content.iter_any(), request.body_bytes_max)
                answer = OutboundAnswer(
                    status=response.status,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=body,
                    duration_ms=since_ms(started),
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


def _guard_refusal(error: BaseException) -> Unavailable | None:
    """Return what the guarded resolver said, which aiohttp wraps twice."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Unavailable):
            return cause
        cause = cause.__cause__
    return None
