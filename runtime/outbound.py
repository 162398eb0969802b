"""The one way out: guarded HTTP requests.

Rules (design §10, requirement SSF-DEL-6): https only (http behind the development switch), no
redirects, no proxies, addresses checked after name resolution and connected to exactly as
checked, limits on time and size, no request inside a database transaction.

Here is what the clients share. There are three, each in a module of its own, so that a process
loads only what it calls with: `runtime.pinned` (httpx2) for occasional calls such as JWKS and
discovery; `runtime.streaming` (aiohttp) for tasks, polls and whatever else the delivery process
calls, whose cost does not grow with the number of open connections (ADR 0005); and for pushing
SETs `runtime.lean` (ADR 0023).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

from prometheus_client import Histogram

from runtime.clock import SystemClock
from runtime.database import in_transaction
from runtime.errors import BodyTooLarge

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


async def read_bounded(pieces: Any, bytes_max: int) -> bytes:
    """Return a whole body. Raises BodyTooLarge."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > bytes_max:
            raise BodyTooLarge(f"The answer is larger than {bytes_max} bytes.")
    return bytes(body)


def assert_outside_transaction() -> None:
    """Raise AssertionError inside a database transaction: nothing is sent from there."""
    if in_transaction():
        raise AssertionError("outbound HTTP inside a database transaction")


def without_host(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers without `Host`, which is the URL's to say. Raises nothing."""
    return {name: value for name, value in headers.items() if name.lower() != "host"}


def since_ms(started: float) -> float:
    """Return the milliseconds since a moment of `time.perf_counter`."""
    return (time.perf_counter() - started) * 1000
