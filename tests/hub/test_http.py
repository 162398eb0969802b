"""Headers are bounded before anything looks at them: real uvicorn, real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from hub.http import HEADER_BYTES_MAX, BoundedHTTPProtocol, answer_at_once

LIMIT_S = 20


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/at-once" and answer_at_once(send, b"x-at: once\r\n", b"whole"):
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(
        answer_ok, port=0, http=BoundedHTTPProtocol, lifespan="off", log_config=None, ws="none"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(LIMIT_S):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send the pieces; return what comes back until the other side hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(LIMIT_S):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_request_within_the_bound_is_answered(port: int) -> None:
    header = b"x-long: " + b"a" * (HEADER_BYTES_MAX // 2) + b"\r\n"
    answer = await exchange(
        port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + header + b"\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_does_not_count_as_headers(port: int) -> None:
    body = b"b" * (4 * HEADER_BYTES_MAX)
    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    answer = await exchange(port, head % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 200")


async def test_one_header_that_never_ends_is_cut_off(port: int) -> None:
    pieces = [b"a" * 16_384] * 8
    answer = await exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\nx-endless: ", *pieces)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431")


async def test_many_small_headers_are_cut_off(port: int) -> None:
    pieces = [b"x-n: 0123456789\r\n" * 1000] * 8
    answer = await exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\n", *pieces)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431")


AT_ONCE = b"POST /at-once HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"
LAST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def test_an_answer_at_once_is_whole_and_the_connection_goes_on(port: int) -> None:
    answers = (await exchange(port, AT_ONCE, LAST)).split(b"HTTP/1.1 200 OK\r\n")[1:]
    head, _, body = answers[0].partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")]
    assert names == [b"date", b"server", b"content-length", b"x-at"]
    assert (head.split(b"\r\n")[2], body) == (b"content-length: 5", b"whole")
    assert answers[1].endswith(b"0\r\n\r\n")


async def test_requests_that_come_together_are_answered_in_their_order(port: int) -> None:
    plain = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    answered = await exchange(port, AT_ONCE + plain + AT_ONCE + plain + LAST)
    answers = answered.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.count(b"whole") for answer in answers] == [1, 0, 1, 0, 0]


@pytest.mark.parametrize("version", [b"1.0", b"1.1\r\nconnection: close"])
async def test_a_connection_that_is_to_end_is_answered_the_usual_way(
    port: int, version: bytes
) -> None:
    answer = await exchange(port, b"POST /at-once HTTP/" + version + b"\r\nhost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer
    assert b"whole" not in answer
