"""The one way out: guarded HTTP requests.

Rules (design §10, requirement SSF-DEL-6): https only (http behind the development switch), no
redirects, no proxies, addresses checked after name resolution and connected to exactly as
checked, limits on time and size, no request inside a database transaction.

Two clients behind one interface: `PinnedOutbound` (httpx2) for occasional calls such as JWKS and
discovery, `StreamingOutbound` (aiohttp) for the delivery loop, whose cost does not grow with the
number of open connections (ADR 0005).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import aiohttp
import httpx2
from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import Histogram
from ssrfguard import BlockedAddressError, Policy, SSRFGuardError, Target, resolve
from typing_extensions import override

from runtime.clock import SystemClock
from runtime.database import in_transaction
from runtime.errors import AddressBlocked, BodyTooLarge, ConnectFailed, TimedOut, Unavailable

TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5.0
BODY_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 256
CONNECTIONS_PER_HOST_MAX: Final = 32
KEEPALIVE_S: Final = 30.0
RETRY_AFTER_MAX_S: Final = 86_400.0
ALL_PORTS: Final = frozenset(range(1, 65_536))
#: identity: bodies are bounded as they arrive, and nothing is unpacked
DEFAULT_HEADERS: Final = {"user-agent": "signalhub", "accept-encoding": "identity"}

_seconds = Histogram("hub_runtime_outbound_seconds", "Duration of outbound requests.", ["outcome"])


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """Who may be called. `allow`: CIDRs or host names past the private-address block."""

    dev_insecure: bool = False
    allow: tuple[str, ...] = ()
    extra_ca: str | None = None

    def policy(self) -> Policy:
        """Return the guard's policy. Raises ValueError on an entry that is neither."""
        entries = [entry for entry in self.allow if _is_network(entry)]
        if self.dev_insecure:
            entries += ["127.0.0.0/8", "::1/128"]
        return Policy(
            allowed_schemes=frozenset({"https", "http"} if self.dev_insecure else {"https"}),
            allowed_networks=_networks(*entries),
            allowed_ports=ALL_PORTS,
        )

    def trusted_hosts(self) -> frozenset[str]:
        """Return the host names that the operator allowed whatever they resolve to."""
        return frozenset(entry.lower() for entry in self.allow if not _is_network(entry))


class AddressGuard:
    """Decides where a URL may connect; one name lookup, every answer checked."""

    def __init__(self, rules: EgressRules) -> None:
        self._policy = rules.policy()
        self._trusted_hosts = rules.trusted_hosts()

    def check_url(self, url: str) -> Target:
        """Return the origin of `url`; raises AddressBlocked when the rules refuse it."""
        try:
            return self._policy.check_url(url)
        except BlockedAddressError as error:
            if error.address.lower() in self._trusted_hosts:
                return self._trusting_policy().check_url(url)
            raise AddressBlocked(str(error)) from error
        except SSRFGuardError as error:
            raise AddressBlocked(_without_url(error)) from error

    async def addresses(self, target: Target) -> list[str]:
        """Return the checked addresses of `target`, in order of preference.

        Raises AddressBlocked, ConnectFailed (no such name), TimedOut.
        """
        policy = self._trusting_policy() if target.host in self._trusted_hosts else self._policy
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                found = await asyncio.to_thread(resolve, target, policy=policy)
        except SSRFGuardError as error:
            raise AddressBlocked(_without_url(error)) from error
        except TimeoutError as error:
            raise TimedOut("The name did not resolve in time.") from error
        except OSError as error:
            raise ConnectFailed("The name does not resolve.") from error
        return [str(address.ip) for address in found]

    def _trusting_policy(self) -> Policy:
        everything = _networks("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")
        return Policy(
            allowed_schemes=self._policy.allowed_schemes,
            allowed_networks=everything,
            allowed_ports=ALL_PORTS,
        )


class PinnedOutbound:
    """httpx2 client that connects to the address it checked: host name kept for TLS and Host."""

    def __init__(self, rules: EgressRules) -> None:
        self._guard = AddressGuard(rules)
        self._client = httpx2.AsyncClient(
            verify=_tls_context(rules),
            follow_redirects=False,
            trust_env=False,
            headers=DEFAULT_HEADERS,
            limits=httpx2.Limits(
                max_connections=CONNECTIONS_PER_HOST_MAX, keepalive_expiry=KEEPALIVE_S
            ),
        )

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Send one request; errors as in `Outbound`."""
        _assert_outside_transaction()
        target = self._guard.check_url(request.url)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(request.timeout_s):
                addresses = await self._guard.addresses(target)
                return await self._send_to(request, target, addresses[0], started)
        except TimeoutError as error:
            raise TimedOut("The other side did not answer in time.") from error

    async def _send_to(
        self, request: OutboundRequest, target: Target, address: str, started: float
    ) -> OutboundAnswer:
        url = httpx2.URL(request.url)
        headers = {**request.headers, "host": url.netloc.decode()}
        pinned = url.copy_with(host=address)
        try:
            async with self._client.stream(
                request.method,
                pinned,
                headers=headers,
                content=request.body,
                timeout=request.timeout_s,
                extensions={"sni_hostname": target.host},
            ) as response:
                body = await _read_bounded(response.aiter_raw(), request.body_bytes_max)
                return OutboundAnswer(
                    status=response.status_code,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=body,
                    duration_ms=_since_ms(started),
                )
        except httpx2.TimeoutException as error:
            raise TimedOut("The other side did not answer in time.") from error
        except httpx2.HTTPError as error:
            raise ConnectFailed(f"The connection failed: {type(error).__name__}.") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class StreamingOutbound:
    """aiohttp client for the delivery loop; the guard sits in its resolver."""

    def __init__(self, rules: EgressRules) -> None:
        self._guard = AddressGuard(rules)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTIONS_MAX,
                limit_per_host=CONNECTIONS_PER_HOST_MAX,
                keepalive_timeout=KEEPALIVE_S,
                resolver=_GuardedResolver(self._guard, schemes=rules.policy().allowed_schemes),
                use_dns_cache=False,
                ssl=_tls_context(rules),
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=DEFAULT_HEADERS,
            trust_env=False,
        )

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Send one request; errors as in `Outbound`."""
        _assert_outside_transaction()
        # Literal addresses never reach the resolver, so every URL is checked here first.
        self._guard.check_url(request.url)
        started = time.perf_counter()
        try:
            async with self._session.request(
                request.method,
                request.url,
                headers=dict(request.headers),
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
            _seconds.labels("timeout").observe(time.perf_counter() - started)
            raise TimedOut("The other side did not answer in time.") from error
        except aiohttp.ClientError as error:
            _seconds.labels("failed").observe(time.perf_counter() - started)
            if (refusal := _guard_refusal(error)) is not None:
                raise refusal from error
            raise ConnectFailed(f"The connection failed: {type(error).__name__}.") from error
        _seconds.labels("answered").observe(time.perf_counter() - started)
        return answer

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


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
    except ValueError:
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


def _tls_context(rules: EgressRules) -> Any:
    context = httpx2.create_ssl_context()
    if rules.extra_ca:
        context.load_verify_locations(cafile=rules.extra_ca)
    return context


def _assert_outside_transaction() -> None:
    if in_transaction():
        raise AssertionError("outbound HTTP inside a database transaction")


def _networks(*entries: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)


def _is_network(entry: str) -> bool:
    try:
        ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return True


def _guard_refusal(error: BaseException) -> Unavailable | None:
    """Return what the guarded resolver said, which aiohttp wraps twice."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Unavailable):
            return cause
        cause = cause.__cause__
    return None


def _without_url(error: SSRFGuardError) -> str:
    return str(getattr(error, "reason", error))


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
