"""A push receiver that costs little: asyncio Protocol, httptools, 202 to everything it can keep.

`POST /s/<name>` takes one SET for stream <name>; it answers after `--delay-ms`. `GET /verdict`
tells what came: how many, how many twice, and whether the order per stream and subject held. It
decodes the SETs only when it is asked, and never verifies them: its work must not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, cast

import httptools
import msgspec
import uvloop
from jwcrypto.common import base64url_decode
from typing_extensions import override

from benchmarks.serving import port_option, serve_until_orphaned
from hub.process import allow_many_files

ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver saw. first_at_s, last_at_s: of the machine's monotonic clock."""

    received: int
    distinct: int
    streams: int
    out_of_order: int
    first_at_s: float
    last_at_s: float


class Seen:
    """Every SET that came, in order of arrival."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, bytes]] = []
        self.first_at_s = 0.0
        self.last_at_s = 0.0

    def take(self, stream: str, token: bytes) -> None:
        """Keep one SET."""
        self.last_at_s = time.monotonic()
        self.first_at_s = self.first_at_s or self.last_at_s
        self.arrived.append((stream, token))

    def forget(self) -> None:
        """Begin anew."""
        self.arrived.clear()
        self.first_at_s = self.last_at_s = 0.0

    def verdict(self) -> Verdict:
        """Judge what came: a jti that is older than the last one of its subject is out of order."""
        newest: dict[tuple[str, str], str] = {}
        jtis: Counter[tuple[str, str]] = Counter()
        out_of_order = 0
        for stream, token in self.arrived:
            claims = json.loads(base64url_decode(token.split(b".")[1].decode()))
            lane = (stream, json.dumps(claims["sub_id"], sort_keys=True))
            jtis[stream, claims["jti"]] += 1
            # A repeat of the newest is no fault: it is a redelivery.
            if claims["jti"] < newest.get(lane, ""):
                out_of_order += 1
            newest[lane] = max(claims["jti"], newest.get(lane, ""))
        return Verdict(
            received=len(self.arrived),
            distinct=len(jtis),
            streams=len({stream for stream, _ in self.arrived}),
            out_of_order=out_of_order,
            first_at_s=self.first_at_s,
            last_at_s=self.last_at_s,
        )


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, seen: Seen, delay_s: float) -> None:
        self._seen = seen
        self._delay_s = delay_s
        self._transport: asyncio.Transport | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body: list[bytes] = []

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, path: bytes) -> None:
        """Take the target (httptools calls this)."""
        self._path += path

    def on_body(self, part: bytes) -> None:
        """Take a part of the body (httptools calls this)."""
        self._body.append(part)

    def on_message_complete(self) -> None:
        """Answer (httptools calls this)."""
        path, body = self._path.decode(), b"".join(self._body)
        self._begin()
        match path.split("/")[1:]:
            case ["s", stream]:
                self._seen.take(stream, body)
                self._answer(ACCEPTED)
            case ["count"]:
                self._answer(_json(len(self._seen.arrived)))
            case ["verdict"]:
                self._answer(_json(self._seen.verdict()))
            case _:
                self._seen.forget()
                self._answer(ACCEPTED)

    def _answer(self, answer: bytes) -> None:
        if self._delay_s and answer is ACCEPTED:
            asyncio.get_running_loop().call_later(self._delay_s, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


def _json(value: object) -> bytes:
    body = msgspec.json.encode(value)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def host_of(number: int) -> str:
    """Return the loopback address of one of many hosts."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


async def _serve(listeners: Sequence[socket.socket], delay_s: float) -> None:
    seen = Seen()
    async with AsyncExitStack() as stack:
        for listener in listeners:
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(seen, delay_s), sock=listener
            )
            await stack.enter_async_context(server)
        await serve_until_orphaned()


def main() -> None:
    """Serve on loopback until terminated."""
    parser = argparse.ArgumentParser(description=__doc__, parents=[port_option()])
    parser.add_argument("--delay-ms", type=float, default=0.0, help="how long an answer takes")
    parser.add_argument("--hosts", type=int, default=0, help="addresses to listen on besides")
    options = parser.parse_args()
    allow_many_files()
    listeners = [socket.create_server(("127.0.0.1", options.port), backlog=4096)]
    port = listeners[0].getsockname()[1]
    listeners += [socket.create_server((host_of(one), port)) for one in range(options.hosts)]
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    uvloop.run(_serve(listeners, options.delay_ms / 1000))


if __name__ == "__main__":
    main()
