"""An HTTP/1.1 load generator that costs little: asyncio Protocol, httptools, requests built ahead.

Closed loop (default): every connection sends its next request when the last answer is complete.
Open loop (`--rate`): requests fall due at a fixed rate, whatever the server does; a request's
latency counts from when it fell due, so waiting for a free connection is not left out.

It runs as its own process, so that its work and the servers' are told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop
from typing_extensions import override

from benchmarks.figures import Percentiles, percentiles
from benchmarks.serving import ROOT
from benchmarks.tokens import read_tokens

NO_ANSWER: Final = 0
RECONNECTS_MAX: Final = 1_000
RUN_LIMIT_S: Final = 600.0
TICK_S: Final = 0.001


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one load run saw. statuses: HTTP status (or 0, no answer) to number of requests."""

    requests: int
    connections: int
    duration_s: float
    requests_per_s: float
    statuses: dict[int, int]
    latency_ms: Percentiles
    rate_wanted_per_s: float | None = None


class LoadRun:
    """The requests still to send, and what came back so far."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self.requests = requests
        self.next_request = 0
        self.latencies_ms: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.reconnects = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def answered(self) -> int:
        """How many requests have had their outcome."""
        return self.statuses.total()

    def record(self, status: int, latency_s: float) -> None:
        """Count one outcome; the last one finishes the run."""
        self.statuses[status] += 1
        if status != NO_ANSWER:
            self.latencies_ms.append(latency_s * 1000)
        if self.answered == len(self.requests) and not self.finished.done():
            self.finished.set_result(None)

    def fail(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the run with an error of our own instead of waiting for answers that never come."""
        if not self.finished.done():
            self.finished.set_exception(
                context.get("exception") or RuntimeError(context["message"])
            )


class Pacer:
    """Decides when an idle connection may send: at once, or when a request has fallen due."""

    def __init__(self, run: LoadRun, rate_per_s: float | None) -> None:
        self._run = run
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._idle: deque[Connection] = deque()
        self.started_at = 0.0

    def ready(self, connection: Connection) -> None:
        """Give `connection` its next request, now or when one falls due."""
        if self._interval_s:
            self._idle.append(connection)
            self._hand_out()
        elif self._run.next_request < len(self._run.requests):
            connection.send(self._take(), time.perf_counter())

    async def keep_pace(self) -> None:
        """Hand out requests as they fall due, until none is left (open loop only)."""
        while self._interval_s and self._run.next_request < len(self._run.requests):
            self._hand_out()
            await asyncio.sleep(TICK_S)

    def _hand_out(self) -> None:
        now = time.perf_counter()
        while self._idle and self._run.next_request < len(self._run.requests):
            due_at = self.started_at + self._run.next_request * self._interval_s
            if due_at > now:
                return
            self._idle.popleft().send(self._take(), due_at)

    def _take(self) -> bytes:
        request = self._run.requests[self._run.next_request]
        self._run.next_request += 1
        return request


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, run: LoadRun, pacer: Pacer, address: tuple[str, int]) -> None:
        self._run = run
        self._pacer = pacer
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._counts_from: float | None = None
        self._reconnecting: asyncio.Task[object] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the interface without the base class.
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._pacer.ready(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._counts_from is not None:
            self._settle(NO_ANSWER)
        if self._run.finished.done() or self._run.reconnects >= RECONNECTS_MAX:
            return
        self._run.reconnects += 1
        self._reconnecting = asyncio.ensure_future(
            asyncio.get_running_loop().create_connection(lambda: self, *self._address)
        )

    def send(self, request: bytes, counts_from: float) -> None:
        """Send one request whose latency counts from `counts_from` (perf_counter seconds)."""
        assert self._transport is not None
        self._counts_from = counts_from
        self._transport.write(request)

    def on_message_complete(self) -> None:
        """Take the answer (httptools calls this) and go on with the next request."""
        status = self._parser.get_status_code()
        keep = self._parser.should_keep_alive()
        self._settle(status)
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is None:
            return
        if keep:
            self._pacer.ready(self)
        else:
            self._transport.close()

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._transport is not None:
            self._transport.close()

    def _settle(self, status: int) -> None:
        assert self._counts_from is not None
        latency_s = time.perf_counter() - self._counts_from
        self._counts_from = None
        self._run.record(status, latency_s)


async def generate_load(
    url: str, requests: Sequence[bytes], *, connections: int, rate_per_s: float | None = None
) -> LoadReport:
    """Send `requests`, complete HTTP/1.1 messages, to the host and port of `url`.

    Raises TimeoutError when the run takes longer than RUN_LIMIT_S, OSError when nothing listens.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    run = LoadRun(requests)
    pacer = Pacer(run, rate_per_s)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(run.fail)
    pacer.started_at = time.perf_counter()
    opened = [Connection(run, pacer, address) for _ in range(connections)]
    for connection in opened:
        await loop.create_connection(lambda made=connection: made, *address)  # type: ignore[misc] # bound per turn
    async with asyncio.timeout(RUN_LIMIT_S):
        await pacer.keep_pace()
        await run.finished
    duration_s = time.perf_counter() - pacer.started_at
    for connection in opened:
        connection.close()
    return LoadReport(
        requests=len(requests),
        connections=connections,
        duration_s=duration_s,
        requests_per_s=len(requests) / duration_s,
        statuses=dict(sorted(run.statuses.items())),
        latency_ms=percentiles(run.latencies_ms),
        rate_wanted_per_s=rate_per_s,
    )


def build_requests(url: str, bodies: Iterable[bytes], *, bearer_token: str) -> list[bytes]:
    """Return complete POST requests for SETs, keep-alive, with the headers of RFC 8935 §2.1."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {bearer_token}\r\nAccept: application/json\r\n"
        "Content-Type: application/secevent+jwt\r\n"
    ).encode()
    return [b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body) for body in bodies]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One load run: which tokens go where, over how many connections, how fast."""

    url: str
    tokens_file: str
    bearer_token: str
    first: int
    count: int
    connections: int
    rate_per_s: float | None = None


def run_load(load: Load) -> LoadReport:
    """Run `load` in a process of its own and return its report.

    Raises subprocess.CalledProcessError when the generator fails.
    """
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.loadgen", "--load-file", "-"],
        input=msgspec.json.encode(load),
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
    )
    return msgspec.json.decode(answer.stdout, type=LoadReport)


def _options() -> Load:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load-file", help="a Load as JSON instead of options; - is stdin")
    parser.add_argument("--url", help="where to POST")
    parser.add_argument("--tokens-file", help="made by benchmarks.tokens")
    parser.add_argument("--bearer-token", default="benchmark")
    parser.add_argument("--first", type=int, default=0, help="first token to send")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate-per-s", type=float, help="open loop at this rate")
    options = vars(parser.parse_args())
    source = options.pop("load_file")
    if source is None:
        return msgspec.convert(options, Load)
    text = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    return msgspec.json.decode(text, type=Load)


def main() -> None:
    """Run one load and print its report as JSON."""
    load = _options()
    tokens = read_tokens(Path(load.tokens_file), first=load.first, count=load.count)
    requests = build_requests(load.url, tokens, bearer_token=load.bearer_token)
    report = uvloop.run(
        generate_load(load.url, requests, connections=load.connections, rate_per_s=load.rate_per_s)
    )
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")


if __name__ == "__main__":
    main()
