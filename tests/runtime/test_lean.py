"""The push client against servers that keep connections, break them, or say what nobody asked.

What every outbound client must do is in `test_outbound.py`, which runs for this one too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runtime.connection import HEAD_BYTES_MAX, HEADERS_MAX, INTERIM_ANSWERS_MAX
from runtime.egress import EgressRules
from runtime.errors import AddressBlocked, BodyTooLarge, ConnectFailed, TimedOut
from runtime.lean import CONNECTIONS_AT_ONCE, LeanOutbound
from runtime.outbound import CONNECTIONS_PER_HOST_MAX, OutboundRequest
from tests.runtime.background import LIMIT_S, until

pytestmark = pytest.mark.anyio

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
DEVELOPMENT = EgressRules(dev_insecure=True)

Step = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers the requests of each connection by the steps given for it; then it hangs up."""

    scripts: list[Sequence[Step]]
    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ssf"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.opened = self.opened, self.opened + 1
        try:
            for step in self.scripts[min(number, len(self.scripts) - 1)]:
                if isinstance(step, bytes):
                    self.bodies.append(await read_request(reader))
                    writer.write(step)
                    await writer.drain()
                else:
                    await step(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.closed += 1
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


async def stay(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Keep the connection until the other side ends it."""
    await reader.read()


@asynccontextmanager
async def serving(*scripts: Sequence[Step]) -> AsyncIterator[Server]:
    served = Server(list(scripts))
    server = await asyncio.start_server(served.connected, "127.0.0.1", 0)
    async with server:
        served.port = server.sockets[0].getsockname()[1]
        yield served


@pytest.fixture
async def client() -> AsyncIterator[LeanOutbound]:
    opened = LeanOutbound(DEVELOPMENT)
    yield opened
    await opened.close()


def post(server: Server, body: bytes = b"set", **members: Any) -> OutboundRequest:
    request = OutboundRequest(method="POST", url=server.url, body=body, timeout_s=LIMIT_S)
    return replace(request, **members)


# --- connections are kept, and only good ones -----------------------------------------------------


async def test_requests_share_a_connection(client: LeanOutbound) -> None:
    async with serving([ACCEPTED] * 3 + [stay]) as server:
        for number in range(3):
            assert (await client.send(post(server, b"%d" % number))).status == 202
    assert (server.opened, server.bodies) == (1, [b"0", b"1", b"2"])


async def test_a_server_that_says_close_gets_a_new_connection(client: LeanOutbound) -> None:
    closing = b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with serving([closing, stay]) as server:
        for _ in range(2):
            assert (await client.send(post(server))).status == 202
        await until(lambda: server.closed == 2)
    assert server.opened == 2


async def test_a_connection_that_was_closed_while_idle_is_replaced(client: LeanOutbound) -> None:
    async with serving([ACCEPTED]) as server:
        await client.send(post(server, b"one"))
        await until(lambda: server.closed == 1)
        await until(lambda: not client.idle_count)
        await client.send(post(server, b"two"))
    assert server.bodies == [b"one", b"two"]


async def test_a_request_that_was_sent_is_never_sent_again(client: LeanOutbound) -> None:
    async def take_and_hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        server.bodies.append(await read_request(reader))

    async with serving([ACCEPTED, take_and_hang_up]) as server:
        await client.send(post(server, b"one"))
        with pytest.raises(ConnectFailed):
            await client.send(post(server, b"two"))
    assert (server.opened, server.bodies) == (1, [b"one", b"two"])


@pytest.mark.parametrize(
    "more",
    [ACCEPTED, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno", b"garbage"],
    ids=["another-answer", "another-refusal", "garbage"],
)
async def test_what_comes_unasked_is_no_answer_to_the_next_request(
    client: LeanOutbound, more: bytes
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    async with serving([ACCEPTED + more, stay], [answer + b"two", stay]) as server:
        assert (await client.send(post(server))).status == 202
        second = await client.send(post(server))
    assert (second.status, second.body) == (200, b"two")
    assert server.opened == 2


async def test_what_comes_late_and_unasked_ends_the_connection(client: LeanOutbound) -> None:
    async def say_more(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await idle.wait()
        writer.write(ACCEPTED)

    idle = asyncio.Event()
    async with serving([ACCEPTED, say_more, stay], [b"HTTP/1.1 204 Gone\r\n\r\n", stay]) as server:
        await client.send(post(server))
        idle.set()
        await until(lambda: not client.idle_count)
        assert (await client.send(post(server))).status == 204


async def test_an_answer_before_the_request_was_sent_counts_and_ends_the_connection(
    client: LeanOutbound,
) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await done.wait()

    done = asyncio.Event()
    async with serving([answer_early]) as server:
        answer = await client.send(post(server, b"x" * 30_000_000))
        assert not client.idle_count
        done.set()
    assert answer.status == 413


async def test_a_caller_that_gives_up_leaves_no_connection_behind(client: LeanOutbound) -> None:
    async with serving([stay]) as server:
        sending = asyncio.create_task(client.send(post(server)))
        await until(lambda: server.opened == 1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await until(lambda: server.closed == 1)
    assert not client.idle_count


async def test_one_origin_gets_so_many_connections_and_no_more(client: LeanOutbound) -> None:
    async def answer_together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            server.bodies.append(await read_request(reader))
            await gate.wait()
            writer.write(ACCEPTED)

    gate = asyncio.Event()
    async with serving([answer_together]) as server:
        sends = [
            asyncio.create_task(client.send(post(server, b"%d" % number)))
            for number in range(CONNECTIONS_PER_HOST_MAX + 10)
        ]
        await until(lambda: len(server.bodies) == CONNECTIONS_PER_HOST_MAX)
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*sends)} == {202}
    assert server.opened == CONNECTIONS_PER_HOST_MAX
    assert len(server.bodies) == CONNECTIONS_PER_HOST_MAX + 10


async def test_waiting_for_a_connection_counts_as_time(client: LeanOutbound) -> None:
    async with serving([stay]) as server:
        held = [
            asyncio.create_task(client.send(post(server, timeout_s=LIMIT_S)))
            for _ in range(CONNECTIONS_PER_HOST_MAX)
        ]
        await until(lambda: server.opened == CONNECTIONS_PER_HOST_MAX)
        with pytest.raises(TimedOut):
            await client.send(post(server, timeout_s=0.1))
        for one in held:
            one.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_of_too_many_idle_connections_the_oldest_go() -> None:
    client = LeanOutbound(DEVELOPMENT, idle_max=2)
    async with (
        serving([ACCEPTED, stay]) as first,
        serving([ACCEPTED, stay]) as second,
        serving([ACCEPTED, stay]) as third,
    ):
        for server in (first, second, third):
            await client.send(post(server))
        await until(lambda: first.closed == 1)
        assert (second.closed, third.closed, client.idle_count) == (0, 0, 2)
        await client.close()
        await until(lambda: second.closed == third.closed == 1)


async def test_connections_that_come_back_together_are_no_more_than_allowed_either() -> None:
    client = LeanOutbound(DEVELOPMENT, idle_max=2)
    all_came = asyncio.Barrier(12)

    async def together(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await all_came.wait()

    async with serving([together, ACCEPTED, stay]) as server:
        await asyncio.gather(*(client.send(post(server)) for _ in range(12)))
        assert (server.opened, client.idle_count) == (12, 2)
        await until(lambda: server.closed == 10)
        await client.close()


@pytest.fixture
async def patient() -> AsyncIterator[LeanOutbound]:
    opened = LeanOutbound(DEVELOPMENT, grow_after_s=LIMIT_S)
    yield opened
    await opened.close()


async def test_a_quick_receiver_needs_few_connections(patient: LeanOutbound) -> None:
    async with serving([ACCEPTED] * 40 + [stay]) as server:
        for _ in range(3):
            await asyncio.gather(*(patient.send(post(server)) for _ in range(8)))
    assert server.opened == CONNECTIONS_AT_ONCE


async def test_whoever_gives_up_waiting_for_a_connection_takes_it_from_nobody(
    patient: LeanOutbound,
) -> None:
    given_up = asyncio.Event()

    async def wait_for_it(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await given_up.wait()

    async with serving([wait_for_it] + [ACCEPTED] * 40 + [stay]) as server:
        sent = [asyncio.create_task(patient.send(post(server))) for _ in range(8)]
        await until(lambda: server.opened == CONNECTIONS_AT_ONCE)
        for one in sent[3:6]:
            one.cancel()
        given_up.set()
        answers = await asyncio.gather(*sent, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in answers[3:6]] == [True] * 3
        assert [getattr(one, "status", one) for one in answers[:3] + answers[6:]] == [202] * 5
        assert patient.idle_count == CONNECTIONS_AT_ONCE


# --- answers --------------------------------------------------------------------------------------


async def test_interim_answers_are_no_answers(client: LeanOutbound) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with serving([interim + ACCEPTED, ACCEPTED, stay]) as server:
        for _ in range(2):
            answer = await client.send(post(server))
            assert (answer.status, "link" in answer.headers) == (202, False)
    assert server.opened == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_ANSWERS_MAX + 1) + ACCEPTED,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (HEADERS_MAX + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: %s\r\n" % (b"b" * 9_000) * (HEAD_BYTES_MAX // 9_000 + 1),
        b"HTTP/1.1 200 " + b"x" * (HEAD_BYTES_MAX + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"T: %s\r\n" % (b"t" * 9_000) * (HEAD_BYTES_MAX // 9_000 + 1)
        + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/9.1 200 OK\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
    ],
    ids=[
        "endless-interim",
        "upgrade",
        "upgrade-to-nothing",
        "two-lengths-of-two-kinds",
        "two-lengths",
        "negative-length",
        "too-many-headers",
        "large-head",
        "large-reason",
        "large-trailers",
        "head-cut-short",
        "chunk-cut-short",
        "http-9",
        "a-request",
        "tls-alert",
    ],
)
async def test_what_is_no_proper_answer_is_a_failed_connection(
    client: LeanOutbound, answer: bytes
) -> None:
    async with serving([answer]) as server:
        with pytest.raises(ConnectFailed):
            await client.send(post(server))
        await until(lambda: server.closed == 1)
    assert not client.idle_count


async def test_chunks_and_trailers_are_read_and_trailers_are_no_headers(
    client: LeanOutbound,
) -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;note=x\r\nabc\r\n2\r\nde\r\n0\r\nRetry-After: 9\r\n\r\n"
    )
    async with serving([chunked, chunked, stay]) as server:
        for _ in range(2):
            answer = await client.send(post(server))
            assert (answer.body, answer.retry_after_s) == (b"abcde", None)
    assert server.opened == 1


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_without_a_length_ends_with_the_connection(
    client: LeanOutbound, version: bytes
) -> None:
    async with serving([b"HTTP/" + version + b" 400 Bad Request\r\n\r\n{}"]) as server:
        for _ in range(2):
            assert (await client.send(post(server))).body == b"{}"
    assert server.opened == 2


async def test_an_answer_without_body_keeps_the_connection(client: LeanOutbound) -> None:
    async with serving([b"HTTP/1.1 204 No Content\r\n\r\n"] * 2 + [stay]) as server:
        for _ in range(2):
            assert (await client.send(post(server))).status == 204
    assert server.opened == 1


async def test_an_answer_in_single_bytes_is_read(client: LeanOutbound) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.bodies.append(await read_request(reader))
        for byte in ACCEPTED:
            writer.write(bytes([byte]))
            await writer.drain()

    async with serving([drip, stay]) as server:
        assert (await client.send(post(server))).status == 202


async def test_a_large_body_is_refused_before_it_is_whole(client: LeanOutbound) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with serving([endless]) as server:
        with pytest.raises(BodyTooLarge):
            await client.send(post(server, body_bytes_max=1_000))
        await until(lambda: server.closed == 1)


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {"method": "HEAD"},
        {"method": "POST /x HTTP/1.1\r\nX: y\r\n\r\nPOST"},
        {"headers": {"x": "a\r\nb: c"}},
        {"headers": {"x\r\nb": "c"}},
        {"headers": {"": "c"}},
        {"headers": {"x y": "c"}},
        {"headers": {"x": "\x7f"}},
    ],
)
async def test_what_cannot_be_sent_opens_no_connection(
    client: LeanOutbound, members: dict[str, Any]
) -> None:
    async with serving([ACCEPTED]) as server:
        with pytest.raises(ConnectFailed):
            await client.send(post(server, **members))
    assert server.opened == 0


async def test_headers_about_the_connection_are_this_clients_own(client: LeanOutbound) -> None:
    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(3)
        writer.write(ACCEPTED)

    heads: list[bytes] = []
    theirs = {
        "Content-Length": "0",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
        "a": "b",
    }
    async with serving([note, stay]) as server:
        await client.send(post(server, b"set", headers=theirs))
    assert heads == [
        b"POST /ssf HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nuser-agent: signalhub\r\n"
        b"accept-encoding: identity\r\na: b\r\nContent-Length: 3\r\n\r\n" % server.port
    ]


async def test_a_url_with_credentials_is_refused(client: LeanOutbound) -> None:
    async with serving([ACCEPTED]) as server:
        url = server.url.replace("127.0.0.1", "user:secret@127.0.0.1")
        with pytest.raises(AddressBlocked):
            await client.send(post(server, url=url))
    assert server.opened == 0
