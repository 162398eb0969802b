"""The HTTP client for occasional calls: httpx2, connected to the address that was checked."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
from ssrfguard import Resolver, Target

from runtime.egress import AddressGuard, EgressRules
from runtime.errors import AddressBlocked, ConnectFailed, TimedOut
from runtime.outbound import (
    ADDRESSES_TRIED_MAX,
    CONNECT_TIMEOUT_S,
    CONNECTIONS_PER_HOST_MAX,
    DEFAULT_HEADERS,
    OutboundAnswer,
    OutboundRequest,
    assert_outside_transaction,
    read_bounded,
    since_ms,
    without_host,
)


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
            headers={**without_host(request.headers), "host": url.netloc.decode()},
            content=request.body,
            timeout=httpx2.Timeout(request.timeout_s, connect=CONNECT_TIMEOUT_S),
            extensions={"sni_hostname": target.host},
        ) as response:
            body = await read_bounded(response.aiter_raw(), request.body_bytes_max)
            return OutboundAnswer(
                status=response.status_code,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=body,
                duration_ms=since_ms(started),
            )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        self._guard.close()


def tls_context(rules: EgressRules) -> ssl.SSLContext:
    """Return how servers are verified: by the system's authorities, and the operator's own."""
    context: ssl.SSLContext = httpx2.create_ssl_context()
    if rules.extra_ca:
        context.load_verify_locations(cafile=rules.extra_ca)
    return context
